// SPDX-License-Identifier: Apache-2.0
// What the kernels for Hopper share: a block of two warpgroups that compute and one that fetches, and products of tiles with wgmma.
//
// A tile lies in shared memory as panels of 64 columns: [columns / 64][rows][64], with the 128-byte swizzle, as bulk copies leave it.
#ifndef IMF_CUDA_SM90_CUH
#define IMF_CUDA_SM90_CUH

#include "kernels/cuda/fragments.cuh"

namespace sm90 {

enum { GROUP = 128, GROUPS = 2, THREADS = GROUP * (GROUPS + 1), ROWS = 64, WARPS = GROUP * GROUPS / 32, PANEL = 64 };

// What the matrix at p is to wgmma: groups of 8 rows of 128 bytes, swizzled; from one panel to the next: `panel` bytes.
DEVICE uint64_t operand(const unsigned char *p, int panel)
{
    return (uint64_t)1 << 62 | (uint64_t)(8 * 128 >> 4) << 32 | (uint64_t)(panel >> 4) << 16 | shared_address(p) >> 4;
}

// Issues x[64][8 N] = A[64][D] . B[8 N][D]'; panel_a, panel_b: bytes from one panel to the next.
template <int D, int N> DEVICE void multiply_rows(float (&x)[N][4], uint64_t a, int panel_a, uint64_t b, int panel_b)
{
#pragma unroll
    for (int d = 0; d < D / 16; d++)
        wgmma_ss<N * 8>(x, a + (uint64_t)((d / 4 * panel_a + d % 4 * 32) >> 4), b + (uint64_t)((d / 4 * panel_b + d % 4 * 32) >> 4), d > 0);
}

// Issues x[64][8 N] (+)= A[64][16 K] . B[16 K][8 N]: A in registers.
template <int N, int K> DEVICE void multiply_columns(float (&x)[N][4], const uint32_t (&a)[K][4], uint64_t b, bool add = true)
{
#pragma unroll
    for (int k = 0; k < K; k++) wgmma_rs<N * 8, true>(x, a[k], b + (uint64_t)(k * 16 * 128 >> 4), add || k > 0);
}

// A result, rounded, as A of the next product.
template <int N> DEVICE void as_operands(uint32_t (&a)[N / 2][4], const float (&x)[N][4])
{
#pragma unroll
    for (int k = 0; k < N / 2; k++) as_operand(a[k], x[2 * k], x[2 * k + 1]);
}

// A warp no longer reads what this barrier gives back.
DEVICE void give_back(uint64_t *empty)
{
    if (threadIdx.x % 32 == 0) mbar_arrive(empty);
}

// Zeros in rows [from, to) of TILES tiles of D columns, one behind the other; panel: bytes of one. By both warpgroups that compute, whose
// threads are counted from 0; afterwards they meet at a named barrier. A whole row of a panel is cleared, so its swizzle does not matter.
template <int D, int TILES> DEVICE void clear_rows(int thread, unsigned char *tile, int from, int to, int panel, int barrier)
{
    if (from >= to) return;
    for (int i = thread; i < (to - from) * (D / 8) * TILES; i += GROUP * GROUPS) {
        const int r = from + i / (D / 8 * TILES), c = i % (D / 8), which = i / (D / 8) % TILES;
        st_u4((uint16_t *)(tile + (which * (D / PANEL) + c / 8) * panel + r * 128 + c % 8 * 16), {0, 0, 0, 0});
    }
    fence_proxy_async();
    bar_sync(barrier, GROUP * GROUPS);
}

}  // namespace sm90

#endif
