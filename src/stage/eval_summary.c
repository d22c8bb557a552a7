// SPDX-License-Identifier: Apache-2.0
// From journaled answers to the table: means and rates a kind, 95 % bootstrap intervals over prompts, paired differences of
// every two models. Rank 0 works; the values go into the bootstrap in id order, so the layout of the job changes nothing.
//
// run_dir/eval/summary.json:
//   {"rows":   [{"model","set","kind","n","mean","lo","hi","reward_mean"|null,"tokens_mean","truncated","no_answer","undecided"}
//               ...],
//    "paired": [{"a","b","set","kind","n","diff","lo","hi"}...],            diff = b - a
//    "temperature","top_p","seed","resamples"}
// A row or pair of kind "mean" is over all prompt kinds, each with the same weight. Rates are shares of n.
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "judge/bootstrap.h"
#include "par/par.h"
#include "stage/eval_parts.h"
#include "text/record.h"
#include "train/metrics.h"

enum { GROUPS = 64 };

// Answers of one model, in the order of the items.
typedef struct Answers {
    double *grade, *reward, *tokens;         // reward: NaN when not scored
    uint8_t *cut, *none, *undecided;
} Answers;

typedef struct Group {  // items of one set and kind
    const char *set, *kind;
    int64_t n;
} Group;

typedef struct Summary {
    const EvalModel *model;
    int models;
    const EvalItems *items;
    Answers *answers;   // [models]
    Group group[GROUPS];
    int groups;
    double *x;          // [items] scratch: values, group after group
    uint64_t seed;
    json_t *rows, *paired;
} Summary;

// ---- reading -----------------------------------------------------------------------------------------------------------

static Err answers_new(Answers *a, int64_t n)
{
    TRY(MEM_ARRAY(&a->grade, n));
    TRY(MEM_ARRAY(&a->reward, n));
    TRY(MEM_ARRAY(&a->tokens, n));
    TRY(MEM_ARRAY(&a->cut, n));
    TRY(MEM_ARRAY(&a->none, n));
    return MEM_ARRAY(&a->undecided, n);
}

static void answers_free(Answers *a)
{
    mem_free(a->grade);
    mem_free(a->reward);
    mem_free(a->tokens);
    mem_free(a->cut);
    mem_free(a->none);
    mem_free(a->undecided);
}

static Err take_record(Answers *a, int64_t i, const json_t *data, const char *where)
{
    const char *kind, *outcome, *finish, *extracted, *text;
    TRY(json_get_f64(data, "grade", where, &a->grade[i]));
    TRY(json_get_f64(data, "tokens", where, &a->tokens[i]));
    TRY(json_get_text(data, "kind", where, &kind));
    TRY(json_get_text(data, "outcome", where, &outcome));
    TRY(json_get_text(data, "finish", where, &finish));
    TRY(json_get_text(data, "extracted", where, &extracted));
    TRY(json_get_text(data, "text", where, &text));
    a->cut[i] = !strcmp(finish, "length");
    a->undecided[i] = !strcmp(outcome, "undecided");
    a->none[i] = strcmp(kind, "if") ? !*extracted : !*text;
    if (a->undecided[i]) a->grade[i] = 0;
    return OK;
}

// The records are on rank 0's side of the file system only; opening them is collective, reading is not.
static Err read_answers(const Summary *s, RecordSet *set, const char *where, Answers *a)
{
    for (int64_t i = 0; i < s->items->n; i++) {
        json_t *data;
        int64_t at = record_find(set, s->items->item[i].id);
        CHECK(at >= 0, ERR_INTERNAL, "%s misses an answer", where);
        TRY(record_read(set, at, &data));
        Err err = take_record(a, i, data, where);
        json_decref(data);
        TRY(err);
    }
    return OK;
}

static Err read_scores(const Summary *s, RecordSet *set, Answers *a)
{
    for (int64_t i = 0; i < s->items->n; i++) {
        json_t *data = NULL;
        int64_t at = record_find(set, s->items->item[i].id);
        a->reward[i] = NAN;
        if (at < 0) continue;
        TRY(record_read(set, at, &data));
        const json_t *score = json_object_get(data, "score");
        if (json_is_number(score)) a->reward[i] = json_number_value(score);
        json_decref(data);
    }
    return OK;
}

static Err read_model(const Job *job, const Summary *s, int m)
{
    const EvalModel *model = &s->model[m];
    RecordSet *answers, *scores = NULL;
    TRY(record_open(&answers, job->run_dir, model->answers));
    Err err = record_open(&scores, job->run_dir, model->scores);
    if (err == OK && par_rank() == 0) {
        err = read_answers(s, answers, model->answers, &s->answers[m]);
        if (err == OK) err = read_scores(s, scores, &s->answers[m]);
    }
    record_free(answers);
    if (scores) record_free(scores);
    return par_agree(err);
}

// ---- groups ------------------------------------------------------------------------------------------------------------

static bool in_group(const Group *g, const EvalItem *e) { return !strcmp(g->set, e->set) && !strcmp(g->kind, e->kind); }

static Err add_group(Summary *s, const EvalItem *e)
{
    for (int g = 0; g < s->groups; g++)
        if (in_group(&s->group[g], e)) {
            s->group[g].n++;
            return OK;
        }
    CHECK(s->groups < GROUPS, ERR_RECIPE, "eval.sets: more than %d combinations of set and kind", GROUPS);
    s->group[s->groups++] = (Group){e->set, e->kind, 1};
    return OK;
}

// Groups in the order of the recipe's sets; inside a set math, code, if.
static Err find_groups(Summary *s)
{
    static const char *const kinds[] = {"math", "code", "if"};
    for (int64_t set = 0; set < s->items->sets; set++)
        for (int k = 0; k < 3; k++)
            for (int64_t i = 0; i < s->items->n; i++) {
                const EvalItem *e = &s->items->item[i];
                if (e->set == s->items->set[set] && !strcmp(e->kind, kinds[k])) TRY(add_group(s, e));
            }
    return OK;
}

// Values of the items of group g, one after the other in id order; returns how many.
static int64_t gather(const Summary *s, int g, const double *b, const double *a, double *out)
{
    int64_t n = 0;
    for (int64_t i = 0; i < s->items->n; i++)
        if (in_group(&s->group[g], &s->items->item[i])) out[n++] = b[i] - (a ? a[i] : 0);
    return n;
}

// b - a (a NULL: b alone) over groups first .. first+count-1, each with the same weight.
static Err interval(const Summary *s, int first, int count, const double *b, const double *a, Interval *out)
{
    Stratum st[GROUPS];
    double *x = s->x;
    for (int g = 0; g < count; g++) {
        st[g] = (Stratum){x, gather(s, first + g, b, a, x)};
        x += st[g].n;
    }
    return boot_interval(st, count, rng_key(s->seed, 1), out);
}

// ---- rows --------------------------------------------------------------------------------------------------------------

static double rate(const Summary *s, int first, int count, const uint8_t *flag)
{
    int64_t n = 0, set = 0;
    for (int64_t i = 0; i < s->items->n; i++)
        for (int g = first; g < first + count; g++)
            if (in_group(&s->group[g], &s->items->item[i])) n++, set += flag[i];
    return n ? (double)set / (double)n : 0;
}

static json_t *mean_of(const Summary *s, int first, int count, const double *value)
{
    double sum = 0;
    int64_t n = 0;
    for (int64_t i = 0; i < s->items->n; i++)
        for (int g = first; g < first + count; g++)
            if (in_group(&s->group[g], &s->items->item[i]) && !isnan(value[i])) n++, sum += value[i];
    return n ? json_real(sum / (double)n) : json_null();
}

static int64_t group_items(const Summary *s, int first, int count)
{
    int64_t n = 0;
    for (int g = first; g < first + count; g++) n += s->group[g].n;
    return n;
}

static Err add_row(Summary *s, int m, int first, int count)
{
    const Answers *a = &s->answers[m];
    const Group *g = &s->group[first];
    Interval v;
    TRY(interval(s, first, count, a->grade, NULL, &v));
    json_t *row = json_pack("{s:s, s:s, s:s, s:I, s:f, s:f, s:f, s:o, s:o, s:f, s:f, s:f}", "model", s->model[m].name, "set",
                            count > 1 ? "all" : g->set, "kind", count > 1 ? "mean" : g->kind, "n",
                            (json_int_t)group_items(s, first, count), "mean", v.mean, "lo", v.lo, "hi", v.hi, "reward_mean",
                            mean_of(s, first, count, a->reward), "tokens_mean", mean_of(s, first, count, a->tokens), "truncated",
                            rate(s, first, count, a->cut), "no_answer",
                            rate(s, first, count, a->none), "undecided", rate(s, first, count, a->undecided));
    CHECK(row && !json_array_append_new(s->rows, row), ERR_UNAVAILABLE, "out of memory for JSON");
    return OK;
}

static Err add_pair(Summary *s, int a, int b, int first, int count)
{
    const Group *g = &s->group[first];
    Interval v;
    TRY(interval(s, first, count, s->answers[b].grade, s->answers[a].grade, &v));
    json_t *row = json_pack("{s:s, s:s, s:s, s:s, s:I, s:f, s:f, s:f}", "a", s->model[a].name, "b", s->model[b].name, "set",
                            count > 1 ? "all" : g->set, "kind", count > 1 ? "mean" : g->kind, "n",
                            (json_int_t)group_items(s, first, count), "diff", v.mean, "lo", v.lo, "hi", v.hi);
    CHECK(row && !json_array_append_new(s->paired, row), ERR_UNAVAILABLE, "out of memory for JSON");
    return OK;
}

static Err compute(Summary *s)
{
    for (int m = 0; m < s->models; m++) {
        for (int g = 0; g < s->groups; g++) TRY(add_row(s, m, g, 1));
        if (s->groups > 1) TRY(add_row(s, m, 0, s->groups));
    }
    for (int a = 0; a < s->models; a++)
        for (int b = a + 1; b < s->models; b++) {
            for (int g = 0; g < s->groups; g++) TRY(add_pair(s, a, b, g, 1));
            if (s->groups > 1) TRY(add_pair(s, a, b, 0, s->groups));
        }
    return OK;
}

// ---- lengths -----------------------------------------------------------------------------------------------------------

static double set_tokens(const Summary *s, int m, const char *set, int64_t *n)
{
    double sum = 0;
    *n = 0;
    for (int64_t i = 0; i < s->items->n; i++)
        if (s->items->item[i].set == set) sum += s->answers[m].tokens[i], ++*n;
    return sum / (double)*n;
}

static void warn_longer(const Summary *s, int a, int b, const char *set)
{
    int64_t n;
    double before = set_tokens(s, a, set, &n), after = set_tokens(s, b, set, &n);
    if (n == 0 || after <= (1 + WARN_LONGER / 100.0) * before) return;  // 0: all of them are duplicates of another set
    log_warn("eval", "set %s: answers of %s take %.1f tokens in the mean of %lld prompts, those of %s took %.1f: more than %d %% longer. "
             "Reward models and judges like length for itself: compare the grades, and if they did not rise, train on answers of "
             "equal length or with dpo.loss_type: sigmoid_norm", set, s->model[b].name, after, (long long)n, s->model[a].name,
             before, WARN_LONGER);
}

static void compare_lengths(const Summary *s)
{
    for (int64_t k = 0; k < s->items->sets; k++)
        for (int a = 0; a < s->models; a++)
            for (int b = a + 1; b < s->models; b++)
                if (id_equal(s->model[a].tokenizer, s->model[b].tokenizer)) warn_longer(s, a, b, s->items->set[k]);
}

// ---- output ------------------------------------------------------------------------------------------------------------

static double number(const json_t *row, const char *key) { return json_number_value(json_object_get(row, key)); }
static const char *text(const json_t *row, const char *key) { return json_string_value(json_object_get(row, key)); }

static void print_row(const json_t *r)
{
    char reward[32] = "-";
    if (json_is_number(json_object_get(r, "reward_mean"))) snprintf(reward, sizeof reward, "%.4f", number(r, "reward_mean"));
    printf("%-10s %-14s %-5s %6.0f  %5.1f [%5.1f, %5.1f]  %8s  %6.1f  %5.1f  %5.1f  %5.1f\n", text(r, "model"), text(r, "set"),
           text(r, "kind"), number(r, "n"), 100 * number(r, "mean"), 100 * number(r, "lo"), 100 * number(r, "hi"), reward,
           number(r, "tokens_mean"), 100 * number(r, "truncated"), 100 * number(r, "no_answer"), 100 * number(r, "undecided"));
}

static void print_pair(const json_t *p)
{
    char name[2 * EVAL_NAME + 4];
    snprintf(name, sizeof name, "%s - %s", text(p, "b"), text(p, "a"));
    printf("%-20s %-14s %-5s %6.0f  %+5.1f [%+5.1f, %+5.1f]\n", name, text(p, "set"), text(p, "kind"), number(p, "n"),
           100 * number(p, "diff"), 100 * number(p, "lo"), 100 * number(p, "hi"));
}

static void print_tables(const Summary *s)
{
    size_t i;
    json_t *row;
    puts("held-out prompts, share of correct answers or of conditions met, in % [95 % interval]");
    puts("model      set            kind       n   mean                   reward  tokens    cut   none  undecided");
    json_array_foreach(s->rows, i, row) print_row(row);
    puts("\ndifferences on the same prompts, in points [95 % paired bootstrap interval]");
    json_array_foreach(s->paired, i, row) print_pair(row);
    fflush(stdout);
}

static Err write_summary(const Job *job, const Summary *s)
{
    char path[IO_PATH];
    TRY(io_join(path, job->run_dir, "eval/summary.json"));
    json_t *all = json_pack("{s:O, s:O, s:f, s:f, s:I, s:i}", "rows", s->rows, "paired", s->paired, "temperature",
                            deck_f64(job->deck, "eval.temperature"), "top_p", deck_f64(job->deck, "eval.top_p"), "seed",
                            (json_int_t)deck_i64(job->deck, "eval.seed"), "resamples", BOOT_RESAMPLES);
    Str out = {0};
    Err err = all ? json_canonical(all, &out) : err_raise(ERR_UNAVAILABLE, __func__, __FILE__, __LINE__, "out of memory for JSON");
    if (err == OK) err = str_puts(&out, "\n");
    if (err == OK) err = io_write(path, str_text(&out), out.len);
    str_free(&out);
    json_decref(all);
    return err;
}

static Err summarise(const Job *job, Summary *s)
{
    TRY(find_groups(s));
    TRY(compute(s));
    TRY(write_summary(job, s));
    print_tables(s);
    compare_lengths(s);
    return OK;
}

Err eval_summary(const Job *job, const EvalModel *m, int models, const EvalItems *items)
{
    Summary *s;
    Err err = OK;
    TRY(par_agree(MEM_ARRAY(&s, 1)));
    *s = (Summary){.model = m, .models = models, .items = items, .seed = (uint64_t)deck_i64(job->deck, "eval.seed"),
                   .rows = json_array(), .paired = json_array()};
    TRY_DONE(par_agree(MEM_ARRAY(&s->answers, models)));
    TRY_DONE(par_agree(MEM_ARRAY(&s->x, items->n)));
    for (int i = 0; i < models; i++) {
        TRY_DONE(par_agree(answers_new(&s->answers[i], items->n)));
        TRY_DONE(read_model(job, s, i));
    }
    if (par_rank() == 0) err = summarise(job, s);
    err = par_agree(err);
done:
    for (int i = 0; s->answers && i < models; i++) answers_free(&s->answers[i]);
    mem_free(s->answers);
    mem_free(s->x);
    json_decref(s->rows);
    json_decref(s->paired);
    mem_free(s);
    return err;
}
