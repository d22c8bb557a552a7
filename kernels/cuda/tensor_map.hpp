// SPDX-License-Identifier: Apache-2.0
// Tensor maps: how bulk copies (TMA) find the boxes of a matrix. Host code.
#ifndef IMF_CUDA_TENSOR_MAP_HPP
#define IMF_CUDA_TENSOR_MAP_HPP

#include <cuda.h>
#include <stdint.h>

// The driver's function, which the program asks the runtime for: it is not linked.
typedef decltype(&cuTensorMapEncodeTiled) TensorMapEncoder;

// Boxes of box_rows (at most 256) rows and 64 columns of x[rows][columns], bf16; stride: elements from row to row, a multiple of 8. What
// lies outside of x is zero. false: x is not aligned to 16 bytes, or another rule of the driver is broken.
static inline bool encode_map(TensorMapEncoder encode, CUtensorMap *map, const uint16_t *x, int64_t columns, int64_t rows, int64_t stride, int box_rows)
{
    const cuuint64_t dims[2] = {(cuuint64_t)columns, (cuuint64_t)rows}, bytes[1] = {(cuuint64_t)stride * 2};
    const cuuint32_t box[2] = {64, (cuuint32_t)box_rows}, each[2] = {1, 1};
    return encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, (void *)x, dims, bytes, box, each, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                  CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

#endif
