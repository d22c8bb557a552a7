// SPDX-License-Identifier: Apache-2.0
// AMX's tile registers as plain memory, for tests on machines without them (Intel SDM, TDPBF16PS): eight tiles, each 16 rows of
// 64 bytes.
#ifndef IMF_KERNELS_CPU_AMX_ON_C_H
#define IMF_KERNELS_CPU_AMX_ON_C_H

#include <stdint.h>
#include <string.h>

static uint32_t amx_tile[8][16][16];

#define _tile_loadconfig(config) ((void)(config))
#define _tile_loadd(t, base, stride) amx_load(t, base, stride)
#define _tile_stored(t, base, stride) amx_store(t, base, stride)
#define _tile_zero(t) memset(amx_tile[t], 0, sizeof amx_tile[t])
#define _tile_dpbf16ps(c, a, b) amx_dot(c, a, b)

static void amx_load(int t, const void *base, int64_t stride)
{
    for (int r = 0; r < 16; r++) memcpy(amx_tile[t][r], (const char *)base + r * stride, 64);
}

static void amx_store(int t, void *base, int64_t stride)
{
    for (int r = 0; r < 16; r++) memcpy((char *)base + r * stride, amx_tile[t][r], 64);
}

static float amx_half(uint32_t pair, int odd)
{
    uint32_t u = odd ? pair & 0xffff0000u : pair << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static void amx_dot(int c, int a, int b)
{
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 16; n++) {
            float even = 0, odd = 0, sum;
            for (int k = 0; k < 16; k++) {
                even += amx_half(amx_tile[a][m][k], 0) * amx_half(amx_tile[b][k][n], 0);
                odd += amx_half(amx_tile[a][m][k], 1) * amx_half(amx_tile[b][k][n], 1);
            }
            memcpy(&sum, &amx_tile[c][m][n], sizeof sum);
            sum += even + odd;
            memcpy(&amx_tile[c][m][n], &sum, sizeof sum);
        }
}

#endif
