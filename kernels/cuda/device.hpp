// SPDX-License-Identifier: Apache-2.0
// What the ops of kernels/cuda share on the host's side.
#ifndef IMF_CUDA_DEVICE_HPP
#define IMF_CUDA_DEVICE_HPP

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <unordered_map>
#include <vector>

extern "C" {
#include "kernels/cuda/device.h"
}
#include "kernels/cuda/tensor_map.hpp"

// What decides which algorithm multiplies: never how many tokens there are (law 1).
struct GemmKind {
    bool turn_a, turn_b, bf16_out, bias, add;
    int64_t m, k;  // k = 0: it is the number of tokens

    bool operator==(const GemmKind &o) const
    {
        return turn_a == o.turn_a && turn_b == o.turn_b && bf16_out == o.bf16_out && bias == o.bias && add == o.add && m == o.m && k == o.k;
    }
};

struct Device {
    std::unordered_map<void *, int64_t> allocated;
    int64_t bytes, peak;
    int architecture;         // 10 x major + minor of its compute capability
    TensorMapEncoder encode;  // the driver's; NULL where kernels for Hopper do not run
    cudaStream_t stream;
    cublasLtHandle_t lt;
    struct Chosen {
        GemmKind kind;
        cublasLtMatmulAlgo_t algorithm;
    };
    std::vector<Chosen> chosen;
};

// Shared memory beyond 48 KB must be asked for.
template <typename... P> static inline cudaError_t allow(void (*kernel)(P...), int bytes)
{
    return cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

// Kernels for Hopper (*_sm90) run on compute capability 9.0. An op's form depends on that alone.
static inline bool is_hopper(const Ctx *ctx) { return ctx->device->encode != nullptr; }

static inline cudaStream_t stream_of(const Ctx *ctx) { return ctx->device->stream; }

// An error of the device is no fault of the caller's: it is told with the op's name.
#define TRY_CUDA(call)                                                                                          \
    do {                                                                                                        \
        const cudaError_t cuda_error_ = (call);                                                                 \
        CHECK(cuda_error_ == cudaSuccess, ERR_UNAVAILABLE, "%s: CUDA: %s", __func__, cudaGetErrorString(cuda_error_)); \
    } while (0)

#define TRY_LT(call)                                                                                                         \
    do {                                                                                                                     \
        const cublasStatus_t lt_status_ = (call);                                                                            \
        CHECK(lt_status_ == CUBLAS_STATUS_SUCCESS, ERR_UNAVAILABLE, "%s: cuBLASLt: %s", __func__, cublasLtGetStatusString(lt_status_)); \
    } while (0)

// d[m x n] = op(a)[m x k] op(b)[k x n] (+ c) (+ bias[m]), column-major; a and b are bf16, c has d's type.
struct Product {
    const void *a, *b, *c;  // c NULL: none
    void *d;
    int64_t lda, ldb, ldc, ldd, m, n, k;
    const float *bias;
    GemmKind kind;
};
Err multiply(Ctx *ctx, const Product &p) ERR_MUST_CHECK;

#define ASSERT_TYPE(tensor, type) ASSERT((tensor).dtype == (type) && (tensor).stride % 8 == 0)

static inline float *f32(const Tensor &t) { return (float *)t.p; }
static inline uint16_t *bf16(const Tensor &t) { return (uint16_t *)t.p; }

// How bulk copies read x[rows >= 1][columns], in boxes of box_rows x 64.
static inline Err map_of(const Ctx *ctx, const Tensor &x, int64_t rows, int64_t columns, int box_rows, CUtensorMap *map)
{
    ASSERT_TYPE(x, DT_BF16);
    ASSERT(encode_map(ctx->device->encode, map, bf16(x), columns, rows, x.stride, box_rows));
    return OK;
}

static inline int64_t round64(int64_t bytes) { return (bytes + 63) / 64 * 64; }
static inline unsigned blocks_of(int64_t n, int64_t each) { return (unsigned)((n + each - 1) / each); }

#endif
