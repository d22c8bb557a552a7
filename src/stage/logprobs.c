// SPDX-License-Identifier: Apache-2.0
// imf logprobs: what the model thinks of given tokens.
//
// Runs on rank 0. Same code as training and scoring: model_forward, op_logprob_fwd.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/fit.h"
#include "model/model.h"
#include "par/par.h"
#include "stage/stage.h"
#include "text/chat.h"
#include "text/prompt.h"
#include "text/record.h"

const char usage_logprobs[] =
    "imf logprobs MODEL [--template NAME] [--top K] < JSONL > JSONL\n"
    "\n"
    "Rows in:\n"
    "  {\"ids\": [...]} or {\"text\": \"...\"} (no template, no BOS)\n"
    "  {\"messages\": [...], \"answer\": \"...\"}, or messages that end with the assistant's; without an answer the row ends with\n"
    "  the assistant's header. The answer's stop token counts as one of its tokens.\n"
    "Rows out:\n"
    "  {\"ids\", \"logprobs\": [null, log p(ids[1] | ids[0]), ...], \"sum\": of the answer's log-probabilities, or of all}\n"
    "  and \"answer\": index of its first token, where there is one\n"
    "\n"
    "  --template NAME   instead of the one chosen by the model's chat_template\n"
    "  --top K           add \"top\": [[id, logit], ...], the K largest logits behind the last token\n";

typedef struct Logprobs {
    Ctx *ctx;
    const char *dir, *template_name;
    Model model;
    Tokenizer *tok;            // NULL until a row needs it
    const ChatTemplate *chat;  // likewise
    Arena arena;
    int64_t top;
} Logprobs;

// --- rows to ids -----------------------------------------------------------------------------------------------------

static Err need_tokenizer(Logprobs *l)
{
    if (l->tok) return OK;
    TRY(tok_load(l->dir, &l->tok));
    return model_check_tokenizer(l->dir, l->tok, NULL);
}

static Err need_chat(Logprobs *l)
{
    TRY(need_tokenizer(l));
    if (l->chat) return OK;
    TRY(chat_template(l->tok, l->template_name, &l->chat));
    return model_check_tokenizer(l->dir, l->tok, l->chat);
}

static Err ids_of_array(const json_t *list, const char *where, Ids *ids)
{
    size_t i;
    const json_t *v;
    json_array_foreach(list, i, v) {
        CHECK(json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) <= INT32_MAX, ERR_DATA,
              "%s: \"ids\" must hold token ids", where);
        TRY(ids_push(ids, (int32_t)json_integer_value(v)));
    }
    return OK;
}

static Err ids_of_text(Logprobs *l, const char *text, Ids *ids)
{
    TRY(need_tokenizer(l));
    return tok_encode(l->tok, text, (int64_t)strlen(text), true, ids);
}

static Err ids_of_messages(Logprobs *l, const json_t *row, const char *where, Ids *ids, int64_t *answer)
{
    Message *m = NULL;
    int64_t n = 0;
    Err err = OK;
    const char *text = json_string_value(json_object_get(row, "answer"));
    TRY(need_chat(l));
    TRY_DONE(prompt_messages(row, where, &m, &n));
    if (!text && n > 0 && !strcmp(m[n - 1].role, "assistant")) text = m[--n].text;
    if (text) TRY_DONE(chat_example(l->chat, l->tok, m, n, text, NULL, ids, answer));
    else TRY_DONE(chat_prompt(l->chat, l->tok, m, n, ids));
done:
    mem_free(m);
    return err;
}

static Err row_ids(Logprobs *l, const json_t *row, const char *where, Ids *ids, int64_t *answer)
{
    const json_t *list = json_object_get(row, "ids"), *text = json_object_get(row, "text");
    *answer = -1;
    if (json_is_array(list)) TRY(ids_of_array(list, where, ids));
    else if (json_is_string(text)) TRY(ids_of_text(l, json_string_value(text), ids));
    else if (json_object_get(row, "messages")) TRY(ids_of_messages(l, row, where, ids, answer));
    else FAIL(ERR_DATA, "%s: a row needs \"ids\", \"text\" or \"messages\"", where);
    CHECK(ids->n > 0, ERR_DATA, "%s: no tokens", where);
    for (int64_t i = 0; i < ids->n; i++)
        CHECK(ids->id[i] < l->model.cfg.V, ERR_DATA, "%s: id %d is outside the model's vocabulary of %" PRId64, where,
              ids->id[i], l->model.cfg.V);
    return OK;
}

// --- computing -------------------------------------------------------------------------------------------------------

static Err forward_row(Logprobs *l, const Ids *ids, float *hidden)
{
    int32_t row[2] = {0, (int32_t)ids->n}, *pos;
    Segment seg = {0, (int32_t)ids->n, -1, 0};
    TRY(ARENA_ARRAY(&l->arena, &pos, ids->n));
    for (int64_t i = 0; i < ids->n; i++) pos[i] = (int32_t)i;
    Batch b = {.rows = 1, .T = ids->n, .row = row, .token = ids->id, .pos = pos, .seg = &seg, .S = 1};
    return model_forward(l->ctx, &l->model, &b, &l->arena, hidden, NULL);
}

static Err logprobs(Logprobs *l, const Ids *ids, const float *hidden, float *logp)
{
    const ModelConfig *c = &l->model.cfg;
    LogprobArgs a = {.hidden = tensor_f32((float *)hidden, c->H), .head = model_head(&l->model), .logp = logp, .T = ids->n,
                     .H = c->H, .V = c->V, .softcap = c->final_softcap};
    int32_t *target;
    TRY(ARENA_ARRAY(&l->arena, &target, ids->n));
    TRY(ARENA_ARRAY(&l->arena, &a.lse, ids->n));
    for (int64_t i = 0; i < ids->n; i++) target[i] = i + 1 < ids->n ? ids->id[i + 1] : -1;
    a.target = target;
    TRY(arena_alloc(&l->arena, &a.workspace, op_logprob_fwd_workspace(l->ctx, &a), 1));
    return op_logprob_fwd(l->ctx, &a);
}

// The K largest logits behind the last token, largest first, lower id first among equal ones.
static Err add_top(Logprobs *l, float *last, json_t *out)
{
    float *logit;
    Tensor hidden = tensor_f32(last, l->model.cfg.H);
    json_t *list = json_array();
    json_object_set_new(out, "top", list);
    TRY(ARENA_ARRAY(&l->arena, &logit, l->model.cfg.V));
    if (l->model.dtype == DT_BF16) {
        hidden.dtype = DT_BF16;
        TRY(arena_alloc(&l->arena, &hidden.p, hidden.stride, 2));
        RoundArgs a = {tensor_f32(last, hidden.stride), hidden, 1, hidden.stride};
        TRY(op_round(l->ctx, &a));
    }
    TRY(model_logits(l->ctx, &l->model, hidden, 1, logit));
    for (int64_t k = 0; k < l->top; k++) {
        int64_t best = 0;
        for (int64_t v = 1; v < l->model.cfg.V; v++)
            if (logit[v] > logit[best]) best = v;
        json_array_append_new(list, json_pack("[I,f]", (json_int_t)best, (double)logit[best]));
        logit[best] = -3e38f;
    }
    return OK;
}

static void add_logprobs(const Ids *ids, const float *logp, int64_t answer, json_t *out)
{
    json_t *id = json_array(), *list = json_array();
    double sum = 0;
    for (int64_t i = 0; i < ids->n; i++) {
        json_array_append_new(id, json_integer(ids->id[i]));
        json_array_append_new(list, i ? json_real((double)logp[i - 1]) : json_null());
        if (i && i >= answer) sum += (double)logp[i - 1];
    }
    json_object_set_new(out, "ids", id);
    json_object_set_new(out, "logprobs", list);
    if (answer >= 0) json_object_set_new(out, "answer", json_integer(answer));
    json_object_set_new(out, "sum", json_real(sum));
}

static Err compute(Logprobs *l, const Ids *ids, int64_t answer, json_t *out)
{
    float *hidden, *logp;
    TRY(ARENA_ARRAY(&l->arena, &hidden, ids->n * l->model.cfg.H));
    TRY(ARENA_ARRAY(&l->arena, &logp, ids->n));
    TRY(forward_row(l, ids, hidden));
    TRY(logprobs(l, ids, hidden, logp));
    add_logprobs(ids, logp, answer, out);
    if (l->top) TRY(add_top(l, hidden + (ids->n - 1) * l->model.cfg.H, out));
    return OK;
}

static Err one_row(void *user, const json_t *row, const char *where)
{
    Logprobs *l = user;
    Ids ids = {0};
    int64_t answer;
    json_t *out = json_object();
    Err err = OK;
    TRY_DONE(row_ids(l, row, where, &ids, &answer));
    TRY_DONE(compute(l, &ids, answer, out));
    json_dumpf(out, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    putchar('\n');
done:
    json_decref(out);
    ids_free(&ids);
    arena_reset(&l->arena);
    return err;
}

static Err options(const Job *job, Logprobs *l)
{
    for (int i = 0; i < job->argc; i++) {
        if (!strcmp(job->argv[i], "--top") && i + 1 < job->argc) l->top = strtol(job->argv[++i], NULL, 10);
        else if (!strcmp(job->argv[i], "--template") && i + 1 < job->argc) l->template_name = job->argv[++i];
        else if (!l->dir && job->argv[i][0] != '-') l->dir = job->argv[i];
        else FAIL(ERR_USAGE, "imf logprobs: '%s' is not understood\n%s", job->argv[i], usage_logprobs);
    }
    CHECK(l->dir, ERR_USAGE, "imf logprobs wants a model directory\n%s", usage_logprobs);
    CHECK(l->top >= 0 && l->top <= 1000, ERR_USAGE, "--top wants a number from 0 to 1000");
    return OK;
}

Err stage_logprobs(const Job *job)
{
    Logprobs l = {.ctx = job->ctx};
    Err err = OK;
    if (par_rank() != 0) return OK;
    TRY(options(job, &l));
    TRY_DONE(model_load_as(&l.model, l.dir, job->ctx->dtype, false));
    TRY_DONE(jsonl_stdin(one_row, &l));
done:
    tok_free(l.tok);
    model_free(&l.model);
    arena_free(&l.arena);
    return err;
}
