// SPDX-License-Identifier: Apache-2.0
// Tiles of bf16 in shared memory, and products of them with mma.sync.
//
// Shared memory holds rows of bf16 in columns of 16 bytes, exchanged so that eight rows of a column lie in different banks: ldmatrix and
// cp.async meet no conflict.
#ifndef IMF_CUDA_FRAGMENTS_CUH
#define IMF_CUDA_FRAGMENTS_CUH

#include "kernels/cuda/ptx.cuh"

// Byte offset of 16-byte column c of row r, for rows of WIDTH values.
template <int WIDTH> DEVICE int at(int r, int c)
{
    static_assert(WIDTH % 32 == 0, "rows of 64 bytes or more");
    const uint32_t turn = WIDTH >= 64 ? (uint32_t)r % 8 : (uint32_t)r / 2 % 4;  // unsigned: r + 8 is seen to be turned as r is
    return r * WIDTH * 2 + (int)(((uint32_t)c ^ turn) * 16);
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

// Words of a row in two neighbouring fragments of a result, as a quad of lanes holds them: afterwards a lane has two words next to each other, even
// lanes of the left fragment. Where they begin, in values: pair_column. By all lanes of a warp.
DEVICE uint2 pair_up(uint32_t left, uint32_t right, int lane)
{
    const bool is_odd = lane & 1;
    const uint32_t given = is_odd ? left : right, got = __shfl_xor_sync(~0u, given, 1);
    return {is_odd ? got : left, is_odd ? right : got};
}
DEVICE int pair_column(int lane) { return (lane & 1) * 8 + (lane & 2) * 2; }

// Row r of a lane's two, times `factor`, rounded, from `to` on: a quad of lanes writes whole sectors. is_there: else nothing is written.
template <int N> DEVICE void store_row(uint16_t *to, const float (&x)[N][4], int r, float factor, bool is_there)
{
    int lane = (int)threadIdx.x, column;
    forget(lane);  // nothing of it is kept in a loop before
    column = pair_column(lane);
    forget(column);  // one address, and offsets
#pragma unroll
    for (int j = 0; j < N; j += 2) {
        const uint32_t left = pack_bf16(x[j][2 * r] * factor, x[j][2 * r + 1] * factor);
        const uint2 v = pair_up(left, pack_bf16(x[j + 1][2 * r] * factor, x[j + 1][2 * r + 1] * factor), lane);
        if (is_there) st_u2(to + column + j * 8, v);
    }
}

#endif
