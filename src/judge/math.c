// SPDX-License-Identifier: Apache-2.0
// The math judge: where the final answer stands in a response, and the strict comparison with gold. Extraction is the
// published protocol (spec 6.6: boxed, "the answer is", else the last number); the strict judge adds that an answer given as
// a sentence ends with the sentence, and that an unclosed \boxed{ (a truncated response) is undecided.
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "judge/judge.h"
#include "judge/math_equal.h"
#include "judge/math_internal.h"
#include "text/utf8.h"

static const char *last_of(const char *s, const char *word)
{
    const char *found = NULL;
    for (const char *p = s; (p = strstr(p, word)); p++) found = p;
    return found ? found + strlen(word) : NULL;
}

// After "boxed": the balanced group, else up to the first dollar sign.
static Err after_boxed(const char *s, Str *out, bool *closed)
{
    *closed = true;
    while (*s == ' ') s++;
    if (*s != '{') return str_add(out, s, (int64_t)strcspn(s, "$"));
    int depth = 0;
    for (int64_t i = 0; s[i]; i++) {
        if (s[i] == '{') depth++;
        if (s[i] == '}' && --depth == 0) return str_add(out, s + 1, i - 1);
    }
    *closed = false;
    return str_puts(out, s + 1);
}

// The last match of -?[0-9]*\.?[0-9]+ after commas are deleted.
static Err last_number(const char *s, Str *out)
{
    Str t = {0};
    Err err = OK;
    for (const char *p = s; *p; p++)
        if (*p != ',') TRY_DONE(str_add(&t, p, 1));
    int64_t end = t.len;
    while (end > 0 && !isdigit((unsigned char)t.p[end - 1])) end--;
    int64_t from = end;
    while (from > 0 && isdigit((unsigned char)t.p[from - 1])) from--;
    if (from > 0 && end > from && t.p[from - 1] == '.') {
        from--;
        while (from > 0 && isdigit((unsigned char)t.p[from - 1])) from--;
    }
    if (from > 0 && end > from && t.p[from - 1] == '-') from--;
    TRY_DONE(str_add(out, end ? t.p + from : "", end - from));
done:
    str_free(&t);
    return err;
}

// Deletes line feeds with the white space after them, one leading ":", one trailing "." and one trailing "/".
static void tidy(Str *s)
{
    int64_t m = 0;
    for (int64_t i = 0; i < s->len; i++) {
        if (s->p[i] == '\n') {
            while (i + 1 < s->len && isspace((unsigned char)s->p[i + 1])) i++;
            continue;
        }
        s->p[m++] = s->p[i];
    }
    int64_t from = 0;
    while (from < m && isspace((unsigned char)s->p[from])) from++;
    while (m > from && isspace((unsigned char)s->p[m - 1])) m--;
    if (from < m && s->p[from] == ':') from++;
    while (from < m && isspace((unsigned char)s->p[from])) from++;
    if (m > from && s->p[m - 1] == '.') m--;
    if (m > from && s->p[m - 1] == '/') m--;
    if (s->len) memmove(s->p, s->p + from, (size_t)(m - from)), s->len = m - from, s->p[s->len] = '\0';
}

Err math_find(const char *answer, Str *out, MathFound *how)
{
    static const char stray[] = "\xD0\xBA\xD0\xB8";  // a token that the published extractor deletes
    Str text = {0};
    Err err = OK;
    const char *s, *end;
    bool closed = true;
    str_clear(out);
    for (const char *p = answer; *p;) {
        if (!strncmp(p, stray, 4)) p += 4;
        else TRY_DONE(str_add(&text, p++, 1));
    }
    const char *t = str_text(&text);
    if ((s = strstr(t, "final answer is $")) && (end = strstr(s, "$. I hope"))) {
        *how = FOUND_BOX;
        TRY_DONE(str_add(out, s + 17, end > s + 17 ? end - s - 17 : 0));
    } else if ((s = last_of(t, "boxed"))) {
        TRY_DONE(after_boxed(s, out, &closed));
        *how = closed ? FOUND_BOX : FOUND_OPEN_BOX;
    } else if ((s = last_of(t, "he answer is")) || (s = last_of(t, "final answer is"))) {
        *how = FOUND_SENTENCE;
        TRY_DONE(str_puts(out, s));
    } else if ((s = strstr(t, "\xE7\xAD\x94\xE6\xA1\x88\xE6\x98\xAF"))) {
        *how = FOUND_SENTENCE;
        s += 9;
        end = strstr(s, "\n\n");
        TRY_DONE(str_add(out, s, end ? end - s : (int64_t)strlen(s)));
    } else {
        *how = FOUND_NUMBER;
        TRY_DONE(last_number(t, out));
    }
    tidy(out);
done:
    str_free(&text);
    return err;
}

Err math_extract(const char *answer, Str *out)
{
    MathFound how;
    return math_find(answer, out, &how);
}

Err math_gold(const char *gold, Str *out)
{
    MathFound how;
    const char *mark = last_of(gold, "####");
    if (!mark && strstr(gold, "boxed")) return math_find(gold, out, &how);
    str_clear(out);
    TRY(str_puts(out, mark ? mark : gold));
    tidy(out);
    return OK;
}

void math_keep(Verdict *v, const char *text) { utf8_copy(v->extracted, sizeof v->extracted, text); }

// "42. So she ..." -> "42": the sentence or the line that holds the answer.
static void cut_sentence(Str *s)
{
    for (int64_t i = 0; i < s->len; i++)
        if (s->p[i] == '.' && i + 1 < s->len && (isspace((unsigned char)s->p[i + 1]) || isupper((unsigned char)s->p[i + 1]))) {
            s->p[s->len = i] = '\0';
            return;
        }
}

static Err compare(const char *gold, const char *answer, Verdict *out)
{
    static MathPool pool;  // large, and the judge is single-threaded per process
    Str a = {0}, b = {0};
    Value *x, *y;
    const char *why = NULL;
    Err err = OK;
    pool = (MathPool){0};
    TRY_DONE(math_normalize(gold, (int64_t)strlen(gold), &a));
    TRY_DONE(math_normalize(answer, (int64_t)strlen(answer), &b));
    TRY_DONE(math_parse(&pool, str_text(&a), &x));
    TRY_DONE(math_parse(&pool, str_text(&b), &y));
    pool.why = NULL;
    Match m = b.len ? math_match(&pool, x, y, &why) : MATCH_UNSURE;
    TRY_DONE(pool.err);
    out->outcome = m == MATCH_YES ? VERDICT_RIGHT : m == MATCH_NO ? VERDICT_WRONG : VERDICT_UNDECIDED;
    snprintf(out->reason, sizeof out->reason, "%s", m == MATCH_YES ? "equal" : m == MATCH_NO ? "different" : why ? why : "not decided");
done:
    math_pool_free(&pool);
    str_free(&a);
    str_free(&b);
    return err;
}

Err math_judge(const char *gold, const char *answer, Verdict *out)
{
    Str g = {0}, a = {0};
    MathFound how;
    Err err = OK;
    *out = (Verdict){.outcome = VERDICT_WRONG};
    TRY_DONE(math_gold(gold, &g));
    CHECK_DONE(g.len, ERR_DATA, "the gold answer is empty: \"%.80s\"", gold);
    TRY_DONE(math_find(answer, &a, &how));
    if (how == FOUND_SENTENCE) cut_sentence(&a);
    math_keep(out, str_text(&a));
    if (!a.len) {
        snprintf(out->reason, sizeof out->reason, "no answer found");
    } else if (how == FOUND_OPEN_BOX || a.len > MATH_BYTES || g.len > MATH_BYTES) {
        out->outcome = VERDICT_UNDECIDED;
        snprintf(out->reason, sizeof out->reason, "%s", how == FOUND_OPEN_BOX ? "\\boxed{ is not closed" : "longer than 4096 bytes");
    } else {
        TRY_DONE(compare(str_text(&g), str_text(&a), out));
    }
    out->grade = out->outcome == VERDICT_RIGHT;
done:
    str_free(&g);
    str_free(&a);
    return err;
}

Err math_compare(const char *gold, const char *answer, bool *equal)
{
    Verdict v = {0};
    TRY(compare(gold, answer, &v));
    *equal = v.outcome == VERDICT_RIGHT;
    return OK;
}
