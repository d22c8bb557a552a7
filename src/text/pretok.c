// SPDX-License-Identifier: Apache-2.0
#include "text/pretok.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "base/mem.h"
#include "text/utf8.h"

enum { STEPS_FREE = 100000, STEPS_PER_BYTE = 16, HEAP_KIB = 20 * 1024 };

typedef struct Segment {
    int64_t start, end;
    bool match;
} Segment;

typedef struct Level {  // working space of one step
    Segment *segment;
    int64_t n, cap;
    Str prefixed;
} Level;

struct PretokRun {
    pcre2_match_data *match;
    pcre2_match_context *limits;
    Level level[PRETOK_STEPS];
};

// --- patterns ----------------------------------------------------------------------------------------------------------

// One escape sequence, p[0] == '\\'. Oniguruma's \s is White_Space; PCRE2's adds U+180E and depends on the library's age.
static Err translate_escape(const char *p, bool in_class, Str *out)
{
    static const char space[] = "\\t-\\r\\x20\\x{85}\\p{Z}";
    switch (p[1]) {
    case 's': return str_printf(out, in_class ? "%s" : "[%s]", space);
    case 'S':
        CHECK(!in_class, ERR_DATA, "\\S inside of a character class is not supported");
        return str_printf(out, "[^%s]", space);
    case 'h': case 'H': case 'R': case 'X': case 'G': case 'K': case 'C': case 'g': case 'k': case 'Z': case 'z': case 'A':
        FAIL(ERR_DATA, "\\%c has no certain meaning in a tokenizer's pattern", p[1]);
    default: return str_add(out, p, 2);
    }
}

Err pretok_translate(const char *pattern, int64_t n, Str *out)
{
    bool in_class = false;
    for (int64_t i = 0; i < n; i++) {
        char c = pattern[i], next = i + 1 < n ? pattern[i + 1] : '\0';
        if (c == '\\') {
            CHECK(next, ERR_DATA, "the pattern ends in a backslash");
            TRY(translate_escape(pattern + i, in_class, out));
            i++;
            continue;
        }
        CHECK(in_class || (c != '^' && c != '$'), ERR_DATA, "%c (byte %lld) means lines to Oniguruma: not supported", c,
              (long long)i);
        CHECK(!in_class || (c != '[' && !(c == '&' && next == '&')), ERR_DATA,
              "nested character classes and && (byte %lld) are not supported", (long long)i);
        TRY(str_add(out, &c, 1));
        if (!in_class && c == '[' && next == '^') {
            TRY(str_add(out, "^", 1));
            i++;
        }
        in_class = in_class ? c != ']' : c == '[';
    }
    return OK;
}

static Err compile(const char *pattern, int64_t n, uint32_t options, pcre2_code **out)
{
    int code;
    PCRE2_SIZE at;
    *out = pcre2_compile((PCRE2_SPTR)pattern, (PCRE2_SIZE)n, PCRE2_UTF | options, &code, &at, NULL);
    if (!*out) {
        PCRE2_UCHAR why[128];
        pcre2_get_error_message(code, why, sizeof why);
        FAIL(ERR_DATA, "'%.80s' is not a pattern: %s, at byte %lld", pattern, (const char *)why, (long long)at);
    }
    (void)pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE);  // not everywhere allowed; without it matching is only slower
    return OK;
}

static Err next_step(Pretok *p, PretokStep **out)
{
    CHECK(p->n < PRETOK_STEPS, ERR_DATA, "more than %d pre-tokenizers", PRETOK_STEPS);
    *out = &p->step[p->n++];
    **out = (PretokStep){0};
    return OK;
}

Err pretok_add_split(Pretok *p, const char *pattern, int64_t n, bool literal, PretokBehavior behavior, bool invert)
{
    CHECK(n >= 1 && n <= PRETOK_PATTERN_BYTES, ERR_DATA, "a pattern of %lld bytes (1 to %d)", (long long)n,
          PRETOK_PATTERN_BYTES);
    PretokStep *step = NULL;
    Str text = {0};
    Err err = OK;
    TRY(next_step(p, &step));
    step->behavior = behavior;
    step->invert = invert;
    if (literal) {
        TRY_DONE(compile(pattern, n, PCRE2_LITERAL, &step->code));
    } else {
        TRY_DONE(pretok_translate(pattern, n, &text));
        TRY_DONE(compile(text.p, text.len, PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &step->code));
    }
done:
    str_free(&text);
    if (err != OK) p->n--;
    return err;
}

Err pretok_add_prefix_space(Pretok *p)
{
    PretokStep *step;
    return next_step(p, &step);
}

void pretok_free(Pretok *p)
{
    for (int i = 0; i < p->n; i++) pcre2_code_free(p->step[i].code);
    *p = (Pretok){0};
}

// --- running -----------------------------------------------------------------------------------------------------------

Err pretok_open(PretokRun **out)
{
    TRY(MEM_ARRAY(out, 1));
    PretokRun *run = *out;
    run->match = pcre2_match_data_create(1, NULL);
    run->limits = pcre2_match_context_create(NULL);
    if (run->match && run->limits) {
        pcre2_set_heap_limit(run->limits, HEAP_KIB);
        return OK;
    }
    pretok_close(run);
    FAIL(ERR_UNAVAILABLE, "out of memory for a pattern match");
}

void pretok_close(PretokRun *run)
{
    if (!run) return;
    pcre2_match_data_free(run->match);
    pcre2_match_context_free(run->limits);
    for (int i = 0; i < PRETOK_STEPS; i++) {
        mem_free(run->level[i].segment);
        str_free(&run->level[i].prefixed);
    }
    mem_free(run);
}

static Err push_segment(Level *l, int64_t start, int64_t end, bool match)
{
    if (start == end) return OK;
    TRY(MEM_GROW(&l->segment, l->n, &l->cap, l->n + 1));
    l->segment[l->n++] = (Segment){start, end, match};
    return OK;
}

// The next match at or after `from`; *end < 0: none.
static Err find_match(const PretokStep *step, PretokRun *run, const char *p, int64_t n, int64_t from, int64_t *start,
                      int64_t *end)
{
    int rc = pcre2_match(step->code, (PCRE2_SPTR)p, (PCRE2_SIZE)n, (PCRE2_SIZE)from, PCRE2_NO_UTF_CHECK, run->match,
                         run->limits);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(step->code, (PCRE2_SPTR)p, (PCRE2_SIZE)n, (PCRE2_SIZE)from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                         run->match, run->limits);
    *end = -1;
    if (rc == PCRE2_ERROR_NOMATCH) return OK;
    CHECK(rc >= 0, ERR_DATA, "the tokenizer's pattern needs too many steps at byte %lld of a text of %lld (PCRE2 error %d)",
          (long long)from, (long long)n, rc);
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(run->match);
    *start = (int64_t)at[0], *end = (int64_t)at[1];
    return OK;
}

// Matches and the gaps between them, in order.
static Err find_segments(const PretokStep *step, PretokRun *run, Level *l, const char *p, int64_t n)
{
    int64_t done = 0, from = 0, start, end;
    l->n = 0;
    pcre2_set_match_limit(run->limits, (uint32_t)(STEPS_FREE + (n < INT32_MAX / STEPS_PER_BYTE ? n : 0) * STEPS_PER_BYTE));
    while (from < n) {
        TRY(find_match(step, run, p, n, from, &start, &end));
        if (end < 0) break;
        if (end > start) {
            TRY(push_segment(l, done, start, step->invert));
            TRY(push_segment(l, start, end, !step->invert));
            done = from = end;
        } else {  // an empty match cuts nothing: go on behind the next character
            uint32_t cp;
            from = start < n ? start + utf8_next(p + start, n - start, &cp) : n;
        }
    }
    return push_segment(l, done, n, step->invert);
}

// From the right: a match joins what follows it, unless that is a match too.
static void join_next(Level *l)
{
    Segment *s = l->segment;
    int64_t to = l->n;
    bool previous = false;
    for (int64_t i = l->n - 1; i >= 0; i--) {
        bool match = s[i].match;
        if (match && !previous && to < l->n) s[to].start = s[i].start;
        else s[--to] = s[i];
        previous = match;
    }
    memmove(s, s + to, (size_t)(l->n - to) * sizeof *s);
    l->n -= to;
}

static void join_segments(Level *l, PretokBehavior behavior)
{
    Segment *s = l->segment;
    int64_t n = 0;
    bool previous = false;
    for (int64_t i = 0; i < l->n; i++) {
        bool match = s[i].match, join = false;
        if (behavior == PRE_REMOVED && match) continue;
        if (behavior == PRE_MERGED_PREVIOUS) join = match && !previous && n > 0;
        if (behavior == PRE_CONTIGUOUS) join = match == previous && n > 0;
        if (join) s[n - 1].end = s[i].end;
        else s[n++] = s[i];
        previous = match;
    }
    l->n = n;
}

static Err run_step(const Pretok *p, PretokRun *run, int k, const char *text, int64_t n, PretokPiece f, void *user)
{
    if (k == p->n) return f(user, text, n);
    const PretokStep *step = &p->step[k];
    Level *l = &run->level[k];
    if (!step->code) {
        if (text[0] == ' ') return run_step(p, run, k + 1, text, n, f, user);
        str_clear(&l->prefixed);
        TRY(str_add(&l->prefixed, " ", 1));
        TRY(str_add(&l->prefixed, text, n));
        return run_step(p, run, k + 1, l->prefixed.p, l->prefixed.len, f, user);
    }
    TRY(find_segments(step, run, l, text, n));
    if (step->behavior == PRE_MERGED_NEXT) join_next(l);
    else if (step->behavior != PRE_ISOLATED) join_segments(l, step->behavior);
    for (int64_t i = 0; i < l->n; i++)
        TRY(run_step(p, run, k + 1, text + l->segment[i].start, l->segment[i].end - l->segment[i].start, f, user));
    return OK;
}

Err pretok_run(const Pretok *p, PretokRun *run, const char *text, int64_t n, PretokPiece f, void *user)
{
    return n > 0 ? run_step(p, run, 0, text, n, f, user) : OK;
}
