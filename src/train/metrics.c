// SPDX-License-Identifier: Apache-2.0
#include "train/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/io.h"
#include "base/log.h"
#include "base/profile.h"
#include "par/par.h"
#include "text/record.h"

StepMetrics metrics_of(const TrainSpec *spec, const PairLogp *policy, const PairLogp *reference, int64_t n)
{
    StepMetrics s = {0};
    double tokens = 0;
    for (int64_t i = 0; i < n && !spec->pairs; i++)
        s.loss -= policy[i].logp[0], s.accuracy += policy[i].best, tokens += policy[i].n[0];
    if (!spec->pairs) {
        s.loss /= tokens, s.accuracy /= tokens;
        return s;
    }
    for (int64_t i = 0; i < n; i++) {
        PairLoss p = dpo_pair(&spec->dpo, &policy[i], &reference[i]);
        s.loss += (double)p.loss;
        s.accuracy += p.reward[0] > p.reward[1];
        s.margin += p.reward[0] - p.reward[1];
        for (int k = 0; k < 2; k++) {
            s.reward[k] += p.reward[k];
            s.logp[k] += p.logp[k];
            s.ref_logp[k] += reference[i].logp[k] / (spec->dpo.length_norm ? (double)reference[i].n[k] : 1.0);
        }
    }
    double *field = (double *)&s;  // all fields are sums over pairs here
    for (size_t i = 0; i < sizeof s / sizeof *field; i++) field[i] /= (double)n;
    return s;
}

// --- the file --------------------------------------------------------------------------------------------------------

// Does a line stay when the stage goes on from the checkpoint of step `saved`?
static Err stays(const TrainSpec *spec, const char *line, int64_t n, const char *path, int64_t saved, bool *out)
{
    json_t *o = NULL;
    const char *stage;
    int64_t at;
    Err err = OK;
    TRY(json_parse(line, n, path, &o));
    TRY_DONE(json_get_text(o, "stage", path, &stage));
    TRY_DONE(json_get_i64(o, "step", path, &at));
    *out = strcmp(stage, spec->stage) || at <= saved;
done:
    json_decref(o);
    return err;
}

// Rewrites the file without this stage's lines behind `saved`; a torn last line goes too.
static Err forget_lines(const TrainSpec *spec, const char *path, int64_t saved)
{
    Str all = {0}, kept = {0};
    Err err = OK;
    TRY_DONE(io_read(path, &all, INT64_MAX));
    for (const char *line = all.p, *end; line && (end = strchr(line, '\n')); line = end + 1) {
        bool keep = false;
        TRY_DONE(stays(spec, line, end - line, path, saved, &keep));
        if (keep) TRY_DONE(str_add(&kept, line, end - line + 1));
    }
    TRY_DONE(io_write(path, str_text(&kept), kept.len));
done:
    str_free(&all);
    str_free(&kept);
    return err;
}

static Err open_file(Metrics *m, const char *name, int64_t saved, int *fd)
{
    char path[IO_PATH];
    TRY(io_join(path, m->spec->run_dir, name));
    if (io_size(path) > 0) TRY(forget_lines(m->spec, path, saved));
    *fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    CHECK(*fd >= 0, ERR_CREATE, "cannot write %s", path);
    return OK;
}

Err metrics_open(Metrics *m, const TrainSpec *spec, MetricsState *state, int64_t saved, int64_t total, double steps_per_epoch)
{
    double now = time_now();
    *m = (Metrics){.spec = spec,
                   .state = state,
                   .fd = -1,
                   .speed_fd = -1,
                   .events.fd = -1,
                   .total = total,
                   .steps_per_epoch = steps_per_epoch,
                   .first_step = saved < 0 ? 0 : saved,
                   .started = now,
                   .line_at = now};
    if (par_rank() != 0) return OK;
    TRY(open_file(m, "metrics.jsonl", saved, &m->fd));
    TRY(open_file(m, SPEED_FILE, saved, &m->speed_fd));
    return spec->tensorboard ? events_open(&m->events, spec->run_dir, spec->stage, saved + 1) : OK;
}

Err metrics_sync(const Metrics *m)
{
    PROFILE(PHASE_IO);
    const bool synced = m->fd < 0 || (fdatasync(m->fd) == 0 && fdatasync(m->speed_fd) == 0);
    CHECK(synced, ERR_IO, "cannot sync metrics.jsonl and %s of %s: %s", SPEED_FILE, m->spec->run_dir, strerror(errno));
    return events_sync(&m->events);
}

void metrics_close(Metrics *m)
{
    if (m->fd >= 0) close(m->fd);
    if (m->speed_fd >= 0) close(m->speed_fd);
    m->fd = m->speed_fd = -1;
    events_close(&m->events);
}

typedef struct Rates {
    double grad_norm, learning_rate;  // of the last step
} Rates;

typedef struct Line {  // of metrics.jsonl: its quantities in their order
    Scalar s[10];
    int n;
} Line;

static void line_add(Line *l, const char *prefix, const char *name, double value)
{
    Scalar *s = &l->s[l->n++];
    snprintf(s->name, sizeof s->name, "%s%s", prefix, name);
    s->value = value;
}

// rates NULL: measured on held-out rows.
static void line_fill(Line *l, const Metrics *m, int64_t step, const StepMetrics *s, const Rates *rates)
{
    const char *prefix = rates ? "" : "eval_";
    line_add(l, "", "epoch", (double)step / m->steps_per_epoch);
    line_add(l, prefix, "loss", s->loss);
    if (rates) {
        line_add(l, "", "grad_norm", rates->grad_norm);
        line_add(l, "", "learning_rate", rates->learning_rate);
    }
    if (!m->spec->pairs) {
        line_add(l, prefix, "mean_token_accuracy", s->accuracy);
        return;
    }
    line_add(l, prefix, "rewards/chosen", s->reward[0]);
    line_add(l, prefix, "rewards/rejected", s->reward[1]);
    line_add(l, prefix, "rewards/accuracies", s->accuracy);
    line_add(l, prefix, "rewards/margins", s->margin);
    line_add(l, prefix, "logps/chosen", s->logp[0]);
    line_add(l, prefix, "logps/rejected", s->logp[1]);
}

// JSON has no number that is not finite.
static Err put_value(Str *t, const Scalar *s, int digits)
{
    return isfinite(s->value) ? str_printf(t, ",\"%s\":%.*g", s->name, digits, s->value) : str_printf(t, ",\"%s\":null", s->name);
}

static Err write_line(Metrics *m, int64_t step, const StepMetrics *s, const Rates *rates)
{
    Str t = {0};
    Line l = {.n = 0};
    Err err = OK;
    if (m->fd < 0) return OK;
    line_fill(&l, m, step, s, rates);
    TRY_DONE(str_printf(&t, "{\"stage\":\"%s\",\"step\":%lld", m->spec->stage, (long long)step));
    for (int i = 0; i < l.n; i++) TRY_DONE(put_value(&t, &l.s[i], i ? 9 : 6));  // epoch: 6
    TRY_DONE(str_puts(&t, "}\n"));
    fault_point("step-finished");
    if (fault_due("step-line")) {
        (void)!io_write_all(m->fd, "metrics.jsonl", t.p, t.len / 2);
        fault_kill("step-line");
    }
    TRY_DONE(io_write_all(m->fd, "metrics.jsonl", t.p, t.len));
    TRY_DONE(events_add(&m->events, step, l.s, l.n));
done:
    str_free(&t);
    return err;
}

// Tokens and seconds since the line before: not in metrics.jsonl, which is the same for every layout.
static Err write_speed(Metrics *m, int64_t step)
{
    double now = time_now();
    char line[192];
    int n = snprintf(line, sizeof line, "{\"stage\":\"%s\",\"step\":%lld,\"tokens\":%.0f,\"seconds\":%.6f}\n", m->spec->stage,
                     (long long)step, m->tokens - m->line_tokens, now - m->line_at);
    m->line_at = now, m->line_tokens = m->tokens;
    return m->speed_fd < 0 ? OK : io_write_all(m->speed_fd, SPEED_FILE, line, n);
}

// --- intervals and warnings --------------------------------------------------------------------------------------------

void metrics_add(StepMetrics *sum, const StepMetrics *s, double factor)
{
    double *a = (double *)sum;
    const double *b = (const double *)s;
    for (size_t i = 0; i < sizeof *s / sizeof *a; i++) a[i] += factor * b[i];
}

static void print_line(const Metrics *m, int64_t step, const StepMetrics *s, double lr, double norm)
{
    char pairs[96] = "", span[32];
    double spent = time_now() - m->started, left = spent / (double)(step - m->first_step) * (double)(m->total - step);
    if (m->spec->pairs) snprintf(pairs, sizeof pairs, "  margin %.4f  accuracy %.3f", s->margin, s->accuracy);
    time_span(left, span);
    log_info(m->spec->stage, "step %lld/%lld  epoch %.2f  loss %.4f%s  grad norm %.3f  lr %.3g  %.0f tokens/s, %s left",
             (long long)step, (long long)m->total, (double)step / m->steps_per_epoch, s->loss, pairs, norm, lr,
             m->tokens / spent, span);
}

static void warn_logps(Metrics *m, int64_t step, const StepMetrics *s)
{
    if (m->state->warned_logps || s->logp[0] >= (1 + WARN_FALL / 100.0) * s->ref_logp[0]) return;
    m->state->warned_logps = true;
    log_warn(m->spec->stage, "step %lld: chosen answers have become more than %d %% less likely (mean log-prob %.2f, reference "
             "%.2f): the model forgets what it should prefer; lower learning_rate or raise beta", (long long)step, WARN_FALL,
             s->logp[0], s->ref_logp[0]);
}

// Judged from the middle between warm-up and end on.
static void warn_accuracy(Metrics *m, int64_t step, const StepMetrics *s)
{
    MetricsState *now = m->state;
    double warmup = ceil(m->spec->warmup_ratio * (double)m->total);
    if ((double)step <= warmup) return;
    now->accuracy_sum += s->accuracy, now->accuracy_count++;
    double mean = 100 * now->accuracy_sum / (double)now->accuracy_count;
    bool late = step >= (m->total + (int64_t)warmup) / 2 && now->accuracy_count >= 4;
    if (now->warned_accuracy || !late || mean >= WARN_ACCURACY) return;
    now->warned_accuracy = true;
    log_warn(m->spec->stage, "step %lld: the preferred answer wins only %.1f %% of the time since the warm-up, less than %d %%: the "
             "model does not learn these preferences; raise learning_rate or look at the pairs", (long long)step, mean,
             WARN_ACCURACY);
}

Err metrics_step(Metrics *m, int64_t step, const StepMetrics *s, double lr, double norm, int64_t tokens)
{
    MetricsState *now = m->state;
    metrics_add(&now->sum, s, 1);
    now->count++;
    m->tokens += (double)tokens;
    if (m->spec->pairs) warn_logps(m, step, s);
    if (m->spec->pairs) warn_accuracy(m, step, s);
    if (step % m->spec->logging_steps && step != m->total) return OK;
    StepMetrics mean = {0};
    metrics_add(&mean, &now->sum, 1.0 / (double)now->count);
    now->sum = (StepMetrics){0};
    now->count = 0;
    print_line(m, step, &mean, lr, norm);
    TRY(write_line(m, step, &mean, &(Rates){norm, lr}));
    return write_speed(m, step);
}

Err metrics_eval(Metrics *m, int64_t step, const StepMetrics *s)
{
    if (m->spec->pairs)
        log_info(m->spec->stage, "step %lld: held-out loss %.4f  margin %.4f  accuracy %.3f", (long long)step, s->loss,
                 s->margin, s->accuracy);
    else
        log_info(m->spec->stage, "step %lld: held-out loss %.4f  token accuracy %.3f", (long long)step, s->loss, s->accuracy);
    return write_line(m, step, s, NULL);
}

void metrics_lengths(const TrainSpec *spec, double chosen, double rejected)
{
    if (chosen <= (1 + WARN_LONGER / 100.0) * rejected) return;
    log_warn(spec->stage, "in these pairs chosen answers are %.0f %% longer than rejected ones (mean %.1f against %.1f tokens): the "
             "model may learn length instead of quality; loss_type: sigmoid_norm lessens it, and imf eval compares the lengths "
             "of the models' own answers", 100 * (chosen / rejected - 1), chosen, rejected);
}
