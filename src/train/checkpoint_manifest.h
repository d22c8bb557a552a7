// MANIFEST.json: the commit record of a checkpoint. A checkpoint without one that parses and matches does not exist.
#ifndef IMF_TRAIN_CHECKPOINT_MANIFEST_H
#define IMF_TRAIN_CHECKPOINT_MANIFEST_H

#include "train/checkpoint.h"
#include "train/checkpoint_file.h"

typedef struct ManifestTensor {
    char name[TENSOR_NAME];
    int64_t rows, cols;
} ManifestTensor;

typedef struct Manifest {
    TrainState state;
    int ranks;                  // that wrote it
    int64_t bytes;              // of the file
    Id *piece;                  // [pieces] sums of FILE_PIECE bytes each; owned
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

// Sum of piece i of an open file of `bytes` bytes.
Err manifest_piece(const char *path, int64_t bytes, int64_t i, Id *out) ERR_MUST_CHECK;
// Local: pieces rank, rank + ranks, ... of the file, and its size, against the manifest.
Err manifest_verify(const Manifest *m, const char *path, int rank, int ranks) ERR_MUST_CHECK;

#endif
