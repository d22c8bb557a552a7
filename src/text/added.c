// SPDX-License-Identifier: Apache-2.0
#include "text/added.h"

#include <utf8proc.h>

#include "base/mem.h"
#include "text/utf8.h"

static Err new_node(Added *a, unsigned char byte, int32_t *out)
{
    TRY(MEM_GROW(&a->node, a->nodes, &a->node_cap, a->nodes + 1));
    *out = (int32_t)a->nodes++;
    a->node[*out] = (AddedNode){.token = -1, .byte = byte};
    return OK;
}

static int32_t find_child(const Added *a, int32_t node, unsigned char byte)
{
    int32_t c = a->node[node].child;
    while (c && a->node[c].byte != byte) c = a->node[c].sibling;
    return c;
}

Err added_put(Added *a, const char *text, int64_t n, AddedToken token)
{
    int32_t node = 0;
    if (a->nodes == 0) TRY(new_node(a, 0, &node));
    for (int64_t i = 0; i < n; i++) {
        int32_t next = find_child(a, node, (unsigned char)text[i]);
        if (!next) {
            TRY(new_node(a, (unsigned char)text[i], &next));
            a->node[next].sibling = a->node[node].child;
            a->node[node].child = next;
        }
        node = next;
    }
    TRY(MEM_GROW(&a->token, a->n, &a->cap, a->n + 1));
    a->node[node].token = (int32_t)a->n;
    a->token[a->n++] = token;
    return OK;
}

void added_free(Added *a)
{
    mem_free(a->token);
    mem_free(a->node);
    *a = (Added){0};
}

// Index of the longest token at p, or -1; its length in *len.
static int32_t longest_at(const Added *a, const char *p, int64_t n, int64_t *len)
{
    int32_t best = -1, node = 0;
    for (int64_t i = 0; i < n; i++) {
        node = find_child(a, node, (unsigned char)p[i]);
        if (!node) break;
        if (a->node[node].token >= 0) best = a->node[node].token, *len = i + 1;
    }
    return best;
}

// Regex \w: alphabetic, mark, decimal digit, connector, joiner.
static bool is_word(uint32_t cp)
{
    if (cp == 0x200C || cp == 0x200D) return true;
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_NL) || c == UTF8PROC_CATEGORY_PC;
}

// Start of the last character before `end`.
static int64_t step_back(const char *text, int64_t end)
{
    do end--;
    while (end > 0 && ((unsigned char)text[end] & 0xC0) == 0x80);
    return end;
}

static bool stands_alone(const char *text, int64_t n, int64_t start, int64_t end)
{
    uint32_t cp;
    if (start > 0) {
        int64_t i = step_back(text, start);
        utf8_next(text + i, n - i, &cp);
        if (is_word(cp)) return false;
    }
    if (end < n) {
        utf8_next(text + end, n - end, &cp);
        if (is_word(cp)) return false;
    }
    return true;
}

// White_Space of Unicode: as Python's, without U+001C-U+001F.
static bool is_white_space(uint32_t cp) { return utf8_is_space(cp) && !(cp >= 0x1C && cp <= 0x1F); }

static int64_t strip_left(const char *text, int64_t n, int64_t start, int64_t lowest)
{
    while (start > lowest) {
        uint32_t cp;
        int64_t i = step_back(text, start);
        utf8_next(text + i, n - i, &cp);
        if (!is_white_space(cp)) break;
        start = i;
    }
    return start;
}

static int64_t strip_right(const char *text, int64_t n, int64_t end)
{
    while (end < n) {
        uint32_t cp;
        int len = utf8_next(text + end, n - end, &cp);
        if (!is_white_space(cp)) break;
        end += len;
    }
    return end;
}

Err added_split(const Added *a, const char *text, int64_t n, bool specials, AddedPiece f, void *user)
{
    int64_t done = 0, i = 0, len = 0;
    while (a->nodes > 0 && i < n) {
        int32_t k = longest_at(a, text + i, n - i, &len);
        if (k < 0) {
            i++;
            continue;
        }
        const AddedToken *t = &a->token[k];
        int64_t start = i, end = i + len;
        i = end;  // a match that does not count still covers its text
        if ((t->special && !specials) || (t->single_word && !stands_alone(text, n, start, end))) continue;
        if (t->lstrip) start = strip_left(text, n, start, done);
        if (t->rstrip) i = end = strip_right(text, n, end);
        if (start > done) TRY(f(user, -1, text + done, start - done));
        TRY(f(user, t->id, text + start, end - start));
        done = end;
    }
    return done < n ? f(user, -1, text + done, n - done) : OK;
}
