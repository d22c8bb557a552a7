// SPDX-License-Identifier: Apache-2.0
// How fast hostcuda carries out mma.sync and wgmma, in GFLOP/s of one core, with every check of their operands: fewer than 5 fail. A wgmma of N = 64 is
// measured, no more: its operands are checked for a quarter of the products that one of N = 256 makes.
#include "tests/hostcuda/arrays.hpp"

enum { BAR = 5, TURNS = 200, STEPS = 4, TILES = 16, THREADS = 128 };

// Each warp: 16 tiles of d, four steps of k a turn.
__global__ void mma_turns(float *out)
{
    uint32_t a[STEPS][4], b[STEPS][TILES][2];
    float d[TILES][4] = {};
    for (int k = 0; k < STEPS; k++) {
        for (int i = 0; i < 4; i++) a[k][i] = 0x3f803f80;
        for (int j = 0; j < TILES; j++) b[k][j][0] = b[k][j][1] = 0x3f803f80;
    }
    for (int turn = 0; turn < TURNS; turn++) {
        for (int k = 0; k < STEPS; k++)
            for (int j = 0; j < TILES; j++) mma_m16n8k16(d[j], a[k], b[k][j]);
        __syncwarp();
    }
    out[threadIdx.x] = d[TILES - 1][3];
}

// Operands of 64 values along k: A's 64 rows lie before B's N.
template <int N, bool IN_REGISTERS> __global__ void wgmma_turns(float *out)
{
    SHARED_MEMORY(shared);
    for (int i = (int)threadIdx.x; i < (64 + N) * 8; i += THREADS) st_u4((uint16_t *)shared + i * 8, {0x3f803f80, 0x3f803f80, 0x3f803f80, 0x3f803f80});
    const uint64_t layout = (uint64_t)1 << 62 | (uint64_t)(1024 >> 4) << 32, a = layout, b = layout | 8192 >> 4;
    uint32_t x[4] = {0x3f803f80, 0x3f803f80, 0x3f803f80, 0x3f803f80};
    float d[N / 8][4] = {};
    fence_proxy_async();
    __syncthreads();
    for (int turn = 0; turn < TURNS; turn++) {
        wgmma_fence();
        for (int k = 0; k < STEPS; k++) {
            if (IN_REGISTERS) wgmma_rs<N>(d, x, b + k * 2, 1);
            else wgmma_ss<N>(d, a + k * 2, b + k * 2, 1);
        }
        wgmma_commit();
        wgmma_wait<0>();
    }
    out[threadIdx.x] = d[N / 8 - 1][3];
}

// Ones times ones: each result is the number of products in its sum.
static bool is_fast(const char *name, void (*kernel)(float *), size_t shared_bytes, double flop)
{
    return speed_of(name, flop, [&] {
        Array<float> out(THREADS);
        if (!hostcuda::launch(name, kernel, 1, THREADS, shared_bytes, out.p)) return false;
        for (float x : out.read())
            if (x != TURNS * STEPS * 16) return printf("%s: %g, not %d\n", name, x, TURNS * STEPS * 16), false;
        return true;
    }) >= BAR;
}

template <int N, bool IN_REGISTERS> static bool is_fast(const char *name)
{
    return is_fast(name, wgmma_turns<N, IN_REGISTERS>, (64 + N) * 128, 2.0 * 64 * N * 16 * STEPS * TURNS);
}

int main()
{
    bool good = is_fast("mma.m16n8k16", mma_turns, 0, 2.0 * 16 * 8 * 16 * TILES * STEPS * TURNS * THREADS / 32);
    is_fast<64, false>("wgmma.m64n64k16, A shared");
    good &= is_fast<128, false>("wgmma.m64n128k16, A shared");
    good &= is_fast<256, false>("wgmma.m64n256k16, A shared");
    good &= is_fast<128, true>("wgmma.m64n128k16, A registers");
    good &= is_fast<256, true>("wgmma.m64n256k16, A registers");
    return !good;
}
