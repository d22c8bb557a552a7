// SPDX-License-Identifier: Apache-2.0
#include "text/bpe.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"

enum { SHORT = 40, NO_RANK = INT32_MAX };

// Symbol of the linked list; a symbol that was merged into its left neighbour has id -1.
typedef struct BpeNode {
    int32_t id, prev, next;  // -1: none
} BpeNode;

// A candidate; stale when the list no longer holds `pair` at `pos`.
typedef struct BpePair {
    int32_t rank, pos;
    uint64_t pair;
} BpePair;

Err bpe_init(Bpe *b, const Vocab *v, int64_t merges)
{
    *b = (Bpe){.vocab = v, .slots = 16, .unk = -1};
    while (b->slots < 2 * merges) b->slots *= 2;
    for (int i = 0; i < 256; i++) {
        char byte = (char)i;
        b->byte_id[i] = vocab_find_bytes(v, &byte, 1);
    }
    TRY(MEM_ARRAY(&b->lost, 1));
    return MEM_ARRAY(&b->merge, b->slots);
}

void bpe_free(Bpe *b)
{
    mem_free(b->merge);
    mem_free(b->lost);
    *b = (Bpe){0};
}

static uint64_t pair_of(int32_t left, int32_t right) { return (uint64_t)(left + 1) << 32 | (uint32_t)right; }

static BpeMerge *find_merge(const Bpe *b, uint64_t pair)
{
    uint64_t h = pair * 0x9E3779B97F4A7C15u, i = (h ^ h >> 32) & (uint64_t)(b->slots - 1);
    while (b->merge[i].pair != pair && b->merge[i].pair != 0) i = (i + 1) & (uint64_t)(b->slots - 1);
    return &b->merge[i];
}

Err bpe_add_merge(Bpe *b, const char *left, int64_t n_left, const char *right, int64_t n_right, int32_t rank)
{
    char both[2 * VOCAB_TOKEN_BYTES];
    CHECK(n_left + n_right <= VOCAB_TOKEN_BYTES, ERR_DATA, "merges to a token of %lld bytes (at most %d)",
          (long long)(n_left + n_right), VOCAB_TOKEN_BYTES);
    memcpy(both, left, (size_t)n_left);
    memcpy(both + n_left, right, (size_t)n_right);
    int32_t l = vocab_find(b->vocab, left, n_left), r = vocab_find(b->vocab, right, n_right);
    int32_t id = vocab_find(b->vocab, both, n_left + n_right);
    CHECK(l >= 0 && r >= 0 && id >= 0, ERR_DATA, "merges '%.40s' and '%.40s', but '%.*s' is not in the vocabulary", left,
          right, l < 0 ? (int)n_left : r < 0 ? (int)n_right : (int)(n_left + n_right), l < 0 ? left : r < 0 ? right : both);
    BpeMerge *m = find_merge(b, pair_of(l, r));
    *m = (BpeMerge){pair_of(l, r), rank, id};
    return OK;
}

static int32_t pair_rank(const Bpe *b, int32_t left, int32_t right, int32_t *id)
{
    const BpeMerge *m = find_merge(b, pair_of(left, right));
    *id = m->id;
    return m->pair ? m->rank : NO_RANK;
}

// ids[n] in, merged in place; the new number of ids.
static int merge_short(const Bpe *b, int32_t *id, int n)
{
    int32_t rank[SHORT], merged[SHORT];
    for (int i = 0; i + 1 < n; i++) rank[i] = pair_rank(b, id[i], id[i + 1], &merged[i]);
    while (n > 1) {
        int best = 0;
        for (int i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == NO_RANK) break;
        id[best] = merged[best];
        n--;
        for (int i = best + 1; i < n; i++) id[i] = id[i + 1], rank[i - 1] = rank[i], merged[i - 1] = merged[i];
        if (best > 0) rank[best - 1] = pair_rank(b, id[best - 1], id[best], &merged[best - 1]);
        if (best + 1 < n) rank[best] = pair_rank(b, id[best], id[best + 1], &merged[best]);
    }
    return n;
}

static bool pair_before(BpePair a, BpePair b) { return a.rank != b.rank ? a.rank < b.rank : a.pos < b.pos; }

static Err heap_push(BpeScratch *s, BpePair x)
{
    TRY(MEM_GROW(&s->heap, s->heap_n, &s->heap_cap, s->heap_n + 1));
    int64_t i = s->heap_n++;
    for (; i > 0 && pair_before(x, s->heap[(i - 1) / 2]); i = (i - 1) / 2) s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = x;
    return OK;
}

static BpePair heap_pop(BpeScratch *s)
{
    BpePair top = s->heap[0], x = s->heap[--s->heap_n];
    int64_t i = 0, n = s->heap_n;
    for (;;) {
        int64_t child = 2 * i + 1;
        if (child + 1 < n && pair_before(s->heap[child + 1], s->heap[child])) child++;
        if (child >= n || !pair_before(s->heap[child], x)) break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = x;
    return top;
}

static Err push_pair(const Bpe *b, BpeScratch *s, int32_t pos)
{
    int32_t next = s->node[pos].next, id;
    if (next < 0) return OK;
    int32_t rank = pair_rank(b, s->node[pos].id, s->node[next].id, &id);
    return rank == NO_RANK ? OK : heap_push(s, (BpePair){rank, pos, pair_of(s->node[pos].id, s->node[next].id)});
}

static Err merge_long(const Bpe *b, BpeScratch *s, int64_t n)
{
    s->heap_n = 0;
    for (int32_t i = 0; i < n; i++) TRY(push_pair(b, s, i));
    while (s->heap_n > 0) {
        BpePair top = heap_pop(s);
        BpeNode *a = &s->node[top.pos];
        if (a->id < 0 || a->next < 0 || pair_of(a->id, s->node[a->next].id) != top.pair) continue;
        BpeNode *gone = &s->node[a->next];
        a->id = find_merge(b, top.pair)->id;
        gone->id = -1;
        a->next = gone->next;
        if (a->next >= 0) s->node[a->next].prev = top.pos;
        if (a->prev >= 0) TRY(push_pair(b, s, a->prev));
        TRY(push_pair(b, s, top.pos));
    }
    return OK;
}

// The first symbols: one a byte, except for bytes without a token. The number of them; id has room for n.
static int64_t first_symbols(const Bpe *b, const char *p, int64_t n, int32_t *id)
{
    int64_t len = 0;
    for (int64_t i = 0; i < n; i++) {
        int32_t token = b->byte_id[(unsigned char)p[i]];
        if (token < 0 && b->unk < 0) {
            if ((*b->lost)++ == 0)
                log_warn("tokenizer", "byte 0x%02X has no token in this vocabulary; such bytes are left out of the ids",
                         (unsigned char)p[i]);
        } else if (token >= 0) {
            id[len++] = token;
        } else if (!b->fuse_unk || i == 0 || b->byte_id[(unsigned char)p[i - 1]] >= 0) {
            id[len++] = b->unk;
        }
    }
    return len;
}

static Err encode_short(const Bpe *b, const char *p, int64_t n, Ids *out)
{
    int32_t id[SHORT];
    int len = merge_short(b, id, (int)first_symbols(b, p, n, id));
    for (int i = 0; i < len; i++) TRY(ids_push(out, id[i]));
    return OK;
}

static Err encode_long(const Bpe *b, const char *p, int64_t n, BpeScratch *s, Ids *out)
{
    TRY(MEM_GROW(&s->first, 0, &s->first_cap, n));
    TRY(MEM_GROW(&s->node, 0, &s->node_cap, n));
    n = first_symbols(b, p, n, s->first);
    for (int32_t i = 0; i < n; i++)
        s->node[i] = (BpeNode){.id = s->first[i], .prev = i - 1, .next = i + 1 < n ? i + 1 : -1};
    TRY(merge_long(b, s, n));
    for (int32_t i = n > 0 ? 0 : -1; i >= 0; i = s->node[i].next) TRY(ids_push(out, s->node[i].id));
    return OK;
}

Err bpe_encode(const Bpe *b, const char *p, int64_t n, BpeScratch *s, Ids *out)
{
    int32_t whole = b->ignore_merges ? vocab_find_bytes(b->vocab, p, n) : -1;
    if (whole >= 0 && b->vocab->token[whole].model) return ids_push(out, whole);
    CHECK(n < INT32_MAX, ERR_DATA, "a piece of %lld bytes without a break is too long for the tokenizer", (long long)n);
    return n <= SHORT ? encode_short(b, p, n, out) : encode_long(b, p, n, s, out);
}

void bpe_scratch_free(BpeScratch *s)
{
    mem_free(s->first);
    mem_free(s->node);
    mem_free(s->heap);
    *s = (BpeScratch){0};
}
