// SPDX-License-Identifier: Apache-2.0
// imf sample: n answers of every source model to every prompt.
//
// Sources are done one after the other; a source's model lives once a node. Work is handed out dynamically, longest prompt
// first, in chunks that shrink towards the end (decode/deal.h). A sample is written as soon as it ends; a restarted stage
// computes what is not recorded yet, so that a stage that was asked to end only finishes its decode step. Invariant: a sample
// depends on its id, its prompt and its model alone.
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "decode/deal.h"
#include "decode/decode.h"
#include "model/fit.h"
#include "model/mark.h"
#include "par/par.h"
#include "stage/stage.h"
#include "text/prompt.h"
#include "text/record.h"
#include "text/utf8.h"

typedef struct Source {
    const char *name;  // borrowed
    Model model;
    Tokenizer *tok;
    const ChatTemplate *chat;
    SamplingParams params;
    int32_t n, stop;
    Id id;  // of model and sampling parameters
} Source;

// Samples that are still to be drawn, those of a prompt side by side.
typedef struct Pending {
    int64_t n;
    int32_t *prompt;  // [n] index in the prompt records
    int32_t *k;       // [n] number of the sample
    int64_t *border;  // [chunks + 1] what is dealt together
    int64_t chunks;
} Pending;

// A request in flight.
typedef struct Asked {
    struct Asked *next, **link;  // list of all, so that an error can free them
    Ids prompt;
    Id prompt_id;
    Id *sample_id;  // [n]
    const int32_t *k;  // [n] borrowed from the list
} Asked;

typedef struct Sampling {
    const Job *job;
    int64_t seed;
    RecordSet *prompts, *samples, *had_dropped;  // the last two: of earlier jobs
    RecordWriter *writer, *dropped;
    Source source;
    Pending pending;
    ParQueue *queue;
    int64_t next, end, dealt;      // of the current chunk; samples handed out so far, as far as this rank knows
    Asked *asked;
    Str text;
    int64_t ended, cut, drawn;     // samples, samples cut by length, output tokens: this rank, this source
    Progress progress;
} Sampling;

// --- sources -----------------------------------------------------------------------------------------------------------

static const char *source_key(char path[128], int64_t i, const char *key)
{
    snprintf(path, 128, "sources[%lld].%s", (long long)i, key);
    return path;
}

static void read_params(const Deck *d, int64_t i, Source *s)
{
    char path[128];
    s->params = (SamplingParams){.temperature = deck_f64(d, source_key(path, i, "temperature")),
                                 .top_p = deck_f64(d, source_key(path, i, "top_p")),
                                 .top_k = (int32_t)deck_i64(d, source_key(path, i, "top_k")),
                                 .repetition_penalty = deck_f64(d, source_key(path, i, "repetition_penalty")),
                                 .max_new_tokens = deck_i64(d, source_key(path, i, "max_new_tokens"))};
    s->n = (int32_t)deck_i64(d, source_key(path, i, "n"));
    s->name = deck_str(d, source_key(path, i, "name"));
    if (!*s->name) s->name = io_basename(deck_str(d, source_key(path, i, "path")));
}

static void hash_params(Hash *h, const Source *s)
{
    hash_add_f64(h, s->params.temperature);
    hash_add_f64(h, s->params.top_p);
    hash_add_i64(h, s->params.top_k);
    hash_add_f64(h, s->params.repetition_penalty);
    hash_add_i64(h, s->params.max_new_tokens);
}

// Collective: the model is loaded by all ranks together.
static Err open_source(Source *s, Ctx *ctx, const Deck *d, int64_t i)
{
    char path[128];
    Hash *h;
    *s = (Source){0};
    read_params(d, i, s);
    TRY(par_agree(sampler_check(&s->params)));
    const char *dir = deck_str(d, source_key(path, i, "path")), *template = deck_str(d, source_key(path, i, "template"));
    Err err = tok_load(dir, &s->tok);
    if (err == OK) err = chat_template(s->tok, *template ? template : NULL, &s->chat);
    if (err == OK) err = chat_contract(s->chat, s->tok);
    if (err == OK) err = model_check_tokenizer(dir, s->tok, s->chat);
    TRY(par_agree(err));
    TRY(model_load_to_decode(ctx, dir, true, &s->model));
    s->stop = chat_stop(s->chat, s->tok);
    TRY(hash_new(&h));
    hash_add_id(h, s->model.fingerprint);
    hash_add_id(h, tok_fingerprint(s->tok));
    hash_add_text(h, chat_template_name(s->chat));
    hash_params(h, s);
    s->id = hash_end(h);
    return OK;
}

static void close_source(Source *s)
{
    model_free(&s->model);
    tok_free(s->tok);
    *s = (Source){0};
}

static Err sample_id(const Sampling *s, Id prompt, int64_t k, Id *out)
{
    Hash *h;
    TRY(hash_new(&h));
    hash_add_id(h, prompt);
    hash_add_id(h, s->source.id);
    hash_add_i64(h, s->seed);
    hash_add_i64(h, k);
    *out = hash_end(h);
    return OK;
}

// --- what is to be drawn ---------------------------------------------------------------------------------------------

static Err render(Sampling *s, int64_t prompt, Ids *out)
{
    char text[ID_TEXT], where[64];
    json_t *data = NULL;
    Message *message = NULL;
    int64_t n;
    Err err = OK;
    id_print(record_id(s->prompts, prompt), text);
    snprintf(where, sizeof where, "prompt %s", text);
    TRY_DONE(record_read(s->prompts, prompt, &data));
    TRY_DONE(prompt_messages(data, where, &message, &n));
    TRY_DONE(chat_prompt(s->source.chat, s->source.tok, message, n, out));
done:
    mem_free(message);
    json_decref(data);
    return err == OK ? OK : err_context(err, "prompt %s", text);
}

// Token counts of prompts first .. last-1 into length[0 ..].
static Err measure(Sampling *s, int64_t first, int64_t last, int32_t *length)
{
    Ids ids = {0};
    Err err = OK;
    for (int64_t i = first; i < last && err == OK; i++) {
        ids.n = 0;
        err = render(s, i, &ids);
        length[i - first] = (int32_t)ids.n;
    }
    ids_free(&ids);
    return err;
}

// Collective: every rank renders its share; *length[prompts] is the caller's.
static Err measure_all(Sampling *s, int32_t **length)
{
    const int64_t n = record_count(s->prompts), first = n * par_rank() / par_size(), last = n * (par_rank() + 1) / par_size();
    int32_t *own;
    int64_t bytes;
    TRY(MEM_ARRAY(&own, last - first));
    Err err = par_agree(measure(s, first, last, own));
    if (err == OK) err = par_allgather(own, (last - first) * (int64_t)sizeof *own, length, &bytes, NULL);
    mem_free(own);
    return err;
}

typedef struct Length {
    int32_t prompt, tokens;
} Length;

static int longest_first(const void *pa, const void *pb)
{
    const Length *a = pa, *b = pb;
    return a->tokens != b->tokens ? b->tokens - a->tokens : a->prompt - b->prompt;
}

static Err drop_long(Sampling *s, int64_t prompt, int32_t tokens)
{
    char text[ID_TEXT], reason[128];
    Id id;
    if (par_rank() != 0) return OK;
    TRY(sample_id(s, record_id(s->prompts, prompt), -1, &id));
    id_print(record_id(s->prompts, prompt), text);
    snprintf(reason, sizeof reason, "prompt of %d tokens leaves no room in %lld positions", (int)tokens,
             (long long)s->source.model.rope_positions);
    log_warn("sample", "no samples of %s for prompt %s: %s", s->source.name, text, reason);
    json_t *data = json_pack("{s:s, s:s, s:s, s:s}", "what", "samples", "id", text, "source", s->source.name, "reason", reason);
    CHECK(data, ERR_UNAVAILABLE, "out of memory for JSON");
    Err err = record_write(s->dropped, id, data, NULL);
    json_decref(data);
    return err;
}

static Err add_pending(Sampling *s, int32_t prompt)
{
    Pending *p = &s->pending;
    for (int32_t k = 0; k < s->source.n; k++) {
        Id id;
        TRY(sample_id(s, record_id(s->prompts, prompt), k, &id));
        if (record_find(s->samples, id) >= 0) continue;
        p->prompt[p->n] = prompt;
        p->k[p->n++] = k;
    }
    return OK;
}

// Longest prompt first; all ranks come to the same list.
static Err list_pending(Sampling *s, const int32_t *tokens)
{
    const int64_t n = record_count(s->prompts), most = n * s->source.n;
    Length *order;
    Err err = OK;
    TRY(MEM_ARRAY(&order, n));
    for (int64_t i = 0; i < n; i++) order[i] = (Length){(int32_t)i, tokens[i]};
    MEM_SORT(order, n, longest_first);
    TRY_DONE(MEM_ARRAY(&s->pending.prompt, most));
    TRY_DONE(MEM_ARRAY(&s->pending.k, most));
    TRY_DONE(MEM_ARRAY(&s->pending.border, most + 1));
    for (int64_t i = 0; i < n; i++) {
        if (order[i].tokens < s->source.model.rope_positions) TRY_DONE(add_pending(s, order[i].prompt));
        else TRY_DONE(drop_long(s, order[i].prompt, order[i].tokens));
    }
    deal_cut(s->pending.prompt, s->pending.n, par_size(), s->pending.border, &s->pending.chunks);
done:
    mem_free(order);
    return err;
}

// --- requests and results ------------------------------------------------------------------------------------------------

static void free_asked(Asked *a)
{
    *a->link = a->next;
    if (a->next) a->next->link = a->link;
    ids_free(&a->prompt);
    mem_free(a->sample_id);
    mem_free(a);
}

// Asks for the samples from .. to-1 of the list, which are of one prompt.
static Err ask(Sampling *s, int64_t from, int64_t to, DecodeRequest *out)
{
    const int32_t *prompt = &s->pending.prompt[from], n = (int32_t)(to - from);
    Asked *a;
    TRY(MEM_ARRAY(&a, 1));
    a->next = s->asked;
    a->link = &s->asked;
    if (a->next) a->next->link = &a->next;
    s->asked = a;
    a->prompt_id = record_id(s->prompts, *prompt);
    a->k = &s->pending.k[from];
    TRY(MEM_ARRAY(&a->sample_id, n));
    TRY(render(s, *prompt, &a->prompt));
    for (int32_t i = 0; i < n; i++) TRY(sample_id(s, a->prompt_id, a->k[i], &a->sample_id[i]));
    *out = (DecodeRequest){.prompt = a->prompt.id, .prompt_len = a->prompt.n, .params = s->source.params,
                           .sample_id = a->sample_id, .n = n, .user = a};
    return OK;
}

static Err next_chunk(Sampling *s)
{
    const Pending *p = &s->pending;
    int64_t chunk;
    TRY(par_queue_next(s->queue, &chunk));
    s->next = chunk >= 0 ? p->border[chunk] : p->n;
    s->end = s->dealt = chunk >= 0 ? p->border[chunk + 1] : p->n;
    return OK;
}

static Err next_request(void *user, DecodeRequest *out, bool *have)
{
    Sampling *s = user;
    const int32_t *prompt = s->pending.prompt;
    if (s->next == s->end) TRY(next_chunk(s));
    *have = s->next < s->end;
    if (!*have) return OK;
    const int64_t from = s->next;
    while (s->next < s->end && prompt[s->next] == prompt[from]) s->next++;
    return ask(s, from, s->next, out);
}

static Err make_record(Sampling *s, const DecodeResult *r, json_t **out)
{
    const Asked *a = r->request->user;
    char prompt[ID_TEXT];
    json_t *ids = json_array();
    id_print(a->prompt_id, prompt);
    for (int64_t i = 0; i < r->n; i++) json_array_append_new(ids, json_integer(r->id[i]));
    str_clear(&s->text);
    TRY(tok_decode(s->source.tok, r->id, r->n, true, &s->text));
    utf8_blank_nul(&s->text);
    *out = json_pack("{s:s, s:s, s:i, s:I, s:s, s:o, s:o, s:s, s:f}", "prompt", prompt, "source", s->source.name, "k",
                     (int)a->k[r->k], "seed", (json_int_t)s->seed, "text", str_text(&s->text), "ids", ids, "tokenizer",
                     json_id(tok_fingerprint(s->source.tok)), "finish", finish_name(r->finish), "logp", r->logp);
    CHECK(*out, ERR_UNAVAILABLE, "out of memory for JSON");
    return OK;
}

static Err take_result(void *user, const DecodeResult *r)
{
    Sampling *s = user;
    json_t *data;
    char now[32];
    time_text(now);
    TRY(make_record(s, r, &data));
    json_t *run = json_pack("{s:s, s:i, s:s}", "host", par_host(), "rank", par_rank(), "time", now);
    Err err = record_write(s->writer, r->request->sample_id[r->k], data, run);
    json_decref(data);
    json_decref(run);
    s->ended++;
    s->cut += r->finish == FINISH_LENGTH;
    if (r->last) free_asked(r->request->user);
    return err;
}

static Err serve(void *user)
{
    Sampling *s = user;
    progress_show(&s->progress, s->dealt, s->drawn);
    TRY(par_queue_serve(s->queue));
    return par_stop_check("sample");
}

// --- a source from begin to end --------------------------------------------------------------------------------------------

// Collective. No more slots than a rank's share of the samples can fill.
static Err decode_pending(Sampling *s)
{
    char what[128];
    const int64_t share = (s->pending.n + par_size() - 1) / par_size();
    int64_t slots = deck_i64(s->job->deck, "sample.slots");
    if (slots > share) slots = share > 0 ? share : 1;
    const DecodeIo io = {next_request, take_result, serve, s, &s->drawn};
    snprintf(what, sizeof what, "sample %.80s%s", s->source.name, par_size() > 1 ? " (rank 0)" : "");
    TRY(par_queue_open(&s->queue, s->pending.chunks));
    par_stop_watch();
    progress_start(&s->progress, what, s->pending.n, "samples");
    Err err = decode_run(s->job->ctx, &s->source.model, (int32_t)slots, &s->source.stop, 1, &io);
    Err closed = par_queue_close(s->queue);
    return par_agree(err != OK ? err : closed);
}

static Err report(const Sampling *s, double started)
{
    int64_t sum[3] = {s->ended, s->drawn, s->cut};
    const double spent = time_now() - started;
    TRY(par_sum_i64(sum, 3));
    log_info("sample", "%s: %lld samples, %lld tokens (%.1f a sample) in %.1f s, %.0f tokens/s; %lld cut by length",
             s->source.name, (long long)sum[0], (long long)sum[1],
             sum[0] ? (double)sum[1] / (double)sum[0] : 0.0, spent, (double)sum[1] / (spent > 0 ? spent : 1), (long long)sum[2]);
    return OK;
}

static void free_pending(Sampling *s)
{
    while (s->asked) free_asked(s->asked);
    mem_free(s->pending.prompt);
    mem_free(s->pending.k);
    mem_free(s->pending.border);
    s->pending = (Pending){0};
    s->next = s->end = s->dealt = s->ended = s->cut = s->drawn = 0;
}

static Err run_source(Sampling *s, int64_t i)
{
    int32_t *length = NULL;
    Err err = OK;
    const double started = time_now();
    TRY(par_stop_agree("sample"));
    TRY_DONE(open_source(&s->source, s->job->ctx, s->job->deck, i));
    TRY_DONE(measure_all(s, &length));
    TRY_DONE(par_agree(list_pending(s, length)));
    TRY_DONE(decode_pending(s));
    TRY_DONE(report(s, started));
done:
    mem_free(length);
    free_pending(s);
    close_source(&s->source);
    return err;
}

// --- the stage -------------------------------------------------------------------------------------------------------------

// *known is false when a model cannot be opened: it may have been removed after sampling. If it is still wanted, loading says
// what is wrong with it.
static Err mark_models(const Deck *d, Id *out, bool *known)
{
    char path[128];
    Hash *h;
    *known = true;
    TRY(hash_new(&h));
    for (int64_t i = 0; i < deck_count(d, "sources") && *known; i++) {
        Id mark = {0};
        *known = model_mark(deck_str(d, source_key(path, i, "path")), &mark) == OK;
        hash_add_id(h, mark);
    }
    hash_add_text(h, deck_str(d, "dtype"));
    if (strcmp(deck_str(d, "device"), "cpu")) hash_add_text(h, deck_str(d, "device"));
    *out = hash_end(h);
    return OK;
}

// What decides the samples besides the prompts: seed and sources.
static Err make_header(const Deck *d, Id prompts, const Id *models, json_t **out)
{
    char path[128];
    const int64_t sources = deck_count(d, "sources");
    Hash *h;
    CHECK(sources > 0, ERR_RECIPE, "the recipe names no sources; add sources: [{path: MODEL_DIR}]");
    TRY(hash_new(&h));
    hash_add_i64(h, deck_i64(d, "seed"));
    for (int64_t i = 0; i < sources; i++) {
        Source s;
        read_params(d, i, &s);
        hash_params(h, &s);
        hash_add_text(h, s.name);
        hash_add_i64(h, s.n);
        hash_add_text(h, deck_str(d, source_key(path, i, "path")));
        hash_add_text(h, deck_str(d, source_key(path, i, "template")));
    }
    *out = json_pack("{s:o, s:{s:o, s:o}}", "recipe", json_id(hash_end(h)), "inputs", "prompts", json_id(prompts), "models",
                     models ? json_id(*models) : json_null());
    CHECK(*out, ERR_UNAVAILABLE, "out of memory for JSON");
    return OK;
}

static bool same_params(const SamplingParams *a, const SamplingParams *b)
{
    return a->temperature == b->temperature && a->top_p == b->top_p && a->top_k == b->top_k &&
           a->repetition_penalty == b->repetition_penalty && a->max_new_tokens == b->max_new_tokens;
}

// Two sources that would give the same samples are refused.
static Err check_sources(const Deck *d)
{
    char a[128], b[128];
    for (int64_t i = 0; i < deck_count(d, "sources"); i++)
        for (int64_t j = 0; j < i; j++) {
            Source s, t;
            read_params(d, i, &s);
            read_params(d, j, &t);
            CHECK(strcmp(s.name, t.name), ERR_RECIPE, "two sources are called '%s'; give each a name: of its own", s.name);
            CHECK(!same_params(&s.params, &t.params) ||
                      strcmp(deck_str(d, source_key(a, i, "path")), deck_str(d, source_key(b, j, "path"))),
                  ERR_RECIPE, "sources '%s' and '%s' are the same model with the same parameters; raise n of one instead",
                  t.name, s.name);
        }
    return OK;
}

static Err open_writers(Sampling *s, const json_t *header)
{
    TRY(record_create(&s->writer, s->job->run_dir, SET_SAMPLES, header));
    if (par_rank() != 0) return OK;
    TRY(record_create(&s->dropped, s->job->run_dir, SET_DROPPED_SAMPLES, header));
    record_skip(s->dropped, s->had_dropped);
    return OK;
}

static Err close_writers(Sampling *s)
{
    Err err = record_close(s->writer), err2 = record_close(s->dropped);
    s->writer = s->dropped = NULL;
    return err != OK ? err : err2;
}

static Err sample_all(Sampling *s, const json_t *header)
{
    TRY(record_open(&s->samples, s->job->run_dir, SET_SAMPLES));
    TRY(record_open(&s->had_dropped, s->job->run_dir, SET_DROPPED_SAMPLES));
    if (record_count(s->samples) > 0)
        log_info("sample", "resumed: %lld samples are there already", (long long)record_count(s->samples));
    TRY(par_agree(open_writers(s, header)));
    for (int64_t i = 0; i < deck_count(s->job->deck, "sources"); i++) TRY(run_source(s, i));
    return par_agree(close_writers(s));
}

Err stage_sample(const Job *job)
{
    Sampling s = {.job = job, .seed = deck_i64(job->deck, "seed")};
    json_t *header = NULL;
    Id prompts, models, digest, dropped;
    bool known = false, done;
    char text[ID_TEXT];
    Err err = OK;
    TRY_DONE(record_require(&s.prompts, job->run_dir, SET_PROMPTS, "select", &prompts));
    TRY_DONE(par_agree(check_sources(job->deck)));
    TRY_DONE(par_agree(par_rank() == 0 ? mark_models(job->deck, &models, &known) : OK));
    TRY_DONE(par_bcast(&models, sizeof models, 0));
    TRY_DONE(par_bcast(&known, sizeof known, 0));
    TRY_DONE(par_agree(make_header(job->deck, prompts, known ? &models : NULL, &header)));
    TRY_DONE(record_begin(job->run_dir, SET_SAMPLES, header, &done));
    if (!done) TRY_DONE(sample_all(&s, header));
    TRY_DONE(record_finish(job->run_dir, SET_SAMPLES, &digest));
    TRY_DONE(record_finish(job->run_dir, SET_DROPPED_SAMPLES, &dropped));  // after: a job killed in between can be run again
    id_print(digest, text);
    log_info("sample", "%s%s", done ? "done before; digest " : "digest ", text);
done:
    if (err != OK) (void)close_writers(&s);
    record_free(s.prompts);
    record_free(s.samples);
    record_free(s.had_dropped);
    str_free(&s.text);
    json_decref(header);
    return err;
}
