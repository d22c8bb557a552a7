// SPDX-License-Identifier: Apache-2.0
// Products of tiles in shared memory with mma.sync, and a whole tile C[128][128] = A[128][depth] . B[128][depth]'.
//
// Shared memory holds rows of bf16 in columns of 16 bytes, exchanged so that eight rows of a column lie in different banks: ldmatrix and
// cp.async meet no conflict.
#ifndef IMF_CUDA_PRODUCT_CUH
#define IMF_CUDA_PRODUCT_CUH

#include "kernels/cuda/ptx.cuh"

// Byte offset of 16-byte column c of row r, for rows of WIDTH values.
template <int WIDTH> DEVICE int at(int r, int c)
{
    static_assert(WIDTH % 32 == 0, "rows of 64 bytes or more");
    const int turn = WIDTH >= 64 ? r % 8 : r / 2 % 4;
    return r * WIDTH * 2 + (c ^ turn) * 16;
}

template <int N> DEVICE void clear(float (&x)[N][4])
{
#pragma unroll
    for (int j = 0; j < N; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) x[j][i] = 0;
}

// A fragment of A: 16 rows from `row` on, 16 columns from 8 x column on.
template <int WIDTH> DEVICE void load_a(uint32_t (&a)[4], const unsigned char *tile, int row, int column)
{
    const int lane = (int)threadIdx.x % 32;
    ldmatrix_x4(a, tile + at<WIDTH>(row + lane % 16, column + lane / 16));
}

// Two fragments of B' = 16 rows of a tile: each row is a column of the product.
template <int WIDTH> DEVICE void load_b(uint32_t (&b)[4], const unsigned char *tile, int row, int column)
{
    const int lane = (int)threadIdx.x % 32;
    ldmatrix_x4(b, tile + at<WIDTH>(row + lane / 16 * 8 + lane % 8, column + lane / 8 % 2));
}

// x[16][8 N] += A[16][D] . B[8 N][D]': A's rows begin at row a_row of a tile, B's at b_row; both lie in shared memory.
template <int D, int N, int UNROLL = D / 16>
DEVICE void multiply_rows(float (&x)[N][4], const unsigned char *a_tile, int a_row, const unsigned char *b_tile, int b_row)
{
#pragma unroll UNROLL
    for (int d = 0; d < D / 16; d++) {
        uint32_t a[4];
        load_a<D>(a, a_tile, a_row, d * 2);
#pragma unroll
        for (int j = 0; j < N / 2; j++) {
            uint32_t b[4];
            load_b<D>(b, b_tile, b_row + j * 16, d * 2);
            mma_m16n8k16(x[2 * j], a, b);
            mma_m16n8k16(x[2 * j + 1], a, b + 2);
        }
    }
}

// x[16][8 N] += A[16][16] . B[16][8 N]: A in registers, B's 16 rows begin at b_row of a tile, its columns at 8 x column.
template <int D, int N> DEVICE void multiply_columns(float (&x)[N][4], const uint32_t (&a)[4], const unsigned char *b_tile, int b_row, int column)
{
    const int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < N / 2; j++) {
        uint32_t b[4];
        ldmatrix_x4_trans(b, b_tile + at<D>(b_row + lane / 8 % 2 * 8 + lane % 8, column + j * 2 + lane / 16));
        mma_m16n8k16(x[2 * j], a, b);
        mma_m16n8k16(x[2 * j + 1], a, b + 2);
    }
}

// Two neighbouring fragments of a result, rounded, are one fragment of A: columns 16 k of the result become k of the product.
DEVICE void as_operand(uint32_t (&a)[4], const float (&left)[4], const float (&right)[4])
{
    a[0] = pack_bf16(left[0], left[1]);
    a[1] = pack_bf16(left[2], left[3]);
    a[2] = pack_bf16(right[0], right[1]);
    a[3] = pack_bf16(right[2], right[3]);
}

// --- a tile of C -----------------------------------------------------------------------------------------------------------

namespace product {

enum { SIDE = 128, DEPTH = 64, STAGES = 3, THREADS = 128 };
enum { TILE = SIDE * DEPTH * 2, BYTES = STAGES * 2 * TILE };

// Rows [first, first + 128) of a matrix, those from `rows` on zero; row r lies at index[r] where there is an index.
struct Operand {
    const uint16_t *p;
    int64_t stride;
    const int32_t *index;
    int first, rows;
};

// A warp's 64 x 64 of C: sum[i][j] is rows 16 i, columns 8 j of them.
typedef float Sums[4][8][4];

// Which rows a thread copies: every 16th.
DEVICE void find_rows(int32_t (&row)[SIDE / 16], const Operand &x)
{
#pragma unroll
    for (int i = 0; i < SIDE / 16; i++) {
        const int r = x.first + (int)threadIdx.x / 8 + i * 16;
        row[i] = r >= x.rows ? -1 : x.index ? x.index[r] : r;
    }
}

// Columns [from, from + 64) of the rows, zeros from `depth` (a multiple of 8) on.
DEVICE void fetch(unsigned char *to, const Operand &x, const int32_t (&row)[SIDE / 16], int from, int depth)
{
    const int c = (int)threadIdx.x % 8, column = from + c * 8;
#pragma unroll
    for (int i = 0; i < SIDE / 16; i++) {
        const bool there = row[i] >= 0 && column < depth;
        cp_async16(to + at<DEPTH>((int)threadIdx.x / 8 + i * 16, c), x.p + (there ? row[i] * x.stride + column : 0), there);
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
    int32_t a_row[SIDE / 16], b_row[SIDE / 16];
    const int steps = (depth + DEPTH - 1) / DEPTH;
    const auto get = [&](int step) {
        unsigned char *to = shared + step % STAGES * 2 * TILE;
        fetch(to, a, a_row, step * DEPTH, depth);
        fetch(to + TILE, b, b_row, step * DEPTH, depth);
    };
    find_rows(a_row, a);
    find_rows(b_row, b);
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
