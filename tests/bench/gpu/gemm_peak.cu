// SPDX-License-Identifier: Apache-2.0
// cuBLASLt's matrices are column-major: ours are their transposes, so it computes y' = w x'.
#include "kernels/cuda/device.hpp"

extern "C" {
#include "tests/bench/gpu/gemm_peak.h"
}

enum { MOST = 16 };
static const uint64_t WORKSPACE = 64 << 20;

struct GemmPeak {
    Device *device;
    const void *x, *w;
    void *y, *workspace;
    cublasLtMatmulDesc_t how;
    cublasLtMatrixLayout_t layout;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t found[MOST];
};

static Err describe(GemmPeak *p, uint64_t n, int *count)
{
    const cublasOperation_t turn = CUBLAS_OP_T;
    TRY_LT(cublasLtMatmulDescCreate(&p->how, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    TRY_LT(cublasLtMatmulDescSetAttribute(p->how, CUBLASLT_MATMUL_DESC_TRANSA, &turn, sizeof turn));
    TRY_LT(cublasLtMatrixLayoutCreate(&p->layout, CUDA_R_16BF, n, n, (int64_t)n));
    TRY_LT(cublasLtMatmulPreferenceCreate(&p->preference));
    TRY_LT(cublasLtMatmulPreferenceSetAttribute(p->preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE,
                                                sizeof WORKSPACE));
    TRY_LT(cublasLtMatmulAlgoGetHeuristic(p->device->lt, p->how, p->layout, p->layout, p->layout, p->layout, p->preference,
                                          MOST, p->found, count));
    CHECK(*count > 0, ERR_UNAVAILABLE, "cuBLASLt has no algorithm for a product of %llu^3", (unsigned long long)n);
    return device_alloc(p->device, &p->workspace, (int64_t)WORKSPACE);
}

Err gemm_peak_open(Device *d, int64_t n, const Tensor *x, const Tensor *w, const Tensor *y, GemmPeak **out, int *count)
{
    *out = new GemmPeak{d, x->p, w->p, y->p, nullptr, nullptr, nullptr, nullptr, {}};
    return describe(*out, (uint64_t)n, count);
}

Err gemm_peak_run(const GemmPeak *p, int which)
{
    const float one = 1, zero = 0;
    TRY_LT(cublasLtMatmul(p->device->lt, p->how, &one, p->w, p->layout, p->x, p->layout, &zero, p->y, p->layout, p->y,
                          p->layout, &p->found[which].algo, p->workspace, (size_t)WORKSPACE, p->device->stream));
    return OK;
}

void gemm_peak_close(GemmPeak *p)
{
    if (!p) return;
    if (p->preference) (void)cublasLtMatmulPreferenceDestroy(p->preference);
    if (p->layout) (void)cublasLtMatrixLayoutDestroy(p->layout);
    if (p->how) (void)cublasLtMatmulDescDestroy(p->how);
    device_free(p->device, p->workspace);
    delete p;
}
