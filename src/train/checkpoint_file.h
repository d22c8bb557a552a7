// SPDX-License-Identifier: Apache-2.0
// A NetCDF-4 file of a checkpoint: three variables a tensor (weight and AdamW's two moments), [rows][cols], contiguous. A file
// holds a range of tiles, so its first and last tensor may lack rows; the attribute first_row says which row comes first.
#ifndef IMF_TRAIN_CHECKPOINT_FILE_H
#define IMF_TRAIN_CHECKPOINT_FILE_H

#include "train/tiles.h"

enum { SLOTS_OF_A_TENSOR = 3, TENSOR_NAME = 64 };  // w, m, v
enum { FILE_PIECE = 16 << 20 };                    // bytes that one checksum of the file covers

// Sums of one tile's bytes in the three slots, and where in the file they lie (0: unknown).
typedef struct TileSum {
    Id slot[SLOTS_OF_A_TENSOR];
    int64_t at[SLOTS_OF_A_TENSOR];
} TileSum;

// "layer_03_qkv", "embed", ...: name of a tensor in checkpoints.
void tensor_name(const WeightSpec *spec, char name[TENSOR_NAME]);
void variable_name(const WeightSpec *spec, int slot, char name[TENSOR_NAME + 8]);  // "embed.w", "embed.m", "embed.v"

// What a rank writes: its tiles; slot[1] and slot[2] begin with the share's first element, slot[0] is the whole block.
typedef struct TileSource {
    const Tile *tiles;
    TileShare share;
    int group;        // ranks of a group write one file
    TileRange file;   // the tiles of that file
    const float *slot[SLOTS_OF_A_TENSOR];
} TileSource;

// Collective, and so is the error; ranks of a group give the same path. After ERR_IO the file is still open inside HDF5: the process must end by par_abort.
Err checkpoint_file_write(const char *path, const Model *model, const TileSource *src, const char *history) ERR_MUST_CHECK;

// Local. Sums of the rank's tiles as they lie in memory, and a comparison of the file with them.
void tile_sums(const TileSource *src, TileSum *sums);
Err checkpoint_file_verify(const char *path, const Model *model, const TileSource *src, const TileSum *sums) ERR_MUST_CHECK;

// Local. Reads one slot of the tiles `want`, all of them in `file`, to block + tile.offset - base, and checks each against
// sums[tile].
Err checkpoint_file_read(const char *path, const Model *model, const Tile *tiles, TileRange file, TileRange want, int slot,
                         float *block, int64_t base, const TileSum *sums) ERR_MUST_CHECK;

#endif
