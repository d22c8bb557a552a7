// SPDX-License-Identifier: Apache-2.0
// In place of cudnn_sdpa.c on hostcuda: op_x of the CPU computes when it is called, so that everything around the yardstick runs there.
// Its times say nothing.
#include "cudnn_sdpa.h"

#include "kernels/ops.h"

#include <stdlib.h>

struct CudnnSdpa {
    CudnnSdpaShape shape;
    CudnnSdpaTensors t;
    Ctx cpu;
};

Err cudnn_sdpa_plan(const CudnnSdpaShape *shape, const char *device, CudnnSdpa **out)
{
    CudnnSdpa *s = *out = calloc(1, sizeof *s);
    CHECK(s && !device, ERR_UNAVAILABLE, "a stand-in for cuDNN plans for hostcuda alone");
    s->shape = *shape;
    TRY(ctx_init(&s->cpu, 1));
    s->cpu.dtype = DT_BF16;
    return OK;
}

int64_t cudnn_sdpa_workspace(const CudnnSdpa *s) { return (void)s, 256; }

Err cudnn_sdpa_bind(CudnnSdpa *s, const CudnnSdpaTensors *t, void *workspace, void *stream)
{
    (void)workspace, (void)stream;
    s->t = *t;
    return OK;
}

Err cudnn_sdpa_run(CudnnSdpa *s)
{
    const CudnnSdpaShape *a = &s->shape;
    const CudnnSdpaTensors *t = &s->t;
    const int64_t N = a->N * a->D, K = a->K * a->D;
    const Segment whole = {0, (int32_t)a->T, -1, 0};
    AttnArgs f = {.q = tensor_bf16(t->q, N), .k = tensor_bf16(t->k, K), .v = tensor_bf16(t->v, K), .o = tensor_bf16(t->o, N),
                  .lse = t->lse, .seg = &whole, .T = a->T, .S = 1, .N = a->N, .K = a->K, .D = a->D, .scale = a->scale};
    AttnBwdArgs b = {.q = f.q, .k = f.k, .v = f.v, .o = f.o, .lse = t->lse, .dout = tensor_bf16(t->dout, N),
                     .dq = tensor_bf16(t->dq, N), .dk = tensor_bf16(t->dk, K), .dv = tensor_bf16(t->dv, K), .seg = &whole,
                     .T = a->T, .S = 1, .N = a->N, .K = a->K, .D = a->D, .scale = a->scale};
    const int64_t bytes = a->backward ? op_attn_bwd_workspace(&s->cpu, &b) : op_attn_fwd_workspace(&s->cpu, &f);
    void *workspace = f.workspace = b.workspace = aligned_alloc(64, (size_t)(bytes + 64) / 64 * 64);
    CHECK(workspace, ERR_UNAVAILABLE, "no memory for a workspace");
    const Err e = a->backward ? op_attn_bwd(&s->cpu, &b) : op_attn_fwd(&s->cpu, &f);
    free(workspace);
    return e;
}

void cudnn_sdpa_free(CudnnSdpa *s) { free(s); }
const char *cudnn_sdpa_version(void) { return "a stand-in for cuDNN, by the CPU"; }
