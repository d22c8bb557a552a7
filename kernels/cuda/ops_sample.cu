// SPDX-License-Identifier: Apache-2.0
// cuda_sample: one token a row of logits.
#include "kernels/cuda/sample.cuh"  // first: kernels/sample.h is for kernels here

#include "kernels/cuda/device.hpp"

Err cuda_sample(Ctx *ctx, const SampleArgs *a)
{
    ASSERT(a->rows > 0 && a->V > 0);
    TRY_CUDA(CUDA_LAUNCH(sample_rows, (unsigned)a->rows, sample::THREADS, sizeof(sample::Shared), stream_of(ctx), *a));
    return OK;
}
