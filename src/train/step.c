// SPDX-License-Identifier: Apache-2.0
// Rows of a chain are computed micro_rows at a time in ascending order; per-example sums of log-probabilities are formed
// in token order in double and gathered, so that every rank computes the same loss from the same numbers.
#include "train/step.h"

#include <string.h>

#include "base/fault.h"
#include "base/mem.h"
#include "par/par.h"

typedef struct Micro {  // one model call
    Batch batch;
    int32_t *target;
    const int32_t *row_index;
    int32_t rows;
    float *hidden, *logp, *lse;
    uint8_t *best;  // SFT, else NULL
    Acts *acts;
    ArenaMark mark;  // before a workspace
} Micro;

// What is asked of the arena before, and the workspace last: the caller rewinds it.
static Err logprob_args(const StepJob *j, Arena *arena, Micro *u, LogprobArgs *a)
{
    const Model *m = j->on->model;
    TRY(ARENA_ARRAY(arena, &u->logp, u->batch.T));
    TRY(ARENA_ARRAY(arena, &u->lse, u->batch.T));
    if (!j->dpo) TRY(ARENA_ARRAY(arena, &u->best, u->batch.T));
    *a = (LogprobArgs){.hidden = tensor_f32(u->hidden, m->cfg.H), .head = model_head(m), .target = u->target, .logp = u->logp,
                       .lse = u->lse, .best = u->best, .T = u->batch.T, .H = m->cfg.H, .V = m->cfg.V,
                       .softcap = m->cfg.final_softcap};
    u->mark = arena_mark(arena);
    return arena_alloc(arena, &a->workspace, op_logprob_fwd_workspace(&j->on->ctx, a), 1);
}

static Err logprobs(const StepJob *j, Arena *arena, Micro *u)
{
    LogprobArgs a;
    TRY(logprob_args(j, arena, u, &a));
    TRY(op_logprob_fwd(&j->on->ctx, &a));
    arena_rewind(arena, u->mark);
    return OK;
}

static void add_logps(const StepJob *j, const Micro *u, PairLogp *logp)
{
    int64_t at = 0;
    for (int32_t i = 0; i < u->rows; i++) {
        const PackedRow *r = &j->step->row[u->row_index[i]];
        for (int32_t t = 0; t < r->T; t++, at++) {
            if (r->example[t] < 0) continue;
            PairLogp *p = &logp[r->example[t]];
            p->logp[r->side[t]] += (double)u->logp[at];
            p->n[r->side[t]]++;
            if (u->best) p->best += u->best[at];
        }
    }
}

// d loss / d logp of every token of one example.
static void example_coef(const StepJob *j, const PairLogp *logp, int32_t example, double coef[2])
{
    coef[0] = -1.0 / (double)j->step->targets;
    coef[1] = 0;
    if (!j->dpo) return;
    PairLoss loss = dpo_pair(j->dpo, &logp[example], &j->reference[example]);
    for (int k = 0; k < 2; k++) coef[k] = loss.coef[k] / (double)j->step->examples;
}

static void fill_coef(const StepJob *j, const Micro *u, const PairLogp *logp, float *coef)
{
    int64_t at = 0;
    int32_t current = -1;
    double c[2] = {0, 0};
    for (int32_t i = 0; i < u->rows; i++) {
        const PackedRow *r = &j->step->row[u->row_index[i]];
        for (int32_t t = 0; t < r->T; t++, at++) {
            coef[at] = 0;
            if (r->example[t] < 0) continue;
            if (r->example[t] != current) example_coef(j, logp, current = r->example[t], c);
            coef[at] = (float)c[r->side[t]];
        }
    }
}

// sink NULL: only counted
static Err logprob_bwd_args(const StepJob *j, Arena *arena, Micro *u, const GradSink *sink, float **coef, LogprobBwdArgs *a)
{
    const Model *m = j->on->model;
    float *dhidden;
    TRY(ARENA_ARRAY(arena, coef, u->batch.T));
    TRY(ARENA_ARRAY(arena, &dhidden, u->batch.T * m->cfg.H));
    *a = (LogprobBwdArgs){.hidden = tensor_f32(u->hidden, m->cfg.H), .head = model_head(m),
                          .dhidden = tensor_f32(dhidden, m->cfg.H), .dhead = sink ? sink->head : (Tensor){0}, .target = u->target,
                          .lse = u->lse, .coef = *coef, .row = u->batch.row, .rows = u->rows, .T = u->batch.T, .H = m->cfg.H,
                          .V = m->cfg.V, .softcap = m->cfg.final_softcap};
    u->mark = arena_mark(arena);
    return arena_alloc(arena, &a->workspace, op_logprob_bwd_workspace(&j->on->ctx, a), 1);
}

static Err backward(const StepJob *j, Arena *arena, Micro *u, const PairLogp *logp, const GradSink *sink)
{
    float *coef;
    LogprobBwdArgs a;
    TRY(logprob_bwd_args(j, arena, u, sink, &coef, &a));
    fill_coef(j, u, logp, coef);
    TRY(op_logprob_bwd(&j->on->ctx, &a));
    arena_rewind(arena, u->mark);
    return model_backward(&j->on->ctx, j->on->model, &u->batch, arena, u->acts, a.dhidden.p, sink);
}

static Err run_micro(const StepJob *j, Arena *arena, const int32_t *row_index, int32_t rows, PairLogp *logp, const GradSink *sink)
{
    Micro u = {.row_index = row_index, .rows = rows};
    TRY(pack_batch(arena, j->step, row_index, rows, &u.batch, &u.target));
    TRY(ARENA_ARRAY(arena, &u.hidden, u.batch.T * j->on->model->cfg.H));
    TRY(model_forward(&j->on->ctx, j->on->model, &u.batch, arena, u.hidden, sink ? &u.acts : NULL));
    TRY(logprobs(j, arena, &u));
    TRY(compute_wait(j->on));
    add_logps(j, &u, logp);
    if (!sink) return OK;
    CHECK(!fault_due("row-fails"), ERR_DATA, "IMF_FAULT: a row of rank %d has failed", par_rank());
    TRY(backward(j, arena, &u, logp, sink));
    return compute_wait(j->on);
}

// run_micro's requests in run_micro's order.
static Err count_micro(const StepJob *j, Arena *arena, Micro *u, bool grad)
{
    float *coef;
    LogprobArgs a;
    LogprobBwdArgs b;
    TRY(ARENA_ARRAY(arena, &u->hidden, u->batch.T * j->on->model->cfg.H));
    TRY(model_forward_count(&j->on->ctx, j->on->model, &u->batch, arena, grad));
    TRY(logprob_args(j, arena, u, &a));
    arena_rewind(arena, u->mark);
    if (!grad) return OK;
    TRY(logprob_bwd_args(j, arena, u, NULL, &coef, &b));
    arena_rewind(arena, u->mark);
    return model_backward_count(&j->on->ctx, j->on->model, &u->batch, arena);
}

Err step_count(const StepJob *j, const Batch *shape, bool grad, int64_t *bytes)
{
    Arena arena = {.counting = true};
    Micro u = {.batch = *shape, .rows = shape->rows};
    int32_t *index;
    TRY(ARENA_ARRAY(&arena, &index, j->step ? j->step->rows : shape->rows));
    TRY(pack_count(&arena, shape));
    TRY(count_micro(j, &arena, &u, grad));
    *bytes = arena.most;
    return OK;
}

// What a device sums in fixed point is a row's gradient.
static int32_t micro_rows(const StepJob *j) { return compute_on_device(j->on) ? 1 : j->micro_rows; }

Err step_chain_count(const StepJob *j, int32_t chain, bool grad, int64_t *bytes)
{
    int32_t *row, rows = 0;
    int64_t one;
    Batch b = {0};
    Err err = OK;
    TRY(MEM_ARRAY(&row, micro_rows(j) + 1));
    b.row = row;
    *bytes = 0;
    for (int32_t r = j->step->first[chain]; r < j->step->first[chain + 1]; r++) {
        b.T += j->step->row[r].T, b.S += j->step->row[r].S;
        row[++rows] = (int32_t)b.T;
        if (rows < micro_rows(j) && r + 1 < j->step->first[chain + 1]) continue;
        b.rows = rows;
        TRY_DONE(step_count(j, &b, grad, &one));
        if (one > *bytes) *bytes = one;
        b.T = b.S = rows = 0;
    }
done:
    mem_free(row);
    return err;
}

// The rows of a chain in order. sink NULL: forward only.
static Err run_rows(const StepJob *j, int32_t chain, PairLogp *logp, const GradSink *sink)
{
    const int32_t most = micro_rows(j);
    int32_t n = 0, *index;
    arena_reset(j->acts);
    TRY(ARENA_ARRAY(j->acts, &index, j->step->rows));
    for (int32_t r = j->step->first[chain]; r < j->step->first[chain + 1]; r++) index[n++] = r;
    ArenaMark mark = arena_mark(j->acts);
    for (int32_t i = 0; i < n; i += most) {
        arena_rewind(j->acts, mark);
        TRY(run_micro(j, j->acts, index + i, n - i < most ? n - i : most, logp, sink));
    }
    return OK;
}

static Err run_chain(const StepJob *j, int32_t chain, PairLogp *logp)
{
    float *grad;
    if (!j->sum) return run_rows(j, chain, logp, NULL);
    if (compute_on_device(j->on)) return run_rows(j, chain, logp, &j->on->sink);
    TRY(chain_begin(j->sum, &grad));
    const GradSink sink = model_grad_whole(j->on->model, grad);
    TRY(run_rows(j, chain, logp, &sink));
    TRY(model_grad_fold(&j->on->ctx, j->on->model, grad));
    return chain_end(j->sum, chain);
}

// One block for the largest model call of the own chains: rows differ, and blocks that grow one by one leave gaps (measured: 190 MB
// of 740).
static Err reserve(const StepJob *j, int32_t first, int32_t last)
{
    int64_t most = 0, bytes;
    for (int32_t c = first; c < last; c++) {
        TRY(step_chain_count(j, c, j->sum != NULL, &bytes));
        if (bytes > most) most = bytes;
    }
    arena_reserve(j->acts, most);
    return OK;
}

static int32_t rows_of(const PackedStep *step, int32_t active, int rank)
{
    int32_t first, last;
    chain_share(active, rank, par_size(), &first, &last);
    return step->first[last] - step->first[first];
}

Err step_sum_begin(Compute *on, const PackedStep *step, int32_t active)
{
    int32_t most = 0;
    for (int r = 0; r < par_size(); r++)
        if (rows_of(step, active, r) > most) most = rows_of(step, active, r);
    return compute_sum_begin(on, rows_of(step, active, par_rank()), most);
}

static Err run_own(const StepJob *j, int32_t active, PairLogp *logp)
{
    int32_t first, last;
    chain_share(active, par_rank(), par_size(), &first, &last);
    if (j->sum) chain_reset(j->sum);
    if (j->sum && compute_on_device(j->on)) TRY(step_sum_begin(j->on, j->step, active));
    TRY(reserve(j, first, last));
    for (int32_t c = first; c < last; c++) TRY(run_chain(j, c, logp));
    if (first == last) TRY(compute_wait_weights(j->on));  // it waits for the other ranks soon, and they for these weights
    return j->sum && compute_on_device(j->on) ? compute_sum_absent(j->on) : OK;
}

typedef struct Entry {
    int64_t example;
    PairLogp logp;
} Entry;

static Err gather(PairLogp *logp, int32_t examples)
{
    Entry *own = NULL, *all = NULL;
    int64_t n = 0, bytes;
    Err err = OK;
    TRY(par_agree(MEM_ARRAY(&own, examples)));
    for (int32_t i = 0; i < examples; i++)
        if (logp[i].n[0] > 0) own[n++] = (Entry){i, logp[i]};
    TRY_DONE(par_allgather(own, n * (int64_t)sizeof *own, &all, &bytes, NULL));
    ASSERT(bytes == examples * (int64_t)sizeof *all);
    for (int32_t i = 0; i < examples; i++) logp[all[i].example] = all[i].logp;
done:
    mem_free(own);
    mem_free(all);
    return err;
}

Err step_run(const StepJob *j, PairLogp *logp, int32_t *active)
{
    *active = j->step->chains;
    memset(logp, 0, (size_t)j->step->examples * sizeof *logp);
    TRY(par_agree(run_own(j, *active, logp)));
    return gather(logp, j->step->examples);
}
