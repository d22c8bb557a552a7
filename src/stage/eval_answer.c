// SPDX-License-Identifier: Apache-2.0
// One model answers the held-out prompts; every answer is judged at once and journaled, so that a restart repeats none.
//
// Items are dealt by a shared counter. Record: {"model","set","kind","prompt","grade","outcome","finish","reason",
// "extracted","text","tokens"}. The same program with the same tests is run once: verdicts of earlier models are taken over
// from their records.
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "judge/judge.h"
#include "model/fit.h"
#include "par/par.h"
#include "stage/eval_parts.h"
#include "text/chat.h"
#include "text/prompt.h"
#include "text/record.h"
#include "text/utf8.h"

typedef struct Asked {   // a prompt in flight
    const EvalItem *item;
    Ids ids;
    struct Asked *next;  // list of all, to be freed at the end
} Asked;

typedef struct Judged {  // a program that was run already
    Id id;
    Verdict verdict;
} Judged;

typedef struct Answering {
    const EvalModel *model;
    const EvalItems *items;
    const int64_t *open;  // [opens] items without a record
    int64_t opens;
    int64_t positions;    // of the model
    Tokenizer *tok;
    const ChatTemplate *chat;
    ParQueue *queue;
    RecordWriter *writer;
    SandboxLimits limits;
    Asked *asked;
    Judged *judged;
    int64_t judgeds, judged_cap;
    Str text;
    int64_t dealt, tokens;  // dealt: of all ranks, as far as this one knows
    int64_t runs, refused;
    Progress progress;
} Answering;

// ---- judging -----------------------------------------------------------------------------------------------------------

// Names a program together with its tests.
static Err program_id(const char *answer, const json_t *tests, Str *program, Id *id)
{
    Str key = {0};
    Err err = OK;
    TRY_DONE(code_extract(answer, program));
    TRY_DONE(json_canonical(tests, &key));
    TRY_DONE(str_puts(&key, str_text(program)));
    *id = hash_bytes(key.p, key.len);
done:
    str_free(&key);
    return err;
}

static const Verdict *judged_before(const Answering *a, Id id)
{
    for (int64_t i = 0; i < a->judgeds; i++)
        if (id_equal(a->judged[i].id, id)) return &a->judged[i].verdict;
    return NULL;
}

static Err remember(Answering *a, Id id, const Verdict *v)
{
    TRY(MEM_GROW(&a->judged, a->judgeds, &a->judged_cap, a->judgeds + 1));
    a->judged[a->judgeds++] = (Judged){id, *v};
    return OK;
}

static Err judge_program(Answering *a, const char *answer, const json_t *tests, Verdict *v)
{
    Str program = {0};
    Id id;
    Err err = OK;
    TRY_DONE(program_id(answer, tests, &program, &id));
    const Verdict *known = judged_before(a, id);
    if (known) *v = *known;
    else {
        TRY_DONE(code_judge(str_text(&program), tests, &a->limits, v));
        a->runs++;
        TRY_DONE(remember(a, id, v));
    }
done:
    str_free(&program);
    return err;
}

static Err judge_answer(Answering *a, const EvalItem *e, const char *answer, Verdict *v)
{
    char where[ID_TEXT];
    *v = (Verdict){0};
    id_print(e->prompt, where);
    if (!strcmp(e->kind, "math")) {
        const char *gold = json_string_value(json_object_get(e->data, "gold"));
        return e->fuseeval ? math_judge_fuseeval(gold, answer, v) : math_judge(gold, answer, v);
    }
    if (!strcmp(e->kind, "code")) return judge_program(a, answer, json_object_get(e->data, "tests"), v);
    const json_t *checks = json_object_get(e->data, "checks");
    CHECK(checks, ERR_DATA, "prompt %s of set %s has no checks to grade its answer by", where, e->set);
    return checks_judge(checks, answer, where, v);
}

static const char *const outcomes[] = {"wrong", "right", "undecided"};  // by Outcome

static Err write_answer(Answering *a, const EvalItem *e, const DecodeResult *r, const Verdict *v)
{
    json_t *data = json_pack("{s:s, s:s, s:s, s:o, s:f, s:s, s:s, s:s, s:s, s:s%, s:I}", "model", a->model->name, "set", e->set,
                             "kind", e->kind, "prompt", json_id(e->prompt), "grade", v->grade, "outcome",
                             outcomes[v->outcome], "finish", finish_name(r->finish), "reason", v->reason, "extracted",
                             v->extracted, "text", str_text(&a->text), (size_t)a->text.len, "tokens", (json_int_t)r->n);
    CHECK(data, ERR_INTERNAL, "an answer of %s is no JSON text", a->model->name);
    Err err = record_write(a->writer, e->id, data, NULL);
    json_decref(data);
    return err;
}

// ---- decoding ----------------------------------------------------------------------------------------------------------

static Err put_prompt(Answering *a, const EvalItem *e, Asked **out)
{
    Message *messages = NULL;
    int64_t n;
    TRY(MEM_ARRAY(out, 1));
    (*out)->item = e;
    (*out)->next = a->asked;
    a->asked = *out;
    TRY(prompt_messages(e->data, e->set, &messages, &n));
    Err err = chat_prompt(a->chat, a->tok, messages, n, &(*out)->ids);
    mem_free(messages);
    return err;
}

// A prompt without room for an answer counts as answered wrongly, so that all models answer the same prompts.
static Err refuse(Answering *a, const EvalItem *e, int64_t tokens)
{
    Verdict v = {0};
    DecodeResult none = {.finish = FINISH_LENGTH};
    snprintf(v.reason, sizeof v.reason, "prompt of %lld tokens leaves no room in %lld positions", (long long)tokens,
             (long long)a->positions);
    str_clear(&a->text);
    a->refused++;
    return write_answer(a, e, &none, &v);
}

static Err next_prompt(void *user, DecodeRequest *out, bool *have)
{
    Answering *a = user;
    Asked *asked;
    const EvalItem *e;
    for (bool fits = false; !fits;) {
        int64_t i;
        TRY(par_queue_next(a->queue, &i));
        *have = i >= 0;
        if (!*have) return OK;
        a->dealt = i + 1;
        e = &a->items->item[a->open[i]];
        TRY(put_prompt(a, e, &asked));
        fits = asked->ids.n < a->positions;
        if (!fits) TRY(refuse(a, e, asked->ids.n));
    }
    *out = (DecodeRequest){.prompt = asked->ids.id, .prompt_len = asked->ids.n, .params = e->params, .sample_id = &e->id, .n = 1,
                           .user = asked};
    return OK;
}

static Err take_answer(void *user, const DecodeResult *r)
{
    Answering *a = user;
    const EvalItem *e = ((Asked *)r->request->user)->item;
    Verdict v;
    str_clear(&a->text);
    TRY(tok_decode(a->tok, r->id, r->n, true, &a->text));
    utf8_blank_nul(&a->text);
    TRY(judge_answer(a, e, str_text(&a->text), &v));
    TRY(write_answer(a, e, r, &v));
    a->tokens += r->n;
    progress_show(&a->progress, a->dealt, a->tokens);
    return OK;
}

static Err serve(void *user)
{
    TRY(par_queue_serve(((Answering *)user)->queue));
    return par_stop_check("eval");
}

static Err decode_open(Answering *a, const Job *job, const Model *m)
{
    DecodeIo io = {.next = next_prompt, .done = take_answer, .tick = serve, .user = a};
    int32_t stop = chat_stop(a->chat, a->tok);
    return decode_run(job->ctx, m, (int32_t)deck_i64(job->deck, "sample.slots"), &stop, 1, &io);
}

// Decodes the open items. Collective; an error of one rank leaves the others to finish what is dealt to them.
static Err decode_shared(Answering *a, const Job *job, const Model *m, const json_t *header)
{
    TRY(par_agree(record_create(&a->writer, job->run_dir, a->model->answers, header)));
    TRY(par_queue_open(&a->queue, a->opens));
    par_stop_watch();
    progress_start(&a->progress, a->model->name, a->opens, "answers");
    Err err = decode_open(a, job, m);
    Err closed = record_close(a->writer);
    TRY(par_queue_close(a->queue));
    progress_end(&a->progress, a->dealt, a->tokens);
    return par_agree(err != OK ? err : closed);
}

// ---- one model ---------------------------------------------------------------------------------------------------------

// What the answers depend on besides the items' ids (prompt, protocol, decoding, seed): the model's and the tokenizer's files,
// a template that the recipe names, and where the model computes.
static Err make_header(const Model *m, const Tokenizer *t, const char *template, json_t **out)
{
    *out = json_pack("{s:{s:o, s:o, s:s*, s:s*}}", "inputs", "model", json_id(m->fingerprint), "tokenizer", json_id(tok_fingerprint(t)),
                     "template", *template ? template : NULL, "device", m->device ? "cuda" : NULL);
    CHECK(*out, ERR_UNAVAILABLE, "out of memory for JSON");
    return OK;
}

static Err load(Answering *a, const Job *job, Model *m)
{
    TRY(par_agree(tok_load(a->model->dir, &a->tok)));
    TRY(par_agree(chat_template(a->tok, deck_str(job->deck, "target.template"), &a->chat)));
    TRY(par_agree(chat_contract(a->chat, a->tok)));
    TRY(par_agree(model_check_tokenizer(a->model->dir, a->tok, a->chat)));
    return model_load_to_decode(job->ctx, a->model->dir, true, m);
}

static Err read_verdict(const json_t *data, const char *where, Verdict *v)
{
    const char *outcome, *reason, *extracted;
    *v = (Verdict){0};
    TRY(json_get_text(data, "outcome", where, &outcome));
    TRY(json_get_text(data, "reason", where, &reason));
    TRY(json_get_text(data, "extracted", where, &extracted));
    TRY(json_get_f64(data, "grade", where, &v->grade));
    while (v->outcome < VERDICT_UNDECIDED && strcmp(outcome, outcomes[v->outcome])) v->outcome++;
    snprintf(v->reason, sizeof v->reason, "%s", reason);
    snprintf(v->extracted, sizeof v->extracted, "%s", extracted);
    return OK;
}

static Err recall_answer(Answering *a, RecordSet *had, const EvalItem *e, const char *where)
{
    json_t *data;
    const char *answer;
    Verdict v;
    Str program = {0};
    Id id;
    Err err = OK;
    int64_t at = record_find(had, e->id);
    if (at < 0) return OK;
    TRY(record_read(had, at, &data));
    TRY_DONE(json_get_text(data, "text", where, &answer));
    TRY_DONE(program_id(answer, json_object_get(e->data, "tests"), &program, &id));
    TRY_DONE(read_verdict(data, where, &v));
    if (!judged_before(a, id)) TRY_DONE(remember(a, id, &v));
done:
    str_free(&program);
    json_decref(data);
    return err;
}

// Verdicts on programs of an earlier model.
static Err recall(Answering *a, const Job *job, const EvalModel *earlier)
{
    RecordSet *had;
    Err err = OK;
    TRY(record_open(&had, job->run_dir, earlier->answers));
    for (int64_t i = 0; i < a->items->n && err == OK; i++)
        if (!strcmp(a->items->item[i].kind, "code")) err = recall_answer(a, had, &a->items->item[i], earlier->answers);
    record_free(had);
    return par_agree(err);
}

static Err find_open(Answering *a, const Job *job, int64_t *open)
{
    RecordSet *had;
    TRY(record_open(&had, job->run_dir, a->model->answers));
    for (int64_t i = 0; i < a->items->n; i++)
        if (record_find(had, a->items->item[i].id) < 0) open[a->opens++] = i;
    record_free(had);
    a->open = open;
    return OK;
}

static void answering_free(Answering *a)
{
    for (Asked *q = a->asked, *next; q; q = next) {
        next = q->next;
        ids_free(&q->ids);
        mem_free(q);
    }
    mem_free(a->judged);
    str_free(&a->text);
    tok_free(a->tok);
}

static Err answer_open(Answering *a, const Job *job, const Model *m, const json_t *header)
{
    int64_t *open = NULL;
    Id digest;
    bool done;
    Err err = OK;
    TRY(par_agree(MEM_ARRAY(&open, a->items->n)));
    TRY_DONE(record_begin(job->run_dir, a->model->answers, header, &done));
    TRY_DONE(find_open(a, job, open));
    CHECK_DONE(!done || !a->opens, ERR_RECIPE, "%s/%s has ended with other prompts or another decoding; remove that directory, "
               "or give this evaluation a run_dir of its own", job->run_dir, a->model->answers);
    if (a->opens) TRY_DONE(decode_shared(a, job, m, header));
    TRY_DONE(record_finish(job->run_dir, a->model->answers, &digest));
    TRY_DONE(par_sum_i64(&a->runs, 1));
    TRY_DONE(par_sum_i64(&a->refused, 1));
    if (a->refused)
        log_warn("eval", "%s: %lld prompts leave no room in the model's %lld positions and count as wrong", a->model->name,
                 (long long)a->refused, (long long)a->positions);
    log_info("eval", "%s: %lld answers (%lld new), %lld programs run", a->model->name, (long long)a->items->n,
             (long long)a->opens, (long long)a->runs);
done:
    mem_free(open);
    return err;
}

Err eval_answer(const Job *job, EvalModel *m, int which, const EvalItems *items)
{
    Answering a = {.model = &m[which], .items = items};
    Model model = {0};
    json_t *header = NULL;
    Err err = OK;
    a.limits = (SandboxLimits){.cpu_s = deck_f64(job->deck, "verify.cpu_s"),
                               .memory = deck_i64(job->deck, "verify.memory_mb") << 20};
    TRY_DONE(load(&a, job, &model));
    m[which].tokenizer = tok_fingerprint(a.tok);
    a.positions = model.rope_positions;
    TRY_DONE(par_agree(make_header(&model, a.tok, deck_str(job->deck, "target.template"), &header)));
    for (int i = 0; i < which; i++) TRY_DONE(recall(&a, job, &m[i]));
    TRY_DONE(answer_open(&a, job, &model, header));
done:
    answering_free(&a);
    model_free(&model);
    json_decref(header);
    return err;
}
