// SPDX-License-Identifier: Apache-2.0
// MANIFEST.json: the commit record of a checkpoint. A checkpoint without one that parses and matches does not exist.
#ifndef IMF_TRAIN_CHECKPOINT_MANIFEST_H
#define IMF_TRAIN_CHECKPOINT_MANIFEST_H

#include "base/io.h"
#include "train/checkpoint.h"
#include "train/checkpoint_file.h"

typedef struct ManifestTensor {
    char name[TENSOR_NAME];
    int64_t rows, cols;
} ManifestTensor;

typedef struct ManifestFile {
    TileRange tiles;            // what it holds
    int64_t bytes, piece;       // size, and number of its first piece
} ManifestFile;

typedef struct Manifest {
    TrainState state;
    int ranks;                  // that wrote it
    ManifestFile *file;         // [files], owned; shard-000.nc, ...
    int64_t files;
    Id *piece;                  // [pieces] sums of FILE_PIECE bytes each, file by file; owned
    int64_t pieces;
    ManifestTensor *tensor;     // [tensors], owned
    int64_t tensors;
    TileSum *tile;              // [tiles], owned
    int64_t tiles;
} Manifest;

// The text begins with its own checksum, so that a changed digit anywhere is found.
Err manifest_print(const Manifest *m, Str *out) ERR_MUST_CHECK;
// Local. ERR_DATA naming what is wrong; ERR_NOINPUT when there is none.
Err manifest_load(const char *step_dir, Manifest *m) ERR_MUST_CHECK;
void manifest_free(Manifest *m);

// Path of file f of a step directory.
Err manifest_path(char out[IO_PATH], const char *step_dir, int64_t f) ERR_MUST_CHECK;
// Numbers the pieces, whose files' sizes are known, and makes room for their sums.
Err manifest_cut(Manifest *m) ERR_MUST_CHECK;
int64_t manifest_bytes(const Manifest *m);  // of all files
// Local: computes the sum of piece i, wherever it lies.
Err manifest_sum(const Manifest *m, const char *step_dir, int64_t i, Id *out) ERR_MUST_CHECK;
// Local: the share of `rank` of all sizes and sums against the manifest.
Err manifest_verify(const Manifest *m, const char *step_dir, int rank, int ranks) ERR_MUST_CHECK;

#endif
