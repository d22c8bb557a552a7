// SPDX-License-Identifier: Apache-2.0
// Logits on Hopper: tensor maps and launches. Compiled for sm_90a alone, so it has no kernel that another file has, too: the runtime knows one
// program a kernel.
#include "kernels/cuda/logprob_sm90.cuh"
#include "kernels/cuda/ops_logprob.hpp"

using namespace logprob_sm90;

static Err maps_of(Ctx *ctx, const logprob::Logprob &l, int64_t R, Maps *m)
{
    TRY(map_of(ctx, tensor_bf16(l.hidden, l.hidden_stride), R, l.H, TOKENS, &m->hidden));
    return map_of(ctx, tensor_bf16((void *)l.head, l.head_stride), l.V, l.H, LOGITS, &m->head);
}

static dim3 tiles_of(int64_t R, int64_t columns) { return dim3(blocks_of(R, TOKENS), blocks_of(columns, LOGITS)); }

Err sm90_logprob_slices(Ctx *ctx, const logprob::Logprob &l, int64_t R)
{
    Maps m = {};
    TRY(maps_of(ctx, l, R, &m));
    TRY_CUDA(allow(logprob_slices_sm90, BYTES));
    TRY_CUDA(CUDA_LAUNCH(logprob_slices_sm90, tiles_of(R, l.V), THREADS, BYTES, stream_of(ctx), m, l));
    return OK;
}

Err sm90_logprob_gradient(Ctx *ctx, const logprob::Gradient &g, int64_t R)
{
    Maps m = {};
    TRY(maps_of(ctx, g.of, R, &m));
    TRY_CUDA(allow(logprob_gradient_sm90, BYTES));
    TRY_CUDA(CUDA_LAUNCH(logprob_gradient_sm90, tiles_of(R, g.width), THREADS, BYTES, stream_of(ctx), m, g));
    return OK;
}
