// SPDX-License-Identifier: Apache-2.0
// What cuBLASLt can do at best with y[n][n] = x[n][n] . w[n][n]^T in bf16: the algorithms that its heuristic offers when it may take a
// workspace and split k as it likes, which law 1 forbids imf.
#ifndef IMF_TESTS_GEMM_PEAK_H
#define IMF_TESTS_GEMM_PEAK_H

#include "kernels/cuda/device.h"

typedef struct GemmPeak GemmPeak;

// *count: how many algorithms there are. x, w and y stay the caller's, memory that the device reaches.
Err gemm_peak_open(Device *d, int64_t n, const Tensor *x, const Tensor *w, const Tensor *y, GemmPeak **out,
                   int *count) ERR_MUST_CHECK;
Err gemm_peak_run(const GemmPeak *p, int which) ERR_MUST_CHECK;  // into the device's stream
void gemm_peak_close(GemmPeak *p);                               // NULL: nothing

#endif
