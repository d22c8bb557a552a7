// SPDX-License-Identifier: Apache-2.0
// The optimiser: clipping and AdamW over tiles. Weights live in the model's (node-shared) block; first and second moments
// exist at the owner of a tile only.
#ifndef IMF_TRAIN_OPTIM_H
#define IMF_TRAIN_OPTIM_H

#include "train/chains.h"

typedef struct OptimSpec {
    double beta1, beta2, eps, decay;  // decay acts on matrices only (norms and biases are exempt, as in transformers)
    double max_norm;                  // 0: no clipping
} OptimSpec;

typedef struct Optim {
    Model *model;      // borrowed
    OptimSpec spec;
    Tile *tiles;       // owned
    int64_t n_tiles;
    TileShare share;   // this rank's
    float *m, *v;      // [share.end - share.begin], owned
    float *g;          // likewise: in a buffer of the chains, or own_g (NULL until it is needed)
    float *own_g;
    double *block;     // sums of squares of one tile's blocks, owned
    int32_t *node_of;  // [ranks] node of each rank, owned
    int32_t *leader;   // [nodes] lowest rank of each node, owned
    int32_t nodes;
} Optim;

Err optim_open(Optim *o, Model *model, const OptimSpec *spec) ERR_MUST_CHECK;  // collective
void optim_free(Optim *o);
int64_t optim_bytes(TileShare share);  // moments of a share

// Collective. One step: reduces the chains' gradients (sums of `active` chains), measures and clips their norm as
// torch.nn.utils.clip_grad_norm_ does (coefficient max_norm / (norm + 1e-6), at most 1), updates the owned tiles with
// AdamW (step: 1-based) and publishes them to every node. What was made of the weights (bf16 copies) is the caller's. A norm that is NaN or infinite changes nothing: *norm says it.
Err optim_step(Optim *o, Ctx *ctx, const ChainSum *sum, int32_t active, double lr, int64_t step, double *norm) ERR_MUST_CHECK;

#endif
