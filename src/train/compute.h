// SPDX-License-Identifier: Apache-2.0
// Where forward and backward of training run: on the host, from the master's own bf16 copy; or on a device, from a copy there.
// The optimiser's state, gradient sums and all that ranks exchange are the host's in both.
#ifndef IMF_TRAIN_COMPUTE_H
#define IMF_TRAIN_COMPUTE_H

#include "base/arena.h"
#include "model/model.h"

typedef struct Compute {
    Ctx *host;           // borrowed
    Ctx ctx;             // of the model's ops
    Model *master;       // borrowed
    const Model *model;  // what the ops read: master, or on_device
    Model on_device;     // owned
    MemSource memory;    // of the device
    const MemSource *source;  // of arenas that the ops reach: NULL, or &memory
    float *grad;         // of the device, owned: [model_grad_elements] of a chain; NULL on the host, and until it is asked for
} Compute;

// Collective. host: ctx of main; its gpu is used where it has one.
Err compute_open(Compute *c, Ctx *host, Model *master) ERR_MUST_CHECK;
void compute_close(Compute *c);  // a zeroed one too

// Collective. After the master's weights have changed.
Err compute_refresh(Compute *c) ERR_MUST_CHECK;

// A chain's gradient: where ops add it (zeroed; `host` itself, or memory of the device), and then its way to `host`. Local.
Err compute_grad_begin(Compute *c, float *host, float **grad) ERR_MUST_CHECK;
Err compute_grad_end(Compute *c, float *host) ERR_MUST_CHECK;

#endif
