// SPDX-License-Identifier: Apache-2.0
// Where training computes: on the host, from the master's own bf16 copy; or on a device.
//
// On a device each rank has the whole model in bf16, a row's gradient in fp32, and the sum over its rows in fixed point
// (op_fixed_add), which is exact: the bits depend neither on the order of rows nor on who computes them. One packed row is computed
// at a time. The optimiser's state, fp32 weights among it, is dealt over the ranks (optim.h).
#ifndef IMF_TRAIN_COMPUTE_H
#define IMF_TRAIN_COMPUTE_H

#include "base/arena.h"
#include "model/model.h"

typedef struct Compute {
    Ctx *host;           // borrowed
    Ctx ctx;             // of the model's ops and the optimiser's
    Model *master;       // borrowed; on a device its weights are those of the last checkpoint
    const Model *model;  // what the ops read: master, or on_device
    Model on_device;     // owned
    MemSource memory;    // of the device
    const MemSource *source;  // of arenas that the ops reach: NULL, or &memory
    float *grad;         // on a device, owned: [model_grad_elements] of a row
    int64_t *sum;        // likewise: [elements] over rows
    uint32_t *bad;       // likewise, the host reaches it: a gradient was not finite, or too large
} Compute;

// Collective. host: ctx of main; its gpu is used where it has one. A master that must compute in bf16 does so from then on.
Err compute_open(Compute *c, Ctx *host, Model *master) ERR_MUST_CHECK;
void compute_close(Compute *c);  // a zeroed one too

static inline bool compute_on_device(const Compute *c) { return c->ctx.device; }

// Collective. After the master's weights have changed.
Err compute_refresh(Compute *c) ERR_MUST_CHECK;

// On a device, local. A step's sum begins at 0; the gradient of a row, which ops have added to c->grad, goes into it.
Err compute_sum_begin(Compute *c) ERR_MUST_CHECK;
Err compute_sum_row(Compute *c) ERR_MUST_CHECK;

#endif
