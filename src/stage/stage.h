// SPDX-License-Identifier: Apache-2.0
// The commands. Stages meet only through files in the run directory (text/record.h); none calls another.
#ifndef IMF_STAGE_STAGE_H
#define IMF_STAGE_STAGE_H

#include "base/deck.h"
#include "base/err.h"
#include "kernels/ops.h"

// What main hands to a command.
typedef struct Job {
    int argc;            // arguments after the command's name and the common options
    char **argv;
    const Deck *deck;    // NULL for commands that take no recipe
    const char *run_dir; // from the recipe
    Ctx *ctx;
    int *exit_code;      // commands that answer without MPI (status, doctor): set to 1 for "no"; NULL for all others
    // Collective: another command with a job of the caller's; for selftest.
    Err (*call)(const struct Job *job, const char *command);
} Job;

// Pipeline order.
Err stage_select(const Job *job);
Err stage_sample(const Job *job);
Err stage_score(const Job *job);
Err stage_verify(const Job *job);
Err stage_pair(const Job *job);
Err stage_sft(const Job *job);
Err stage_dpo(const Job *job);
Err stage_eval(const Job *job);
Err stage_reward(const Job *job);
// Looking.
Err stage_trace(const Job *job);
Err stage_show(const Job *job);
Err stage_report(const Job *job);
Err stage_plan(const Job *job);
Err stage_status(const Job *job);
Err stage_doctor(const Job *job);
Err stage_audit(const Job *job);
Err stage_compare(const Job *job);
Err stage_selftest(const Job *job);
// Small commands.
Err stage_tokens(const Job *job);
Err stage_logprobs(const Job *job);
Err stage_generate(const Job *job);
Err stage_judge(const Job *job);

// Conversations that the score stage computes together: tokens (unless one alone is longer) and number.
enum { SCORE_TOKENS = 2048, SCORE_ROWS = 64 };

// Flags and rows of the commands that work without a recipe, as imf help prints them.
extern const char usage_score[], usage_tokens[], usage_logprobs[], usage_generate[], usage_judge[], usage_plan[],
    usage_status[], usage_doctor[], usage_audit[], usage_compare[], usage_selftest[];

// Names of the record sets of a run directory; `source` etc. are fields of the records.
#define SET_PROMPTS "prompts"    // data: {messages, kind, dataset, gold|tests|checks}
#define SET_DROPPED_PROMPTS "dropped_prompts"  // data: {what: "prompt", id, reason, dataset} of the select stage
#define SET_SAMPLES "samples"    // data: {prompt, source, k, seed, text, ids|null, tokenizer, finish, logp}; tokenizer: whose ids
#define SET_DROPPED_SAMPLES "dropped_samples"  // data: {what: "samples", id: prompt, source, reason} of the sample stage, or
                                               // {what: "row", id: sample, ...} of a user's file
#define SET_SCORES "scores"      // data: {sample, prompt, score, objectives[], gate[]} or {sample, unscored: reason}
#define SET_VERDICTS "verdicts"  // data: {sample, prompt, kind, outcome, grade, reason, extracted, trust};
                                 // outcome: right | wrong | undecided, trust: strong | weak
#define SET_SFT "sft_rows"       // data: {prompt, sample, messages, answer, ids|null, tokenizer, finish, score, source, kind}
#define SET_PAIRS "pairs"        // data: {prompt, chosen:{sample,answer,ids,tokenizer,finish,score}, rejected:{..}, source, margin, kind}
#define SET_DROPPED "dropped"    // data: {what, id, reason} of the pair stage

#endif
