// SPDX-License-Identifier: Apache-2.0
// Step s (0-based) of epoch e takes examples order_e[k * global_batch ..), k = s mod steps per epoch; the last step of an
// epoch takes what is left. All of it follows from (data, recipe, seed, s), so resuming needs only s and the optimiser's state.
#include "train/loop.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/roll.h"
#include "base/stop.h"
#include "par/par.h"
#include "train/checkpoint.h"
#include "train/metrics.h"
#include "train/pace.h"
#include "train/step.h"
#include "train/tries.h"

typedef struct Trainer {
    const TrainSpec *spec;
    Compute *on;
    Model *model;             // on->master
    const Dataset *data;
    const PairLogp *reference;
    Split split;
    Schedule schedule;
    Optim optim;
    ChainSum sum;
    Metrics metrics;
    TrainState state;
    Arena arena, acts;        // of one step; of model calls
    char dir[IO_PATH];        // run_dir/<stage>
    int64_t row_tokens, per_epoch, total;
    int64_t *order, order_epoch;
    PairLogp *policy, *ref;   // [global_batch] of the step
    Progress progress;
    int64_t computed;         // tokens since the start
    int64_t saved;            // step of the newest checkpoint
    Pace pace;                // rank 0's decides
    Tries tries;              // rank 0
} Trainer;

int64_t train_row_tokens(const TrainSpec *spec, const Dataset *data)
{
    if (spec->row_tokens > 0) return spec->row_tokens;
    double step = (double)data->tokens / (double)data->n * (double)spec->global_batch;
    int64_t even = (int64_t)(1.1 * step / (double)spec->grad_chains) + 1, most = 2 * spec->max_length;
    if (even > most) even = most;
    return even > data->longest ? even : data->longest;
}

int64_t train_steps(const TrainSpec *spec, int64_t n_train, int64_t *per_epoch)
{
    *per_epoch = (n_train + spec->global_batch - 1) / spec->global_batch;
    return spec->max_steps ? spec->max_steps : (int64_t)ceil(spec->epochs * (double)*per_epoch - 1e-9);
}

// --- one step ----------------------------------------------------------------------------------------------------------

typedef struct Pick {  // the examples of a step
    const Example **ex;
    const int32_t *index;
    int64_t n;
} Pick;

// Packs the picked examples and runs them; their log-probs land in t->policy, their reference in t->ref.
static Err run_examples(Trainer *t, const Pick *p, ChainSum *sum, PackedStep *step, int32_t *active)
{
    for (int64_t i = 0; i < p->n; i++)
        if (t->reference) t->ref[i] = t->reference[p->index[i]];
    TRY(pack_step(&t->arena, p->ex, (int32_t)p->n, t->row_tokens, t->spec->grad_chains, step));
    StepJob job = {.on = t->on, .step = step, .micro_rows = (int32_t)t->spec->micro_rows,
                   .dpo = t->spec->pairs ? &t->spec->dpo : NULL, .reference = t->ref, .sum = sum, .acts = &t->acts};
    return step_run(&job, t->policy, active);
}

static Err pick(Trainer *t, const int32_t *from, const int64_t *order, int64_t first, int64_t n, Pick *out)
{
    int32_t *index;
    arena_reset(&t->arena);
    TRY(ARENA_ARRAY(&t->arena, &index, n));
    TRY(ARENA_ARRAY(&t->arena, &out->ex, n));
    for (int64_t i = 0; i < n; i++) {
        index[i] = from[order ? order[first + i] : first + i];
        out->ex[i] = &t->data->ex[index[i]];
    }
    out->index = index;
    out->n = n;
    return OK;
}

static Err pick_step(Trainer *t, Pick *out)
{
    int64_t epoch = t->state.step / t->per_epoch, k = t->state.step % t->per_epoch, n = t->split.n_train;
    int64_t first = k * t->spec->global_batch, count = n - first < t->spec->global_batch ? n - first : t->spec->global_batch;
    if (t->order_epoch != epoch) {
        dataset_order(t->spec->seed, epoch, n, t->order);
        t->order_epoch = epoch;
    }
    return pick(t, t->split.train, t->order, first, count, out);
}

static bool is_finite(const Trainer *t, int64_t i) { return isfinite(t->policy[i].logp[0] + t->policy[i].logp[1]); }

// Ids of the step's examples, or of those with numbers that are not finite; eight at most.
static Err list_examples(const Trainer *t, const Pick *p, bool bad, Str *ids)
{
    char id[ID_TEXT];
    int64_t all = 0;
    for (int64_t i = 0; i < p->n; i++) {
        if (bad && is_finite(t, i)) continue;
        if (all++ >= 8) continue;
        id_print(p->ex[i]->id, id);
        TRY(str_printf(ids, "%s%s", all > 1 ? ", " : "", id));
    }
    return all > 8 ? str_puts(ids, " and others") : OK;
}

// Names the examples whose log-probabilities are not finite, or all of the step when it is the gradient.
static Err not_finite(const Trainer *t, const Pick *p, const char *what, double value)
{
    Str ids = {0};
    int bad = 0;
    Err err = OK;
    for (int64_t i = 0; i < p->n; i++) bad += !is_finite(t, i);
    TRY_DONE(list_examples(t, p, bad > 0, &ids));
    err = err_raise(ERR_INTERNAL, __func__, __FILE__, __LINE__,
                    "%s: %s is %g at step %lld; examples: %s. Look at these examples, or start "
                    "again with a lower learning_rate", t->spec->stage, what, value, (long long)t->state.step + 1,
                    str_text(&ids));
done:
    str_free(&ids);
    return err;
}

static Err one_step(Trainer *t)
{
    Pick p;
    PackedStep step;
    int32_t active;
    double norm, lr = schedule_lr(&t->schedule, t->state.step);
    TRY(par_agree(pick_step(t, &p)));
    TRY(run_examples(t, &p, &t->sum, &step, &active));
    StepMetrics s = metrics_of(t->spec, t->policy, t->ref, p.n);
    if (!isfinite(s.loss)) return not_finite(t, &p, "the loss", s.loss);
    TRY(optim_step(&t->optim, &t->sum, active, lr, t->state.step + 1, &norm));
    if (!isfinite(norm)) return not_finite(t, &p, "the gradient's norm", norm);
    int64_t tokens = 0;
    for (int32_t r = 0; r < step.rows; r++) tokens += step.row[r].T;
    t->state.step++;
    t->state.epoch = t->state.step / t->per_epoch;
    t->state.examples_seen += p.n;
    t->computed += tokens;
    progress_note(&t->progress, t->state.step, t->computed);
    return par_agree(metrics_step(&t->metrics, t->state.step, &s, lr, norm, tokens));
}

// --- held-out ------------------------------------------------------------------------------------------------------------

static Err evaluate(Trainer *t)
{
    StepMetrics sum = {0};
    double weight = 0;
    for (int64_t at = 0; at < t->split.n_val; at += t->spec->global_batch) {
        int64_t n = t->split.n_val - at < t->spec->global_batch ? t->split.n_val - at : t->spec->global_batch;
        Pick p;
        PackedStep step;
        int32_t active;
        TRY(par_agree(pick(t, t->split.val, NULL, at, n, &p)));
        TRY(run_examples(t, &p, NULL, &step, &active));
        StepMetrics s = metrics_of(t->spec, t->policy, t->ref, n);
        double w = t->spec->pairs ? (double)n : (double)step.targets;
        metrics_add(&sum, &s, w);
        weight += w;
    }
    StepMetrics mean = {0};
    metrics_add(&mean, &sum, 1.0 / weight);
    return par_agree(metrics_eval(&t->metrics, t->state.step, &mean));
}

static Err maybe_evaluate(Trainer *t)
{
    if (!t->split.n_val || !t->spec->eval_steps) return OK;
    bool due = t->state.step % t->spec->eval_steps == 0 || t->state.step == t->total;
    return due ? evaluate(t) : OK;
}

// --- checkpoints ---------------------------------------------------------------------------------------------------------

static Err save(Trainer *t)
{
    if (t->saved == t->state.step) return OK;
    const double start = time_now();
    const TrainSpec *s = t->spec;
    TRY(par_agree(metrics_sync(&t->metrics)));
    TRY(optim_fetch(&t->optim));
    TRY(checkpoint_save(t->dir, t->model, t->optim.host_m, t->optim.host_v, &t->state, (int)s->ranks_per_file));
    t->saved = t->state.step;
    pace_saved(&t->pace, time_now() - start);
    return par_agree(par_rank() == 0 ? checkpoint_prune(t->dir, t->saved, (int)s->save_total_limit, s->save_keep_every) : OK);
}

// What ranks must do together after a step. stop: 1 asked to, 2 the batch system's time ends.
typedef struct Wish {
    int64_t stop, save;
} Wish;

// Collective.
static Err agree_on_wish(const Trainer *t, Wish *w)
{
    const bool rank0 = par_rank() == 0;
    int64_t wish[2] = {stop_asked(), rank0 && pace_save_is_due(&t->pace)};
    if (rank0 && pace_is_over(&t->pace, NULL)) wish[0] = 2;
    TRY(par_max_i64(wish, 2));
    *w = (Wish){wish[0], wish[1] || (t->spec->save_steps && t->state.step % t->spec->save_steps == 0)};
    return OK;
}

static Err stop_here(Trainer *t, const Wish *w)
{
    if (t->state.step > 0) TRY(save(t));
    FAIL(ERR_REQUEUE, "%s: stopped %s at step %lld of %lld, %s; run the same command to go on", t->spec->stage,
         w->stop == 2 ? "before the batch system's time limit" : "on request", (long long)t->state.step, (long long)t->total,
         t->state.step > 0 ? "checkpoint written" : "nothing is lost");
}

static Err resume(Trainer *t)
{
    int64_t step;
    TRY(checkpoint_find(t->dir, &step));
    if (step < 0) return OK;
    TRY(checkpoint_load(t->dir, step, t->model, t->optim.host_m, t->optim.host_v, &t->state));
    TRY(optim_put(&t->optim));
    t->saved = step;
    log_info(t->spec->stage, "resumed from step %lld of %lld: %s/step_%09lld is the newest whole checkpoint", (long long)step,
             (long long)t->total, t->dir, (long long)step);
    return OK;
}

// --- the run -------------------------------------------------------------------------------------------------------------

static Err check_layout(const TrainSpec *spec, const Dataset *data, int64_t row_tokens)
{
    CHECK(par_size() <= spec->grad_chains, ERR_RECIPE, "%s: %d ranks but %s.grad_chains is %lld: the largest useful number of ranks is %lld",
          spec->stage, par_size(), spec->stage, (long long)spec->grad_chains, (long long)spec->grad_chains);
    CHECK(data->longest <= row_tokens, ERR_RECIPE, "the longest example takes %lld tokens; set %s.row_tokens to %lld or more",
          (long long)data->longest, spec->stage, (long long)data->longest);
    return OK;
}

static Err plan(Trainer *t, Dataset *data)
{
    const TrainSpec *s = t->spec;
    t->row_tokens = train_row_tokens(s, data);
    TRY(check_layout(s, data, t->row_tokens));
    TRY(io_join(t->dir, s->run_dir, s->stage));
    TRY(dataset_split(data, s->val_size, s->seed, &t->split));
    t->total = train_steps(s, t->split.n_train, &t->per_epoch);
    CHECK(t->total > 0, ERR_RECIPE, "%s: num_train_epochs %g gives no step", s->stage, s->epochs);
    TRY(schedule_make(&t->schedule, s->scheduler, s->learning_rate, s->warmup_ratio, t->total));
    t->state = (TrainState){.seed = s->seed, .data = data->hash, .base_model = t->model->fingerprint};
    TRY(train_spec_hash(s, &t->state.recipe));
    TRY(MEM_ARRAY(&t->order, t->split.n_train));
    TRY(MEM_ARRAY(&t->policy, s->global_batch));
    TRY(MEM_ARRAY(&t->ref, s->global_batch));
    t->order_epoch = t->saved = -1;
    if (par_rank() == 0) TRY(io_mkdirs(t->dir));
    return OK;
}

static void warn_lengths(const Trainer *t)
{
    double n[2] = {0, 0};
    for (int64_t i = 0; i < t->data->n; i++) {
        const Example *e = &t->data->ex[i];
        n[0] += e->chosen;
        n[1] += e->n - e->prompt - e->chosen;
    }
    metrics_lengths(t->spec, n[0] / (double)t->data->n, n[1] / (double)t->data->n);
}

static Err announce(Trainer *t)
{
    double batch = (double)t->spec->global_batch;
    log_info(t->spec->stage, "%lld examples (%lld held out), %lld steps of %.0f, rows of %lld tokens, %d ranks, gradient in %lld chains",
             (long long)t->split.n_train, (long long)t->split.n_val, (long long)t->total, batch, (long long)t->row_tokens,
             par_size(), (long long)t->spec->grad_chains);
    if (t->spec->inexact)
        log_info(t->spec->stage, "exact: false, so the weights depend on the number of ranks (a gradient chain each)");
    if (t->spec->pairs && t->saved < 0) warn_lengths(t);  // once a run
    if (!t->split.n_val != !t->spec->eval_steps)
        log_warn(t->spec->stage, "%s: nothing held out is measured; it takes both %s.val_size and %s.eval_steps",
                 t->split.n_val ? "rows are held out, but eval_steps is 0" : "eval_steps is set, but val_size holds out no row",
                 t->spec->stage, t->spec->stage);
    return OK;
}

static Err run_steps(Trainer *t)
{
    Wish w = {0};
    const bool look = par_rank() == 0 && t->state.step < t->total;
    TRY(par_agree(look ? checkpoint_check_space(t->dir, t->model) : OK));  // not only after hours
    pace_start(&t->pace, t->spec->save_seconds, checkpoint_bytes(t->model));
    progress_start(&t->progress, t->spec->stage, t->total, "steps");
    t->progress.first = t->state.step;
    if (t->state.step == 0) TRY(maybe_evaluate(t));
    TRY(agree_on_wish(t, &w));
    while (t->state.step < t->total) {
        if (w.stop) return stop_here(t, &w);
        pace_step_begins(&t->pace);
        tries_step(&t->tries, t->state.step + 1);
        TRY(one_step(t));
        TRY(maybe_evaluate(t));
        pace_step_ends(&t->pace);
        TRY(agree_on_wish(t, &w));
        if (w.save || t->state.step == t->total) TRY(save(t));
    }
    return OK;
}

// A step that three starts in a row did not survive is not tried again.
static Err check_stuck(Trainer *t, int64_t stuck)
{
    Pick p;
    Str ids = {0};
    TRY(par_bcast(&stuck, sizeof stuck, 0));
    if (stuck <= t->state.step || stuck > t->total) return OK;
    t->state.step = stuck - 1;
    tries_step(&t->tries, stuck);  // the start after this one is told the same
    Err err = pick_step(t, &p);
    if (err == OK) err = list_examples(t, &p, false, &ids);
    if (err == OK)
        err = err_raise(ERR_INTERNAL, __func__, __FILE__, __LINE__,
                        "%s: the last %d starts all ended while they computed step %lld (learning rate %g); its examples: %s. Look "
                        "at these examples, at the memory, and at log.jsonl; remove %s to try again", t->spec->stage, TRIES,
                        (long long)stuck, schedule_lr(&t->schedule, stuck - 1), str_text(&ids), t->tries.path);
    str_free(&ids);
    return err;
}

static Err open_tries(Trainer *t)
{
    int64_t stuck = -1;
    TRY(par_agree(par_rank() == 0 ? tries_open(&t->tries, t->dir, roll_was_ended(), &stuck) : OK));
    return par_agree(check_stuck(t, stuck));
}

static void close_all(Trainer *t)
{
    metrics_close(&t->metrics);
    optim_free(&t->optim);
    chain_free(&t->sum);
    arena_free(&t->arena);
    arena_free(&t->acts);
    mem_free(t->order);
    mem_free(t->policy);
    mem_free(t->ref);
}

Err train_run(const TrainSpec *spec, Compute *on, Dataset *data, const PairLogp *reference)
{
    Trainer t = {.spec = spec, .on = on, .model = on->master, .data = data, .reference = reference, .acts.source = on->source};
    Err err = OK;
    t.metrics.fd = t.metrics.speed_fd = t.metrics.events.fd = t.tries.fd = -1;
    TRY_DONE(par_agree(plan(&t, data)));
    chain_init(&t.sum, t.model);
    TRY_DONE(optim_open(&t.optim, on, &spec->optim));
    TRY_DONE(resume(&t));
    TRY_DONE(par_agree(metrics_open(&t.metrics, spec, &t.state.metrics, t.saved, t.total, (double)t.per_epoch)));
    TRY_DONE(open_tries(&t));
    TRY_DONE(announce(&t));
    TRY_DONE(run_steps(&t));
done:
    tries_close(&t.tries, err);
    close_all(&t);
    return err;
}
