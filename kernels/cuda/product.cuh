// SPDX-License-Identifier: Apache-2.0
// C[128][128] = A[128][depth] . B[128][depth]' of bf16, kept in registers, with mma.sync.
#ifndef IMF_CUDA_PRODUCT_CUH
#define IMF_CUDA_PRODUCT_CUH

#include "kernels/cuda/fragments.cuh"

namespace product {

enum { SIDE = 128, DEPTH = 64, STAGES = 3, THREADS = 128 };
enum { TILE = SIDE * DEPTH * 2, BYTES = STAGES * 2 * TILE };

// Rows [first, first + 128) of a matrix, those from `rows` on zero.
struct Operand {
    const uint16_t *p;
    int64_t stride;
    int first, rows;
};

// A warp's 64 x 64 of C: sum[i][j] is rows 16 i, columns 8 j of them.
typedef float Sums[4][8][4];

// Columns [from, from + 64) of the rows, zeros from `depth` (a multiple of 8) on. A thread copies every 16th row.
DEVICE void fetch(unsigned char *to, const Operand &x, int from, int depth)
{
    const int c = (int)threadIdx.x % 8, column = from + c * 8;
#pragma unroll
    for (int i = 0; i < SIDE / 16; i++) {
        const int r = (int)threadIdx.x / 8 + i * 16;
        const bool there = x.first + r < x.rows && column < depth;
        cp_async16(to + at<DEPTH>(r, c), x.p + (there ? (x.first + r) * x.stride + column : 0), there);
    }
}

// One warp's share of a step: 64 x 64 x DEPTH.
DEVICE void multiply(Sums &sum, const unsigned char *a_tile, const unsigned char *b_tile)
{
    const int warp = (int)threadIdx.x / 32, row = warp / 2 * 64, column = warp % 2 * 64;
#pragma unroll
    for (int d = 0; d < DEPTH / 16; d++) {
        uint32_t a[4][4];
#pragma unroll
        for (int i = 0; i < 4; i++) load_a<DEPTH>(a[i], a_tile, row + i * 16, d * 2);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            uint32_t b[4];
            load_b<DEPTH>(b, b_tile, column + j * 16, d * 2);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                mma_m16n8k16(sum[i][2 * j], a[i], b);
                mma_m16n8k16(sum[i][2 * j + 1], a[i], b + 2);
            }
        }
    }
}

// All of it. Products are added in the order of depth, 16 at a time, wherever a row lies: its bits depend on the two rows alone.
DEVICE void multiply_all(Sums &sum, unsigned char *shared, const Operand &a, const Operand &b, int depth)
{
    const int steps = (depth + DEPTH - 1) / DEPTH;
    const auto get = [&](int step) {
        unsigned char *to = shared + step % STAGES * 2 * TILE;
        fetch(to, a, step * DEPTH, depth);
        fetch(to + TILE, b, step * DEPTH, depth);
    };
#pragma unroll
    for (int i = 0; i < 4; i++) clear(sum[i]);
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < steps) get(step);
        cp_async_commit();
    }
    for (int step = 0; step < steps; step++) {
        cp_async_wait<STAGES - 2>();
        __syncthreads();  // this step's tiles have come, and those of the step before are read
        if (step + STAGES - 1 < steps) get(step + STAGES - 1);
        cp_async_commit();
        const unsigned char *tile = shared + step % STAGES * 2 * TILE;
        multiply(sum, tile, tile + TILE);
    }
}

// Row and column in the tile of sum[i][j][e] of this lane.
DEVICE int row_of(int i, int e) { return (int)threadIdx.x / 64 * 64 + i * 16 + (int)threadIdx.x % 32 / 4 + e / 2 * 8; }
DEVICE int column_of(int j, int e) { return (int)threadIdx.x / 32 % 2 * 64 + j * 8 + (int)threadIdx.x % 4 * 2 + e % 2; }

}  // namespace product

#endif
