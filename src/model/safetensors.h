// SPDX-License-Identifier: Apache-2.0
// Reading safetensors: one file, or an index with shards. Every rule of the format is checked before a byte is used
// (PRS-1, PRS-2); nothing is allocated by a number from the file before it was compared with the file's size.
//
//   OFFSET  SIZE  DESCRIPTION
//   0       8     N, little endian, at most 100,000,000 and N + 8 <= file size
//   8       N     JSON object: name -> {"dtype", "shape", "data_offsets": [begin, end]}; "__metadata__": strings
//   8+N     -     data: tensors without holes or overlap, the last one ends with the file
//
// Compared with the reference reader (Python package safetensors) on 12,000 mutated files: nothing is accepted that it refuses;
// refused beyond it: keys of a tensor besides the three above, and types of less than a byte (F4, F6).
#ifndef IMF_MODEL_SAFETENSORS_H
#define IMF_MODEL_SAFETENSORS_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/hash.h"
#include "base/io.h"
#include "kernels/ops.h"

enum { ST_DIMS = 8 };

typedef struct StTensor {
    const char *name, *file;  // valid until st_close
    DType dtype;
    bool readable;            // bf16, f16 or f32; others are only measured
    int32_t dims;
    int64_t dim[ST_DIMS];
    int64_t n;                // elements
    const char *data;         // in the mapping
    int64_t bytes;
} StTensor;

typedef struct StDir {  // all tensors of a model directory, sorted by name
    StTensor *tensor;
    int64_t tensors;
    FileMap *map;       // one a file
    int64_t maps;
    Arena arena;
} StDir;

// model.safetensors, or model.safetensors.index.json and its shards (names without '/' or '..'). Local.
Err st_open(const char *dir, StDir *out) ERR_MUST_CHECK;
// One file.
Err st_open_file(const char *path, StDir *out) ERR_MUST_CHECK;
void st_close(StDir *d);

const StTensor *st_find(const StDir *d, const char *name);  // NULL: not there

// Elements first .. first+n-1 as fp32. NaN or Inf: ERR_DATA naming file, tensor and element.
Err st_read(const StTensor *t, int64_t first, int64_t n, float *out) ERR_MUST_CHECK;

// Conversion to `dtype`, to nearest, ties to even; out has n elements of that dtype. And back.
void st_encode(const float *x, int64_t n, DType dtype, void *out);
void st_decode(const void *x, int64_t n, DType dtype, float *out);
int64_t dtype_size(DType dtype);
const char *dtype_name(DType dtype);  // as the format writes it: F32, F16, BF16

// Writing: header for tensors in the given order, then the caller writes the data in that order.
typedef struct StEntry {
    const char *name;
    int32_t dims;
    int64_t dim[2];
    int64_t n;
    DType dtype;
} StEntry;
// Appends the 8 bytes of N and the padded header.
Err st_header(const StEntry *e, int64_t n, Str *out) ERR_MUST_CHECK;

#endif
