// SPDX-License-Identifier: Apache-2.0
// What a person and a plot see of a training run: metrics.jsonl under TRL's names, one line a logging interval, warnings.
// Beside it speed.jsonl has a line {"stage","step","tokens","seconds"} an interval: times, which differ between layouts. On request
// TensorBoard's event files (events.h) say what metrics.jsonl says.
#ifndef IMF_TRAIN_METRICS_H
#define IMF_TRAIN_METRICS_H

#include "train/events.h"
#include "train/loss.h"
#include "train/spec.h"

#define SPEED_FILE "speed.jsonl"  // of the run directory

// When a person is warned, in percent. WARN_LONGER is also that of imf eval.
enum {
    WARN_FALL = 20,      // log-probability of chosen answers below their reference
    WARN_ACCURACY = 55,  // of the pairs since the warm-up
    WARN_LONGER = 30     // answers
};

// Means over the examples of one step (all fields are doubles: metrics_add adds them field by field).
typedef struct StepMetrics {
    double loss;                          // of the step as defined in loss.h
    double reward[2], margin;             // pairs: means
    double accuracy;                      // pairs: share that is ordered right; SFT: share of target tokens that are likeliest
    double logp[2], ref_logp[2];          // pairs: means of chosen, rejected
} StepMetrics;

// From the gathered log-probabilities of n examples. targets: SFT's normaliser.
StepMetrics metrics_of(const TrainSpec *spec, const PairLogp *policy, const PairLogp *reference, int64_t n);

void metrics_add(StepMetrics *sum, const StepMetrics *s, double factor);

// What the lines and warnings to come depend on besides the steps to come: a checkpoint keeps it, so that a resumed run
// goes on as an undisturbed one.
typedef struct MetricsState {
    StepMetrics sum;           // of the interval so far
    int64_t count;             // its steps
    double accuracy_sum;       // since the warm-up's end
    int64_t accuracy_count;
    bool warned_logps, warned_accuracy;
} MetricsState;

typedef struct Metrics {
    const TrainSpec *spec;
    MetricsState *state;       // the caller's
    int fd, speed_fd;          // metrics.jsonl and speed.jsonl, rank 0; -1 elsewhere
    Events events;             // rank 0, when the recipe wants them
    int64_t steps, total;      // of the run
    double steps_per_epoch;
    double started, tokens;    // of this process: rate and time left
    double line_at, line_tokens;  // started and tokens at the line before
    int64_t first_step;
} Metrics;

// Opens run_dir/metrics.jsonl and speed.jsonl for appending. `saved`: the step of the checkpoint that the run goes on from,
// -1 when it begins; lines of this stage behind it are forgotten (the run repeats them), at -1 all of them. The event
// file is a new one that says so. Local: rank 0 writes, others do nothing.
Err metrics_open(Metrics *m, const TrainSpec *spec, MetricsState *state, int64_t saved, int64_t total, double steps_per_epoch)
    ERR_MUST_CHECK;
void metrics_close(Metrics *m);

// Local. The lines so far are on the disk: called before a checkpoint says that they are not needed again.
Err metrics_sync(const Metrics *m) ERR_MUST_CHECK;

// After optimiser step `step` (1-based): every logging_steps writes the interval's means, the step's lr and grad_norm.
Err metrics_step(Metrics *m, int64_t step, const StepMetrics *s, double lr, double grad_norm, int64_t tokens) ERR_MUST_CHECK;
Err metrics_eval(Metrics *m, int64_t step, const StepMetrics *s) ERR_MUST_CHECK;

// A remark on the data: plain words when their chosen answers are much longer than the rejected ones (mean tokens). Whether
// the model's own answers lengthen is seen by imf eval.
void metrics_lengths(const TrainSpec *spec, double chosen, double rejected);

#endif
