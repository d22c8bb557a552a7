// SPDX-License-Identifier: Apache-2.0
// A pair is packed like a DPO pair whose answers carry one token more: so the last real token is computed, and the prompt is
// computed once. Every rank holds the heads; their gradient is formed by all ranks from the gathered hidden states, in the
// order of the pairs, in double.
#include "train/reward_backbone.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "par/par.h"
#include "train/dataset.h"
#include "train/optim.h"
#include "train/schedule.h"
#include "train/step.h"

typedef struct Heads {  // row 0: Bradley-Terry, rows 1 ..: objectives
    float *w, *m, *v, *g;
    int64_t n;          // (1 + objectives) * H
} Heads;

typedef struct Backbone {
    Compute *on;
    const Model *model;  // what its ops read
    const RewardData *d;
    bool bt, regression;
    int64_t batch, chains, micro_rows, row_tokens, total, per_epoch, logging;
    double max_norm;
    Schedule schedule;
    uint64_t seed;
    Example *ex;        // [pairs] of the training pairs
    int32_t *pair;      // [pairs] their index in d->pair
    int64_t pairs, epoch, *order;
    Heads heads;
    Optim optim;
    ChainSum sum;
    Arena data, arena;  // of the run; of a step
    Arena acts;         // of a model call, from on->source
    float *hidden;      // [batch][2][H] of the step's pairs, on every rank
    double loss;        // of the newest step
    int64_t right, seen;
} Backbone;

typedef struct StepPlan {
    const int32_t *pair;  // [n] indices into d->pair
    int64_t n, labels;    // labels of the step: the regression's normaliser
    PackedStep packed;
} StepPlan;

static Err make_example(Backbone *b, const RewardPair *p, Example *out)
{
    const RewardAnswer *a[2] = {&b->d->answer[p->good], &b->d->answer[p->bad]};
    int64_t prompt = a[0]->gating, n;
    int32_t *ids;
    while (prompt < a[0]->n - 1 && prompt < a[1]->n - 1 && a[0]->id[prompt] == a[1]->id[prompt]) prompt++;
    if (prompt < 1) prompt = 1;
    n = prompt + (a[0]->n - prompt + 1) + (a[1]->n - prompt + 1);
    ASSERT(n < INT32_MAX);
    TRY(ARENA_ARRAY(&b->data, &ids, n));
    memcpy(ids, a[0]->id, (size_t)prompt * sizeof *ids);
    int32_t *at = ids + prompt;
    for (int k = 0; k < 2; k++) {
        memcpy(at, a[k]->id + prompt, (size_t)(a[k]->n - prompt) * sizeof *ids);
        at += a[k]->n - prompt;
        *at++ = 0;  // never an input: makes the last real token one
    }
    *out = (Example){.id_tokens = ids, .n = (int32_t)n, .answers = 2, .prompt = (int32_t)prompt,
                     .chosen = (int32_t)(a[0]->n - prompt + 1)};
    return OK;
}

static Err make_examples(Backbone *b)
{
    int64_t tokens = 0, longest = 0;
    TRY(ARENA_ARRAY(&b->data, &b->ex, b->d->pairs));
    TRY(ARENA_ARRAY(&b->data, &b->pair, b->d->pairs));
    TRY(ARENA_ARRAY(&b->data, &b->order, b->d->pairs));
    for (int64_t i = 0; i < b->d->pairs; i++) {
        if (b->d->held[b->d->answer[b->d->pair[i].good].row]) continue;
        TRY(make_example(b, &b->d->pair[i], &b->ex[b->pairs]));
        int64_t need = pack_tokens(&b->ex[b->pairs]);
        tokens += need;
        if (need > longest) longest = need;
        b->pair[b->pairs++] = (int32_t)i;
    }
    CHECK(b->pairs > 0, ERR_DATA, "every preference pair is held out; lower reward_train.val_size");
    if (!b->row_tokens) {
        b->row_tokens = (int64_t)(1.1 * (double)tokens / (double)b->pairs * (double)b->batch / (double)b->chains) + 1;
        if (b->row_tokens < longest) b->row_tokens = longest;
    }
    return OK;
}

static Err open_backbone(Backbone *b, const Deck *deck)
{
    b->batch = deck_i64(deck, "reward_train.global_batch"), b->chains = deck_i64(deck, "reward_train.grad_chains");
    b->micro_rows = compute_on_device(b->on) ? 1 : deck_i64(deck, "reward_train.micro_rows"), b->row_tokens = deck_i64(deck, "reward_train.row_tokens");
    b->logging = deck_i64(deck, "reward_train.logging_steps"), b->seed = (uint64_t)deck_i64(deck, "seed");
    CHECK(par_size() <= b->chains, ERR_RECIPE, "%d ranks but reward_train.grad_chains is %lld: the largest useful number of ranks is %lld",
          par_size(), (long long)b->chains, (long long)b->chains);
    TRY(make_examples(b));
    b->per_epoch = (b->pairs + b->batch - 1) / b->batch;
    b->total = deck_i64(deck, "reward_train.max_steps");
    if (!b->total) b->total = (int64_t)ceil(deck_f64(deck, "reward_train.num_train_epochs") * (double)b->per_epoch - 1e-9);
    TRY(schedule_make(&b->schedule, "cosine", deck_f64(deck, "reward_train.learning_rate"),
                      deck_f64(deck, "reward_train.warmup_ratio"), b->total));
    b->epoch = -1;
    b->heads.n = (1 + b->d->objectives) * b->model->cfg.H;
    TRY(MEM_ARRAY(&b->heads.w, b->heads.n));
    TRY(MEM_ARRAY(&b->heads.m, b->heads.n));
    TRY(MEM_ARRAY(&b->heads.v, b->heads.n));
    TRY(MEM_ARRAY(&b->heads.g, b->heads.n));
    return MEM_ARRAY(&b->hidden, b->batch * 2 * b->model->cfg.H);
}

static void close_backbone(Backbone *b)
{
    mem_free(b->heads.w);
    mem_free(b->heads.m);
    mem_free(b->heads.v);
    mem_free(b->heads.g);
    mem_free(b->hidden);
    optim_free(&b->optim);
    chain_free(&b->sum);
    arena_free(&b->data);
    arena_free(&b->arena);
    arena_free(&b->acts);
}

// --- one pair --------------------------------------------------------------------------------------------------------------

static double dot(const float *w, const float *h, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += (double)w[i] * (double)h[i];
    return s;
}

// d loss / d (head output) of both answers of a pair: out[side][1 + objectives]; returns the loss (already normalised).
static double pair_outputs(const Backbone *b, const StepPlan *s, int64_t i, const float *h[2], double *out[2], bool *right)
{
    int64_t H = b->model->cfg.H, K = b->d->objectives;
    const RewardPair *p = &b->d->pair[s->pair[i]];
    double u = dot(b->heads.w, h[0], H) - dot(b->heads.w, h[1], H), loss = 0;
    *right = u > 0;
    for (int side = 0; side < 2; side++) {
        double bt = b->bt ? -1 / (1 + exp(u)) / (double)s->n : 0;
        out[side][0] = side ? -bt : bt;
        const double *label = b->d->answer[side ? p->bad : p->good].label;
        for (int64_t k = 0; k < K; k++) {
            double e = b->regression && isfinite(label[k]) ? dot(b->heads.w + (1 + k) * H, h[side], H) - label[k] : 0;
            out[side][1 + k] = 2 * e / (double)s->labels;
            loss += e * e / (double)s->labels;
        }
    }
    return loss + (b->bt ? (fmax(-u, 0) + log1p(exp(-fabs(u)))) / (double)s->n : 0);
}

// Where the two answers of every example of a row end: positions in the batch.
static void last_positions(const PackedRow *r, int64_t base, int64_t (*at)[2])
{
    for (int32_t t = 0; t < r->T; t++)
        if (r->example[t] >= 0) at[r->example[t]][r->side[t]] = base + t;
}

typedef struct Micro {
    Batch batch;
    float *hidden, *dhidden;
    int64_t (*at)[2];  // [examples of the step]
    const int32_t *row_index;
    int32_t rows;
    double *out[2];
} Micro;

static void example_gradient(Backbone *b, const StepPlan *s, Micro *u, int32_t i)
{
    int64_t H = b->model->cfg.H;
    const float *h[2];
    bool right;
    for (int side = 0; side < 2; side++) {
        h[side] = u->hidden + u->at[i][side] * H;
        memcpy(b->hidden + (2 * i + side) * H, h[side], (size_t)H * sizeof(float));
    }
    pair_outputs(b, s, i, h, u->out, &right);
    for (int side = 0; side < 2; side++)
        for (int64_t x = 0; x < H; x++) {
            double sum = 0;
            for (int64_t k = 0; k <= b->d->objectives; k++) sum += u->out[side][k] * (double)b->heads.w[k * H + x];
            u->dhidden[u->at[i][side] * H + x] = (float)sum;
        }
}

static Err run_micro(Backbone *b, const StepPlan *s, const int32_t *row_index, int32_t rows, const GradSink *sink, bool *mine)
{
    Micro u = {.row_index = row_index, .rows = rows};
    Acts *acts;
    int32_t *target;
    int64_t H = b->model->cfg.H, base = 0;
    TRY(pack_batch(&b->acts, &s->packed, row_index, rows, &u.batch, &target));
    TRY(ARENA_ARRAY(&b->acts, &u.hidden, u.batch.T * H));
    TRY(ARENA_ARRAY(&b->acts, &u.dhidden, u.batch.T * H));
    TRY(ARENA_ARRAY(&b->acts, &u.at, s->n));
    for (int side = 0; side < 2; side++) TRY(ARENA_ARRAY(&b->acts, &u.out[side], 1 + b->d->objectives));
    TRY(model_forward(&b->on->ctx, b->model, &u.batch, &b->acts, u.hidden, &acts));
    TRY(compute_wait(b->on));
    memset(u.dhidden, 0, (size_t)(u.batch.T * H) * sizeof(float));
    for (int32_t i = 0; i < rows; i++) {
        const PackedRow *r = &s->packed.row[row_index[i]];
        last_positions(r, base, u.at);
        for (int32_t t = 0; t < r->T; t++) {
            int32_t e = r->example[t];
            if (e < 0 || mine[e]) continue;
            mine[e] = true;
            example_gradient(b, s, &u, e);
        }
        base += r->T;
    }
    TRY(model_backward(&b->on->ctx, b->model, &u.batch, &b->acts, acts, u.dhidden, sink));
    return compute_wait(b->on);
}

static Err run_rows(Backbone *b, const StepPlan *s, int32_t chain, const GradSink *sink, bool *mine)
{
    int32_t n = 0, *index;
    TRY(ARENA_ARRAY(&b->arena, &index, s->packed.rows));
    for (int32_t r = s->packed.first[chain]; r < s->packed.first[chain + 1]; r++) index[n++] = r;
    for (int32_t i = 0; i < n; i += (int32_t)b->micro_rows) {
        arena_reset(&b->acts);
        int32_t rows = n - i < b->micro_rows ? n - i : (int32_t)b->micro_rows;
        TRY(run_micro(b, s, index + i, rows, sink, mine));
    }
    return OK;
}

static Err run_chain(Backbone *b, const StepPlan *s, int32_t chain, bool *mine)
{
    float *grad;
    if (compute_on_device(b->on)) return run_rows(b, s, chain, &b->on->sink, mine);
    TRY(chain_begin(&b->sum, &grad));
    const GradSink sink = model_grad_whole(b->model, grad);
    TRY(run_rows(b, s, chain, &sink, mine));
    TRY(model_grad_fold(&b->on->ctx, b->model, grad));
    return chain_end(&b->sum, chain);
}

static Err run_own(Backbone *b, const StepPlan *s, int32_t active, bool *mine)
{
    int32_t first, last;
    chain_share(active, par_rank(), par_size(), &first, &last);
    chain_reset(&b->sum);
    if (compute_on_device(b->on)) TRY(step_sum_begin(b->on, &s->packed, active));
    for (int32_t c = first; c < last; c++) TRY(run_chain(b, s, c, mine));
    if (first == last) TRY(compute_wait_weights(b->on));
    return compute_on_device(b->on) ? compute_sum_absent(b->on) : OK;
}

// --- over ranks ------------------------------------------------------------------------------------------------------------

// Every rank gets the hidden states of all pairs of the step: index and 2 H floats each.
static Err gather_hidden(Backbone *b, const StepPlan *s, const bool *mine)
{
    int64_t H = b->model->cfg.H, bytes;
    Str own = {0};
    char *all = NULL;
    Err err = OK;
    for (int64_t i = 0; i < s->n && err == OK; i++) {
        if (!mine[i]) continue;
        err = str_add(&own, (const char *)&i, (int64_t)sizeof i);
        if (err == OK) err = str_add(&own, (const char *)(b->hidden + 2 * i * H), 2 * H * (int64_t)sizeof(float));
    }
    TRY_DONE(par_agree(err));
    TRY_DONE(par_allgather(own.p, own.len, &all, &bytes, NULL));
    for (int64_t at = 0; at < bytes;) {
        int64_t i;
        memcpy(&i, all + at, sizeof i);
        at += (int64_t)sizeof i;
        memcpy(b->hidden + 2 * i * H, all + at, (size_t)(2 * H) * sizeof(float));
        at += 2 * H * (int64_t)sizeof(float);
    }
done:
    str_free(&own);
    mem_free(all);
    return err;
}

static Err head_gradient(Backbone *b, const StepPlan *s)
{
    int64_t H = b->model->cfg.H, K = b->d->objectives;
    double *sum, *out[2];
    TRY(ARENA_ARRAY(&b->arena, &sum, b->heads.n));
    for (int side = 0; side < 2; side++) TRY(ARENA_ARRAY(&b->arena, &out[side], 1 + K));
    for (int64_t i = 0; i < b->heads.n; i++) sum[i] = 0;
    b->loss = 0;
    for (int64_t i = 0; i < s->n; i++) {
        const float *h[2] = {b->hidden + 2 * i * H, b->hidden + (2 * i + 1) * H};
        bool right;
        b->loss += pair_outputs(b, s, i, h, out, &right);
        b->right += right, b->seen++;
        for (int side = 0; side < 2; side++)
            for (int64_t k = 0; k <= K; k++)
                for (int64_t x = 0; x < H; x++) sum[k * H + x] += out[side][k] * (double)h[side][x];
    }
    for (int64_t i = 0; i < b->heads.n; i++) b->heads.g[i] = (float)sum[i];
    return OK;
}

static Err update_heads(Backbone *b, double lr, int64_t step)
{
    const float one = 1, rate = (float)lr;
    AdamWArgs a = {.w = b->heads.w, .m = b->heads.m, .v = b->heads.v, .g = b->heads.g, .n = b->heads.n, .clip = &one, .lr = &rate,
                   .step = &step, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f};
    return op_adamw(b->on->host, &a);
}

static Err plan_step(Backbone *b, int64_t step, StepPlan *s)
{
    int64_t epoch = step / b->per_epoch, first = step % b->per_epoch * b->batch;
    const Example **ex;
    int32_t *pair;
    arena_reset(&b->arena);
    if (epoch != b->epoch) dataset_order(b->seed, epoch, b->pairs, b->order);
    b->epoch = epoch;
    *s = (StepPlan){.n = b->pairs - first < b->batch ? b->pairs - first : b->batch};
    TRY(ARENA_ARRAY(&b->arena, &ex, s->n));
    TRY(ARENA_ARRAY(&b->arena, &pair, s->n));
    for (int64_t i = 0; i < s->n; i++) {
        ex[i] = &b->ex[b->order[first + i]];
        pair[i] = b->pair[b->order[first + i]];
        const RewardPair *p = &b->d->pair[pair[i]];
        for (int64_t k = 0; k < b->d->objectives; k++)
            s->labels += isfinite(b->d->answer[p->good].label[k]) + isfinite(b->d->answer[p->bad].label[k]);
    }
    s->pair = pair;
    if (!s->labels) s->labels = 1;
    return pack_step(&b->arena, ex, (int32_t)s->n, b->row_tokens, b->chains, &s->packed);
}

static Err one_step(Backbone *b, int64_t step)
{
    StepPlan s;
    bool *mine;
    double norm, lr = schedule_lr(&b->schedule, step);
    TRY(par_agree(plan_step(b, step, &s)));
    TRY(par_agree(ARENA_ARRAY(&b->arena, &mine, s.n)));
    memset(mine, 0, (size_t)s.n * sizeof *mine);
    int32_t active = s.packed.chains;
    TRY(par_agree(run_own(b, &s, active, mine)));
    TRY(gather_hidden(b, &s, mine));
    TRY(par_agree(head_gradient(b, &s)));
    CHECK(isfinite(b->loss), ERR_INTERNAL, "reward: the loss is %g at step %lld; lower reward_train.learning_rate", b->loss, (long long)step + 1);
    TRY(optim_step(&b->optim, &b->sum, active, lr, step + 1, &norm));
    CHECK(isfinite(norm), ERR_INTERNAL, "reward: the gradient's norm is %g at step %lld", norm, (long long)step + 1);
    TRY(update_heads(b, lr, step + 1));
    if ((step + 1) % b->logging && step + 1 != b->total) return OK;
    log_info("reward", "backbone step %lld/%lld  loss %.4f  accuracy %.3f  grad norm %.3f  lr %.3g", (long long)step + 1,
             (long long)b->total, b->loss, (double)b->right / (double)b->seen, norm, lr);
    b->right = b->seen = 0;
    return OK;
}

Err reward_backbone(Compute *on, const Deck *deck, const RewardData *d)
{
    const char *kind = deck_str(deck, "reward_train.backbone");
    bool both = !strcmp(kind, "both");
    Backbone b = {.on = on, .model = on->model, .d = d, .acts.source = on->source, .bt = both || !strcmp(kind, "bt"),
                  .regression = both || !strcmp(kind, "regression")};
    OptimSpec spec = {0.9, 0.999, 1e-8, 0, deck_f64(deck, "reward_train.max_grad_norm")};
    Err err = OK;
    if (!b.bt && !b.regression) return OK;
    TRY_DONE(par_agree(open_backbone(&b, deck)));
    chain_init(&b.sum, on->master);
    TRY_DONE(optim_open(&b.optim, on, &spec));
    log_info("reward", "backbone: %lld pairs, %lld steps of %lld, rows of %lld tokens", (long long)b.pairs, (long long)b.total,
             (long long)b.batch, (long long)b.row_tokens);
    for (int64_t step = 0; step < b.total; step++) {
        TRY_DONE(par_stop_agree("reward"));
        TRY_DONE(one_step(&b, step));
    }
    TRY_DONE(optim_fetch(&b.optim));
done:
    close_backbone(&b);
    return err;
}
