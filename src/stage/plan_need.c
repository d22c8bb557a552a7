// SPDX-License-Identifier: Apache-2.0
// What a stage needs: opened from config.json alone; the tokenizer, the rows and the prompts are read where they are there, and
// bounds of the recipe take their place where they are not.
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "kernels/cuda/device.h"
#include "model/reward.h"
#include "stage/plan_parts.h"
#include "text/prompt.h"
#include "text/record.h"
#include "train/checkpoint.h"
#include "train/finetune.h"

// From the runs in docs/plan.md: what saving and exporting take of the rank that does it (MPI-IO, HDF5).
enum { SAVE_BYTES = 24 << 20 };
// oneDNN in fp32 training: of a rank, and the code of its products, some 20 for every row length, of which it keeps at most 1,024 (a run of
// 480 rows grew by 100 MiB).
enum { DNNL_BYTES = 8 << 20, SHAPES = 50, SHAPE_BYTES = 2 << 20 };
enum { SOME_PROMPT = 1024 };  // tokens of the longest prompt while it is not known
enum { RECORD_BYTES = 400, TOKEN_BYTES = 12 };  // of a sample's record, and more a token (its id and its text)

// --- opening ---------------------------------------------------------------------------------------------------------------

static const char *source_text(char path[96], int64_t i, const char *key)
{
    snprintf(path, 96, "sources[%lld].%s", (long long)i, key);
    return path;
}

static Err open_model(PlanStage *p, const char *dir, DType dtype)
{
    TRY(model_config_load(dir, &p->model.cfg));
    snprintf(p->who, sizeof p->who, "%.79s", io_basename(dir));
    p->model.dtype = dtype;
    return model_layout(&p->model);
}

// The tokenizer when the directory has one; *tok stays NULL when it has not.
static Err open_text(const char *dir, const char *template, Tokenizer **tok, const ChatTemplate **chat)
{
    char path[IO_PATH];
    TRY(io_join(path, dir, "tokenizer.json"));
    if (!io_exists(path)) return OK;
    TRY(tok_load(dir, tok));
    return chat_template(*tok, *template ? template : NULL, chat);
}

// The rows' file, or the pair stage's records when it has ended.
static bool rows_are_there(const Job *job, const char *data, const char *set)
{
    char dir[IO_PATH], path[IO_PATH];
    if (*data) return io_exists(data);
    return io_join(dir, job->run_dir, set) == OK && io_join(path, dir, "done") == OK && io_exists(path);
}

static Err open_rows(PlanStage *p, const Job *job, const char *dir, const char *data, Dataset *rows, bool *known)
{
    Tokenizer *tok = NULL;
    const ChatTemplate *chat = NULL;
    const char *set = p->spec.pairs ? SET_PAIRS : SET_SFT;
    const int64_t before = mem_now();
    Err err = OK;
    *known = false;
    TRY_DONE(open_text(dir, deck_str(job->deck, "target.template"), &tok, &chat));
    if (!tok || !rows_are_there(job, data, set)) goto done;
    const DataSpec d = {.stage = p->stage, .run_dir = job->run_dir, .path = data, .set = set, .pairs = p->spec.pairs, .look = true,
                        .keep_start = p->spec.keep_start, .max_length = p->spec.max_length, .tok = tok, .chat = chat};
    TRY_DONE(dataset_load(&d, rows));
    *known = true;
done:
    p->text = mem_now() - before;
    tok_free(tok);
    return err;
}

static Err open_train(PlanStage *p, const Job *job, bool pairs)
{
    const char *dir = deck_str(job->deck, pairs ? "dpo.base" : "target.path");
    Dataset rows = {0};
    bool known;
    Err err = OK;
    p->work = WORK_TRAIN;
    if (!*dir) TRY(deck_need(job->deck, "target.path", &dir));
    Ctx ctx = *job->ctx;
    p->on_device = !strcmp(deck_str(job->deck, "device"), "cuda");
    if (p->on_device) TRY(device_plan(&ctx.device));
    TRY(open_model(p, dir, job->ctx->dtype));
    TRY(train_spec(&p->spec, job->deck, p->stage, job->run_dir, pairs));
    TRY_DONE(open_rows(p, job, dir, deck_str(job->deck, pairs ? "dpo.data" : "sft.data"), &rows, &known));
    TRY_DONE(train_work(&ctx, &p->spec, &p->model, known ? &rows : NULL, &p->train));
    p->items = p->train.examples;
    p->tokens = known ? p->train.tokens + p->train.reference : -1;
    p->reference = p->train.reference;
    if (!known)
        snprintf(p->note, sizeof p->note, "its rows or the tokenizer are not there yet: rows of %lld tokens are assumed",
                 (long long)p->train.row_tokens);
done:
    dataset_free(&rows);
    return err;
}

// --- prompts ---------------------------------------------------------------------------------------------------------------

typedef struct Prompts {
    int64_t n, longest;
    double tokens;
} Prompts;

static Err measure_prompt(RecordSet *set, int64_t i, const Tokenizer *tok, const ChatTemplate *chat, Prompts *out)
{
    json_t *data = NULL;
    Message *m = NULL;
    Ids ids = {0};
    int64_t n;
    Err err = OK;
    TRY_DONE(record_read(set, i, &data));
    TRY_DONE(prompt_messages(data, "a prompt", &m, &n));
    TRY_DONE(chat_prompt(chat, tok, m, n, &ids));
    if (ids.n > out->longest) out->longest = ids.n;
    out->tokens += (double)ids.n;
done:
    ids_free(&ids);
    mem_free(m);
    json_decref(data);
    return err;
}

static Err count_row(void *user, const json_t *row, const char *where)
{
    (void)row, (void)where;
    ++*(int64_t *)user;
    return OK;
}

// Rows of the prompts' files, as far as their limits and select.max_prompts let them through.
static Err count_files(const Deck *d, int64_t *sum)
{
    char path[96];
    const int64_t most = deck_i64(d, "select.max_prompts");
    *sum = 0;
    for (int64_t i = 0; i < deck_count(d, "prompts"); i++) {
        int64_t n = 0;
        snprintf(path, sizeof path, "prompts[%lld].path", (long long)i);
        TRY(jsonl_each(deck_str(d, path), count_row, &n));
        snprintf(path, sizeof path, "prompts[%lld].limit", (long long)i);
        const int64_t limit = deck_i64(d, path);
        *sum += limit && limit < n ? limit : n;
    }
    if (most && most < *sum) *sum = most;
    return OK;
}

// From the select stage's records when they and the tokenizer are there.
static Err look_at_prompts(const Job *job, const Tokenizer *tok, const ChatTemplate *chat, Prompts *out)
{
    RecordSet *set = NULL;
    Err err = OK;
    *out = (Prompts){0};
    TRY_DONE(record_open(&set, job->run_dir, SET_PROMPTS));
    out->n = record_count(set);
    if (!out->n) TRY_DONE(count_files(job->deck, &out->n));
    for (int64_t i = 0; tok && i < record_count(set); i++) TRY_DONE(measure_prompt(set, i, tok, chat, out));
done:
    record_free(set);
    return err;
}

static Err open_decode(PlanStage *p, const Job *job, const char *dir, const char *template, DecodeShape shape)
{
    Tokenizer *tok = NULL;
    const ChatTemplate *chat = NULL;
    Prompts prompts;
    const int64_t before = mem_now();
    Err err = OK;
    p->work = WORK_DECODE;
    p->decode = shape;
    TRY(open_model(p, dir, job->ctx->dtype));
    TRY_DONE(open_text(dir, template, &tok, &chat));
    p->text = mem_now() - before;
    p->on_device = !strcmp(deck_str(job->deck, "device"), "cuda");
    TRY_DONE(look_at_prompts(job, tok, chat, &prompts));
    p->at_most = true;
    if (prompts.n) p->items = prompts.n * shape.n;
    if (prompts.n) p->tokens = (double)p->items * (double)shape.new_tokens + prompts.tokens;
    p->decode.prompt_len = prompts.longest ? prompts.longest : SOME_PROMPT;
    if (!prompts.longest) snprintf(p->note, sizeof p->note, "prompts are not selected yet: up to %d tokens are assumed", SOME_PROMPT);
done:
    tok_free(tok);
    return err;
}

static Err open_sample(PlanStage *p, const Job *job, int64_t i)
{
    char path[96];
    const Deck *d = job->deck;
    const DecodeShape shape = {.slots = deck_i64(d, "sample.slots"), .n = deck_i64(d, source_text(path, i, "n")),
                               .new_tokens = deck_i64(d, source_text(path, i, "max_new_tokens"))};
    const char *template = deck_str(d, source_text(path, i, "template"));
    return open_decode(p, job, deck_str(d, source_text(path, i, "path")), template, shape);
}

static Err open_eval(PlanStage *p, const Job *job)
{
    const Deck *d = job->deck;
    const DecodeShape shape = {.slots = deck_i64(d, "sample.slots"), .n = 1, .new_tokens = deck_i64(d, "eval.max_new_tokens")};
    const char *dir;
    TRY(deck_need(d, "target.path", &dir));
    return open_decode(p, job, dir, deck_str(d, "target.template"), shape);
}

static Err open_score(PlanStage *p, const Job *job)
{
    Tokenizer *tok = NULL;
    const ChatTemplate *chat = NULL;
    const char *dir;
    const int64_t before = mem_now(), longest = deck_i64(job->deck, "reward.max_length");
    Ctx ctx = *job->ctx;
    p->work = WORK_SCORE;
    p->on_device = !strcmp(deck_str(job->deck, "device"), "cuda");
    if (p->on_device) TRY(device_plan(&ctx.device));
    TRY(deck_need(job->deck, "reward.path", &dir));
    TRY(open_model(p, dir, job->ctx->dtype));
    Err err = open_text(dir, deck_str(job->deck, "reward.template"), &tok, &chat);
    p->text = mem_now() - before;
    tok_free(tok);
    int64_t tokens = longest > SCORE_TOKENS ? longest : SCORE_TOKENS;
    if (tokens > p->model.cfg.max_positions && p->model.cfg.max_positions > SCORE_TOKENS) tokens = p->model.cfg.max_positions;
    p->batch = reward_hidden_bytes(&ctx, &p->model, tokens, SCORE_ROWS);
    return err;
}

Err plan_open(PlanStage *p, const Job *job, const char *stage, int64_t source, OwnMemory base)
{
    *p = (PlanStage){.stage = stage, .deck = job->deck, .base = base, .items = -1, .tokens = -1};
    if (!strcmp(stage, "sample")) return open_sample(p, job, source);
    if (!strcmp(stage, "score")) return open_score(p, job);
    if (!strcmp(stage, "eval")) return open_eval(p, job);
    if (!strcmp(stage, "sft") || !strcmp(stage, "dpo")) return open_train(p, job, !strcmp(stage, "dpo"));
    p->work = WORK_PROGRAMS;
    p->programs = deck_i64(job->deck, "verify.memory_mb") << 20;
    return OK;
}

void plan_close(PlanStage *p)
{
    train_work_free(&p->train);
    model_free(&p->model);
    *p = (PlanStage){0};
}

// --- bytes -----------------------------------------------------------------------------------------------------------------

// Of a node, whatever the stage: program, libraries, tokenizer, examples.
static int64_t own_bytes(const PlanStage *p, PlanLayout l) { return (p->base.own + p->text) * l.per_node + p->base.files; }

static Err train_bytes(const PlanStage *p, PlanLayout l, int64_t bytes[PLAN_KINDS])
{
    TrainNeed n;
    TRY(train_need(&p->train, &p->model, l.ranks, 0, l.per_node, &n));
    bytes[PLAN_OPTIMISER] = n.moments;
    if (p->on_device) return bytes[PLAN_COPY] = 0, bytes[PLAN_OTHER] += SAVE_BYTES, OK;
    bytes[PLAN_GRADIENTS] = n.gradients;
    bytes[PLAN_ACTIVATIONS] = n.activations;
    bytes[PLAN_OTHER] += n.received + SAVE_BYTES;
    const int64_t lengths = n.calls < SHAPES * l.per_node ? n.calls : SHAPES * l.per_node;
    if (p->model.dtype == DT_F32) bytes[PLAN_OTHER] += DNNL_BYTES * l.per_node + lengths * SHAPE_BYTES;
    return OK;
}

// No more samples in flight than a rank's share (as imf sample has it).
static Err decode_needs(const PlanStage *p, int64_t ranks, DecodeNeed *out)
{
    DecodeShape s = p->decode;
    Ctx ctx = {.dtype = p->model.dtype};
    const int64_t share = p->items > 0 ? (p->items + ranks - 1) / ranks : s.slots;
    if (s.slots > share) s.slots = share;
    if (p->on_device) TRY(device_plan(&ctx.device));
    return decode_need(&ctx, &p->model, &s, out);
}

static Err decode_bytes(const PlanStage *p, PlanLayout l, int64_t bytes[PLAN_KINDS])
{
    DecodeNeed n;
    TRY(decode_needs(p, l.ranks, &n));
    bytes[PLAN_OTHER] += n.sampler * l.per_node;
    if (p->on_device) return OK;
    bytes[PLAN_KV] = n.kv * l.per_node;
    bytes[PLAN_ACTIVATIONS] = n.rows * l.per_node;
    bytes[PLAN_OTHER] += n.logits * l.per_node;
    return OK;
}

// What is not trained is on the device alone.
static bool on_host(const PlanStage *p) { return p->work == WORK_TRAIN || !p->on_device; }

Err plan_bytes(const PlanStage *p, PlanLayout l, int64_t bytes[PLAN_KINDS])
{
    memset(bytes, 0, PLAN_KINDS * sizeof *bytes);
    bytes[PLAN_OTHER] = own_bytes(p, l);
    if (p->work == WORK_PROGRAMS) return bytes[PLAN_OTHER] += p->programs * l.per_node, OK;
    if (on_host(p)) {
        const ModelBytes m = model_bytes(&p->model, p->model.dtype, p->work == WORK_TRAIN);
        bytes[PLAN_WEIGHTS] = m.weights;
        bytes[PLAN_COPY] = m.copy;
        bytes[PLAN_OTHER] += m.rope;
    }
    if (p->work == WORK_TRAIN) return train_bytes(p, l, bytes);
    if (p->work == WORK_DECODE) return decode_bytes(p, l, bytes);
    if (on_host(p)) bytes[PLAN_ACTIVATIONS] = p->batch * l.per_node;
    return OK;
}

Err plan_device(const PlanStage *p, int64_t ranks, DeviceNeed *out)
{
    const bool grads = !strcmp(deck_str(p->deck, "shard"), "grads");
    if (p->work == WORK_TRAIN) return train_need_of_device(&p->train, &p->model, grads, ranks, out);
    *out = (DeviceNeed){.weights = model_device_bytes(&p->model), .activations = p->batch};
    if (p->work == WORK_SCORE) return OK;
    DecodeNeed n;
    TRY(decode_needs(p, ranks, &n));
    out->activations = n.rows + n.logits, out->kv = n.kv;
    return OK;
}

static int64_t file_bytes(const Model *m, DType storage) { return m->elements * (storage == DT_F32 ? 4 : 2); }

int64_t plan_load_bytes(const PlanStage *p, PlanLayout l)
{
    if (p->work == WORK_PROGRAMS) return 0;
    const ModelBytes m = model_bytes(&p->model, p->model.dtype, p->work == WORK_TRAIN);
    return (on_host(p) ? m.weights : 0) + file_bytes(&p->model, p->model.cfg.storage) + own_bytes(p, l);
}

int64_t plan_most_ranks(const PlanStage *p) { return p->work == WORK_TRAIN ? p->spec.grad_chains : 0; }

// At most: a new checkpoint is there before the oldest goes, and some are kept for good. Without either clock there is one, at the
// end.
static int64_t checkpoints_kept(const TrainSpec *s, int64_t steps)
{
    const int64_t good = s->save_keep_every && steps > 0 ? steps / s->save_keep_every : 0, most = s->save_total_limit + 1 + good;
    if (!s->save_steps && !s->save_seconds) return 1;
    return steps > 0 && steps < most ? steps : most;
}

PlanDisk plan_disk(const PlanStage *p)
{
    PlanDisk d = {0};
    if (p->work == WORK_TRAIN) {
        const DType storage = finetune_export_dtype(p->deck, p->stage, p->model.cfg.storage);
        d.checkpoint = checkpoint_bytes(&p->model);
        d.kept = checkpoints_kept(&p->spec, p->train.steps);
        d.model = file_bytes(&p->model, storage);
    } else if (p->items > 0) {
        d.records = p->items * RECORD_BYTES + (int64_t)((p->tokens > 0 ? p->tokens : 0) * TOKEN_BYTES);
    }
    return d;
}
