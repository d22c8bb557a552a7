// SPDX-License-Identifier: Apache-2.0
// Record sets: their lines (text/record_check.h), every id against its parents, every header's inputs against the digests of
// the sets that they name, and what is made from sets: exports, pair.json, eval/summary.json.
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "stage/audit_parts.h"
#include "stage/stage.h"
#include "text/published.h"

const char *const audit_set_names[AUDIT_SETS] = {SET_PROMPTS, SET_DROPPED_PROMPTS, SET_SAMPLES, SET_DROPPED_SAMPLES,
                                                 SET_SCORES,  SET_VERDICTS,        SET_SFT,     SET_PAIRS,
                                                 SET_DROPPED};
static const char *const commands[AUDIT_SETS] = {"select", "select", "sample", "sample", "score",
                                                 "verify", "pair",   "pair",   "pair"};

enum { GROUPS = 64, EVAL_SETS = 32 };

// One group of eval/summary.json, counted from the records.
typedef struct Group {
    char model[64], set[64], kind[16];
    int64_t n;
    double sum;
} Group;

typedef struct Export {  // export/sft.jsonl or dpo.jsonl, followed while its records are read
    char name[32];
    FileMap map;
    int64_t at, line;
    bool there, parted;
    Str text;
} Export;

typedef struct Reading {
    Audit *a;
    const char *name;  // "samples", "eval/sft"
    int which;         // AUDIT_*; AUDIT_SETS under eval/
    AuditSet *set;
    const AuditSet *answers;  // eval/NAME.scores: those of eval/NAME
    Export export;
    Group *group;
    int *groups;
} Reading;

// ---- ids -------------------------------------------------------------------------------------------------------------

static int by_id(const void *x, const void *y) { return id_compare(((const AuditId *)x)->id, ((const AuditId *)y)->id); }

static const AuditId *find(const AuditSet *s, Id id)
{
    AuditId key = {.id = id};
    return s->n ? bsearch(&key, s->id, (size_t)s->n, sizeof key, by_id) : NULL;
}

bool audit_has(const AuditSet *s, Id id) { return find(s, id) != NULL; }

void audit_set_free(AuditSet *s)
{
    mem_free(s->id);
    json_decref(s->state.header);
    *s = (AuditSet){0};
}

static Err fault_at(Reading *r, const char *file, int64_t line, const char *what)
{
    if (line == 0) return audit_fault(r->a, "%s/%s: %s", r->name, file, what);
    return audit_fault(r->a, "%s/%s:%" PRId64 ": %s", r->name, file, line, what);
}

static Err take_fault(void *user, const char *file, int64_t line, const char *what) { return fault_at(user, file, line, what); }

// An id field must be there and name a record of the parent set. *out is zero when it does not.
static Err check_parent(Reading *r, const json_t *o, const char *key, int parent, const char *at, Id *out)
{
    const char *text = json_string_value(json_object_get(o, key));
    *out = (Id){0};
    if (!text || !id_parse(text, out)) return audit_fault(r->a, "%s: \"%s\" is no id", at, key);
    if (!r->a->set[parent].state.there || audit_has(&r->a->set[parent], *out)) return OK;
    return audit_fault(r->a, "%s: its %s %s is not among the %s", at, key, text, audit_set_names[parent]);
}

static Err check_sample(Reading *r, const json_t *o, const char *at, Id prompt)
{
    Id sample;
    TRY(check_parent(r, o, "sample", AUDIT_SAMPLES, at, &sample));
    const AuditId *s = find(&r->a->set[AUDIT_SAMPLES], sample);
    if (!s || id_equal(s->prompt, prompt)) return OK;
    return audit_fault(r->a, "%s: its sample answers another prompt than the record names", at);
}

// Samples: the record that they were kept in knows their prompt.
static Err check_judgement(Reading *r, const json_t *data, const char *at, Id id, Id *prompt)
{
    Id sample;
    if (json_object_get(data, "prompt")) TRY(check_parent(r, data, "prompt", AUDIT_PROMPTS, at, prompt));
    TRY(check_parent(r, data, "sample", AUDIT_SAMPLES, at, &sample));
    if (!id_equal(sample, id)) TRY(audit_fault(r->a, "%s: the record's id is not that of its sample", at));
    const AuditId *s = find(&r->a->set[AUDIT_SAMPLES], sample);
    if (!s || !json_object_get(data, "prompt") || id_equal(s->prompt, *prompt)) return OK;
    return audit_fault(r->a, "%s: its sample answers another prompt than the record names", at);
}

static Err check_prompt(Reading *r, const json_t *data, const char *at, Id id)
{
    Str text = {0};
    const json_t *messages = json_object_get(data, "messages");
    Err err = messages ? json_canonical(messages, &text) : OK;
    bool same = messages && id_equal(hash_bytes(text.p, text.len), id);
    str_free(&text);
    TRY(err);
    return same ? OK : audit_fault(r->a, "%s: the id is not that of these messages", at);
}

static Err check_dropped(Reading *r, const json_t *data, const char *at)
{
    const char *what = json_string_value(json_object_get(data, "what"));
    Id id;
    if (!what) return audit_fault(r->a, "%s: it does not say what was dropped", at);
    return check_parent(r, data, "id", !strcmp(what, "sample") || !strcmp(what, "row") ? AUDIT_SAMPLES : AUDIT_PROMPTS, at,
                        &id);
}

static Err check_row(Reading *r, const json_t *data, const char *at, Id *prompt)
{
    const json_t *chosen = json_object_get(data, "chosen"), *rejected = json_object_get(data, "rejected");
    TRY(check_parent(r, data, "prompt", AUDIT_PROMPTS, at, prompt));
    if (r->which == AUDIT_SFT) return check_sample(r, data, at, *prompt);
    TRY(check_sample(r, chosen, at, *prompt));
    TRY(check_sample(r, rejected, at, *prompt));
    if (!json_equal(json_object_get(chosen, "sample"), json_object_get(rejected, "sample"))) return OK;
    return audit_fault(r->a, "%s: one sample is chosen and rejected", at);
}

// ---- eval/ -----------------------------------------------------------------------------------------------------------

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static void count_answer(Reading *r, const json_t *data)
{
    const char *set = text_of(data, "set"), *kind = text_of(data, "kind"), *model = r->name + strlen("eval/");
    int i = 0;
    while (i < *r->groups &&
           (strcmp(r->group[i].model, model) || strcmp(r->group[i].set, set) || strcmp(r->group[i].kind, kind)))
        i++;
    if (i == GROUPS) return;
    Group *g = &r->group[i];
    if (i == *r->groups) {
        ++*r->groups;
        snprintf(g->model, sizeof g->model, "%s", model);
        snprintf(g->set, sizeof g->set, "%s", set);
        snprintf(g->kind, sizeof g->kind, "%s", kind);
    }
    g->n++;
    if (strcmp(text_of(data, "outcome"), "undecided")) g->sum += json_number_value(json_object_get(data, "grade"));
}

static Err check_answer(Reading *r, const json_t *data, const char *at, Id id, Id *prompt)
{
    const char *text = text_of(data, "prompt");
    if (!id_parse(text, prompt)) return audit_fault(r->a, "%s: \"prompt\" is no id", at);
    if (!r->answers) count_answer(r, data);
    if (!r->answers) return OK;
    const AuditId *answer = find(r->answers, id);
    if (!answer) return audit_fault(r->a, "%s: it scores no answer of %.*s", at, (int)strlen(r->name) - 7, r->name);
    return id_equal(answer->prompt, *prompt) ? OK
                                             : audit_fault(r->a, "%s: the answer that it scores belongs to another prompt", at);
}

// ---- exports ---------------------------------------------------------------------------------------------------------

static Err export_open(Reading *r)
{
    char path[IO_PATH];
    Export *e = &r->export;
    if (r->which != AUDIT_SFT && r->which != AUDIT_PAIRS) return OK;
    snprintf(e->name, sizeof e->name, "export/%s.jsonl", r->which == AUDIT_SFT ? "sft" : "dpo");
    e->there = audit_path(r->a, e->name, path);
    return e->there ? io_map(path, &e->map) : OK;
}

// The next line of the export must be that of this record.
static Err export_next(Reading *r, const json_t *data, const char *at)
{
    Export *e = &r->export;
    if (!e->there || e->parted) return OK;
    json_t *row = published_row(data, r->which == AUDIT_PAIRS);
    str_clear(&e->text);
    Err err = json_canonical(row, &e->text);
    json_decref(row);
    TRY(err);
    TRY(str_puts(&e->text, "\n"));
    e->line++;
    e->parted = e->map.size - e->at < e->text.len || memcmp(e->map.p + e->at, e->text.p, (size_t)e->text.len);
    e->at += e->text.len;
    return e->parted ? audit_fault(r->a, "%s:%" PRId64 ": the line is not that of the record at %s", e->name, e->line, at) : OK;
}

static Err export_close(Reading *r)
{
    Export *e = &r->export;
    const bool ended = r->set->state.ended;
    Err err = OK;
    if (*e->name && ended && !e->there) err = audit_fault(r->a, "%s: the file is missing", e->name);
    else if (e->there && ended && !e->parted && e->at != e->map.size)
        err = audit_fault(r->a, "%s:%" PRId64 ": there are lines without a record", e->name, e->line + 1);
    io_unmap(&e->map);
    str_free(&e->text);
    return err;
}

// ---- reading a set ---------------------------------------------------------------------------------------------------

static Err check_record(Reading *r, Id id, const json_t *data, const char *at, Id *prompt)
{
    switch (r->which) {
    case AUDIT_PROMPTS:
        return check_prompt(r, data, at, id);
    case AUDIT_DROPPED_PROMPTS:
        return OK;  // what was dropped is nowhere else
    case AUDIT_SAMPLES:
        return check_parent(r, data, "prompt", AUDIT_PROMPTS, at, prompt);
    case AUDIT_SCORES:
    case AUDIT_VERDICTS:
        return check_judgement(r, data, at, id, prompt);
    case AUDIT_SFT:
    case AUDIT_PAIRS:
        return check_row(r, data, at, prompt);
    case AUDIT_DROPPED_SAMPLES:
    case AUDIT_DROPPED:
        return check_dropped(r, data, at);
    default:
        return check_answer(r, data, at, id, prompt);
    }
}

static Err take_record(void *user, Id id, const json_t *data, const char *file, int64_t line)
{
    Reading *r = user;
    AuditSet *s = r->set;
    char at[IO_PATH + 64];
    Id prompt = {0};
    snprintf(at, sizeof at, "%s/%s:%" PRId64, r->name, file, line);
    if (data) TRY(check_record(r, id, data, at, &prompt));
    if (data) TRY(export_next(r, data, at));
    TRY(MEM_GROW(&s->id, s->n, &s->cap, s->n + 1));
    s->id[s->n++] = (AuditId){id, prompt};
    return OK;
}

static int set_of(const char *name)
{
    for (int i = 0; i < AUDIT_SETS; i++)
        if (!strcmp(audit_set_names[i], name)) return i;
    return -1;
}

// The header's inputs name the digests of the sets that this one was made from.
static Err check_inputs(Reading *r)
{
    const char *key;
    json_t *value;
    json_object_foreach(json_object_get(r->set->state.header, "inputs"), key, value)
    {
        int parent = set_of(key);
        Id id;
        if (parent < 0 || !json_is_string(value)) continue;
        const RecordState *p = &r->a->set[parent].state;
        if (!p->there) TRY(audit_fault(r->a, "%s: it was made from %s, which are not there", r->name, key));
        else if (!p->ended) TRY(audit_fault(r->a, "%s: it was made from %s, whose file `done` is not there", r->name, key));
        else if (!id_parse(json_string_value(value), &id) || !id_equal(id, p->digest))
            TRY(audit_fault(r->a, "%s: it was made from other %s, of digest %.32s", r->name, key, json_string_value(value)));
    }
    return OK;
}

// pair's hash covers a part of the recipe that recipe.yaml has in full.
static Err check_recipe(Reading *r)
{
    const char *text = json_string_value(json_object_get(r->set->state.header, "recipe"));
    Id id, mine;
    if (!r->a->deck || !text || strcmp(commands[r->which], "pair")) return OK;
    TRY(deck_hash_of(r->a->deck, "seed pair sources", &mine));
    if (id_parse(text, &id) && id_equal(id, mine)) return OK;
    return audit_fault(r->a, "%s: it was made with another recipe than recipe.yaml (keys seed, pair, sources)", r->name);
}

static Err set_line(Audit *a, const char *name, const RecordState *s)
{
    char digest[ID_TEXT];
    id_print(s->digest, digest);
    if (s->ended)
        return audit_end(a, "%s: %" PRId64 " records, %" PRId64 " file%s, digest %.8s..", name, s->records, s->files,
                         s->files == 1 ? "" : "s", digest);
    return audit_end(a, "%s: not ended, %" PRId64 " records so far, %" PRId64 " file%s%s", name, s->records, s->files,
                     s->files == 1 ? "" : "s", s->torn ? " (a torn last line, which is skipped)," : ",");
}

static Err read_set(Reading *r)
{
    const RecordCheck c = {.user = r, .fault = take_fault, .record = take_record};
    TRY(audit_caught(r->a, export_open(r)));
    Err err = audit_caught(r->a, record_check(r->a->dir, r->name, &c, &r->set->state));
    Err closed = export_close(r);
    TRY(err);
    TRY(closed);
    MEM_SORT(r->set->id, r->set->n, by_id);
    return check_inputs(r);
}

static Err audit_set(Audit *a, int which)
{
    char advice[256];
    Reading r = {.a = a, .name = audit_set_names[which], .which = which, .set = &a->set[which]};
    snprintf(advice, sizeof advice, "take it from a copy, or remove %s/ (and what was made from it) and run imf %s again",
             r.name, commands[which]);
    audit_begin(a, advice);
    TRY(read_set(&r));
    if (!r.set->state.there) return OK;
    TRY(check_recipe(&r));
    return set_line(a, r.name, &r.set->state);
}

// ---- summaries -------------------------------------------------------------------------------------------------------

static Err read_json(const char *path, json_t **out)
{
    Str text = {0};
    *out = NULL;
    Err err = io_read(path, &text, 64 << 20);
    if (err == OK) err = json_parse(str_text(&text), text.len, path, out);
    str_free(&text);
    return err;
}

static int64_t total_of(const json_t *rows, const char *key)
{
    int64_t sum = 0;
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row) sum += json_integer_value(json_object_get(row, key));
    return sum;
}

static Err audit_pair_summary(Audit *a)
{
    static const int sets[] = {AUDIT_SFT, AUDIT_PAIRS};
    char path[IO_PATH];
    json_t *all = NULL;
    Err err = OK;
    if (!audit_path(a, "pair.json", path)) return OK;
    audit_begin(a, "remove pairs/ and run imf pair again");
    TRY(audit_caught(a, read_json(path, &all)));
    for (int i = 0; all && i < 2; i++) {
        const AuditSet *s = &a->set[sets[i]];
        const int64_t said = total_of(json_object_get(all, "kinds"), audit_set_names[sets[i]]);
        if (s->state.ended && said != s->n)
            TRY_DONE(audit_fault(a, "pair.json: its kinds have %" PRId64 " %s, %" PRId64 " are there", said,
                                 audit_set_names[sets[i]], s->n));
    }
    TRY_DONE(audit_end(a, "pair.json:"));
done:
    json_decref(all);
    return err;
}

static Err check_group(Audit *a, const json_t *row, const Group *group, int groups)
{
    const char *model = text_of(row, "model"), *set = text_of(row, "set"), *kind = text_of(row, "kind");
    const double n = json_number_value(json_object_get(row, "n")), mean = json_number_value(json_object_get(row, "mean"));
    if (!strcmp(kind, "mean")) return OK;  // of the rows before it
    for (int i = 0; i < groups; i++) {
        const Group *g = &group[i];
        if (strcmp(g->model, model) || strcmp(g->set, set) || strcmp(g->kind, kind)) continue;
        if ((double)g->n != n || fabs(g->sum / (double)g->n - mean) > 1e-9)
            return audit_fault(a,
                               "eval/summary.json: %s on %s (%s) has n %.0f, mean %.9g; its records give %" PRId64 " and %.9g",
                               model, set, kind, n, mean, g->n, g->sum / (double)g->n);
        return OK;
    }
    return audit_fault(a, "eval/summary.json: no record is behind %.40s on %.40s (%.12s)", model, set, kind);
}

static Err audit_eval_summary(Audit *a, const Group *group, int groups)
{
    char path[IO_PATH];
    json_t *all = NULL, *row;
    size_t i;
    Err err = OK;
    if (!audit_path(a, "eval/summary.json", path)) return OK;
    audit_begin(a, "run imf eval again: it writes the summary anew from the records");
    TRY(audit_caught(a, read_json(path, &all)));
    if (all && !json_is_array(json_object_get(all, "rows"))) TRY_DONE(audit_fault(a, "eval/summary.json: it has no \"rows\""));
    json_array_foreach(json_object_get(all, "rows"), i, row) TRY_DONE(check_group(a, row, group, groups));
    TRY_DONE(audit_end(a, "eval/summary.json:"));
done:
    json_decref(all);
    return err;
}

// ---- the sets under eval/ --------------------------------------------------------------------------------------------

typedef struct Evals {
    char name[EVAL_SETS][300];  // "eval/sft", "eval/sft.scores": sorted, so that answers stand before their scores
    AuditSet set[EVAL_SETS];
    int n;
    Group group[GROUPS];
    int groups;
} Evals;

static Err list_evals(const Audit *a, Evals *e)
{
    char dir[IO_PATH], path[IO_PATH], **name = NULL;
    int64_t n = 0;
    Err err = OK;
    if (!audit_path(a, "eval", dir)) return OK;
    TRY(io_list(dir, &name, &n));
    for (int64_t i = 0; i < n && e->n < EVAL_SETS; i++) {
        TRY_DONE(io_join(path, dir, name[i]));
        if (io_is_dir(path)) snprintf(e->name[e->n++], sizeof e->name[0], "eval/%.250s", name[i]);
    }
done:
    io_list_free(name, n);
    return err;
}

static const AuditSet *answers_of(const Evals *e, const char *scores)
{
    const int n = (int)strlen(scores) - 7;
    for (int i = 0; i < e->n; i++)
        if ((int)strlen(e->name[i]) == n && !strncmp(e->name[i], scores, (size_t)n)) return &e->set[i];
    return NULL;
}

// The answers' header names the model that gave them; the scores' header names the answers.
static Err check_origin(Audit *a, const char *name, const AuditSet *s, const AuditSet *answers)
{
    const json_t *inputs = json_object_get(s->state.header, "inputs");
    const char *text = text_of(inputs, answers ? "answers" : "model");
    Id id, want = {0};
    bool known = false;
    if (!s->state.header || !id_parse(text, &id)) return OK;
    if (answers) want = answers->state.digest, known = answers->state.ended;
    else if (!strcmp(name, "eval/sft") || !strcmp(name, "eval/dpo"))
        TRY(audit_fingerprint(a, name + strlen("eval/"), &want, &known));
    if (!known || id_equal(id, want)) return OK;
    if (answers) return audit_fault(a, "%s: it scores other answers, of digest %s", name, text);
    return audit_fault(a, "%s: it holds the answers of another model than %s/model, of fingerprint %s", name,
                       name + strlen("eval/"), text);
}

static Err audit_eval(Audit *a, Evals *e, int i)
{
    char advice[400];
    Reading r = {.a = a, .name = e->name[i], .which = AUDIT_SETS, .set = &e->set[i], .group = e->group, .groups = &e->groups};
    if (str_ends(r.name, ".scores")) r.answers = answers_of(e, r.name);
    snprintf(advice, sizeof advice, "take it from a copy, or remove %s/ and run imf eval again", r.name);
    audit_begin(a, advice);
    if (str_ends(r.name, ".scores") && !r.answers) TRY(audit_fault(a, "%s: the answers that it scores are not there", r.name));
    TRY(read_set(&r));
    TRY(check_origin(a, r.name, r.set, r.answers));
    return set_line(a, r.name, &r.set->state);
}

static Err audit_evals(Audit *a)
{
    Evals *e;
    Err err = OK;
    TRY(MEM_ARRAY(&e, 1));
    TRY_DONE(list_evals(a, e));
    for (int i = 0; i < e->n; i++) TRY_DONE(audit_eval(a, e, i));
    TRY_DONE(audit_eval_summary(a, e->group, e->groups));
done:
    for (int i = 0; i < e->n; i++) audit_set_free(&e->set[i]);
    mem_free(e);
    return err;
}

Err audit_sets(Audit *a)
{
    for (int i = 0; i < AUDIT_SETS; i++) TRY(audit_set(a, i));
    TRY(audit_pair_summary(a));
    return audit_evals(a);
}
