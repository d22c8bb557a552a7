// SPDX-License-Identifier: Apache-2.0
// 2-D tiles: the unit in which weights, optimiser state and checkpoints are dealt to ranks.
//
// Every tensor is cut into runs of whole rows of at most TILE_ELEMENTS elements (one row when a row alone is larger). The
// list depends on the model alone, in block order, so a rank's tiles are one contiguous range of the model's block.
#ifndef IMF_TRAIN_TILES_H
#define IMF_TRAIN_TILES_H

#include "model/model.h"

enum { TILE_ELEMENTS = 1 << 20 };
typedef struct Tile {
    int32_t spec;        // index into model->spec
    int64_t row, rows;   // rows of that tensor
    int64_t offset, n;   // element range in the model's block
} Tile;

// The caller owns *tiles (mem_free).
Err tiles_make(const Model *m, Tile **tiles, int64_t *n) ERR_MUST_CHECK;

int64_t tile_rows(int64_t cols);  // of a tile of a tensor with that many columns, at most

// A rank's share: tiles [first, last) and the block's elements [begin, end) (begin = end when it has none). The shares of
// all ranks lie behind one another; between them only padding.
typedef struct TileShare {
    int64_t first, last, begin, end;
} TileShare;
TileShare tile_share(const Tile *tiles, int64_t n, int rank, int ranks);

// Tiles first .. last-1.
typedef struct TileRange {
    int64_t first, last;
} TileRange;

#endif
