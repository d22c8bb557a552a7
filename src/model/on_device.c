// SPDX-License-Identifier: Apache-2.0
// A model's copy in the memory of a device: matrices in bf16, each value where the fp32 block has it; norms and biases in fp32.
#include <string.h>

#include "base/mem.h"
#include "base/profile.h"
#include "kernels/cuda/device.h"
#include "model/weights.h"
#include "par/par.h"

enum { PIECE = 1 << 20 };  // values that are rounded at a time

typedef struct Pieces {
    float *w;         // [PIECE], for what comes from files
    uint16_t *half;   // [PIECE]
} Pieces;

static void pieces_free(Pieces *p)
{
    mem_free(p->w);
    mem_free(p->half);
}

// At most PIECE values of s, from its value `at` on.
static Err put_piece(Ctx *host, Model *out, const WeightSpec *s, int64_t at, const float *w, int64_t n, const Pieces *p)
{
    if (s->rows == 1) return device_put(out->device, out->vectors + s->vector + at, w, n * 4);
    RoundArgs a = {tensor_f32((float *)w, n), tensor_bf16(p->half, n), 1, n};
    TRY(op_round(host, &a));
    return device_put(out->device, (uint16_t *)out->bf16 + s->offset + at, p->half, n * 2);
}

static int64_t some_of(int64_t left) { return left < PIECE ? left : PIECE; }

static Err put_block(Ctx *host, const Model *m, Model *out, const Pieces *p)
{
    for (int32_t i = 0; i < m->specs; i++) {
        const WeightSpec *s = &m->spec[i];
        const int64_t n = s->rows * s->cols;
        for (int64_t at = 0; at < n; at += PIECE) TRY(put_piece(host, out, s, at, m->w + s->offset + at, some_of(n - at), p));
    }
    return OK;
}

Err model_refresh(Ctx *host, const Model *m, Model *out)
{
    Pieces p = {0};
    ASSERT(m->w && !host->device);
    Err err = MEM_ARRAY(&p.half, PIECE);
    if (err == OK) err = put_block(host, m, out, &p);
    pieces_free(&p);
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

// A model of m's layout on the device, its weights zero.
static Err begin_on_device(const Model *m, Device *device, Model *out)
{
    *out = *m;
    out->spec = NULL, out->w = NULL, out->bf16 = NULL, out->vectors = NULL, out->rope = NULL, out->dir = NULL;
    out->dtype = DT_BF16, out->shared = false, out->device = device;
    return copy_layout(m, out);
}

Err model_to_device(Ctx *host, Device *device, Model *m, Model *out)
{
    ASSERT(m->w && m->dtype == DT_F32);
    TRY(weight_mark_bf16(m));
    Err err = begin_on_device(m, device, out);
    if (err == OK) err = model_refresh(host, m, out);
    if (err != OK) model_free(out);
    return err;
}

// --- from files ------------------------------------------------------------------------------------------------------

static Err put_part(Ctx *host, const StDir *st, const WeightPart *part, Model *out, const WeightSpec *s, const Pieces *p)
{
    const StTensor *t;
    TRY(weight_find(st, part, &t));
    for (int64_t at = 0; at < t->n; at += PIECE) {
        TRY(st_read(t, at, some_of(t->n - at), p->w));
        TRY(put_piece(host, out, s, part->offset - s->offset + at, p->w, some_of(t->n - at), p));
    }
    return OK;
}

// Parts lie in the order of the specs that they belong to.
static Err put_parts(Ctx *host, const StDir *st, Model *out, const Pieces *p)
{
    const WeightSpec *s = out->spec;
    WeightPart *part;
    int64_t n;
    Err err = OK;
    TRY(weight_parts(out, &part, &n));
    for (int64_t i = 0; err == OK && i < n; i++) {
        while (part[i].offset >= s->offset + s->rows * s->cols) s++;
        err = put_part(host, st, &part[i], out, s, p);
    }
    mem_free(part);
    return err;
}

static Err put_files(Ctx *host, const StDir *st, const Model *files, Model *out)
{
    Pieces p = {0};
    Err err = begin_on_device(files, host->gpu, out);
    if (err == OK) err = MEM_ARRAY(&p.w, PIECE);
    if (err == OK) err = MEM_ARRAY(&p.half, PIECE);
    if (err == OK) err = put_parts(host, st, out, &p);
    pieces_free(&p);
    if (err != OK) model_free(out);
    return err;
}

// No rank of a node holds the weights on the host, not even in turns.
static Err load_to_device(Ctx *ctx, const char *dir, bool shared, Model *out)
{
    PROFILE(PHASE_IO);
    Model files;
    StDir st;
    TRY(weight_files(&files, dir, DT_BF16, shared, &st));
    const Err err = put_files(ctx, &st, &files, out);
    st_close(&st);
    model_free(&files);
    return shared ? par_agree(err) : err;
}

Err model_load_to_compute(Ctx *ctx, const char *dir, bool shared, Model *out)
{
    return ctx->gpu ? load_to_device(ctx, dir, shared, out) : model_load_as(out, dir, ctx->dtype, shared);
}

Err model_load_to_decode(Ctx *ctx, const char *dir, bool shared, Model *out)
{
    TRY(model_load_to_compute(ctx, dir, shared, out));
    return out->device ? OK : model_pack(ctx, out);
}
