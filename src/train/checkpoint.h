// SPDX-License-Identifier: Apache-2.0
// Checkpoints: parallel NetCDF-4, layout-free, committed by a manifest and a rename (protocol of design.md 3).
//
//   <dir>/step_000000123/shard-000.nc .. + MANIFEST.json       committed
//   <dir>/step_000000123.tmp.<job>/                             being written; never read, removed at the next start
#ifndef IMF_TRAIN_CHECKPOINT_H
#define IMF_TRAIN_CHECKPOINT_H

#include "base/str.h"
#include "train/metrics.h"
#include "train/tiles.h"

typedef struct TrainState {  // what a checkpoint holds besides the tiles
    int64_t step, epoch, examples_seen;
    uint64_t seed;
    Id recipe, data, base_model;  // hashes; loading refuses others
    MetricsState metrics;
} TrainState;

// Collective. Weights are read from model->w; m and v are this rank's share only: element 0 is the block's element
// tile_share().begin (train/tiles.h). Commits <dir>/step_%09d. ranks_per_file consecutive ranks write a file together; 0: as
// many as a node has.
// After ERR_IO the process must end by par_abort (main does): HDF5's exit handler may crash.
Err checkpoint_save(const char *dir, const Model *model, const float *m, const float *v, const TrainState *state,
                    int ranks_per_file) ERR_MUST_CHECK;
// Collective. Newest committed and verified step under dir, -1 when there is none; says which ones it skipped and why.
Err checkpoint_find(const char *dir, int64_t *step) ERR_MUST_CHECK;
// Collective. Fills the model's weights (shared block: each rank writes its tiles of its node) and this rank's share of m, v.
// ERR_RECIPE when `state` (recipe, data, base_model given by the caller) is not the one that was stored.
Err checkpoint_load(const char *dir, int64_t step, Model *model, float *m, float *v, TrainState *state) ERR_MUST_CHECK;
// Local: human description of a committed step directory for `imf show`; verifies every checksum.
Err checkpoint_show(const char *path, Str *out) ERR_MUST_CHECK;
// Local (rank 0), after `newest` was committed: of the steps up to it keeps the newest `keep` (<= 0: all) and the multiples of
// `every` (0: none more). Newer ones are of a former life of the run and were skipped: they stay until they are written anew.
Err checkpoint_prune(const char *dir, int64_t newest, int keep, int64_t every) ERR_MUST_CHECK;
int64_t checkpoint_bytes(const Model *model);  // that one needs on the disk, about 5 % more than its payload
// Local (rank 0): ERR_IO naming bytes wanted and free when dir has no room for that.
Err checkpoint_check_space(const char *dir, const Model *model) ERR_MUST_CHECK;

#endif
