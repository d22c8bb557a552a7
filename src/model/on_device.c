// SPDX-License-Identifier: Apache-2.0
// A model's copy in the memory of a device: matrices in bf16, each value where the fp32 block has it; norms and biases in fp32.
#include <string.h>

#include "base/mem.h"
#include "kernels/cuda/device.h"
#include "model/weights.h"
#include "par/par.h"

enum { PIECE = 1 << 20 };  // values that are rounded at a time

static Err put_matrix(Ctx *host, const float *w, uint16_t *piece, Model *out, const WeightSpec *s)
{
    const int64_t n = s->rows * s->cols;
    for (int64_t at = 0; at < n; at += PIECE) {
        const int64_t some = n - at < PIECE ? n - at : PIECE;
        RoundArgs a = {tensor_f32((float *)w + at, some), tensor_bf16(piece, some), 1, some};
        TRY(op_round(host, &a));
        TRY(device_put(out->device, (uint16_t *)out->bf16 + s->offset + at, piece, some * 2));
    }
    return OK;
}

Err model_refresh(Ctx *host, const Model *m, Model *out)
{
    uint16_t *piece;
    Err err = OK;
    ASSERT(m->w && !host->device);
    TRY(MEM_ARRAY(&piece, PIECE));
    for (int32_t i = 0; err == OK && i < m->specs; i++) {
        const WeightSpec *s = &m->spec[i];
        const float *w = m->w + s->offset;
        err = s->rows > 1 ? put_matrix(host, w, piece, out, s) : device_put(out->device, out->vectors + s->vector, w, s->cols * 4);
    }
    mem_free(piece);
    return err;
}

int64_t model_device_bytes(const Model *m) { return m->elements * 2 + m->vector_elements * 4 + rope_bytes(&m->cfg); }

static Err copy_layout(const Model *m, Model *out)
{
    TRY(MEM_ARRAY(&out->spec, m->specs));
    memcpy(out->spec, m->spec, (size_t)m->specs * sizeof *m->spec);
    if (m->dir) TRY(mem_strdup(&out->dir, m->dir));
    TRY(weight_memory(out, m->elements * 2, &out->bf16));
    TRY(device_zero(out->device, out->bf16, m->elements * 2));  // what lies between matrices travels with them
    TRY(weight_memory(out, m->vector_elements * 4, &out->vectors));
    TRY(device_zero(out->device, out->vectors, m->vector_elements * 4));
    TRY(weight_memory(out, rope_bytes(&m->cfg), &out->rope));
    return device_put(out->device, out->rope, m->rope, rope_bytes(&m->cfg));
}

Err model_load_to_compute(Ctx *ctx, const char *dir, bool shared, Model *out)
{
    Model master;
    if (!ctx->gpu) return model_load_as(out, dir, ctx->dtype, shared);
    TRY(model_load(&master, dir, shared));
    Err err = model_to_device(ctx, ctx->gpu, &master, out);
    if (shared) err = par_agree(err);
    model_free(&master);
    return err;
}

Err model_load_to_decode(Ctx *ctx, const char *dir, bool shared, Model *out)
{
    TRY(model_load_to_compute(ctx, dir, shared, out));
    return out->device ? OK : model_pack(ctx, out);
}

Err model_to_device(Ctx *host, Device *device, Model *m, Model *out)
{
    ASSERT(m->w && m->dtype == DT_F32);
    TRY(weight_mark_bf16(m));
    *out = *m;
    out->spec = NULL, out->w = NULL, out->bf16 = NULL, out->vectors = NULL, out->rope = NULL, out->dir = NULL;
    out->dtype = DT_BF16, out->shared = false, out->device = device;
    Err err = copy_layout(m, out);
    if (err == OK) err = model_refresh(host, m, out);
    if (err != OK) model_free(out);
    return err;
}
