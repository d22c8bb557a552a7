// SPDX-License-Identifier: Apache-2.0
// The parts of imf plan: what a stage needs (plan_need.c), how long it takes (plan_time.c), and the command (plan.c). Not for
// other stages.
#ifndef IMF_STAGE_PLAN_PARTS_H
#define IMF_STAGE_PLAN_PARTS_H

#include "base/machine.h"
#include "decode/decode.h"
#include "stage/stage.h"
#include "train/need.h"

typedef enum PlanKind {
    PLAN_WEIGHTS, PLAN_COPY, PLAN_GRADIENTS, PLAN_OPTIMISER, PLAN_ACTIVATIONS, PLAN_KV, PLAN_OTHER, PLAN_KINDS
} PlanKind;
typedef enum PlanWork { WORK_TRAIN, WORK_DECODE, WORK_SCORE, WORK_PROGRAMS } PlanWork;

typedef struct PlanLayout {
    int64_t ranks, per_node;
} PlanLayout;

// A stage, or one source of it, opened without weights.
typedef struct PlanStage {
    const char *stage;
    char who[80];            // the model's directory, by its last name
    PlanWork work;
    const Deck *deck;
    Model model;             // configuration and layout only
    TrainSpec spec;          // WORK_TRAIN
    TrainWork train;
    bool on_device;          // on GPUs, one a rank
    DecodeShape decode;      // WORK_DECODE
    int64_t batch;           // WORK_SCORE: bytes of a batch's activations
    int64_t programs;        // WORK_PROGRAMS: bytes of a candidate program
    int64_t text;            // a rank's tokenizer and examples, as measured
    OwnMemory base;          // program and libraries, as measured: of a rank, and (files) of a node
    int64_t items;           // prompts, samples, examples; -1: not known
    double tokens;           // of the whole stage, at most; -1: not known
    double reference;        // of these, how many are only computed forward
    bool at_most;            // tokens are a bound
    char note[256];          // what had to be assumed; empty: nothing
} PlanStage;

// Opens one. Local: rank 0. ERR_RECIPE when the recipe does not describe it.
Err plan_open(PlanStage *p, const Job *job, const char *stage, int64_t source, OwnMemory base) ERR_MUST_CHECK;
void plan_close(PlanStage *p);

// Bytes of one node, of the run itself; and (return value of plan_load_bytes) while the model is being loaded, when its file's
// pages are in memory as far as there is room for them.
Err plan_bytes(const PlanStage *p, PlanLayout layout, int64_t bytes[PLAN_KINDS]) ERR_MUST_CHECK;
int64_t plan_load_bytes(const PlanStage *p, PlanLayout layout);
// Of the GPU of the rank that needs most; the context and libraries of CUDA come on top.
Err plan_device(const PlanStage *p, int64_t ranks, DeviceNeed *out) ERR_MUST_CHECK;
int64_t plan_most_ranks(const PlanStage *p);  // that are of use; 0: any number

// Bytes on disk at most.
typedef struct PlanDisk {
    int64_t checkpoint, kept, model, records;  // bytes of one, and how many there are at a time
} PlanDisk;
PlanDisk plan_disk(const PlanStage *p);

// tokens/s of the whole job, and where the number comes from; 0: not known. given: from the command line; 0: none.
typedef struct PlanSpeed {
    double tokens;
    char source[128];
} PlanSpeed;
Err plan_speed(const PlanStage *p, const Job *job, PlanLayout layout, double given, PlanSpeed *out) ERR_MUST_CHECK;

#endif
