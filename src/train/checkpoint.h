// Checkpoints: parallel NetCDF-4, layout-free, committed by a manifest and a rename (protocol of design.md 3).
//
//   <dir>/step_000000123/shard-000.nc .. + MANIFEST.json       committed
//   <dir>/step_000000123.tmp.<job>/                             being written; never read, removed at the next start
#ifndef IMF_TRAIN_CHECKPOINT_H
#define IMF_TRAIN_CHECKPOINT_H

#include "base/str.h"
#include "model/model.h"

// 2-D tiles: every tensor of the model is cut into tiles of at most TILE_ROWS rows; tiles are dealt to ranks.
enum { TILE_ELEMENTS = 1 << 20 };
typedef struct Tile {
    int32_t spec;        // index into model->spec
    int64_t row, rows;   // rows of that tensor
    int64_t offset, n;   // element range in the model's block
} Tile;
Err tiles_make(const Model *m, Tile **tiles, int64_t *n) ERR_MUST_CHECK;  // function of the model alone
int tile_owner(int64_t tile, int64_t tiles, int ranks);                   // contiguous ranges of equal count

typedef struct TrainState {  // what a checkpoint holds besides the tiles
    int64_t step, epoch, examples_seen;
    uint64_t seed;
    Id recipe, data, base_model;  // hashes; loading refuses others
} TrainState;

// Collective. w, m, v: blocks in model layout (only own tiles are read). Commits <dir>/step_%09d.
Err checkpoint_save(const char *dir, const Model *model, const float *m, const float *v, const TrainState *state) ERR_MUST_CHECK;
// Collective. Newest committed and verified step under dir, -1 when there is none; says which ones it skipped and why.
Err checkpoint_find(const char *dir, int64_t *step) ERR_MUST_CHECK;
// Collective. Fills the model's weights (shared block) and this rank's own tiles of m, v.
Err checkpoint_load(const char *dir, int64_t step, Model *model, float *m, float *v, TrainState *state) ERR_MUST_CHECK;
// Local: human description of a committed step for `imf show`.
Err checkpoint_show(const char *path, Str *out) ERR_MUST_CHECK;
// Keeps the newest `keep` committed steps.
Err checkpoint_prune(const char *dir, int keep) ERR_MUST_CHECK;

#endif
