// SPDX-License-Identifier: Apache-2.0
// Where training computes: on the host, from the master's own bf16 copy; or on a device.
//
// On a device each rank has the whole model in bf16. Gradients are made in fp32, a row (packed sequence) and a part of the model at a
// time (GradSink), and summed over rows in fixed point (op_fixed_add), which is exact: the bits depend neither on the order of
// rows nor on who computes them. shard: states keeps that sum of the whole model on every rank until the optimiser's step; shard: grads
// gives each part to its owners at once (8 bytes a weight less, a reduction a row and part more). The optimiser's state, fp32 weights
// among it, is dealt over the ranks in both (optim.h).
#ifndef IMF_TRAIN_COMPUTE_H
#define IMF_TRAIN_COMPUTE_H

#include "base/arena.h"
#include "par/par_device.h"
#include "train/tiles.h"

typedef struct Compute {
    Ctx *host;           // borrowed
    Ctx ctx;             // of the model's ops and the optimiser's
    Model *master;       // borrowed; on a device its weights are those of the last checkpoint
    const Model *model;  // what the ops read: master, or on_device
    // On a device:
    Model on_device;     // owned
    MemSource memory;    // of the device
    const MemSource *source;  // of arenas that the ops reach: &memory; on the host NULL
    bool shard_grads;    // set by hand before the first step: shard: grads
    ParRange *share;     // [ranks] of the block, by tiles; owned
    GradSink sink;       // of a row
    float *edge, *layer; // gradients of the embedding (a tied head's too) or head, and of other parts; owned, zero between parts
    int64_t *sum;        // over rows: [elements], or of the own share alone; owned
    int64_t *piece;      // shard: grads: of what is exchanged at a time; owned
    uint32_t *bad;       // a gradient was not finite, or too large; the host reaches it; owned
} Compute;

// Collective. host: ctx of main; its gpu is used where it has one. A master that must compute in bf16 does so from then on.
Err compute_open(Compute *c, Ctx *host, Model *master) ERR_MUST_CHECK;
void compute_close(Compute *c);  // a zeroed one too

static inline bool compute_on_device(const Compute *c) { return c->ctx.device; }

// Collective. After the master's weights have changed.
Err compute_refresh(Compute *c) ERR_MUST_CHECK;

// On a device. A step's sum begins at 0; c->sink adds rows to it. With shard: grads all ranks add equally many: the absent ones are
// nothing. At the end compute_sum_share is collective: the sum over all ranks of the own share.
Err compute_sum_begin(Compute *c) ERR_MUST_CHECK;
Err compute_sum_absent(Compute *c) ERR_MUST_CHECK;
Err compute_sum_share(Compute *c, const int64_t **sum) ERR_MUST_CHECK;

// What these sums and gradients take of a device, of a rank that owns `own` of the block.
int64_t compute_sum_bytes(const Model *m, bool shard_grads, ParRange own);

// Until all ops have run: results may be read, and memory that ops use written.
Err compute_wait(Compute *c) ERR_MUST_CHECK;

#endif
