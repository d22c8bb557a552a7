// SPDX-License-Identifier: Apache-2.0
// Sampling from a model: prompts in, n samples each out; the prompt is computed once, its key/value pages are shared.
//
// A sample is a pure function of (model, prompt ids, sampling parameters, sample id): random numbers are Philox keyed by
// the sample id with the index of the output token as counter, and no op's bits depend on which other samples are in flight
// (law 1).
#ifndef IMF_DECODE_DECODE_H
#define IMF_DECODE_DECODE_H

#include "base/hash.h"
#include "decode/sampler.h"
#include "kernels/ops.h"
#include "model/model.h"

typedef struct DecodeRequest {
    const int32_t *prompt;  // ids; borrowed until the request is finished
    int64_t prompt_len;     // 1 .. model->rope_positions - 1
    SamplingParams params;
    const Id *sample_id;    // [n], borrowed likewise
    int32_t n;              // samples of this prompt, >= 1
    void *user;             // handed back
} DecodeRequest;

typedef enum FinishReason { FINISH_STOP, FINISH_LENGTH } FinishReason;
const char *finish_name(FinishReason f);  // "stop", "length"

typedef struct DecodeResult {
    const DecodeRequest *request;
    int32_t k;              // which of the n
    bool last;              // the request's last result: what it borrowed is free again
    const int32_t *id;      // output ids, without the stop token; valid during the call
    int64_t n;
    FinishReason finish;
    int32_t stop_token;     // -1 when cut by length (max_new_tokens, or the model's positions are used up)
    double logp;            // sum over output ids and the stop token, unmodified distribution
} DecodeResult;

// next: fills in the next request, or sets *have = false when there will never be another one.
// done: takes one result; results come in any order.
// tick: called between decode steps and after each prompt (serving a ParQueue); NULL: nothing to do.
typedef struct DecodeIo {
    Err (*next)(void *user, DecodeRequest *out, bool *have);
    Err (*done)(void *user, const DecodeResult *r);
    Err (*tick)(void *user);
    void *user;
    int64_t *drawn;  // counts tokens as they are drawn, for a progress line; or NULL
} DecodeIo;

// Runs until next has no more. slots: samples in flight at most. extra_stop: ids that end a sample besides the model's own.
// Local: an error ends this rank's run only; the caller agrees.
Err decode_run(Ctx *ctx, const Model *m, int32_t slots, const int32_t *extra_stop, int32_t extra_stops,
               const DecodeIo *io) ERR_MUST_CHECK;

// What decode_run takes at most, in bytes, besides the model: for plans (of the model: layout and dtype).
typedef struct DecodeShape {
    int64_t slots, n, prompt_len, new_tokens;  // n: samples of a prompt; the longest prompt and answer
} DecodeShape;
typedef struct DecodeNeed {
    int64_t kv, rows, logits, sampler;  // pages; activations with their workspace; the host's sampler, whose ops run where they may
} DecodeNeed;
// ctx: where the model's ops run; NULL: on the host.
Err decode_need(Ctx *ctx, const Model *m, const DecodeShape *s, DecodeNeed *out) ERR_MUST_CHECK;

#endif
