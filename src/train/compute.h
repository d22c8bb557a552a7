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

// What is exchanged at a time; no larger, since a vocabulary's gradient in fixed point would be gigabytes.
typedef struct Portion {
    int64_t *x;               // owned
    DeviceMark *made, *free;  // x can travel; x can be used again; owned
} Portion;

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
    ParRange *vectors;   // [ranks] of the vectors, which lie one behind the other (WeightSpec.vector); owned
    GradSink sink;       // of a row
    float *edge, *layer; // gradients of the embedding (a tied head's too) or head, and of other parts; owned, zero between parts
    int64_t *sum;        // over rows: [elements], or of the own share alone; owned
    Device *link;        // a stream for what ranks exchange, beside the ops; owned
    Portion portion[2];  // shard: grads: what is exchanged, in turns
    int turn;
    DeviceMark *made, *summed;  // what was made last can travel; all is summed over ranks; owned
    DeviceMark **arrived;       // [model_grad_parts] new weights of a part have come (Model.arrived); owned
    int64_t rows, absent;       // to come: own rows, and those that other ranks have and this one has not
    uint32_t *bad;       // a gradient was not finite, or too large; the host reaches it; owned
} Compute;

// Collective. host: ctx of main; its gpu is used where it has one. A master that must compute in bf16 does so from then on.
Err compute_open(Compute *c, Ctx *host, Model *master) ERR_MUST_CHECK;
void compute_close(Compute *c);  // a zeroed one too

static inline bool compute_on_device(const Compute *c) { return c->ctx.device; }

// Collective. After the master's weights have changed.
Err compute_refresh(Compute *c) ERR_MUST_CHECK;

// On a device. A step's sum begins at 0; c->sink adds rows to it. With shard: grads all ranks add equally many: the absent ones are
// nothing. What ranks exchange runs beside the ops: with shard: grads behind each part of each row, with states behind each part of
// the last one. compute_sum_share: the sum over all ranks of the own share, for ops that come next.
Err compute_sum_begin(Compute *c, int64_t rows, int64_t most) ERR_MUST_CHECK;  // own rows; the most that any rank has
Err compute_sum_absent(Compute *c) ERR_MUST_CHECK;                             // behind the own rows
Err compute_sum_share(Compute *c, const int64_t **sum) ERR_MUST_CHECK;

// On a device, behind the optimiser's ops of the own share: the vectors of the model first, then the matrices of each part, in the order in which a
// forward reads them, go to all ranks beside the ops that come next; the model's ops wait for a part where they read it.
Err compute_send_vectors(Compute *c) ERR_MUST_CHECK;
Err compute_send_part(Compute *c, int32_t part) ERR_MUST_CHECK;
// Until all have come: for ranks that wait for others elsewhere, without ops of the model between.
Err compute_wait_weights(Compute *c) ERR_MUST_CHECK;

// What these sums and gradients take of a device, of a rank that owns `own` of the block.
int64_t compute_sum_bytes(const Model *m, bool shard_grads, ParRange own);

// Until all ops have run: results may be read, and memory that ops use written.
Err compute_wait(Compute *c) ERR_MUST_CHECK;

#endif
