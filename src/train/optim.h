// SPDX-License-Identifier: Apache-2.0
// The optimiser: clipping and AdamW over tiles. First and second moments exist at the owner of a tile only. Weights live in the
// master's (node-shared) block; on a device they too exist at the owner only, and the block has them after optim_fetch.
#ifndef IMF_TRAIN_OPTIM_H
#define IMF_TRAIN_OPTIM_H

#include "train/chains.h"
#include "train/compute.h"

typedef struct OptimSpec {
    double beta1, beta2, eps, decay;  // decay acts on matrices only (norms and biases are exempt, as in transformers)
    double max_norm;                  // 0: no clipping
} OptimSpec;

typedef struct Optim {
    Compute *on;       // borrowed
    Model *model;      // on->master
    OptimSpec spec;
    Tile *tiles;       // owned
    int64_t n_tiles;
    TileShare share;   // this rank's
    float *m, *v;      // [share.end - share.begin], owned; on a device its memory
    float *w;          // likewise; on the host in the master's block
    float *g;          // likewise: in a buffer of the chains, or own_g (NULL until it is needed)
    float *own_g;
    float *host_m, *host_v;  // on a device: what optim_fetch copies to, owned; else m and v
    double *block;     // sums of squares of the tiles' blocks, one tile behind the other; owned
    struct OptimRates *rates;  // what op_adamw reads, owned
    int32_t *node_of;  // [ranks] node of each rank, owned
    int32_t *leader;   // [nodes] lowest rank of each node, owned
    int32_t nodes;
} Optim;

Err optim_open(Optim *o, Compute *on, const OptimSpec *spec) ERR_MUST_CHECK;  // collective
void optim_free(Optim *o);
int64_t optim_device_bytes(TileShare share);  // all of a share on a device
int64_t optim_bytes(TileShare share);  // moments of a share

// Collective. One step: reduces the chains' gradients (sums of `active` chains), measures and clips their norm as
// torch.nn.utils.clip_grad_norm_ does (coefficient max_norm / (norm + 1e-6), at most 1), updates the owned tiles with
// AdamW (step: 1-based) and publishes them to every node. on->model then has the new weights; on a device for its ops, and they may still be on
// their way (compute_wait_weights). A norm that is NaN or infinite changes nothing: *norm says it.
Err optim_step(Optim *o, const ChainSum *sum, int32_t active, double lr, int64_t step, double *norm) ERR_MUST_CHECK;

// Collective. Between the master's block, host_m and host_v on the one side and the optimiser's state on the other: for a checkpoint
// or an export, and after one was loaded. On the host they are the same memory (and put refreshes the bf16 copy).
Err optim_fetch(Optim *o) ERR_MUST_CHECK;
Err optim_put(Optim *o) ERR_MUST_CHECK;

#endif
