// SPDX-License-Identifier: Apache-2.0
// cuda_gemm_*: products with weights by cuBLASLt.
//
// cuBLASLt's matrices are column-major, so ours are their transposes: y[T][out] is (out x T) there, and w[out][in] is (in x out). The algorithm
// is asked for once a kind of product, for a fixed number of tokens, without workspace and without splitting k: then a row of the
// result does not depend on how many there are.
#include "kernels/cuda/device.hpp"
#include "kernels/cuda/rows.cuh"

enum { SOME_TOKENS = 1024 };  // for which algorithms are chosen

// Descriptors of one call.
struct Plan {
    cublasLtMatmulDesc_t how = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr, d = nullptr;

    ~Plan()
    {
        for (cublasLtMatrixLayout_t l : {a, b, c, d})
            if (l) (void)cublasLtMatrixLayoutDestroy(l);
        if (how) (void)cublasLtMatmulDescDestroy(how);
    }
};

static Err describe(Plan *plan, const Product &p)
{
    const cudaDataType out = p.kind.bf16_out ? CUDA_R_16BF : CUDA_R_32F;
    const cublasOperation_t turn_a = p.kind.turn_a ? CUBLAS_OP_T : CUBLAS_OP_N, turn_b = p.kind.turn_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    const uint64_t m = (uint64_t)p.m, n = (uint64_t)p.n, k = (uint64_t)p.k;
    TRY_LT(cublasLtMatmulDescCreate(&plan->how, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    TRY_LT(cublasLtMatmulDescSetAttribute(plan->how, CUBLASLT_MATMUL_DESC_TRANSA, &turn_a, sizeof turn_a));
    TRY_LT(cublasLtMatmulDescSetAttribute(plan->how, CUBLASLT_MATMUL_DESC_TRANSB, &turn_b, sizeof turn_b));
    if (p.bias) {
        const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
        const cudaDataType type = CUDA_R_32F;
        const void *const bias = p.bias;
        TRY_LT(cublasLtMatmulDescSetAttribute(plan->how, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
        TRY_LT(cublasLtMatmulDescSetAttribute(plan->how, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type, sizeof type));
        TRY_LT(cublasLtMatmulDescSetAttribute(plan->how, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
    }
    TRY_LT(cublasLtMatrixLayoutCreate(&plan->a, CUDA_R_16BF, p.kind.turn_a ? k : m, p.kind.turn_a ? m : k, p.lda));
    TRY_LT(cublasLtMatrixLayoutCreate(&plan->b, CUDA_R_16BF, p.kind.turn_b ? n : k, p.kind.turn_b ? k : n, p.ldb));
    TRY_LT(cublasLtMatrixLayoutCreate(&plan->c, out, m, n, p.c ? p.ldc : p.ldd));
    TRY_LT(cublasLtMatrixLayoutCreate(&plan->d, out, m, n, p.ldd));
    return OK;
}

static Err ask(Device *d, const Plan &plan, cublasLtMatmulPreference_t preference, cublasLtMatmulAlgo_t *out)
{
    const uint64_t workspace = 0;
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_NONE;
    cublasLtMatmulHeuristicResult_t best;
    int n = 0;
    TRY_LT(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace));
    TRY_LT(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof reductions));
    TRY_LT(cublasLtMatmulAlgoGetHeuristic(d->lt, plan.how, plan.a, plan.b, plan.c, plan.d, preference, 1, &best, &n));
    CHECK(n > 0, ERR_UNAVAILABLE, "cuBLASLt has no algorithm for this product on this device");
    *out = best.algo;
    return OK;
}

// The kind's algorithm, chosen when it is first needed.
static Err choose(Device *d, const Product &p, cublasLtMatmulAlgo_t *out)
{
    for (const Device::Chosen &c : d->chosen)
        if (c.kind == p.kind) return *out = c.algorithm, OK;
    Plan plan;
    Product some = p;
    cublasLtMatmulPreference_t preference;
    (some.kind.k ? some.n : some.k) = SOME_TOKENS;
    TRY(describe(&plan, some));
    TRY_LT(cublasLtMatmulPreferenceCreate(&preference));
    const Err err = ask(d, plan, preference, out);
    (void)cublasLtMatmulPreferenceDestroy(preference);
    if (err == OK) d->chosen.push_back({p.kind, *out});
    return err;
}

Err multiply(Ctx *ctx, const Product &p)
{
    const float one = 1, beta = p.c ? 1 : 0;
    cublasLtMatmulAlgo_t algorithm;
    Plan plan;
    if (!p.m || !p.n || !p.k) return OK;
    TRY(choose(ctx->device, p, &algorithm));
    TRY(describe(&plan, p));
    TRY_LT(cublasLtMatmul(ctx->device->lt, plan.how, &one, p.a, plan.a, p.b, plan.b, &beta, p.c ? p.c : p.d, plan.c, p.d, plan.d, &algorithm, nullptr, 0,
                          stream_of(ctx)));
    return OK;
}

// --- the ops -----------------------------------------------------------------------------------------------------------------

Err cuda_gemm_fwd(Ctx *ctx, const GemmArgs *a)
{
    const bool half = a->y.dtype == DT_BF16;
    ASSERT_TYPE(a->x, DT_BF16);
    ASSERT_TYPE(a->w, DT_BF16);
    ASSERT(a->y.stride % 8 == 0 && !(a->add.p && (half || a->add.dtype != DT_F32)));
    const Product p = {a->w.p, a->x.p, a->add.p, a->y.p, a->w.stride, a->x.stride, a->add.stride, a->y.stride, a->out, a->T, a->in, a->bias,
                       {true, false, half, a->bias != nullptr, a->add.p != nullptr, a->out, a->in}};
    return multiply(ctx, p);
}

Err cuda_gemm_bwd_x(Ctx *ctx, const GemmDxArgs *a)
{
    ASSERT_TYPE(a->dy, DT_BF16);
    ASSERT_TYPE(a->w, DT_BF16);
    ASSERT(a->dx.stride % 8 == 0);
    const Product p = {a->w.p, a->dy.p, nullptr, a->dx.p, a->w.stride, a->dy.stride, 0, a->dx.stride, a->in, a->T, a->out, nullptr,
                       {false, false, a->dx.dtype == DT_BF16, false, false, a->in, a->out}};
    return multiply(ctx, p);
}

Err cuda_gemm_bwd_w(Ctx *ctx, const GemmDwArgs *a)
{
    ASSERT_TYPE(a->dy, DT_BF16);
    ASSERT_TYPE(a->x, DT_BF16);
    ASSERT_TYPE(a->dw, DT_F32);
    for (int32_t r = 0; r < a->rows; r++) {
        const int64_t from = a->row[r], tokens = a->row[r + 1] - from;
        const Product p = {bf16(a->x) + from * a->x.stride, bf16(a->dy) + from * a->dy.stride, a->dw.p, a->dw.p, a->x.stride, a->dy.stride, a->dw.stride,
                           a->dw.stride, a->in, a->out, tokens, nullptr, {false, true, false, false, true, a->in, 0}};
        TRY(multiply(ctx, p));
    }
    const rows::Bias b = {bf16(a->dy), a->dbias, a->row, a->rows, a->dy.stride, a->out};
    if (a->dbias) TRY_CUDA(CUDA_LAUNCH(bias_bwd, blocks_of(a->out, rows::WARP), rows::SUM_THREADS, rows::SUM_BYTES, stream_of(ctx), b));
    return OK;
}
