// SPDX-License-Identifier: Apache-2.0
// What the bf16 attention of all levels shares: its operands, packed, in the workspace.
//
// A block is BLOCK16 tokens of one segment, counted from the segment's start; block b of segment s has number
// blocks_before(s) + b. Unit: one block of one head, packed by rows (tokens are the rows of the packed matrix) or by columns
// (tokens are its k).
#ifndef IMF_KERNELS_CPU_ATTN16_H
#define IMF_KERNELS_CPU_ATTN16_H

#include "kernels/cpu/bf16.h"

enum { BLOCK16 = KV_PAGE, HALVES16 = MAX_D / TILE16_COLUMNS };

typedef struct Attn16 {
    AttnBwdArgs a;   // the forward fills the fields it has
    Tensor o;        // forward: output
    float *lse;      // forward: [N][T] or NULL
    Tile16Form *tile;
    uint32_t *k;     // [block][K] by rows
    uint32_t *v;     // forward: by columns; backward: by rows
    uint32_t *kt;    // backward, like the next two: [block][K] by columns
    uint32_t *qt, *dot;  // [block][N] q and dout by columns
    float *delta;    // [N][T] dout . o
    float *dq;       // [N][halves][blocks * BLOCK16][TILE16_COLUMNS]
    int64_t blocks;  // room for this many
} Attn16;

typedef struct Decode16 {
    const DecodeAttnArgs *a;
    Tile16Form *tile;
} Decode16;

static inline int64_t unit_rows16(int64_t D) { return bf16_panels(BLOCK16) * bf16_pairs(D) * BF16_PANEL; }
static inline int64_t unit_columns16(int64_t D) { return bf16_panels(D) * bf16_pairs(BLOCK16) * BF16_PANEL; }
static inline int64_t halves16(int64_t D) { return (D + TILE16_COLUMNS - 1) / TILE16_COLUMNS; }

// The ops on bf16 tensors (ops_attn16.c).
int64_t attn16_fwd_workspace(const AttnArgs *a);
int64_t attn16_bwd_workspace(const AttnBwdArgs *a);
Err attn16_fwd(Ctx *ctx, const AttnArgs *a) ERR_MUST_CHECK;
Err attn16_bwd(Ctx *ctx, const AttnBwdArgs *a) ERR_MUST_CHECK;
Err attn16_decode(Ctx *ctx, const DecodeAttnArgs *a) ERR_MUST_CHECK;
void attn16_store(const KvStoreArgs *a);
// Value d of key (which = 0) or value (1) of head kv at place j of a bf16 page.
uint16_t *attn16_cached(const void *pages, int64_t K, int64_t D, int64_t page, int which, int64_t kv, int64_t j, int64_t d);

#endif
