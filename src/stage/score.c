// SPDX-License-Identifier: Apache-2.0
// imf score RECIPE: every sample's score by the reward model, into the record set scores.
// imf score --model DIR [--template NAME] [--max-length N] < JSONL: the same for rows {prompt | messages, answer}.
//
// Conversations are rendered by the reward model's own template. Rows are dealt to ranks by token count (longest first, to the
// rank with the least work): all ranks come to the same list, each computes its own. A conversation is always computed as
// a row of its own, so that neither ranks nor batches change a bit. One that is longer than reward.max_length or the model's
// positions is marked unscored, never cut. A restarted stage computes what is not recorded yet.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "model/fit.h"
#include "model/reward_chat.h"
#include "par/par.h"
#include "stage/stage.h"
#include "text/prompt.h"
#include "text/record.h"

enum { BATCH_TOKENS = SCORE_TOKENS, BATCH_ROWS = SCORE_ROWS };

typedef struct Scorer {
    Ctx *ctx;
    RewardModel model;
    Tokenizer *tok;
    const ChatTemplate *chat;
    int64_t max_length;
    Arena arena;
} Scorer;

typedef struct Verdict {
    double objectives[REWARD_OBJECTIVES], gate[REWARD_OBJECTIVES], score;
} Verdict;

// Collective when `shared`.
static Err scorer_open(Scorer *s, Ctx *ctx, const char *dir, const char *template, int64_t max_length, bool shared)
{
    *s = (Scorer){.ctx = ctx};
    Err err = tok_load(dir, &s->tok);
    if (err == OK) err = chat_template(s->tok, template && *template ? template : NULL, &s->chat);
    if (err == OK) err = model_check_tokenizer(dir, s->tok, s->chat);
    TRY(shared ? par_agree(err) : err);
    TRY(reward_load(&s->model, ctx, dir, shared));
    s->arena.source = reward_memory(&s->model);
    const int64_t positions = s->model.model.rope_positions;
    s->max_length = max_length < positions ? max_length : positions;
    return OK;
}

static void scorer_close(Scorer *s)
{
    arena_free(&s->arena);
    reward_free(&s->model);
    tok_free(s->tok);
}

// Scores of n <= BATCH_ROWS conversations.
static Err score_batch(Scorer *s, const RewardInput *in, int64_t n, Verdict *out)
{
    const int64_t K = s->model.head.objectives;
    double score[BATCH_ROWS];
    RewardScores all = {.score = score};
    arena_reset(&s->arena);
    TRY(ARENA_ARRAY(&s->arena, &all.objectives, n * K));
    TRY(ARENA_ARRAY(&s->arena, &all.gate, n * K));
    TRY(reward_score(s->ctx, &s->model, &s->arena, in, n, &all));
    for (int64_t i = 0; i < n; i++) {
        memcpy(out[i].objectives, all.objectives + i * K, (size_t)K * sizeof *all.objectives);
        memcpy(out[i].gate, all.gate + i * K, (size_t)K * sizeof *all.gate);
        out[i].score = score[i];
    }
    return OK;
}

static json_t *list_of(const double *v, int64_t n)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < n; i++) json_array_append_new(list, json_real(v[i]));
    return list;
}

static void add_verdict(const Scorer *s, const Verdict *v, json_t *out)
{
    json_object_set_new(out, "score", json_real(v->score));
    json_object_set_new(out, "objectives", list_of(v->objectives, s->model.head.objectives));
    json_object_set_new(out, "gate", list_of(v->gate, s->model.head.objectives));
}

static void add_unscored(const Scorer *s, int64_t tokens, json_t *out)
{
    char reason[96];
    snprintf(reason, sizeof reason, "%" PRId64 " tokens, more than max_length %" PRId64, tokens, s->max_length);
    json_object_set_new(out, "unscored", json_string(reason));
}

// --- a person's rows ---------------------------------------------------------------------------------------------------

// The answer of a row: "answer", or the trailing assistant turn of its messages.
static const char *answer_of(const json_t *row)
{
    const char *answer = json_string_value(json_object_get(row, "answer"));
    const json_t *m = json_object_get(row, "messages");
    const json_t *last = json_array_get(m, json_array_size(m) - (json_array_size(m) > 0));
    const char *role = json_string_value(json_object_get(last, "role"));
    if (!answer && role && !strcmp(role, "assistant")) answer = json_string_value(json_object_get(last, "content"));
    return answer;
}

static Err render_row(Scorer *s, const json_t *row, const char *where, Ids *ids, int64_t *gating)
{
    json_t *data = NULL;
    Message *m = NULL;
    int64_t n;
    Id id;
    const char *unfit, *answer = answer_of(row);
    Err err = OK;
    CHECK(answer, ERR_DATA, "%s: a row needs \"answer\" (or messages that end with the assistant's)", where);
    TRY_DONE(prompt_import(row, NULL, "", where, &data, &id, &unfit));
    TRY_DONE(prompt_messages(data, where, &m, &n));
    TRY_DONE(reward_render(&s->model.head, s->chat, s->tok, m, n, answer, ids, gating));
done:
    mem_free(m);
    json_decref(data);
    return err;
}

static Err score_row(void *user, const json_t *row, const char *where)
{
    Scorer *s = user;
    Ids ids = {0};
    Verdict v;
    int64_t gating = 0;
    json_t *out = json_object();
    Err err = OK;
    TRY_DONE(render_row(s, row, where, &ids, &gating));
    if (ids.n > s->max_length) {
        add_unscored(s, ids.n, out);
    } else {
        TRY_DONE(score_batch(s, &(RewardInput){ids.id, ids.n, gating}, 1, &v));
        add_verdict(s, &v, out);
    }
    json_dumpf(out, stdout, JSON_COMPACT | JSON_REAL_PRECISION(17));
    putchar('\n');
done:
    json_decref(out);
    ids_free(&ids);
    return err;
}

const char usage_score[] =
    "imf score RECIPE                                                            the stage\n"
    "imf score --model DIR [--template NAME] [--max-length N] < JSONL > JSONL    a reward model by hand\n"
    "\n"
    "Rows in:\n"
    "  {\"prompt\": \"...\", \"answer\": \"...\"}, {\"messages\": [...], \"answer\": \"...\"}, or messages that end with the assistant's\n"
    "Rows out:\n"
    "  {\"score\", \"objectives\": [...], \"gate\": [...]}; score = sum of gate times adjusted objectives\n"
    "  {\"unscored\": reason} for a conversation longer than max-length or the model's positions; nothing is cut\n"
    "\n"
    "  --model DIR       reward model of ArmoRM's shape (Hugging Face directory)\n"
    "  --template NAME   instead of the one chosen by the model's chat_template\n"
    "  --max-length N    in tokens; the model's positions unless said\n";

static Err score_stdin(const Job *job)
{
    const char *dir = NULL, *template = NULL;
    int64_t max_length = INT64_MAX;
    for (int i = 0; i < job->argc; i += 2) {
        const char *key = job->argv[i], *value = i + 1 < job->argc ? job->argv[i + 1] : NULL;
        CHECK(value, ERR_USAGE, "an option of imf score --model has no value, or a wrong one; usage:\n%s", usage_score);
        if (!strcmp(key, "--model")) dir = value;
        else if (!strcmp(key, "--template")) template = value;
        else if (!strcmp(key, "--max-length")) max_length = strtoll(value, NULL, 10);
        else FAIL(ERR_USAGE, "imf score does not know '%s'\n%s", key, usage_score);
    }
    CHECK(dir && max_length > 0, ERR_USAGE, "an option of imf score --model has no value, or a wrong one; usage:\n%s", usage_score);
    if (par_rank() != 0) return OK;
    Scorer s = {0};
    Err err = scorer_open(&s, job->ctx, dir, template, max_length, false);
    if (err == OK) err = jsonl_stdin(score_row, &s);
    scorer_close(&s);
    return err;
}

// --- the stage: what there is to do ------------------------------------------------------------------------------------

typedef struct Item {
    int32_t sample, tokens;  // index in the sample records; 0 tokens: nothing to do
} Item;

typedef struct Scoring {
    Scorer scorer;
    RecordSet *prompts, *samples, *scores;  // scores: of earlier jobs
    RecordWriter *writer;
    Item *own;              // this rank's share
    int64_t owned, tokens;
    int64_t scored, unscored;
    Progress progress;
} Scoring;

static Err read_sample(Scoring *s, int64_t i, json_t **data, char where[64])
{
    char text[ID_TEXT];
    id_print(record_id(s->samples, i), text);
    snprintf(where, 64, "sample %s", text);
    return record_read(s->samples, i, data);
}

// Renders sample i with its prompt; *prompt is its prompt's id.
static Err render_sample(Scoring *s, int64_t i, Ids *ids, int64_t *gating, Id *prompt)
{
    char where[64];
    const char *text;
    json_t *sample = NULL, *data = NULL;
    Message *m = NULL;
    int64_t n;
    Err err = OK;
    TRY_DONE(read_sample(s, i, &sample, where));
    TRY_DONE(json_get_id(sample, "prompt", where, prompt));
    TRY_DONE(json_get_text(sample, "text", where, &text));
    int64_t at = record_find(s->prompts, *prompt);
    CHECK_DONE(at >= 0, ERR_DATA, "%s: its prompt is not among the prompts of this run", where);
    TRY_DONE(record_read(s->prompts, at, &data));
    TRY_DONE(prompt_messages(data, where, &m, &n));
    err = reward_render(&s->scorer.model.head, s->scorer.chat, s->scorer.tok, m, n, text, ids, gating);
    if (err != OK) TRY_DONE(err_context(err, "%s", where));
done:
    mem_free(m);
    json_decref(data);
    json_decref(sample);
    return err;
}

// Token counts of the samples first .. last-1 that have no record yet, else 0.
static Err measure(Scoring *s, int64_t first, int64_t last, int32_t *tokens)
{
    Ids ids = {0};
    Err err = OK;
    for (int64_t i = first; i < last && err == OK; i++) {
        Id prompt;
        int64_t gating;
        ids.n = 0;
        if (record_find(s->scores, record_id(s->samples, i)) < 0) err = render_sample(s, i, &ids, &gating, &prompt);
        tokens[i - first] = (int32_t)ids.n;
    }
    ids_free(&ids);
    return err;
}

// Collective: every rank renders its share; *tokens is the caller's.
static Err measure_all(Scoring *s, int32_t **tokens)
{
    const int64_t n = record_count(s->samples), first = n * par_rank() / par_size(), last = n * (par_rank() + 1) / par_size();
    int32_t *own;
    int64_t bytes;
    TRY(MEM_ARRAY(&own, last - first));
    Err err = par_agree(measure(s, first, last, own));
    if (err == OK) err = par_allgather(own, (last - first) * (int64_t)sizeof *own, tokens, &bytes, NULL);
    mem_free(own);
    return err;
}

static int longest_first(const void *pa, const void *pb)
{
    const Item *a = pa, *b = pb;
    return a->tokens != b->tokens ? b->tokens - a->tokens : a->sample - b->sample;
}

// Longest processing time first (Graham 1969): each item goes to the rank with the fewest tokens so far.
static Err deal(Scoring *s, const int32_t *tokens)
{
    const int64_t n = record_count(s->samples);
    Item *item = NULL;
    int64_t *load = NULL, items = 0;
    Err err = OK;
    TRY_DONE(MEM_ARRAY(&item, n));
    TRY_DONE(MEM_ARRAY(&load, par_size()));
    TRY_DONE(MEM_ARRAY(&s->own, n));
    for (int64_t i = 0; i < n; i++)
        if (tokens[i]) item[items++] = (Item){(int32_t)i, tokens[i]};
    MEM_SORT(item, items, longest_first);
    for (int64_t i = 0; i < items; i++) {
        int to = 0;
        for (int r = 1; r < par_size(); r++)
            if (load[r] < load[to]) to = r;
        load[to] += item[i].tokens;
        if (to == par_rank()) s->own[s->owned++] = item[i];
    }
done:
    mem_free(load);
    mem_free(item);
    return err;
}

// --- the stage: doing it -------------------------------------------------------------------------------------------------

static Err write_score(Scoring *s, int64_t sample, Id prompt, const Verdict *v, int64_t tokens)
{
    char now[32];
    time_text(now);
    json_t *data = json_pack("{s:o, s:o}", "sample", json_id(record_id(s->samples, sample)), "prompt", json_id(prompt));
    json_t *run = json_pack("{s:s, s:i, s:s}", "host", par_host(), "rank", par_rank(), "time", now);
    CHECK(data && run, ERR_UNAVAILABLE, "out of memory for JSON");
    if (v) add_verdict(&s->scorer, v, data);
    else add_unscored(&s->scorer, tokens, data);
    s->scored += v != NULL;
    s->unscored += v == NULL;
    Err err = record_write(s->writer, record_id(s->samples, sample), data, run);
    json_decref(data);
    json_decref(run);
    return err;
}

typedef struct Pending {  // conversations of the next batch
    Ids ids[BATCH_ROWS];
    RewardInput in[BATCH_ROWS];
    Id prompt[BATCH_ROWS];
    int32_t sample[BATCH_ROWS];
    Verdict out[BATCH_ROWS];
    int64_t n, tokens;
} Pending;

static Err flush_batch(Scoring *s, Pending *p)
{
    if (p->n) TRY(score_batch(&s->scorer, p->in, p->n, p->out));
    for (int64_t i = 0; i < p->n; i++) TRY(write_score(s, p->sample[i], p->prompt[i], &p->out[i], 0));
    s->tokens += p->tokens;
    p->n = p->tokens = 0;
    return OK;
}

static Err take_item(Scoring *s, Pending *p, Item item)
{
    if (p->n == BATCH_ROWS || (p->n && p->tokens + item.tokens > BATCH_TOKENS)) TRY(flush_batch(s, p));
    Ids *ids = &p->ids[p->n];
    int64_t gating;
    ids->n = 0;
    TRY(render_sample(s, item.sample, ids, &gating, &p->prompt[p->n]));
    if (ids->n > s->scorer.max_length) return write_score(s, item.sample, p->prompt[p->n], NULL, ids->n);
    p->in[p->n] = (RewardInput){ids->id, ids->n, gating};
    p->sample[p->n++] = item.sample;
    p->tokens += ids->n;
    return OK;
}

static Err score_own(Scoring *s)
{
    Pending *p;
    Err err = OK;
    TRY(MEM_ARRAY(&p, 1));
    progress_start(&s->progress, par_size() > 1 ? "score (rank 0)" : "score", s->owned, "samples");
    for (int64_t i = 0; i < s->owned; i++) {
        TRY_DONE(par_stop_check("score"));
        TRY_DONE(take_item(s, p, s->own[i]));
        progress_show(&s->progress, i, s->tokens);
    }
    TRY_DONE(flush_batch(s, p));
    progress_end(&s->progress, s->owned, s->tokens);
done:
    for (int i = 0; i < BATCH_ROWS; i++) ids_free(&p->ids[i]);
    mem_free(p);
    return err;
}

static Err score_all(Scoring *s, const char *run_dir, const json_t *header)
{
    int32_t *tokens = NULL;
    Err err = OK;
    TRY(record_open(&s->scores, run_dir, SET_SCORES));
    TRY_DONE(measure_all(s, &tokens));
    TRY_DONE(par_agree(deal(s, tokens)));
    TRY_DONE(par_agree(record_create(&s->writer, run_dir, SET_SCORES, header)));
    par_stop_watch();
    err = score_own(s);
    Err closed = record_close(s->writer);
    s->writer = NULL;
    TRY_DONE(par_agree(err != OK ? err : closed));
    int64_t sum[3] = {s->scored, s->unscored, s->tokens};
    TRY_DONE(par_sum_i64(sum, 3));
    log_info("score", "%" PRId64 " samples scored, %" PRId64 " unscored (too long), %" PRId64 " tokens", sum[0], sum[1], sum[2]);
done:
    mem_free(tokens);
    return err;
}

// What decides the scores: samples, the reward model itself (not its place: it may have been trained anew there), the renderer, and
// where it computes.
static Err make_header(const Scorer *s, const Id *inputs, json_t **out)
{
    Hash *h;
    TRY(hash_new(&h));
    hash_add_text(h, chat_template_name(s->chat));
    hash_add_i64(h, s->max_length);
    *out = json_pack("{s:o, s:{s:o, s:o, s:o, s:o, s:s*}}", "recipe", json_id(hash_end(h)), "inputs",
                     "prompts", json_id(inputs[0]), "samples", json_id(inputs[1]), "reward", json_id(s->model.fingerprint),
                     "tokenizer", json_id(tok_fingerprint(s->tok)), "device", reward_device(&s->model));
    CHECK(*out, ERR_UNAVAILABLE, "out of memory for JSON");
    return OK;
}

static Err score_run(Scoring *s, const Job *job, json_t **header)
{
    const Deck *d = job->deck;
    Id inputs[2], digest;
    bool done;
    const char *path;
    char text[ID_TEXT];
    TRY(record_require(&s->prompts, job->run_dir, SET_PROMPTS, "select", &inputs[0]));
    TRY(record_require(&s->samples, job->run_dir, SET_SAMPLES, "sample", &inputs[1]));
    TRY(par_agree(deck_need(d, "reward.path", &path)));
    TRY(scorer_open(&s->scorer, job->ctx, path, deck_str(d, "reward.template"), deck_i64(d, "reward.max_length"), true));
    TRY(par_agree(make_header(&s->scorer, inputs, header)));
    TRY(record_begin(job->run_dir, SET_SCORES, *header, &done));
    if (!done) TRY(score_all(s, job->run_dir, *header));
    TRY(record_finish(job->run_dir, SET_SCORES, &digest));
    id_print(digest, text);
    log_info("score", "%s%s", done ? "done before; digest " : "digest ", text);
    return OK;
}

Err stage_score(const Job *job)
{
    Scoring s = {0};
    json_t *header = NULL;
    if (!job->deck) return score_stdin(job);
    bool imported = !*deck_str(job->deck, "reward.path") && record_done(job->run_dir, SET_SCORES, NULL, NULL);
    TRY(par_bcast(&imported, sizeof imported, 0));
    if (imported) {
        log_info("score", "the scores came with the samples");
        return OK;
    }
    Err err = score_run(&s, job, &header);
    scorer_close(&s.scorer);
    mem_free(s.own);
    record_free(s.prompts);
    record_free(s.samples);
    record_free(s.scores);
    json_decref(header);
    return err;
}
