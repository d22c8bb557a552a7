// SPDX-License-Identifier: Apache-2.0
// imf report RECIPE|RUNDIR: run_dir/report.html, one page that needs no network and runs no script, and its main table on
// stdout. Rank 0 reads what the stages left; a stage that did not run leaves a gap that the page names, and no error.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "par/par.h"
#include "stage/phases.h"
#include "stage/report_parts.h"
#include "stage/stage.h"
#include "text/prompt.h"
#include "text/record.h"
#include "train/metrics.h"

enum { EXAMPLES = 3 };  // held-out prompts that are shown

// ---- gathering -------------------------------------------------------------------------------------------------------

static Err read_optional(const char *run_dir, const char *name, json_t **out)
{
    char path[IO_PATH];
    Str content = {0};
    *out = NULL;
    TRY(io_join(path, run_dir, name));
    if (!io_exists(path)) return OK;
    Err err = io_read(path, &content, 64 << 20);
    if (err == OK) err = json_parse(str_text(&content), content.len, path, out);
    str_free(&content);
    return err;
}

// The lines of a JSONL file that a running or a killed stage may have left torn: what is no line of JSON is counted and told.
static Err read_lines(Report *r, const char *name, bool (*wanted)(json_t *row), json_t *out)
{
    char path[IO_PATH];
    FileMap map;
    int64_t torn = 0;
    TRY(io_join(path, r->run_dir, name));
    if (io_size(path) <= 0) return OK;
    TRY(io_map(path, &map));
    for (const char *p = map.p, *end = p + map.size, *stop; p < end; p = stop + 1) {
        json_t *row = NULL;
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        stop = newline ? newline : end;
        if (stop == p) continue;
        bool good = json_parse(p, stop - p, name, &row) == OK && json_is_object(row);
        torn += !good;
        if (good && (!wanted || wanted(row))) json_array_append(out, row);
        json_decref(row);
    }
    io_unmap(&map);
    if (torn) json_object_set_new(r->torn, name, json_integer(torn));
    return OK;
}

// Of log.jsonl: warnings, and what says on which machine and with how many ranks a stage ran.
static bool is_told(json_t *row)
{
    return !strcmp(report_text(row, "level"), "warn") || !strcmp(report_text(row, "component"), "cpu");
}

static bool add_rate(json_t *row)
{
    double seconds = report_number(row, "seconds");
    if (seconds <= 0) return false;
    json_object_set_new(row, "tokens_per_s", json_real(report_number(row, "tokens") / seconds));
    return true;
}

static void read_sets(const char *run_dir, json_t *out)
{
    static const char *const sets[] = {SET_PROMPTS,  SET_DROPPED_PROMPTS, SET_SAMPLES, SET_DROPPED_SAMPLES, SET_SCORES,
                                       SET_VERDICTS, SET_SFT,             SET_PAIRS,   SET_DROPPED};
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        Id digest;
        int64_t n;
        if (!record_done(run_dir, sets[i], &digest, &n)) continue;
        json_t *set = json_pack("{s:s,s:I,s:o}", "name", sets[i], "count", (json_int_t)n, "digest", json_id(digest));
        json_array_append_new(out, set);
    }
}

// The first answer of each kind.
static Err first_of_kinds(RecordSet *s, json_t *out)
{
    for (int64_t i = 0; i < record_count(s) && json_array_size(out) < EXAMPLES; i++) {
        json_t *data, *old;
        size_t k;
        bool known = false;
        TRY(record_read(s, i, &data));
        json_array_foreach(out, k, old) known |= !strcmp(report_text(old, "kind"), report_text(data, "kind"));
        if (!known) json_array_append(out, data);
        json_decref(data);
    }
    return OK;
}

// The answers of another model to the same prompts.
static Err same_prompts(RecordSet *s, const json_t *wanted, json_t *out)
{
    for (int64_t i = 0; i < record_count(s); i++) {
        json_t *data, *w;
        size_t k;
        TRY(record_read(s, i, &data));
        json_array_foreach((json_t *)wanted, k, w) if (!strcmp(report_text(w, "prompt"), report_text(data, "prompt")))
            json_array_append(out, data);
        json_decref(data);
    }
    return OK;
}

// Collective (opens record sets). What target, sft and dpo answered to the same few prompts.
static Err gather_answers(Report *r)
{
    static const char *const names[] = {"eval/target", "eval/sft", "eval/dpo"};
    RecordSet *s;
    json_t *first = json_array();
    Err err = OK;
    for (int i = 0; i < 3 && err == OK; i++) {
        TRY_DONE(record_open(&s, r->run_dir, names[i]));
        if (par_rank() == 0 && json_array_size(first) == 0) err = first_of_kinds(s, first);
        if (par_rank() == 0 && err == OK) err = same_prompts(s, first, r->answers);
        record_free(s);
        err = par_agree(err);
    }
done:
    json_decref(first);
    return err;
}

static Err keep_asked(void *user, const json_t *row, const char *where)
{
    Report *r = user;
    const char *unfit;
    char text_id[ID_TEXT];
    json_t *data, *a;
    size_t i;
    Id id;
    TRY(prompt_import(row, NULL, "", where, &data, &id, &unfit));
    id_print(id, text_id);
    json_array_foreach(r->answers, i, a) if (!strcmp(report_text(a, "prompt"), text_id))
        json_object_set(r->asked, text_id, json_object_get(data, "messages"));
    json_decref(data);
    return OK;
}

// The prompts of the answers, from the recipe's held-out files as far as they are still there.
static Err gather_asked(Report *r, const Deck *deck)
{
    for (int64_t i = 0; i < deck_count(deck, "eval.sets"); i++) {
        char key[64];
        snprintf(key, sizeof key, "eval.sets[%lld].path", (long long)i);
        if (io_exists(deck_str(deck, key))) TRY(jsonl_each(deck_str(deck, key), keep_asked, r));
    }
    return OK;
}

static Err gather(Report *r)
{
    TRY(read_optional(r->run_dir, "eval/summary.json", &r->eval));
    TRY(read_optional(r->run_dir, "pair.json", &r->pair));
    TRY(read_lines(r, "metrics.jsonl", NULL, r->metrics));
    TRY(read_lines(r, SPEED_FILE, add_rate, r->speed));
    TRY(read_lines(r, PHASES_FILE, NULL, r->profile));
    TRY(read_lines(r, "log.jsonl", is_told, r->log));
    read_sets(r->run_dir, r->sets);
    TRY(report_tally(r));
    return report_drops(r);
}

// ---- the table -------------------------------------------------------------------------------------------------------

void report_interval(const json_t *row, const char *mean, char out[64])
{
    const char *form = !row ? "-" : strcmp(mean, "diff") ? "%.1f [%.1f, %.1f]" : "%+.1f [%+.1f, %+.1f]";
    snprintf(out, 64, form, 100 * report_number(row, mean), 100 * report_number(row, "lo"), 100 * report_number(row, "hi"));
}

const json_t *report_row(const json_t *rows, const char *model, const char *set, const char *kind)
{
    size_t i;
    json_t *row;
    json_array_foreach((json_t *)rows, i, row) if (!strcmp(report_text(row, "model"), model) &&
                                                   !strcmp(report_text(row, "set"), set) &&
                                                   !strcmp(report_text(row, "kind"), kind)) return row;
    return NULL;
}

const json_t *report_pair(const json_t *paired, const json_t *a, const json_t *b, const json_t *group)
{
    size_t i;
    json_t *p;
    json_array_foreach((json_t *)paired, i, p) if (json_equal(json_object_get(p, "a"), a) &&
                                                   json_equal(json_object_get(p, "b"), b) &&
                                                   !strcmp(report_text(p, "set"), report_text(group, "set")) &&
                                                   !strcmp(report_text(p, "kind"), report_text(group, "kind"))) return p;
    return NULL;
}

bool report_shows(size_t a, size_t b, size_t models) { return b == a + 1 || (b == models - 1 && a < b); }

json_t *report_models(const json_t *rows)
{
    json_t *models = json_array(), *row, *old;
    size_t i, k;
    json_array_foreach((json_t *)rows, i, row) {
        bool known = false;
        json_array_foreach(models, k, old) known |= json_equal(old, json_object_get(row, "model"));
        if (!known) json_array_append(models, json_object_get(row, "model"));
    }
    return models;
}

json_t *report_groups(const json_t *rows)
{
    json_t *groups = json_array(), *row, *old;
    size_t i, k;
    json_array_foreach((json_t *)rows, i, row) {
        bool known = false;
        json_array_foreach(groups, k, old) known |= !strcmp(report_text(old, "set"), report_text(row, "set")) &&
                                                    !strcmp(report_text(old, "kind"), report_text(row, "kind"));
        if (!known) json_array_append(groups, row);
    }
    return groups;
}

// Differences of the last group: the mean of the kinds, where there are several.
static void print_differences(const json_t *eval, const json_t *models, const json_t *group)
{
    char cell[64];
    size_t n = json_array_size(models);
    for (size_t b = 1; b < n; b++)
        for (size_t a = 0; a < b; a++) {
            if (!report_shows(a, b, n)) continue;
            const json_t *x = json_array_get(models, a), *y = json_array_get(models, b);
            report_interval(report_pair(json_object_get(eval, "paired"), x, y, group), "diff", cell);
            printf("%s - %s, %s: %s points\n", json_string_value(y), json_string_value(x),
                   strcmp(report_text(group, "kind"), "mean") ? report_text(group, "set") : "mean of the kinds", cell);
        }
}

static void print_table(const json_t *eval)
{
    const json_t *rows = json_object_get(eval, "rows"), *group, *model;
    json_t *models = report_models(rows), *groups = report_groups(rows);
    size_t g, m;
    char cell[64];
    printf("%-14s %-5s %6s", "set", "kind", "n");
    json_array_foreach(models, m, model) printf("  %-22s", json_string_value(model));
    puts("");
    json_array_foreach(groups, g, group) {
        printf("%-14s %-5s %6.0f", report_text(group, "set"), report_text(group, "kind"), report_number(group, "n"));
        json_array_foreach(models, m, model) {
            report_interval(report_row(rows, json_string_value(model), report_text(group, "set"), report_text(group, "kind")),
                            "mean", cell);
            printf("  %-22s", cell);
        }
        puts("");
    }
    print_differences(eval, models, json_array_get(groups, json_array_size(groups) - 1));
    json_decref(models);
    json_decref(groups);
}

static Err write_report(Report *r, const Deck *deck)
{
    char path[IO_PATH];
    Str page = {0};
    Err err = OK;
    TRY_DONE(gather(r));
    TRY_DONE(gather_asked(r, deck));
    TRY_DONE(report_page(r, &page));
    TRY_DONE(io_join(path, r->run_dir, "report.html"));
    TRY_DONE(io_write(path, str_text(&page), page.len));
    if (r->eval) print_table(r->eval);
    else puts("no evaluation yet: imf eval has not run");
    printf("%s\n", path);
done:
    str_free(&page);
    return err;
}

static void free_report(Report *r)
{
    json_t *const owned[] = {r->eval, r->pair,  r->metrics, r->speed, r->profile,       r->log,           r->torn,
                             r->sets, r->drops, r->answers, r->asked, r->tally.sources, r->tally.datasets};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++) json_decref(owned[i]);
    life_free(r->life);
}

Err stage_report(const Job *job)
{
    Report r = {.run_dir = job->run_dir,
                .deck = job->deck,
                .metrics = json_array(),
                .speed = json_array(),
                .profile = json_array(),
                .log = json_array(),
                .torn = json_object(),
                .sets = json_array(),
                .drops = json_array(),
                .answers = json_array(),
                .asked = json_object(),
                .tally = {.sources = json_array(), .datasets = json_array()}};
    Err err = OK;
    CHECK_DONE(io_is_dir(job->run_dir), ERR_NOINPUT, "%s does not exist; run 'imf run' with this recipe first", job->run_dir);
    TRY_DONE(life_open(&r.life, job->run_dir));
    TRY_DONE(gather_answers(&r));
    TRY_DONE(par_agree(par_rank() == 0 ? write_report(&r, job->deck) : OK));
done:
    free_report(&r);
    return err;
}
