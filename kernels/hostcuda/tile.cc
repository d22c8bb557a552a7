// SPDX-License-Identifier: Apache-2.0
// The arithmetic of mma.sync and wgmma: products of small tiles. A copy of it for each vector width, chosen when the program starts; all of them round each
// product and each sum, k ascending, so every machine has the same bits (-ffp-contract=off).
#include "kernels/hostcuda/block.hpp"

#define FOR_EVERY_WIDTH __attribute__((target_clones("default", "avx2", "avx512f")))

namespace hostcuda {

typedef float Lanes __attribute__((vector_size(32)));
enum { LANES = sizeof(Lanes) / sizeof(float) };

ALWAYS_INLINE void multiply(float *d, const float *a, const float *b, int rows, int n)
{
    for (int r = 0; r < rows; r++) {
        Lanes *sum = (Lanes *)(d + r * n);
        for (int k = 0; k < DEPTH; k++) {
            const Lanes *row = (const Lanes *)(b + k * n);
            for (int j = 0; j < n / LANES; j++) sum[j] += a[r * DEPTH + k] * row[j];
        }
    }
}

FOR_EVERY_WIDTH void multiply_16x8(float *d, const float *a, const float *b) { multiply(d, a, b, 16, 8); }
FOR_EVERY_WIDTH void multiply_64xn(float *d, const float *a, const float *b, int n) { multiply(d, a, b, 64, n); }

}  // namespace hostcuda
