// SPDX-License-Identifier: Apache-2.0
// Order of events in a step: gradient slices arrive; tile norms are gathered and added in tile order on every rank, so all
// hold the same clip factor; node barrier (nobody reads weights any more); owners write their tiles; tiles go to the
// leaders of the other nodes; node barrier (weights may be read).
#include "train/optim.h"

#include <math.h>
#include <stddef.h>

#include "base/mem.h"
#include "base/profile.h"
#include "kernels/cuda/device.h"
#include "par/par.h"

enum { PUBLISH_TAG = 4400 };

static Err find_nodes(Optim *o)
{
    int32_t mine = par_node(), *all = NULL;
    int64_t total;
    TRY(par_allgather(&mine, (int64_t)sizeof mine, &all, &total, NULL));
    o->node_of = all;
    for (int r = 0; r < par_size(); r++)
        if (all[r] >= o->nodes) o->nodes = all[r] + 1;
    TRY(MEM_ARRAY(&o->leader, o->nodes));
    for (int r = par_size() - 1; r >= 0; r--) o->leader[all[r]] = r;
    return OK;
}

typedef struct OptimRates {
    float clip, lr;
    int64_t step;
} OptimRates;

static bool on_device(const Optim *o) { return compute_on_device(o->on); }
static int64_t share_elements(const Optim *o) { return o->share.end - o->share.begin; }
static int64_t tile_blocks(const Tile *t) { return (t->n + NORM_BLOCK - 1) / NORM_BLOCK; }

static Err open_moments(Optim *o)
{
    const int64_t n = share_elements(o);
    Device *const d = o->on->ctx.device;
    TRY(MEM_ARRAY(&o->host_m, n));
    TRY(MEM_ARRAY(&o->host_v, n));
    o->m = o->host_m, o->v = o->host_v, o->w = o->model->w + o->share.begin;
    if (!d) return OK;
    o->m = o->v = o->w = NULL;
    TRY(device_alloc(d, &o->m, n * (int64_t)sizeof *o->m));
    TRY(device_alloc(d, &o->v, n * (int64_t)sizeof *o->v));
    return device_alloc(d, &o->w, n * (int64_t)sizeof *o->w);
}

static Err open_state(Optim *o)
{
    int64_t blocks = 0;
    TRY(tiles_make(o->model, &o->tiles, &o->n_tiles));
    o->share = tile_share(o->tiles, o->n_tiles, par_rank(), par_size());
    for (int64_t i = o->share.first; i < o->share.last; i++) blocks += tile_blocks(&o->tiles[i]);
    TRY(open_moments(o));
    TRY(ctx_alloc(&o->on->ctx, &o->rates, 1, sizeof *o->rates));
    return ctx_alloc(&o->on->ctx, &o->block, blocks, sizeof *o->block);
}

static Err put_share(Optim *o)
{
    Device *const d = o->on->ctx.device;
    const int64_t bytes = share_elements(o) * (int64_t)sizeof(float);
    TRY(device_put(d, o->m, o->host_m, bytes));
    TRY(device_put(d, o->v, o->host_v, bytes));
    return device_put(d, o->w, o->model->w + o->share.begin, bytes);
}

Err optim_open(Optim *o, Compute *on, const OptimSpec *spec)
{
    *o = (Optim){.on = on, .model = on->master, .spec = *spec};
    TRY(par_agree(open_state(o)));
    TRY(find_nodes(o));
    return on_device(o) ? par_agree(put_share(o)) : OK;
}

int64_t optim_bytes(TileShare share) { return 2 * (share.end - share.begin) * (int64_t)sizeof(float); }

// fp32 weights, moments and gradient, and the squares' sums.
int64_t optim_device_bytes(TileShare share)
{
    const int64_t n = share.end - share.begin;
    return 4 * n * (int64_t)sizeof(float) + (n / NORM_BLOCK + share.last - share.first) * (int64_t)sizeof(double);
}

void optim_free(Optim *o)
{
    if (o->on && on_device(o)) {
        float *const all[] = {o->m, o->v, o->w, o->own_g};
        for (int i = 0; i < 4; i++) device_free(o->on->ctx.device, all[i]);
    } else {
        mem_free(o->own_g);
    }
    if (o->on) {
        ctx_free(&o->on->ctx, o->rates);
        ctx_free(&o->on->ctx, o->block);
    }
    mem_free(o->host_m);
    mem_free(o->host_v);
    mem_free(o->tiles);
    mem_free(o->node_of);
    mem_free(o->leader);
    *o = (Optim){0};
}

// --- the norm --------------------------------------------------------------------------------------------------------------

static Err own_norms(Optim *o, double *own)
{
    double *at = o->block;
    for (int64_t i = o->share.first; i < o->share.last; at += tile_blocks(&o->tiles[i++])) {
        SqNormArgs a = {.g = o->g + (o->tiles[i].offset - o->share.begin), .n = o->tiles[i].n, .sum = at};
        TRY(op_sqnorm(&o->on->ctx, &a));
    }
    TRY(ctx_wait(&o->on->ctx));
    at = o->block;
    for (int64_t i = o->share.first; i < o->share.last; at += tile_blocks(&o->tiles[i++])) {
        own[i - o->share.first] = 0;
        for (int64_t b = 0; b < tile_blocks(&o->tiles[i]); b++) own[i - o->share.first] += at[b];
    }
    return OK;
}

static Err global_norm(Optim *o, double *norm)
{
    int64_t n = o->share.last - o->share.first, bytes;
    double *own = NULL, *all = NULL, sum = 0;
    Err err = OK;
    TRY(par_agree(MEM_ARRAY(&own, n)));
    TRY_DONE(par_agree(own_norms(o, own)));
    TRY_DONE(par_allgather(own, n * (int64_t)sizeof *own, &all, &bytes, NULL));
    for (int64_t i = 0; i < o->n_tiles; i++) sum += all[i];
    *norm = sqrt(sum);
done:
    mem_free(own);
    mem_free(all);
    return err;
}

// --- the update ------------------------------------------------------------------------------------------------------------

static bool is_vector(const Optim *o, const Tile *t) { return o->model->spec[t->spec].rows == 1; }

static bool decays(const Optim *o, const Tile *t)
{
    WeightKind k = o->model->spec[t->spec].kind;
    return k != W_NORM_ATTN && k != W_NORM_MLP && k != W_NORM_FINAL && k != W_QKV_BIAS;
}

static Err update_tile(Optim *o, const Tile *t)
{
    const OptimSpec *s = &o->spec;
    const int64_t at = t->offset - o->share.begin;
    AdamWArgs a = {.w = o->w + at, .m = o->m + at, .v = o->v + at, .g = o->g + at, .n = t->n, .clip = &o->rates->clip,
                   .lr = &o->rates->lr, .step = &o->rates->step, .beta1 = (float)s->beta1, .beta2 = (float)s->beta2,
                   .eps = (float)s->eps, .decay = decays(o, t) ? (float)s->decay : 0.0f};
    if (on_device(o) && !is_vector(o, t)) a.rounded = (uint16_t *)o->on->on_device.bf16 + t->offset;
    return op_adamw(&o->on->ctx, &a);
}

// Sends the own share to the leaders of the other nodes; a leader receives the shares of the ranks of other nodes. A model
// that is not shared (every rank its own copy) would need more: optim_step refuses it on several ranks.
static Err publish(Optim *o)
{
    ParRequest **request = NULL;
    int32_t n = 0;
    Err err = OK;
    if (o->nodes == 1) return OK;
    TRY(MEM_ARRAY(&request, (int64_t)o->nodes + par_size()));
    for (int r = 0; par_node_rank() == 0 && r < par_size(); r++) {
        TileShare s = tile_share(o->tiles, o->n_tiles, r, par_size());
        if (o->node_of[r] == par_node() || s.begin == s.end) continue;
        TRY_DONE(par_irecv(o->model->w + s.begin, (s.end - s.begin) * (int64_t)sizeof(float), r, PUBLISH_TAG, &request[n++]));
    }
    for (int32_t k = 0; k < o->nodes; k++)
        if (k != par_node() && o->share.begin < o->share.end)
            TRY_DONE(par_isend(o->model->w + o->share.begin, (o->share.end - o->share.begin) * (int64_t)sizeof(float),
                               o->leader[k], PUBLISH_TAG, &request[n++]));
    for (int32_t i = 0; i < n; i++) TRY_DONE(par_wait(request[i]));
done:
    mem_free(request);
    return err;
}

// --- on a device -------------------------------------------------------------------------------------------------------------

static Err update_vectors(Optim *o)
{
    Model *const m = &o->on->on_device;
    for (int64_t i = o->share.first; i < o->share.last; i++) {
        const Tile *t = &o->tiles[i];
        if (!is_vector(o, t)) continue;
        TRY(update_tile(o, t));
        TRY(device_copy(m->device, m->vectors + m->spec[t->spec].vector, o->w + (t->offset - o->share.begin), t->n * (int64_t)sizeof(float)));
    }
    return OK;
}

// The own matrices of a part of the model (GradSink).
static Err update_part(Optim *o, int32_t part)
{
    int64_t first, n;
    model_grad_part(o->model, part, &first, &n);
    for (int64_t i = o->share.first; i < o->share.last; i++) {
        const Tile *t = &o->tiles[i];
        if (!is_vector(o, t) && t->offset >= first && t->offset < first + n) TRY(update_tile(o, t));
    }
    return OK;
}

static Err gradient_of_device(Optim *o)
{
    Device *const d = o->on->ctx.device;
    const int64_t n = share_elements(o);
    if (!o->own_g) TRY(device_alloc(d, &o->own_g, n * (int64_t)sizeof *o->own_g));
    o->g = o->own_g;
    FixedGetArgs a = {.g = o->g, .n = n};
    TRY(compute_sum_share(o->on, &a.sum));
    if (n) TRY(op_fixed_get(&o->on->ctx, &a));
    return par_device_wait(d);
}

// The gradient's norm; infinite when an element of any rank did not fit.
static Err norm_on_device(Optim *o, double *norm)
{
    int64_t bad;
    TRY(par_agree(gradient_of_device(o)));
    bad = *o->on->bad;
    TRY(par_max_i64(&bad, 1));
    TRY(global_norm(o, norm));
    if (bad) *norm = INFINITY;
    return OK;
}

// --- on the host -------------------------------------------------------------------------------------------------------------

// The own share of the gradient lies where the own chains' sum lay; a rank without chains needs memory of its own.
static Err place_gradient(Optim *o, const ChainSum *sum)
{
    if (sum->nodes > 0) {
        o->g = sum->node[0].g + o->share.begin;
        return OK;
    }
    if (!o->own_g) TRY(MEM_ARRAY(&o->own_g, o->share.end - o->share.begin));
    o->g = o->own_g;
    return OK;
}

static Err norm_on_host(Optim *o, const ChainSum *sum, int32_t active, double *norm)
{
    TRY(par_agree(place_gradient(o, sum)));
    TRY(chain_reduce(sum, active, o->tiles, o->n_tiles, o->g));
    return global_norm(o, norm);
}

static Err update_tiles(Optim *o)
{
    for (int64_t i = o->share.first; i < o->share.last; i++) TRY(update_tile(o, &o->tiles[i]));
    return OK;
}

static Err update_on_host(Optim *o)
{
    TRY(par_node_barrier());
    TRY(par_agree(update_tiles(o)));
    TRY(publish(o));
    TRY(par_node_barrier());
    return compute_refresh(o->on);
}

// Parts in the order in which the next forward reads them: one travels while the next is updated.
static Err update_on_device(Optim *o)
{
    TRY(update_vectors(o));
    TRY(compute_send_vectors(o->on));
    for (int32_t p = model_grad_parts(o->model); p-- > 0;) {
        TRY(update_part(o, p));
        TRY(compute_send_part(o->on, p));
    }
    return OK;
}

Err optim_step(Optim *o, const ChainSum *sum, int32_t active, double lr, int64_t step, double *norm)
{
    PROFILE(PHASE_OPTIM);
    RANGE_ON(&o->on->ctx, "optimiser");
    const OptimSpec *s = &o->spec;
    ASSERT(o->model->shared || par_size() == 1);
    TRY(on_device(o) ? norm_on_device(o, norm) : norm_on_host(o, sum, active, norm));
    if (!isfinite(*norm)) return OK;
    const float clip = s->max_norm > 0 ? fminf(1.0f, (float)s->max_norm / ((float)*norm + 1e-6f)) : 1.0f;
    *o->rates = (OptimRates){clip, (float)lr, step};
    return on_device(o) ? par_agree(update_on_device(o)) : update_on_host(o);
}

// --- to and from checkpoints -------------------------------------------------------------------------------------------------

static Err fetch_share(Optim *o)
{
    Device *const d = o->on->ctx.device;
    const int64_t bytes = share_elements(o) * (int64_t)sizeof(float);
    TRY(compute_wait_weights(o->on));
    TRY(device_get(d, o->host_m, o->m, bytes));
    TRY(device_get(d, o->host_v, o->v, bytes));
    return device_get(d, o->model->w + o->share.begin, o->w, bytes);
}

Err optim_fetch(Optim *o)
{
    if (!on_device(o)) return OK;
    TRY(par_node_barrier());
    TRY(par_agree(fetch_share(o)));
    TRY(publish(o));
    return par_node_barrier();
}

Err optim_put(Optim *o)
{
    if (on_device(o)) TRY(par_agree(put_share(o)));
    return compute_refresh(o->on);
}
