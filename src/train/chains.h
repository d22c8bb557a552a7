// SPDX-License-Identifier: Apache-2.0
// Sums of gradients whose bits do not depend on the ranks (law 1, "Gradient sums").
//
// The rows of a step are dealt to chains (batch.h). A chain adds its rows in order into one buffer. Chain
// sums are combined by a fixed binary tree over chain number: node (level, index) covers chains index * 2^level .. ;
// a node whose right half has no rows is its left half. A rank owns contiguous whole chains, so it holds few maximal
// subtrees; the owner of a share of the block receives them and adds them in the tree's order.
// Drawback: a rank sends up to 2 log2(chains) buffers instead of one, and holds as many.
#ifndef IMF_TRAIN_CHAINS_H
#define IMF_TRAIN_CHAINS_H

#include "train/tiles.h"

enum { CHAIN_NODES = 64 };

typedef struct ChainNode {
    int32_t level, index;
    float *g;  // [elements]; NULL in plans
} ChainNode;

typedef struct ChainSum {
    int64_t elements;             // that are summed
    int64_t room;                 // elements of a buffer, at least `elements`
    ChainNode node[CHAIN_NODES];  // subtrees held, ascending
    int32_t nodes;
    float *spare[CHAIN_NODES];    // owned buffers not in use
    int32_t spares;
    float *open;                  // the running chain's buffer
} ChainSum;

// Chains [*first, *last) of the `active` ones that a rank owns.
void chain_share(int32_t active, int rank, int ranks, int32_t *first, int32_t *last);

// The subtrees that chains [first, last) form, in the order in which a rank holds them; returns their number.
int32_t chain_plan(int32_t first, int32_t last, ChainNode node[CHAIN_NODES]);

// Buffers that a rank has at most while it computes chains [first, last), and elements that it receives at a time.
int32_t chain_buffers(int32_t first, int32_t last);
int64_t chain_received(int32_t active, TileShare mine, int rank, int ranks);

void chain_init(ChainSum *s, const Model *m);
void chain_free(ChainSum *s);
void chain_reset(ChainSum *s);                               // forgets the sums, keeps the buffers
Err chain_begin(ChainSum *s, float **g) ERR_MUST_CHECK;      // a zeroed buffer for the next chain
Err chain_end(ChainSum *s, int32_t chain) ERR_MUST_CHECK;    // chain numbers ascend; combines finished siblings

// Collective. The sum over all `active` chains of this rank's share of the block into out[share.end - share.begin], which may
// be that part of one of the own nodes.
Err chain_reduce(const ChainSum *s, int32_t active, const Tile *tiles, int64_t n_tiles, float *out) ERR_MUST_CHECK;

#endif
