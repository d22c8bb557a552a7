// SPDX-License-Identifier: Apache-2.0
// Order of events in a step: gradient slices arrive; tile norms are gathered and added in tile order on every rank, so all
// hold the same clip factor; node barrier (nobody reads weights any more); owners write their tiles; tiles go to the
// leaders of the other nodes; node barrier (weights may be read).
#include "train/optim.h"

#include <math.h>
#include <stddef.h>

#include "base/mem.h"
#include "base/profile.h"
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

static Err open_state(Optim *o)
{
    TRY(tiles_make(o->model, &o->tiles, &o->n_tiles));
    o->share = tile_share(o->tiles, o->n_tiles, par_rank(), par_size());
    int64_t n = o->share.end - o->share.begin, blocks = 1;
    for (int64_t i = o->share.first; i < o->share.last; i++) {
        int64_t need = (o->tiles[i].n + NORM_BLOCK - 1) / NORM_BLOCK;
        if (need > blocks) blocks = need;
    }
    TRY(MEM_ARRAY(&o->m, n));
    TRY(MEM_ARRAY(&o->v, n));
    TRY(MEM_ARRAY(&o->block, blocks));
    return OK;
}

Err optim_open(Optim *o, Model *model, const OptimSpec *spec)
{
    *o = (Optim){.model = model, .spec = *spec};
    TRY(par_agree(open_state(o)));
    TRY(find_nodes(o));
    return OK;
}

int64_t optim_bytes(TileShare share) { return 2 * (share.end - share.begin) * (int64_t)sizeof(float); }

void optim_free(Optim *o)
{
    mem_free(o->tiles);
    mem_free(o->m);
    mem_free(o->v);
    mem_free(o->own_g);
    mem_free(o->block);
    mem_free(o->node_of);
    mem_free(o->leader);
    *o = (Optim){0};
}

static Err tile_norm(Optim *o, Ctx *ctx, const Tile *t, double *sum)
{
    SqNormArgs a = {.g = o->g + (t->offset - o->share.begin), .n = t->n, .sum = o->block};
    TRY(op_sqnorm(ctx, &a));
    *sum = 0;
    for (int64_t b = 0; b < (t->n + NORM_BLOCK - 1) / NORM_BLOCK; b++) *sum += o->block[b];
    return OK;
}

static Err own_norms(Optim *o, Ctx *ctx, double *own)
{
    for (int64_t i = o->share.first; i < o->share.last; i++) TRY(tile_norm(o, ctx, &o->tiles[i], &own[i - o->share.first]));
    return OK;
}

static Err global_norm(Optim *o, Ctx *ctx, double *norm)
{
    int64_t n = o->share.last - o->share.first, bytes;
    double *own = NULL, *all = NULL, sum = 0;
    Err err = OK;
    TRY(par_agree(MEM_ARRAY(&own, n)));
    TRY_DONE(par_agree(own_norms(o, ctx, own)));
    TRY_DONE(par_allgather(own, n * (int64_t)sizeof *own, &all, &bytes, NULL));
    for (int64_t i = 0; i < o->n_tiles; i++) sum += all[i];
    *norm = sqrt(sum);
done:
    mem_free(own);
    mem_free(all);
    return err;
}

static bool decays(const Optim *o, const Tile *t)
{
    WeightKind k = o->model->spec[t->spec].kind;
    return k != W_NORM_ATTN && k != W_NORM_MLP && k != W_NORM_FINAL && k != W_QKV_BIAS;
}

static Err update_tiles(Optim *o, Ctx *ctx, float clip, float lr, int64_t step)
{
    for (int64_t i = o->share.first; i < o->share.last; i++) {
        const Tile *t = &o->tiles[i];
        int64_t at = t->offset - o->share.begin;
        AdamWArgs a = {.w = o->model->w + t->offset, .m = o->m + at, .v = o->v + at, .g = o->g + at, .n = t->n,
                       .clip = &clip, .lr = &lr, .step = &step, .beta1 = (float)o->spec.beta1,
                       .beta2 = (float)o->spec.beta2, .eps = (float)o->spec.eps,
                       .decay = decays(o, t) ? (float)o->spec.decay : 0.0f};
        TRY(op_adamw(ctx, &a));
    }
    return OK;
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

Err optim_step(Optim *o, Ctx *ctx, const ChainSum *sum, int32_t active, double lr, int64_t step, double *norm)
{
    PROFILE(PHASE_OPTIM);
    ASSERT(o->model->shared || par_size() == 1);
    TRY(par_agree(place_gradient(o, sum)));
    TRY(chain_reduce(sum, active, o->tiles, o->n_tiles, o->g));
    TRY(global_norm(o, ctx, norm));
    if (!isfinite(*norm)) return OK;
    float clip = 1.0f;
    if (o->spec.max_norm > 0) clip = fminf(1.0f, (float)o->spec.max_norm / ((float)*norm + 1e-6f));
    TRY(par_node_barrier());
    TRY(par_agree(update_tiles(o, ctx, clip, (float)lr, step)));
    TRY(publish(o));
    return par_node_barrier();
}
