// SPDX-License-Identifier: Apache-2.0
// cublasLtMatmul as one operation of a stream. Descriptors are read when it is called, memory when it runs.
#include "kernels/hostcuda/cublasLt.h"

#include <vector>

#include "kernels/hostcuda/block.hpp"

struct HostcudaMatmul {
    cublasOperation_t a = CUBLAS_OP_N, b = CUBLAS_OP_N;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    const void *bias = nullptr;
    cudaDataType_t bias_type = CUDA_R_16BF;
};
struct HostcudaLayout {
    cudaDataType type;
    uint64_t rows, cols;
    int64_t ld;
};
struct HostcudaPreference {};

namespace {

size_t width(cudaDataType t) { return t == CUDA_R_32F ? 4 : 2; }

struct Matrix {
    const char *p;
    HostcudaLayout l;

    float at(uint64_t r, uint64_t c) const
    {
        const uint64_t i = c * (uint64_t)l.ld + r;
        if (l.type == CUDA_R_32F) return ((const float *)p)[i];
        return low_bf16(((const uint16_t *)p)[i]);
    }
    // Is all of it inside one allocation?
    bool there() const { return !l.cols || hostcuda::device_holds(p, ((l.cols - 1) * (uint64_t)l.ld + l.rows) * width(l.type)); }
};

// One product, with everything that it needs.
struct Job {
    HostcudaMatmul how;
    Matrix a, b, c;
    char *d;
    HostcudaLayout out;
    float alpha, beta;
    uint64_t k;

    float a_at(uint64_t m, uint64_t i) const { return how.a == CUBLAS_OP_N ? a.at(m, i) : a.at(i, m); }
    float b_at(uint64_t i, uint64_t n) const { return how.b == CUBLAS_OP_N ? b.at(i, n) : b.at(n, i); }
    float bias_at(uint64_t m) const
    {
        if (how.epilogue != CUBLASLT_EPILOGUE_BIAS) return 0;
        return how.bias_type == CUDA_R_32F ? ((const float *)how.bias)[m] : low_bf16(((const uint16_t *)how.bias)[m]);
    }
    void put(uint64_t m, uint64_t n, float v) const
    {
        const uint64_t i = n * (uint64_t)out.ld + m;
        if (out.type == CUDA_R_32F) ((float *)d)[i] = v;
        else ((uint16_t *)d)[i] = (uint16_t)pack_bf16(v, 0);
    }
    cudaError_t run() const
    {
        const bool reads_bias = how.epilogue == CUBLASLT_EPILOGUE_BIAS;
        if (!a.there() || !b.there() || (beta != 0 && !c.there()) || !Matrix{d, out}.there()) return cudaErrorInvalidValue;
        if (reads_bias && !hostcuda::device_holds(how.bias, out.rows * width(how.bias_type))) return cudaErrorInvalidValue;
        std::vector<float> left(out.rows * k), column(k), sum(out.rows);
        for (uint64_t i = 0; i < k; i++)
            for (uint64_t m = 0; m < out.rows; m++) left[i * out.rows + m] = a_at(m, i);
        for (uint64_t n = 0; n < out.cols; n++) {
            std::fill(sum.begin(), sum.end(), 0.0f);
            for (uint64_t i = 0; i < k; i++) {
                const float x = b_at(i, n), *row = &left[i * out.rows];
                for (uint64_t m = 0; m < out.rows; m++) sum[m] += row[m] * x;
            }
            for (uint64_t m = 0; m < out.rows; m++) put(m, n, alpha * sum[m] + (beta != 0 ? beta * c.at(m, n) : 0) + bias_at(m));
            if (!hostcuda::device_written(d + n * (uint64_t)out.ld * width(out.type), out.rows * width(out.type))) return cudaErrorInvalidValue;
        }
        return cudaSuccess;
    }
};

template <typename T> cublasStatus_t set(T *to, const void *value, size_t bytes)
{
    if (bytes != sizeof *to) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

// Shapes and types that cuBLASLt refuses.
bool fits(const Job &j)
{
    const bool at = j.how.a != CUBLAS_OP_N, bt = j.how.b != CUBLAS_OP_N;
    const uint64_t m = at ? j.a.l.cols : j.a.l.rows, k = at ? j.a.l.rows : j.a.l.cols, kb = bt ? j.b.l.cols : j.b.l.rows, n = bt ? j.b.l.rows : j.b.l.cols;
    for (const HostcudaLayout &l : {j.a.l, j.b.l, j.c.l, j.out})
        if (l.ld < (int64_t)l.rows) return false;
    for (const void *p : {(const void *)j.a.p, (const void *)j.b.p, (const void *)j.c.p, (const void *)j.d})
        if ((uintptr_t)p % 16) return false;
    return m == j.out.rows && n == j.out.cols && k == kb && j.c.l.rows == m && j.c.l.cols == n && j.a.l.type == CUDA_R_16BF && j.b.l.type == CUDA_R_16BF &&
           j.c.l.type == j.out.type;
}

}  // namespace

extern "C" {

const char *cublasLtGetStatusString(cublasStatus_t s) { return s == CUBLAS_STATUS_SUCCESS ? "success" : "an invalid value or a case that is not supported"; }
cublasStatus_t cublasLtCreate(cublasLtHandle_t *h) { return *h = (cublasLtHandle_t) new char, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtDestroy(cublasLtHandle_t h) { return delete (char *)h, CUBLAS_STATUS_SUCCESS; }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *d, cublasComputeType_t, cudaDataType_t) { return *d = new HostcudaMatmul, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) { return delete d, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t what, const void *value, size_t bytes)
{
    switch (what) {
    case CUBLASLT_MATMUL_DESC_TRANSA: return set(&d->a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB: return set(&d->b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return set(&d->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return set(&d->bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: return set(&d->bias_type, value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType type, uint64_t rows, uint64_t cols, int64_t ld)
{
    *l = new HostcudaLayout{type, rows, cols, ld};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) { return delete l, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p) { return *p = new HostcudaPreference, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) { return delete p, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t, const void *, size_t) { return CUBLAS_STATUS_SUCCESS; }

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatmulPreference_t, int, cublasLtMatmulHeuristicResult_t results[], int *n)
{
    results[0] = {};
    *n = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t d, const void *alpha, const void *A, cublasLtMatrixLayout_t a, const void *B,
                              cublasLtMatrixLayout_t b, const void *beta, const void *C, cublasLtMatrixLayout_t c, void *D, cublasLtMatrixLayout_t out,
                              const cublasLtMatmulAlgo_t *, void *, size_t, cudaStream_t s)
{
    const Job j = {*d, {(const char *)A, *a}, {(const char *)B, *b}, {(const char *)C, *c}, (char *)D, *out, *(const float *)alpha, *(const float *)beta,
                   d->a == CUBLAS_OP_N ? a->cols : a->rows};
    if (!fits(j)) return CUBLAS_STATUS_NOT_SUPPORTED;
    return hostcuda::enqueue_call(s, [j] { return j.run(); }) == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

}  // extern "C"
