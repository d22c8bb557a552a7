// What a person and a plot see of a training run: metrics.jsonl under TRL's names, one line a logging interval, warnings.
#ifndef IMF_TRAIN_METRICS_H
#define IMF_TRAIN_METRICS_H

#include "train/loss.h"
#include "train/spec.h"

// Means over the examples of one step (all fields are doubles: metrics_add adds them field by field).
typedef struct StepMetrics {
    double loss;                          // of the step as defined in loss.h
    double reward[2], accuracy, margin;   // pairs: means
    double logp[2], ref_logp[2];          // pairs: means of chosen, rejected
} StepMetrics;

// From the gathered log-probabilities of n examples. targets: SFT's normaliser.
StepMetrics metrics_of(const TrainSpec *spec, const PairLogp *policy, const PairLogp *reference, int64_t n);

void metrics_add(StepMetrics *sum, const StepMetrics *s, double factor);

typedef struct Metrics {
    const TrainSpec *spec;
    int fd;                    // metrics.jsonl, rank 0; -1 elsewhere
    int64_t steps, total;      // of the run
    double steps_per_epoch;
    StepMetrics sum;           // of the interval
    int64_t count;
    double started, tokens;    // of this process: rate and time left
    int64_t first_step;
    double accuracy_sum;       // since the warm-up's end
    int64_t accuracy_count;
    bool warned_logps, warned_accuracy;
} Metrics;

// Opens run_dir/metrics.jsonl for appending and forgets this stage's lines behind `step` (a resumed run repeats them).
// Local: rank 0 writes, others do nothing.
Err metrics_open(Metrics *m, const TrainSpec *spec, int64_t step, int64_t total, double steps_per_epoch) ERR_MUST_CHECK;
void metrics_close(Metrics *m);

// After optimiser step `step` (1-based): every logging_steps writes the interval's means, the step's lr and grad_norm.
Err metrics_step(Metrics *m, int64_t step, const StepMetrics *s, double lr, double grad_norm, int64_t tokens) ERR_MUST_CHECK;
Err metrics_eval(Metrics *m, int64_t step, const StepMetrics *s) ERR_MUST_CHECK;

// Plain words when chosen answers are much longer than rejected ones (the model will learn to lengthen).
void metrics_lengths(const TrainSpec *spec, double chosen, double rejected);

#endif
