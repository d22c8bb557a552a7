// SPDX-License-Identifier: Apache-2.0
// imf generate MODEL [--greedy ...] < JSONL > JSONL: answers to messages, with the engine of the sample stage.
//
// Answers are written in the order of the rows, as soon as all before them are there. One rank works.
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "decode/decode.h"
#include "model/fit.h"
#include "par/par.h"
#include "stage/stage.h"
#include "text/prompt.h"
#include "text/record.h"

const char usage_generate[] =
    "imf generate MODEL [--greedy] [--temperature T] [--top-p P] [--top-k K] [--repetition-penalty R] [--n N]\n"
    "             [--max-new-tokens M] [--seed S] [--template NAME] [--slots B] [--threads T] < JSONL > JSONL\n"
    "\n"
    "Rows in:\n"
    "  {\"messages\": [...]} or {\"prompt\": \"...\"} (a user's turn), rendered by the model's chat template\n"
    "  {\"text\": \"...\"} (no template, no BOS) or {\"ids\": [...]}: continued; alone they end at max-new-tokens only\n"
    "Rows out, n for each row in, in its order:\n"
    "  {\"row\", \"k\", \"text\", \"ids\", \"finish\": \"stop\" | \"length\", \"logp\": of the whole answer}\n"
    "\n"
    "  --greedy              the most likely token each time, the same as --temperature 0\n"
    "  --temperature T       1 unless said\n"
    "  --top-p P, --top-k K  keep the smallest set of tokens of probability P, the K most likely tokens\n"
    "  --repetition-penalty R  divides the logits of tokens that are already there\n"
    "  --n N                 answers a row (1)\n"
    "  --max-new-tokens M    longest answer (256)\n"
    "  --seed S              decides the draws, with the row's ids and k (42)\n"
    "  --template NAME       instead of the one chosen by the model's chat_template\n"
    "  --slots B             answers computed at a time (64): speed and memory, no result\n"
    "  --threads T           cores to compute with (1): speed, no result\n";

typedef struct Row {
    Ids prompt;
    Id *sample_id;    // [n]
    json_t **answer;  // [n], NULL until it is there
} Row;

typedef struct Generator {
    const char *dir, *template;
    SamplingParams params;
    int32_t n, slots, threads;
    int64_t seed;
    Model model;
    Tokenizer *tok;
    const ChatTemplate *chat;  // NULL: no row needed it yet
    Row *row;
    int64_t rows, cap, asked, written;
    Str text;
} Generator;

// --- options -------------------------------------------------------------------------------------------------------------

static Err number(const char *option, const char *text, double *out)
{
    char *end;
    *out = strtod(text, &end);
    CHECK(*text && !*end, ERR_USAGE, "--%s wants a number, not '%s'", option, text);
    return OK;
}

static Err set_option(Generator *g, const char *name, const char *value)
{
    double v = 0;
    if (!strcmp(name, "template")) return g->template = value, OK;
    if (!strcmp(name, "greedy")) return g->params.temperature = 0, OK;
    TRY(number(name, value, &v));
    if (!strcmp(name, "temperature")) g->params.temperature = v;
    if (!strcmp(name, "top-p")) g->params.top_p = v;
    if (!strcmp(name, "top-k")) g->params.top_k = (int32_t)v;
    if (!strcmp(name, "repetition-penalty")) g->params.repetition_penalty = v;
    if (!strcmp(name, "n")) g->n = (int32_t)v;
    if (!strcmp(name, "max-new-tokens")) g->params.max_new_tokens = (int64_t)v;
    if (!strcmp(name, "seed")) g->seed = (int64_t)v;
    if (!strcmp(name, "slots")) g->slots = (int32_t)v;
    if (!strcmp(name, "threads")) g->threads = (int32_t)v;
    return OK;
}

static Err parse(Generator *g, const Job *job)
{
    static const struct option options[] = {{"greedy", 0, 0, 0},
                                            {"temperature", 1, 0, 0},
                                            {"top-p", 1, 0, 0},
                                            {"top-k", 1, 0, 0},
                                            {"repetition-penalty", 1, 0, 0},
                                            {"n", 1, 0, 0},
                                            {"max-new-tokens", 1, 0, 0},
                                            {"seed", 1, 0, 0},
                                            {"template", 1, 0, 0},
                                            {"slots", 1, 0, 0},
                                            {"threads", 1, 0, 0},
                                            {0, 0, 0, 0}};
    char *argv[64] = {"generate"};
    CHECK(job->argc < 63, ERR_USAGE, "too many arguments\n%s", usage_generate);
    for (int i = 0; i < job->argc; i++) argv[i + 1] = job->argv[i];
    int which, c;
    optind = 0;
    opterr = 0;
    while ((c = getopt_long(job->argc + 1, argv, "", options, &which)) != -1) {
        CHECK(c == 0, ERR_USAGE, "unknown option or missing value: %s\n%s", argv[optind - 1], usage_generate);
        TRY(set_option(g, options[which].name, optarg));
    }
    CHECK(optind == job->argc, ERR_USAGE, "one model directory is wanted\n%s", usage_generate);
    g->dir = argv[optind];
    CHECK(g->n >= 1 && g->slots >= 1 && g->threads >= 1, ERR_USAGE, "--n, --slots and --threads are at least 1");
    return sampler_check(&g->params);
}

// --- rows ----------------------------------------------------------------------------------------------------------------

static Err ids_of_row(const json_t *list, const char *where, Ids *out)
{
    size_t i;
    json_t *id;
    json_array_foreach(list, i, id) {
        CHECK(json_is_integer(id), ERR_DATA, "%s: ids wants whole numbers", where);
        TRY(ids_push(out, (int32_t)json_integer_value(id)));
    }
    CHECK(out->n > 0, ERR_DATA, "%s: ids is empty", where);
    return OK;
}

static Err need_chat(Generator *g)
{
    if (g->chat) return OK;
    TRY(chat_template(g->tok, g->template, &g->chat));
    return model_check_tokenizer(g->dir, g->tok, g->chat);
}

static Err render_row(Generator *g, const json_t *row, const char *where, Ids *out)
{
    json_t *data;
    Message *message = NULL;
    const char *unfit;
    int64_t n;
    Id id;
    Err err = OK;
    TRY(need_chat(g));
    TRY(prompt_import(row, "if", "", where, &data, &id, &unfit));
    TRY_DONE(prompt_messages(data, where, &message, &n));
    TRY_DONE(chat_prompt(g->chat, g->tok, message, n, out));
done:
    mem_free(message);
    json_decref(data);
    return err;
}

static Err prompt_ids(Generator *g, const json_t *row, const char *where, Ids *out)
{
    const json_t *ids = json_object_get(row, "ids"), *text = json_object_get(row, "text");
    if (json_is_array(ids)) return ids_of_row(ids, where, out);
    if (json_is_string(text)) return tok_encode(g->tok, json_string_value(text), (int64_t)json_string_length(text), true, out);
    return render_row(g, row, where, out);
}

// Key of the k-th sample of a prompt: of its ids and the seed, so that a row's answers do not hang on the rows around it.
static Err sample_key(const Generator *g, const Row *r, int64_t k, Id *out)
{
    Hash *h;
    TRY(hash_new(&h));
    hash_add(h, r->prompt.id, r->prompt.n * (int64_t)sizeof *r->prompt.id);
    hash_add_i64(h, g->seed);
    hash_add_i64(h, k);
    *out = hash_end(h);
    return OK;
}

static Err add_row(void *user, const json_t *row, const char *where)
{
    Generator *g = user;
    TRY(MEM_GROW(&g->row, g->rows, &g->cap, g->rows + 1));
    Row *r = &g->row[g->rows++];
    TRY(prompt_ids(g, row, where, &r->prompt));
    CHECK(r->prompt.n < g->model.rope_positions, ERR_DATA, "%s: %lld tokens leave no room in the model's %lld positions", where,
          (long long)r->prompt.n, (long long)g->model.rope_positions);
    TRY(MEM_ARRAY(&r->sample_id, g->n));
    TRY(MEM_ARRAY(&r->answer, g->n));
    for (int32_t k = 0; k < g->n; k++) TRY(sample_key(g, r, k, &r->sample_id[k]));
    return OK;
}

// --- answers -------------------------------------------------------------------------------------------------------------

static Err next_request(void *user, DecodeRequest *out, bool *have)
{
    Generator *g = user;
    *have = g->asked < g->rows;
    if (!*have) return OK;
    Row *r = &g->row[g->asked++];
    *out = (DecodeRequest){.prompt = r->prompt.id, .prompt_len = r->prompt.n, .params = g->params,
                           .sample_id = r->sample_id, .n = g->n, .user = r};
    return OK;
}

static Err write_row(Generator *g, Row *r)
{
    for (int32_t k = 0; k < g->n; k++) {
        str_clear(&g->text);
        TRY(json_canonical(r->answer[k], &g->text));
        CHECK(puts(str_text(&g->text)) >= 0, ERR_IO, "cannot write standard output");
        json_decref(r->answer[k]);
        r->answer[k] = NULL;
    }
    CHECK(fflush(stdout) == 0, ERR_IO, "cannot write standard output");
    return OK;
}

static bool complete(const Generator *g, const Row *r)
{
    for (int32_t k = 0; k < g->n; k++)
        if (!r->answer[k]) return false;
    return true;
}

static Err take_result(void *user, const DecodeResult *result)
{
    Generator *g = user;
    Row *r = result->request->user;
    json_t *ids = json_array();
    for (int64_t i = 0; i < result->n; i++) json_array_append_new(ids, json_integer(result->id[i]));
    str_clear(&g->text);
    TRY(tok_decode(g->tok, result->id, result->n, true, &g->text));
    json_t *text = json_stringn(str_text(&g->text), (size_t)g->text.len);
    r->answer[result->k] = json_pack("{s:I, s:i, s:o, s:o, s:s, s:f}", "row", (json_int_t)(r - g->row), "k", (int)result->k,
                                     "text", text, "ids", ids, "finish", finish_name(result->finish), "logp", result->logp);
    CHECK(r->answer[result->k], ERR_UNAVAILABLE, "out of memory for JSON");
    while (g->written < g->rows && complete(g, &g->row[g->written])) TRY(write_row(g, &g->row[g->written++]));
    return OK;
}

static void free_generator(Generator *g)
{
    for (int64_t i = 0; i < g->rows; i++) {
        Row *r = &g->row[i];
        for (int32_t k = 0; r->answer && k < g->n; k++) json_decref(r->answer[k]);
        ids_free(&r->prompt);
        mem_free(r->sample_id);
        mem_free(r->answer);
    }
    mem_free(g->row);
    str_free(&g->text);
    tok_free(g->tok);
    model_free(&g->model);
}

Err stage_generate(const Job *job)
{
    Generator g = {.params = {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .max_new_tokens = 256},
                   .n = 1,
                   .slots = 64,
                   .threads = 1,
                   .seed = 42};
    Err err = OK;
    if (par_rank() != 0) return OK;
    TRY(parse(&g, job));
    job->ctx->threads = g.threads;
    TRY_DONE(tok_load(g.dir, &g.tok));
    TRY_DONE(model_check_tokenizer(g.dir, g.tok, NULL));
    TRY_DONE(model_load_to_decode(job->ctx, g.dir, false, &g.model));
    TRY_DONE(jsonl_stdin(add_row, &g));
    const int32_t stop = g.chat ? chat_stop(g.chat, g.tok) : -1;
    const DecodeIo io = {.next = next_request, .done = take_result, .user = &g};
    TRY_DONE(decode_run(job->ctx, &g.model, g.slots, &stop, stop >= 0, &io));
done:
    free_generator(&g);
    return err;
}
