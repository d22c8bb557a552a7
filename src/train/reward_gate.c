// SPDX-License-Identifier: Apache-2.0
// The gate: a small MLP on the prompt's hidden state, trained with the Bradley-Terry loss on frozen objectives.
//
//   u = logit_scale * sum_k g_k (r'_k(good) - r'_k(bad)), g = softmax(MLP(h) / temperature), loss = -log sigmoid(u)
//
// AdamW without decay, cosine to 0. A batch is a slice of a permutation of the training pairs per epoch.
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "train/dataset.h"
#include "train/reward_heads.h"
#include "train/schedule.h"

enum { STREAM_INIT = 105, STREAM_DROPOUT = 106 };

typedef struct Param {  // one trained array with its gradient and moments
    float *w, *g, *m, *v;
    int64_t n;
} Param;

typedef struct Gate {
    Ctx *ctx;
    const RewardData *d;
    const Features *f;
    const HeadSpec *spec;
    RewardHead *h;
    Arena arena;
    int64_t B, K, train_pairs, epoch;
    int32_t *pair;                          // [train_pairs] indices into d->pair
    int64_t *order;                         // [train_pairs]
    double *objective;                      // [answers][K] r'
    float *x[REWARD_GATE_LAYERS + 1];       // [B][stride]: input of layer i; x[L] = logits
    float *dx[REWARD_GATE_LAYERS + 1];
    int64_t stride[REWARD_GATE_LAYERS + 1];
    Param weight[REWARD_GATE_LAYERS], bias[REWARD_GATE_LAYERS], scale;
    float *scale_w;                         // logit_scale while it is trained
} Gate;

static Err param(Gate *g, Param *p, float *w, int64_t n)
{
    *p = (Param){.w = w, .n = n};
    TRY(ARENA_ARRAY(&g->arena, &p->g, n));
    TRY(ARENA_ARRAY(&g->arena, &p->m, n));
    TRY(ARENA_ARRAY(&g->arena, &p->v, n));
    memset(p->g, 0, (size_t)n * sizeof *p->g);
    memset(p->m, 0, (size_t)n * sizeof *p->m);
    memset(p->v, 0, (size_t)n * sizeof *p->v);
    return OK;
}

// U(-1/sqrt(in), 1/sqrt(in)), the usual start of a linear layer.
static void draw(const Gate *g, float *w, int64_t n, int64_t in, uint64_t which)
{
    double bound = 1 / sqrt((double)in);
    for (int64_t i = 0; i < n; i++)
        w[i] = (float)(bound * (2 * rng_uniform(rng_key(g->spec->seed, (uint64_t)STREAM_INIT << 32 | which), (uint64_t)i) - 1));
}

static Err open_layers(Gate *g)
{
    RewardHead *h = g->h;
    for (int64_t i = 0; i <= h->gate_layers; i++) {
        int64_t width = i < h->gate_layers ? reward_gate_in(h, i) : g->K;
        g->stride[i] = (width + 3) / 4 * 4;
        TRY(ARENA_ARRAY(&g->arena, &g->x[i], g->B * g->stride[i]));
        TRY(ARENA_ARRAY(&g->arena, &g->dx[i], g->B * g->stride[i]));
    }
    for (int64_t i = 0; i < h->gate_layers; i++) {
        int64_t in = reward_gate_in(h, i), out = reward_gate_out(h, i);
        TRY(param(g, &g->weight[i], h->gate_w[i], in * out));
        TRY(param(g, &g->bias[i], h->gate_b[i], out));
        draw(g, h->gate_w[i], in * out, in, 2 * (uint64_t)i);
        draw(g, h->gate_b[i], out, in, 2 * (uint64_t)i + 1);
    }
    TRY(ARENA_ARRAY(&g->arena, &g->scale_w, 1));
    *g->scale_w = 1;
    return param(g, &g->scale, g->scale_w, 1);
}

static Err open_pairs(Gate *g)
{
    TRY(ARENA_ARRAY(&g->arena, &g->pair, g->d->pairs));
    for (int64_t i = 0; i < g->d->pairs; i++)
        if (!g->d->held[g->d->answer[g->d->pair[i].good].row]) g->pair[g->train_pairs++] = (int32_t)i;
    CHECK(g->train_pairs > 0, ERR_DATA, "every preference pair is held out; lower reward_train.val_size");
    TRY(ARENA_ARRAY(&g->arena, &g->order, g->train_pairs));
    TRY(ARENA_ARRAY(&g->arena, &g->objective, g->d->answers * g->K));
    for (int64_t i = 0; i < g->d->answers; i++) heads_objectives(g->h, g->f->last + i * g->h->H, g->objective + i * g->K);
    g->B = g->spec->gate_batch < g->train_pairs ? g->spec->gate_batch : g->train_pairs;
    g->epoch = -1;
    return OK;
}

static const RewardPair *pair_at(Gate *g, int64_t step, int64_t b)
{
    int64_t per_epoch = g->train_pairs / g->B, epoch = step / per_epoch, k = step % per_epoch;
    if (epoch != g->epoch) dataset_order(g->spec->seed, epoch, g->train_pairs, g->order);
    g->epoch = epoch;
    return &g->d->pair[g->pair[g->order[k * g->B + b]]];
}

// x = relu(x), some units switched off and the others scaled up.
static void activate(Gate *g, int64_t layer, int64_t step)
{
    double drop = g->spec->gate_dropout;
    RngKey key = rng_key(g->spec->seed, (uint64_t)STREAM_DROPOUT << 32 | (uint64_t)layer);
    int64_t n = g->B * g->stride[layer];
    for (int64_t i = 0; i < n; i++) {
        float *x = &g->x[layer][i];
        bool off = *x <= 0 || (drop > 0 && rng_uniform(key, (uint64_t)(step * n + i)) < drop);
        *x = off ? 0 : (float)(*x / (1 - drop));
    }
}

static Err forward(Gate *g, int64_t step)
{
    const RewardHead *h = g->h;
    for (int64_t b = 0; b < g->B; b++)
        memcpy(g->x[0] + b * g->stride[0], g->f->gating + pair_at(g, step, b)->good * h->H, (size_t)h->H * sizeof(float));
    for (int64_t i = 0; i < h->gate_layers; i++) {
        GemmArgs a = {.x = tensor_f32(g->x[i], g->stride[i]), .w = tensor_f32(h->gate_w[i], reward_gate_in(h, i)),
                      .y = tensor_f32(g->x[i + 1], g->stride[i + 1]), .bias = h->gate_b[i], .T = g->B,
                      .in = reward_gate_in(h, i), .out = reward_gate_out(h, i)};
        TRY(op_gemm_fwd(g->ctx, &a));
        if (i + 1 < h->gate_layers) activate(g, i + 1, step);
    }
    return OK;
}

// Loss of one pair and its gradient at the logits; returns the loss.
static double pair_loss(Gate *g, const RewardPair *p, const float *logit, float *dlogit)
{
    const double *good = g->objective + p->good * g->K, *bad = g->objective + p->bad * g->K;
    double T = g->h->temperature, top = -INFINITY, sum = 0, mean = 0, scale = *g->scale_w, gate[REWARD_OBJECTIVES];
    for (int64_t k = 0; k < g->K; k++) top = fmax(top, logit[k] / T);
    for (int64_t k = 0; k < g->K; k++) sum += gate[k] = exp(logit[k] / T - top);
    for (int64_t k = 0; k < g->K; k++) mean += (gate[k] /= sum) * (good[k] - bad[k]);
    double u = scale * mean, du = -1 / (1 + exp(u)) / (double)g->B;
    for (int64_t k = 0; k < g->K; k++) dlogit[k] = (float)(du * scale * gate[k] * (good[k] - bad[k] - mean) / T);
    *g->scale.g += (float)(du * mean);
    return (fmax(-u, 0) + log1p(exp(-fabs(u)))) / (double)g->B;
}

static Err backward(Gate *g)
{
    const RewardHead *h = g->h;
    int32_t row[2] = {0, (int32_t)g->B};
    for (int64_t i = h->gate_layers - 1; i >= 0; i--) {
        int64_t in = reward_gate_in(h, i), out = reward_gate_out(h, i);
        memset(g->weight[i].g, 0, (size_t)g->weight[i].n * sizeof(float));
        memset(g->bias[i].g, 0, (size_t)g->bias[i].n * sizeof(float));
        GemmDwArgs w = {.dy = tensor_f32(g->dx[i + 1], g->stride[i + 1]), .x = tensor_f32(g->x[i], g->stride[i]),
                        .dw = tensor_f32(g->weight[i].g, in), .dbias = g->bias[i].g, .row = row, .rows = 1, .in = in, .out = out};
        TRY(op_gemm_bwd_w(g->ctx, &w));
        if (i == 0) break;
        GemmDxArgs x = {.dy = w.dy, .w = tensor_f32(h->gate_w[i], in), .dx = tensor_f32(g->dx[i], g->stride[i]), .T = g->B,
                        .in = in, .out = out};
        TRY(op_gemm_bwd_x(g->ctx, &x));
        double keep = 1 - g->spec->gate_dropout;
        for (int64_t k = 0; k < g->B * g->stride[i]; k++) g->dx[i][k] = g->x[i][k] > 0 ? (float)(g->dx[i][k] / keep) : 0;
    }
    return OK;
}

static Err update(Gate *g, Param *p, float lr, int64_t step)
{
    const float one = 1;
    AdamWArgs a = {.w = p->w, .m = p->m, .v = p->v, .g = p->g, .n = p->n, .clip = &one, .lr = &lr, .step = &step,
                   .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f};
    return op_adamw(g->ctx, &a);
}

static Err update_all(Gate *g, double lr, int64_t step)
{
    for (int64_t i = 0; i < g->h->gate_layers; i++) {
        TRY(update(g, &g->weight[i], (float)lr, step));
        TRY(update(g, &g->bias[i], (float)lr, step));
    }
    return update(g, &g->scale, (float)lr, step);
}

static Err one_step(Gate *g, const Schedule *schedule, int64_t step, double *loss)
{
    int64_t L = g->h->gate_layers;
    TRY(forward(g, step));
    memset(g->dx[L], 0, (size_t)(g->B * g->stride[L]) * sizeof(float));
    *g->scale.g = 0;
    *loss = 0;
    for (int64_t b = 0; b < g->B; b++)
        *loss += pair_loss(g, pair_at(g, step, b), g->x[L] + b * g->stride[L], g->dx[L] + b * g->stride[L]);
    CHECK(isfinite(*loss), ERR_INTERNAL, "the gate's loss is %g at step %lld; lower reward_train.gate_learning_rate", *loss,
          (long long)step + 1);
    TRY(backward(g));
    return update_all(g, schedule_lr(schedule, step), step + 1);
}

static Err train(Gate *g)
{
    Schedule schedule;
    double loss = 0;
    TRY(schedule_make(&schedule, "cosine", g->spec->gate_lr, 0, g->spec->gate_steps));
    for (int64_t step = 0; step < g->spec->gate_steps; step++) {
        TRY(one_step(g, &schedule, step, &loss));
        if ((step + 1) % 250 == 0 || step + 1 == g->spec->gate_steps)
            log_info("reward", "gate step %lld/%lld  loss %.4f  logit scale %.3f", (long long)step + 1,
                     (long long)g->spec->gate_steps, loss, (double)*g->scale_w);
    }
    g->h->logit_scale = *g->scale_w;
    return OK;
}

Err heads_gate(Ctx *ctx, const RewardData *d, const Features *f, const HeadSpec *s, RewardHead *h)
{
    Gate g = {.ctx = ctx, .d = d, .f = f, .spec = s, .h = h, .K = h->objectives};
    Err err = OK;
    CHECK(h->gate_hidden % 4 == 0 && h->H % 4 == 0, ERR_RECIPE, "reward_train.gate_hidden must be a multiple of 4");
    TRY_DONE(open_pairs(&g));
    TRY_DONE(open_layers(&g));
    TRY_DONE(train(&g));
done:
    arena_free(&g.arena);
    return err;
}
