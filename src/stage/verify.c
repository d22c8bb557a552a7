// SPDX-License-Identifier: Apache-2.0
// imf verify: math answers against gold, programs against their tests. Instruction prompts have no verdict.
//
// Every rank reads its share of the samples and hashes what is to be judged (program and tests; gold and answer); equal work
// is judged once. The distinct pieces, sorted by hash, are dealt to the ranks in turn, which spreads slow programs evenly.
// A verdict is written as soon as it is known; a restarted stage copies a finished twin's verdict or judges what has none.
// Invariant: a verdict depends on the program and the tests alone, so it is the same on every rank.
// Drawback: dealt in advance, so a rank with many endless loops ends last.
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "judge/judge.h"
#include "par/par.h"
#include "stage/stage.h"
#include "text/record.h"

typedef enum JudgeKind { NOTHING, MATH, CODE } JudgeKind;

typedef struct Piece {
    Id key;          // of what is judged
    int64_t sample;  // index in the sample records
    int64_t kind;    // JudgeKind
} Piece;

typedef struct Verifying {
    RecordSet *prompts, *samples, *verdicts;  // verdicts: of earlier jobs
    RecordWriter *writer;
    SandboxLimits limits;
    Piece *piece;          // all ranks' pieces, by key
    int64_t pieces;
    int64_t outcomes[3], weak, math, runs;  // this rank: verdicts by outcome, weak ones, distinct judgements
    Progress progress;
} Verifying;

// ---- what there is to judge -----------------------------------------------------------------------------------------------

static Err read_both(const Verifying *v, int64_t i, json_t **sample, json_t **prompt)
{
    char where[ID_TEXT + 16] = "sample ";
    Id id;
    *sample = *prompt = NULL;
    id_print(record_id(v->samples, i), where + 7);
    TRY(record_read(v->samples, i, sample));
    TRY(json_get_id(*sample, "prompt", where, &id));
    int64_t p = record_find(v->prompts, id);
    CHECK(p >= 0, ERR_DATA, "%s belongs to a prompt that is not in the run directory", where);
    return record_read(v->prompts, p, prompt);
}

static JudgeKind kind_of(const json_t *prompt)
{
    const char *kind = json_string_value(json_object_get(prompt, "kind"));
    if (kind && !strcmp(kind, "math")) return MATH;
    return kind && !strcmp(kind, "code") ? CODE : NOTHING;
}

static Err piece_key(const json_t *sample, const json_t *prompt, JudgeKind kind, Id *out)
{
    Str text = {0};
    Hash *h;
    const char *answer;
    Err err = OK;
    TRY_DONE(json_get_text(sample, "text", "a sample", &answer));
    if (kind == CODE) {
        TRY_DONE(json_canonical(json_object_get(prompt, "tests"), &text));
        TRY_DONE(str_puts(&text, "\n"));
    } else {
        TRY_DONE(json_canonical(json_object_get(prompt, "gold"), &text));
    }
    TRY_DONE(hash_new(&h));
    hash_add_i64(h, kind);
    hash_add_text(h, str_text(&text));
    err = OK;
    if (kind == CODE) {
        err = code_extract(answer, &text);
        answer = str_text(&text);
    }
    hash_add_text(h, answer);
    *out = hash_end(h);
done:
    str_free(&text);
    return err;
}

static Err look_at(const Verifying *v, int64_t i, Piece *out)
{
    json_t *sample = NULL, *prompt = NULL;
    Err err = OK;
    *out = (Piece){.sample = i};
    TRY_DONE(read_both(v, i, &sample, &prompt));
    out->kind = kind_of(prompt);
    if (out->kind != NOTHING) TRY_DONE(piece_key(sample, prompt, (JudgeKind)out->kind, &out->key));
done:
    json_decref(sample);
    json_decref(prompt);
    return err;
}

static Err look_at_share(const Verifying *v, Piece **out, int64_t *n)
{
    int64_t all = record_count(v->samples), from = all * par_rank() / par_size(), to = all * (par_rank() + 1) / par_size();
    TRY(MEM_ARRAY(out, to - from));
    for (int64_t i = from; i < to; i++) {
        TRY(look_at(v, i, &(*out)[*n]));
        if ((*out)[*n].kind != NOTHING) ++*n;
    }
    return OK;
}

static int by_key(const void *a, const void *b)
{
    const Piece *x = a, *y = b;
    int order = id_compare(x->key, y->key);
    return order ? order : (x->sample > y->sample) - (x->sample < y->sample);
}

// Collective.
static Err collect(Verifying *v)
{
    Piece *mine = NULL;
    int64_t n = 0, bytes;
    Err err = OK;
    TRY_DONE(par_agree(look_at_share(v, &mine, &n)));
    TRY_DONE(par_allgather(mine, n * (int64_t)sizeof *mine, &v->piece, &bytes, NULL));
    v->pieces = bytes / (int64_t)sizeof *v->piece;
    MEM_SORT(v->piece, v->pieces, by_key);
done:
    mem_free(mine);
    return err;
}

// ---- judging ----------------------------------------------------------------------------------------------------------------

static Err judge_code(const Verifying *v, const char *answer, const json_t *prompt, Verdict *out)
{
    Str program = {0};
    Err err = OK;
    TRY_DONE(code_extract(answer, &program));
    TRY_DONE(code_judge(str_text(&program), json_object_get(prompt, "tests"), &v->limits, out));
done:
    str_free(&program);
    return err;
}

static Err judge_piece(const Verifying *v, const Piece *p, Verdict *out)
{
    json_t *sample = NULL, *prompt = NULL;
    const char *answer, *gold;
    char id[ID_TEXT];
    Err err = OK;
    TRY_DONE(read_both(v, p->sample, &sample, &prompt));
    TRY_DONE(json_get_text(sample, "text", "a sample", &answer));
    if (p->kind == CODE) {
        TRY_DONE(judge_code(v, answer, prompt, out));
    } else {
        TRY_DONE(json_get_text(prompt, "gold", "a math prompt", &gold));
        TRY_DONE(math_judge(gold, answer, out));
    }
done:
    if (err != OK && err != ERR_UNAVAILABLE) {
        id_print(record_id(v->samples, p->sample), id);
        err = err_context(err, "sample %s", id);
    }
    json_decref(sample);
    json_decref(prompt);
    return err;
}

static const char *const outcome_names[] = {"wrong", "right", "undecided"};

// The verdict that an earlier job wrote for a sample. *found is false when there is none.
static Err finished(const Verifying *v, const Piece *p, bool *found, Verdict *out)
{
    int64_t i = record_find(v->verdicts, record_id(v->samples, p->sample));
    json_t *o;
    *found = i >= 0;
    if (!*found) return OK;
    TRY(record_read(v->verdicts, i, &o));
    const char *outcome = json_string_value(json_object_get(o, "outcome")), *reason = json_string_value(json_object_get(o, "reason"));
    const char *extracted = json_string_value(json_object_get(o, "extracted")), *trust = json_string_value(json_object_get(o, "trust"));
    *out = (Verdict){.outcome = VERDICT_UNDECIDED, .grade = json_number_value(json_object_get(o, "grade")),
                     .weak = trust && !strcmp(trust, "weak")};
    for (int k = 0; k < 3; k++)
        if (outcome && !strcmp(outcome, outcome_names[k])) out->outcome = (Outcome)k;
    snprintf(out->reason, sizeof out->reason, "%s", reason ? reason : "");
    snprintf(out->extracted, sizeof out->extracted, "%s", extracted ? extracted : "");
    json_decref(o);
    return OK;
}

static Err write_verdict(Verifying *v, const Piece *p, const Verdict *w)
{
    json_t *sample = NULL, *prompt = NULL, *data = NULL, *run = NULL;
    Err err = OK;
    Id id = record_id(v->samples, p->sample);
    TRY_DONE(read_both(v, p->sample, &sample, &prompt));
    data = json_pack("{s:o, s:O, s:s, s:s, s:f, s:s, s:s, s:s}", "sample", json_id(id), "prompt", json_object_get(sample, "prompt"),
                     "kind", p->kind == CODE ? "code" : "math", "outcome", outcome_names[w->outcome], "grade", w->grade, "reason",
                     w->reason, "extracted", w->extracted, "trust", w->weak ? "weak" : "strong");
    run = json_pack("{s:s, s:i, s:f}", "host", par_host(), "rank", par_rank(), "cpu_s", w->cpu_s);
    CHECK_DONE(data && run, ERR_INTERNAL, "a verdict holds text that is no UTF-8");
    TRY_DONE(record_write(v->writer, id, data, run));
    v->outcomes[w->outcome]++;
    v->weak += w->weak;
done:
    json_decref(sample);
    json_decref(prompt);
    json_decref(data);
    json_decref(run);
    return err;
}

// Pieces [from, to) are equal: one verdict for all of them.
static Err judge_group(Verifying *v, int64_t from, int64_t to)
{
    Verdict verdict;
    bool known = false, done;
    int64_t missing = 0;
    for (int64_t i = from; i < to; i++) {
        Verdict old;
        TRY(finished(v, &v->piece[i], &done, &old));
        if (done) verdict = old, known = true;
        missing += !done;
    }
    if (!missing) return OK;
    if (!known) {
        TRY(judge_piece(v, &v->piece[from], &verdict));
        if (v->piece[from].kind == CODE) v->runs++;
        else v->math++;
    }
    for (int64_t i = from; i < to; i++)
        if (record_find(v->verdicts, record_id(v->samples, v->piece[i].sample)) < 0) TRY(write_verdict(v, &v->piece[i], &verdict));
    return OK;
}

static Err judge_share(Verifying *v)
{
    int64_t group = 0;
    progress_start(&v->progress, "verify", v->pieces, "samples");
    for (int64_t from = 0, to; from < v->pieces; from = to, group++) {
        for (to = from + 1; to < v->pieces && id_equal(v->piece[to].key, v->piece[from].key);) to++;
        TRY(par_stop_check("verify"));
        if (group % par_size() == par_rank()) TRY(judge_group(v, from, to));
        progress_show(&v->progress, to, 0);
    }
    progress_end(&v->progress, v->pieces, 0);
    return OK;
}

static Err close_writer(Verifying *v)
{
    Err err = record_close(v->writer);
    v->writer = NULL;
    return err;
}

// Collective.
static Err report_counts(const Verifying *v)
{
    int64_t n[6] = {v->outcomes[VERDICT_RIGHT], v->outcomes[VERDICT_WRONG], v->outcomes[VERDICT_UNDECIDED], v->weak, v->runs, v->math};
    TRY(par_sum_i64(n, 6));
    log_info("verify", "%lld right, %lld wrong, %lld undecided (%lld weak); %lld distinct programs run, %lld distinct answers compared",
             (long long)n[0], (long long)n[1], (long long)n[2], (long long)n[3], (long long)n[4], (long long)n[5]);
    return OK;
}

// A machine without a sandbox must fail before anything is judged, and only when there is code.
static Err check_sandbox(const Verifying *v)
{
    Str text = {0};
    Err err = OK;
    bool code = false;
    for (int64_t i = 0; i < v->pieces && !code; i++) code = v->piece[i].kind == CODE;
    if (code) {
        TRY_DONE(sandbox_describe(&text));
        log_info("verify", "code sandbox: %s", str_text(&text));
    }
done:
    str_free(&text);
    return err;
}

static Err verify_all(Verifying *v, const char *run_dir, const json_t *header)
{
    TRY(record_open(&v->verdicts, run_dir, SET_VERDICTS));
    if (record_count(v->verdicts)) log_info("verify", "resumed: %lld verdicts are there already", (long long)record_count(v->verdicts));
    TRY(collect(v));
    TRY(par_agree(check_sandbox(v)));
    TRY(par_agree(record_create(&v->writer, run_dir, SET_VERDICTS, header)));
    par_stop_watch();
    Err err = judge_share(v), closed = close_writer(v);
    TRY(par_agree(err != OK ? err : closed));
    return report_counts(v);
}

static Err make_header(const Job *job, Id prompts, Id samples, json_t **out)
{
    Hash *h;
    TRY(hash_new(&h));
    hash_add_f64(h, deck_f64(job->deck, "verify.cpu_s"));
    hash_add_i64(h, deck_i64(job->deck, "verify.memory_mb"));
    *out = json_pack("{s:o, s:{s:o, s:o}}", "recipe", json_id(hash_end(h)), "inputs", SET_PROMPTS, json_id(prompts), SET_SAMPLES,
                     json_id(samples));
    CHECK(*out, ERR_UNAVAILABLE, "out of memory for JSON");
    return OK;
}

// Verdicts that came with a user's own answers are kept.
static Err imported(const Job *job, bool *out)
{
    Id digest;
    int64_t n;
    *out = *deck_str(job->deck, "samples.path") && record_done(job->run_dir, SET_VERDICTS, &digest, &n);
    return par_bcast(out, sizeof *out, 0);
}

Err stage_verify(const Job *job)
{
    Verifying v = {.limits = {.cpu_s = deck_f64(job->deck, "verify.cpu_s"), .memory = deck_i64(job->deck, "verify.memory_mb") << 20}};
    json_t *header = NULL;
    Id prompts, samples, digest;
    bool done;
    char text[ID_TEXT];
    Err err = OK;
    TRY_DONE(record_require(&v.prompts, job->run_dir, SET_PROMPTS, "select", &prompts));
    TRY_DONE(record_require(&v.samples, job->run_dir, SET_SAMPLES, "sample", &samples));
    TRY_DONE(imported(job, &done));
    if (!done) {
        TRY_DONE(par_agree(make_header(job, prompts, samples, &header)));
        TRY_DONE(record_begin(job->run_dir, SET_VERDICTS, header, &done));
    }
    if (!done) TRY_DONE(verify_all(&v, job->run_dir, header));
    TRY_DONE(record_finish(job->run_dir, SET_VERDICTS, &digest));
    id_print(digest, text);
    log_info("verify", "%s%s", done ? "done before; digest " : "digest ", text);
done:
    if (err != OK) (void)close_writer(&v);
    record_free(v.prompts);
    record_free(v.samples);
    record_free(v.verdicts);
    mem_free(v.piece);
    json_decref(header);
    return err;
}
