// SPDX-License-Identifier: Apache-2.0
#include "train/compute.h"

#include <string.h>

#include "base/mem.h"
#include "par/par.h"

static Err part_begin(void *user, int32_t part, float **base);
static Err part_end(void *user, int32_t part);

// --- life ------------------------------------------------------------------------------------------------------------

static Err find_shares(Compute *c)
{
    Tile *tiles;
    int64_t n;
    TRY(MEM_ARRAY(&c->share, par_size()));
    TRY(tiles_make(c->master, &tiles, &n));
    for (int r = 0; r < par_size(); r++) {
        const TileShare s = tile_share(tiles, n, r, par_size());
        c->share[r] = (ParRange){s.begin, s.end};
    }
    mem_free(tiles);
    return OK;
}

static Err put_model(Compute *c)
{
    TRY(find_shares(c));
    TRY(model_to_device(c->host, c->ctx.device, c->master, &c->on_device));
    return ctx_alloc(&c->ctx, &c->bad, 1, sizeof *c->bad);
}

static Err open_device(Compute *c)
{
    Device *const d = c->ctx.device = c->host->gpu;
    TRY(par_device_open(d));
    TRY(par_agree(put_model(c)));
    c->model = &c->on_device;
    c->memory = device_managed(d);
    c->source = &c->memory;
    c->sink = (GradSink){.begin = part_begin, .end = part_end, .user = c};
    return OK;
}

Err compute_open(Compute *c, Ctx *host, Model *master)
{
    *c = (Compute){.host = host, .ctx = *host, .master = master, .model = master};
    if (host->gpu) return open_device(c);
    return host->dtype == DT_BF16 ? model_pack_bf16(host, master) : OK;
}

void compute_close(Compute *c)
{
    if (compute_on_device(c)) {
        void *const all[] = {c->edge, c->layer, c->sum, c->piece, c->bad};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) device_free(c->ctx.device, all[i]);
        model_free(&c->on_device);
        par_device_close();
    }
    mem_free(c->share);
    *c = (Compute){0};
}

Err compute_refresh(Compute *c)
{
    if (compute_on_device(c)) return par_agree(model_refresh(c->host, c->master, &c->on_device));
    return c->master->dtype == DT_BF16 ? model_pack_bf16(c->host, c->master) : OK;
}

Err compute_wait(Compute *c) { return compute_on_device(c) ? par_device_wait(c->ctx.device) : OK; }

// --- gradients on a device ---------------------------------------------------------------------------------------------------

// Two parts have a vocabulary in them. A tied head's gradient is the embedding's: it waits in `edge` until that part comes.
static bool is_edge(const Model *m, int32_t part) { return part + 1 == model_grad_parts(m) || (part == 0 && !m->cfg.tied); }
static float *buffer_of(const Compute *c, int32_t part) { return is_edge(c->model, part) ? c->edge : c->layer; }

enum { SMALLEST = 1 << 16 };

typedef struct Sizes {
    int64_t edge, layer, sum;  // elements
    int64_t piece;             // that are exchanged at a time: a vocabulary's in fixed point would be gigabytes
} Sizes;

static Sizes sizes_of(const Model *m, bool shard_grads, ParRange own)
{
    Sizes s = {.sum = shard_grads ? own.end - own.begin : m->elements};
    for (int32_t p = 0; p < model_grad_parts(m); p++) {
        int64_t first, n, *const most = is_edge(m, p) ? &s.edge : &s.layer;
        model_grad_part(m, p, &first, &n);
        if (n > *most) *most = n;
    }
    if (shard_grads) s.piece = s.layer / 4 > SMALLEST ? s.layer / 4 : SMALLEST;
    return s;
}

static Sizes own_sizes(const Compute *c) { return sizes_of(c->model, c->shard_grads, c->share[par_rank()]); }

int64_t compute_sum_bytes(const Model *m, bool shard_grads, ParRange own)
{
    const Sizes s = sizes_of(m, shard_grads, own);
    return (s.edge + s.layer) * (int64_t)sizeof(float) + (s.sum + s.piece) * (int64_t)sizeof(int64_t);
}

static Err alloc_zero(Compute *c, void *pp, int64_t n, int64_t size)
{
    void *p;
    TRY(device_alloc(c->ctx.device, pp, n * size));
    memcpy(&p, pp, sizeof p);
    return device_zero(c->ctx.device, p, n * size);
}

static Err alloc_sums(Compute *c)
{
    const Sizes s = own_sizes(c);
    int64_t first, n;
    TRY(alloc_zero(c, &c->edge, s.edge, sizeof *c->edge));
    TRY(alloc_zero(c, &c->layer, s.layer, sizeof *c->layer));
    TRY(alloc_zero(c, &c->sum, s.sum, sizeof *c->sum));
    if (s.piece) TRY(alloc_zero(c, &c->piece, s.piece, sizeof *c->piece));
    model_grad_part(c->model, 0, &first, &n);
    c->sink.head = tensor_f32(c->edge + (c->model->cfg.tied ? 0 : model_offset(c->model, W_HEAD, -1) - first), c->model->cfg.H);
    return OK;
}

Err compute_sum_begin(Compute *c)
{
    if (!c->sum) TRY(alloc_sums(c));
    *c->bad = 0;
    return device_zero(c->ctx.device, c->sum, own_sizes(c).sum * (int64_t)sizeof *c->sum);
}

static Err part_begin(void *user, int32_t part, float **base)
{
    Compute *c = user;
    int64_t first, n;
    model_grad_part(c->model, part, &first, &n);
    *base = buffer_of(c, part) - first;
    return OK;
}

// What the ranks own of n elements from `first` on, counted from there.
static Err owned(const Compute *c, int64_t first, int64_t n, ParRange **out)
{
    TRY(MEM_ARRAY(out, par_size()));
    for (int r = 0; r < par_size(); r++) {
        const ParRange s = {c->share[r].begin - first, c->share[r].end - first};
        ParRange *const o = &(*out)[r];
        *o = (ParRange){s.begin > 0 ? s.begin : 0, s.end < n ? s.end : n};
        if (o->begin > o->end) *o = (ParRange){0, 0};
    }
    return OK;
}

// Sums n elements from `first` on over the ranks: their owners begin with what they have, all add their row's g (NULL: nothing).
static Err exchange_piece(Compute *c, int64_t first, int64_t n, float *g, const ParRange *of)
{
    Device *const d = c->ctx.device;
    const ParRange own = of[par_rank()];
    const int64_t bytes = (own.end - own.begin) * (int64_t)sizeof *c->sum;
    int64_t *const kept = c->sum + (first + own.begin - c->share[par_rank()].begin);
    FixedAddArgs a = {g, c->piece, n, c->bad};
    TRY(device_zero(d, c->piece, n * (int64_t)sizeof *c->piece));
    if (bytes) TRY(device_copy(d, c->piece + own.begin, kept, bytes));
    if (g) TRY(op_fixed_add(&c->ctx, &a));
    TRY(par_device_sum_i64(d, c->piece, of));
    return bytes ? device_copy(d, kept, c->piece + own.begin, bytes) : OK;
}

static Err exchange(Compute *c, int64_t first, int64_t n, float *g)
{
    ParRange *of;
    TRY(owned(c, first, n, &of));
    Err err = exchange_piece(c, first, n, g, of);
    mem_free(of);
    return err;
}

static Err add_part(Compute *c, int32_t part, float *g)
{
    int64_t first, n;
    model_grad_part(c->model, part, &first, &n);
    FixedAddArgs a = {g, c->sum + first, n, c->bad};
    if (!c->shard_grads) return g ? op_fixed_add(&c->ctx, &a) : OK;
    const int64_t piece = own_sizes(c).piece;
    for (int64_t at = 0; at < n; at += piece) TRY(exchange(c, first + at, n - at < piece ? n - at : piece, g ? g + at : NULL));
    return OK;
}

static Err part_end(void *user, int32_t part) { return add_part(user, part, buffer_of(user, part)); }

Err compute_sum_absent(Compute *c)
{
    for (int32_t p = 0; p < model_grad_parts(c->model); p++) TRY(add_part(c, p, NULL));
    return compute_wait(c);
}

Err compute_sum_share(Compute *c, const int64_t **sum)
{
    *sum = c->shard_grads ? c->sum : c->sum + c->share[par_rank()].begin;
    return c->shard_grads ? OK : par_device_sum_i64(c->ctx.device, c->sum, c->share);
}
