// SPDX-License-Identifier: Apache-2.0
// How attention is cut and what its masks let through: shared by the op's entry, the plain and the fast forms.
//
// Keys lie in blocks of ATTN_BLOCK, queries in blocks of ATTN_QUERIES, both counted from their segment's start, so that nothing
// depends on where a segment lies in its row. Masks are in positions.
#ifndef IMF_KERNELS_CPU_ATTN_H
#define IMF_KERNELS_CPU_ATTN_H

#include "kernels/cpu/cpu.h"

enum { ATTN_QUERIES = 48 };

typedef struct Range {  // [from, to); empty: from == to
    int64_t from, to;
} Range;

// The positions of a block of keys and what the mask needs.
typedef struct Mask {
    int64_t first, n, window;  // position of the first key, keys, window (0 none)
} Mask;

// Queries of one segment.
typedef struct Queries {
    int64_t segment, token, n, pos;  // first token, tokens, position of the first
} Queries;

static inline int64_t attn_least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t attn_most(int64_t a, int64_t b) { return a > b ? a : b; }

// Blocks of `size` tokens that segments [0, s) take.
static inline int64_t attn_blocks_before(const Segment *seg, int64_t s, int64_t size)
{
    int64_t n = 0;
    for (int64_t i = 0; i < s; i++) n += (seg[i].len + size - 1) / size;
    return n;
}

// Queries [i, i + ATTN_QUERIES) of segment s.
static inline Queries attn_queries_at(const Segment *seg, int64_t s, int64_t i)
{
    return (Queries){s, seg[s].start + i, attn_least(ATTN_QUERIES, seg[s].len - i), seg[s].pos0 + i};
}

// Block number b of the queries of all segments.
static inline Queries attn_queries(const Segment *seg, int64_t b)
{
    int64_t s = 0;
    for (int64_t n; b >= (n = (seg[s].len + ATTN_QUERIES - 1) / ATTN_QUERIES); s++) b -= n;
    return attn_queries_at(seg, s, b * ATTN_QUERIES);
}

// Keys of the block that some of the queries at positions [pos, pos + n) see (n = 1: that the query sees).
static inline Range attn_visible(const Mask *m, int64_t pos, int64_t n)
{
    Range r = {0, attn_least(m->n, pos + n - m->first)};
    if (m->window > 0) r.from = attn_most(0, pos - m->window + 1 - m->first);
    if (r.to <= r.from) r.from = r.to = 0;
    return r;
}

// Those of the queries at positions [pos, pos + n) that see some of the keys [j, j + count).
static inline Range attn_seeing(const Mask *m, int64_t j, int64_t count, int64_t pos, int64_t n)
{
    Range r = {attn_most(0, m->first + j - pos), n};
    if (m->window > 0) r.to = attn_least(n, m->first + j + count - 1 + m->window - pos);
    if (r.to <= r.from) r.from = r.to = 0;
    return r;
}

#endif
