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

// A vector is one tile.
static Err find_vectors(Compute *c)
{
    TRY(MEM_ARRAY(&c->vectors, par_size()));
    for (int32_t i = 0; i < c->master->specs; i++) {
        const WeightSpec *s = &c->master->spec[i];
        for (int r = 0; r < par_size(); r++) {
            ParRange *const v = &c->vectors[r];
            if (s->rows > 1 || s->offset < c->share[r].begin || s->offset >= c->share[r].end) continue;
            if (v->begin == v->end) v->begin = s->vector;
            v->end = s->vector + s->cols;
        }
    }
    return OK;
}

static Err put_model(Compute *c)
{
    TRY(find_shares(c));
    TRY(find_vectors(c));
    TRY(MEM_ARRAY(&c->arrived, model_grad_parts(c->master)));
    TRY(model_to_device(c->host, c->ctx.device, c->master, &c->on_device));
    c->on_device.arrived = c->arrived;
    TRY(device_beside(c->ctx.device, &c->link));
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
        void *const all[] = {c->edge, c->layer, c->sum, c->portion[0].x, c->portion[1].x, c->bad};
        DeviceMark *const marks[] = {c->portion[0].made, c->portion[0].free, c->portion[1].made, c->portion[1].free, c->made, c->summed};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) device_free(c->ctx.device, all[i]);
        model_free(&c->on_device);
        par_device_close();
        device_close(c->link);
        for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) device_mark_free(marks[i]);
        for (int32_t p = 0; c->arrived && p < model_grad_parts(c->master); p++) device_mark_free(c->arrived[p]);
    }
    mem_free(c->arrived);
    mem_free(c->vectors);
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
    int64_t portion;           // that are exchanged at a time
} Sizes;

static Sizes sizes_of(const Model *m, bool shard_grads, ParRange own)
{
    Sizes s = {.sum = shard_grads ? own.end - own.begin : m->elements};
    for (int32_t p = 0; p < model_grad_parts(m); p++) {
        int64_t first, n, *const most = is_edge(m, p) ? &s.edge : &s.layer;
        model_grad_part(m, p, &first, &n);
        if (n > *most) *most = n;
    }
    if (shard_grads) s.portion = s.layer / 8 > SMALLEST ? s.layer / 8 : SMALLEST;
    return s;
}

static Sizes own_sizes(const Compute *c) { return sizes_of(c->model, c->shard_grads, c->share[par_rank()]); }

int64_t compute_sum_bytes(const Model *m, bool shard_grads, ParRange own)
{
    const Sizes s = sizes_of(m, shard_grads, own);
    return (s.edge + s.layer) * (int64_t)sizeof(float) + (s.sum + 2 * s.portion) * (int64_t)sizeof(int64_t);
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
    for (int i = 0; i < 2 && s.portion; i++) TRY(alloc_zero(c, &c->portion[i].x, s.portion, sizeof *c->portion[i].x));
    model_grad_part(c->model, 0, &first, &n);
    c->sink.head = tensor_f32(c->edge + (c->model->cfg.tied ? 0 : model_offset(c->model, W_HEAD, -1) - first), c->model->cfg.H);
    return OK;
}

Err compute_sum_begin(Compute *c, int64_t rows, int64_t most)
{
    if (!c->sum) TRY(alloc_sums(c));
    *c->bad = 0;
    c->rows = rows;
    c->absent = c->shard_grads ? most - rows : most > 0 && rows == 0;
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

// Sums n elements from `first` on over the ranks: their owners begin with what they have, all add their row's g (NULL: nothing). The two
// portions are used in turns: one travels while ops go on and fill the other. When a portion is free again, so is all that travelled before it; so
// `kept`, which travelled with the row before, three parts ago at least.
static Err exchange_portion(Compute *c, int64_t first, int64_t n, float *g, const ParRange *of)
{
    Device *const d = c->ctx.device;
    Portion *const p = &c->portion[c->turn ^= 1];
    const ParRange own = of[par_rank()];
    const int64_t bytes = (own.end - own.begin) * (int64_t)sizeof *c->sum;
    int64_t *const kept = c->sum + (first + own.begin - c->share[par_rank()].begin);
    FixedAddArgs a = {g, p->x, n, c->bad};
    TRY(device_after(d, p->free));
    TRY(device_zero(d, p->x, n * (int64_t)sizeof *p->x));
    if (bytes) TRY(device_copy(d, p->x + own.begin, kept, bytes));
    if (g) TRY(op_fixed_add(&c->ctx, &a));
    TRY(device_mark(d, &p->made));
    TRY(device_after(c->link, p->made));
    TRY(par_device_sum_i64(c->link, p->x, of));
    if (bytes) TRY(device_copy(c->link, kept, p->x + own.begin, bytes));
    return device_mark(c->link, &p->free);
}

// shard: states: n elements from `first` on are summed over this rank's rows.
static Err exchange_sums(Compute *c, int64_t first, const ParRange *of)
{
    TRY(device_mark(c->ctx.device, &c->made));
    TRY(device_after(c->link, c->made));
    return par_device_sum_i64(c->link, c->sum + first, of);
}

static Err exchange(Compute *c, int64_t first, int64_t n, float *g)
{
    ParRange *of;
    TRY(owned(c, first, n, &of));
    Err err = c->shard_grads ? exchange_portion(c, first, n, g, of) : exchange_sums(c, first, of);
    mem_free(of);
    return err;
}

// last: no row of this rank comes after it.
static Err add_part(Compute *c, int32_t part, float *g, bool last)
{
    int64_t first, n;
    model_grad_part(c->model, part, &first, &n);
    FixedAddArgs a = {g, c->sum + first, n, c->bad};
    if (!c->shard_grads && g) TRY(op_fixed_add(&c->ctx, &a));
    if (!c->shard_grads) return last ? exchange(c, first, n, g) : OK;
    const int64_t portion = own_sizes(c).portion;
    for (int64_t at = 0; at < n; at += portion) TRY(exchange(c, first + at, n - at < portion ? n - at : portion, g ? g + at : NULL));
    return OK;
}

static Err part_end(void *user, int32_t part)
{
    Compute *c = user;
    TRY(add_part(c, part, buffer_of(c, part), c->rows == 1));
    if (part + 1 == model_grad_parts(c->model)) c->rows--;
    return OK;
}

Err compute_sum_absent(Compute *c)
{
    for (; c->absent > 0; c->absent--)
        for (int32_t p = 0; p < model_grad_parts(c->model); p++) TRY(add_part(c, p, NULL, true));
    return compute_wait(c);
}

Err compute_sum_share(Compute *c, const int64_t **sum)
{
    ASSERT(c->rows == 0 && c->absent == 0);
    *sum = c->shard_grads ? c->sum : c->sum + c->share[par_rank()].begin;
    TRY(device_mark(c->link, &c->summed));
    return device_after(c->ctx.device, c->summed);
}

// --- weights on a device -----------------------------------------------------------------------------------------------------

// Nothing is staged: the optimiser writes where the model's ops read, and so does what comes. The sums of the next step, for which
// the optimiser waits, travel behind, so that what is sent stays until then.
static Err send(Compute *c, void *x, int64_t size, const ParRange *of)
{
    TRY(device_mark(c->ctx.device, &c->made));
    TRY(device_after(c->link, c->made));
    return par_device_share(c->link, x, size, of);
}

Err compute_send_vectors(Compute *c) { return send(c, c->on_device.vectors, (int64_t)sizeof *c->on_device.vectors, c->vectors); }

Err compute_send_part(Compute *c, int32_t part)
{
    int64_t first, n;
    ParRange *of;
    model_grad_part(c->model, part, &first, &n);
    TRY(owned(c, first, n, &of));
    const Err err = send(c, (uint16_t *)c->on_device.bf16 + first, (int64_t)sizeof(uint16_t), of);
    mem_free(of);
    TRY(err);
    return device_mark(c->link, &c->arrived[part]);
}

Err compute_wait_weights(Compute *c) { return compute_on_device(c) ? par_device_wait(c->link) : OK; }
