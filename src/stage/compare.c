// SPDX-License-Identifier: Apache-2.0
// imf compare A B: where do two runs part? Recipes and programs first, then every part in pipeline order; the first line of the
// output names the earliest part that differs, because what comes behind it differs as a consequence. Ended record sets of one
// digest are the same without being read. Drawback: checkpoints are not compared, their stages' models and curves are.
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/deck.h"
#include "par/par.h"
#include "stage/compare_parts.h"
#include "stage/jobs.h"
#include "stage/stage.h"
#include "text/record.h"

const char usage_compare[] =
    "imf compare A B\n"
    "\n"
    "A and B: two run directories, two model directories or two record sets. First line: the earliest part that differs,\n"
    "with id or tensor, field and both values (A | B); then a line for each part. Keys of the recipe that say where or how\n"
    "(run_dir, threads, micro_rows ...), program versions and processors are told and do not count as differences.\n"
    "Exit code 0: the same; 1: different; 66: A or B is not there.\n";

// ---- what is said ----------------------------------------------------------------------------------------------------

Err compare_same(Compare *c, const char *part, const char *fmt, ...)
{
    char how[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(how, sizeof how, fmt, args);
    va_end(args);
    c->same++;
    return str_printf(&c->lines, "%s: same%s%s\n", part, *how ? ", " : "", how);
}

Err compare_differs(Compare *c, const char *part, const char *fmt, ...)
{
    char how[2048];
    va_list args;
    va_start(args, fmt);
    vsnprintf(how, sizeof how, fmt, args);
    va_end(args);
    if (c->different++ == 0) TRY(str_printf(&c->first, "%s: %s", part, how));
    return str_printf(&c->lines, "%s: different: %s\n", part, how);
}

Err compare_paths(Compare *c, const char *name, char a[IO_PATH], char b[IO_PATH], bool *both)
{
    TRY(io_join(a, c->a, name));
    TRY(io_join(b, c->b, name));
    const bool in_a = io_exists(a), in_b = io_exists(b);
    *both = in_a && in_b;
    return in_a == in_b ? OK : compare_differs(c, name, "only in %s", in_a ? c->a : c->b);
}

// ---- recipe, program, processor --------------------------------------------------------------------------------------

typedef struct Keys {
    Compare *c;
    int64_t n;
} Keys;

static Err take_key(void *user, const char *path, bool layout, const char *a, const char *b)
{
    Keys *k = user;
    a = a ? a : "(not there)", b = b ? b : "(not there)";
    TRY(str_printf(&k->c->lines, "recipe: %s: %s | %s%s\n", path, *a ? a : "(empty)", *b ? b : "(empty)",
                   layout ? " (changes no result)" : ""));
    if (layout || k->n++) return OK;
    return str_printf(&k->c->recipe, "%s: %s | %s", path, *a ? a : "(empty)", *b ? b : "(empty)");
}

static Err compare_recipes(Compare *c)
{
    char path[2][IO_PATH];
    bool both;
    Deck *a = NULL, *b = NULL;
    Keys k = {.c = c};
    Err err = OK;
    TRY(compare_paths(c, "recipe.yaml", path[0], path[1], &both));
    if (!both) return OK;
    TRY_DONE(deck_load(&a, path[0], NULL, 0));
    TRY_DONE(deck_load(&b, path[1], NULL, 0));
    TRY_DONE(deck_compare(a, b, take_key, &k));
    if (k.n > 1) TRY_DONE(str_printf(&c->recipe, " (and %" PRId64 " keys more)", k.n - 1));
done:
    deck_free(a);
    deck_free(b);
    return err;
}

typedef struct Last {
    char text[256];
} Last;

static Err take_job(void *user, const json_t *row, const char *where)
{
    static const char *const fields[] = {"program", "isa", "gemm", "dtype"};
    const char *text[4];
    Last *l = user;
    for (int i = 0; i < 4; i++) TRY(json_get_text(row, fields[i], where, &text[i]));
    const char *device = json_string_value(json_object_get(row, "device"));  // of jobs with GPUs
    snprintf(l->text, sizeof l->text, "imf %.60s on %.40s with gemm %.40s, %.20s%s%.20s", text[0], text[1], text[2], text[3],
             device ? ", device " : "", device ? device : "");
    return OK;
}

// What the last job on the run directory was and ran on.
static Err read_last(const char *dir, Last *out)
{
    char path[IO_PATH];
    TRY(io_join(path, dir, JOBS_FILE));
    return io_exists(path) ? jsonl_each(path, take_job, out) : OK;
}

static Err compare_programs(Compare *c)
{
    Last a = {"unknown"}, b = a;
    TRY(read_last(c->a, &a));
    TRY(read_last(c->b, &b));
    if (!strcmp(a.text, b.text)) return str_printf(&c->lines, "program: %s\n", a.text);
    return str_printf(&c->lines, "program: %s | %s (told, not counted)\n", a.text, b.text);
}

// ---- run directories -------------------------------------------------------------------------------------------------

static Err compare_model_of(Compare *c, const char *part)
{
    char a[IO_PATH], b[IO_PATH];
    bool both;
    TRY(compare_paths(c, part, a, b, &both));
    return both ? compare_models(c, part, a, b) : OK;
}

// Names under eval/ of either run, those of A first; the sets are directories.
static Err compare_evals_of(Compare *c, const char *dir, const char *not_in)
{
    char path[IO_PATH], item[IO_PATH], other[IO_PATH], set[300], **name = NULL;
    int64_t n = 0;
    Err err = OK;
    TRY(io_join(path, dir, "eval"));
    if (!io_is_dir(path)) return OK;
    TRY(io_list(path, &name, &n));
    for (int64_t i = 0; i < n; i++) {
        snprintf(set, sizeof set, "eval/%.250s", name[i]);
        TRY_DONE(io_join(item, dir, set));
        if (not_in) TRY_DONE(io_join(other, not_in, set));
        if (io_is_dir(item) && !(not_in && io_is_dir(other))) TRY_DONE(compare_set(c, c->a, c->b, set, set));
    }
done:
    io_list_free(name, n);
    return err;
}

static Err compare_runs(Compare *c)
{
    static const char *const sets[] = {SET_PROMPTS, SET_DROPPED_PROMPTS, SET_SAMPLES, SET_DROPPED_SAMPLES,
                                       SET_SCORES,  SET_VERDICTS,        SET_SFT,     SET_PAIRS,
                                       SET_DROPPED};
    TRY(compare_recipes(c));
    TRY(compare_programs(c));
    TRY(compare_model_of(c, "reward/model"));
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) TRY(compare_set(c, c->a, c->b, sets[i], sets[i]));
    TRY(compare_metrics(c, "sft"));
    TRY(compare_model_of(c, "sft/model"));
    TRY(compare_refs(c));
    TRY(compare_metrics(c, "dpo"));
    TRY(compare_model_of(c, "dpo/model"));
    TRY(compare_evals_of(c, c->a, NULL));
    return compare_evals_of(c, c->b, c->a);
}

// ---- which things ----------------------------------------------------------------------------------------------------

typedef enum Kind { KIND_NONE, KIND_RUN, KIND_MODEL, KIND_SET } Kind;
static const char *const kinds[] = {"nothing that imf compares", "a run directory", "a model directory", "a record set"};

static Kind kind_of(const char *dir)
{
    if (io_has(dir, "config.json")) return KIND_MODEL;
    if (record_is_set(dir)) return KIND_SET;
    const bool run = io_has(dir, "recipe.yaml") || io_has(dir, SET_PROMPTS) || io_has(dir, SET_SAMPLES) || io_has(dir, "sft");
    return run ? KIND_RUN : KIND_NONE;
}

static Err compare_sets(Compare *c)
{
    char run_a[IO_PATH], run_b[IO_PATH], a[256], b[256];
    TRY(record_locate(c->a, run_a, a));
    TRY(record_locate(c->b, run_b, b));
    return compare_set(c, run_a, run_b, a, b);
}

static Err compare(Compare *c)
{
    CHECK(io_is_dir(c->a), ERR_NOINPUT, "%s is no directory", c->a);
    CHECK(io_is_dir(c->b), ERR_NOINPUT, "%s is no directory", c->b);
    const Kind a = kind_of(c->a), b = kind_of(c->b);
    CHECK(a == b && a != KIND_NONE, ERR_USAGE, "%s is %s, %s is %s: give two of the same", c->a, kinds[a], c->b, kinds[b]);
    return a == KIND_RUN ? compare_runs(c) : a == KIND_MODEL ? compare_models(c, "model", c->a, c->b) : compare_sets(c);
}

static Err tell(const Compare *c)
{
    const bool recipe = c->recipe.len > 0;
    if (c->different) printf("first difference: %s\n", str_text(&c->first));
    else if (recipe) printf("first difference: recipe: %s; every result is the same\n", str_text(&c->recipe));
    else printf("same: %" PRId64 " part%s compared\n", c->same, c->same == 1 ? "" : "s");
    if (c->different && recipe) printf("recipes differ: %s\n", str_text(&c->recipe));
    fputs(str_text(&c->lines), stdout);
    return c->different || recipe ? ERR_DIFFERENT : OK;
}

static void without_slash(const char *given, char out[IO_PATH])
{
    snprintf(out, IO_PATH, "%s", given);
    for (size_t n = strlen(out); n > 1 && out[n - 1] == '/'; n--) out[n - 1] = '\0';
}

Err stage_compare(const Job *job)
{
    char a[IO_PATH], b[IO_PATH];
    Compare c = {.a = a, .b = b};
    CHECK(job->argc == 2, ERR_USAGE, "imf compare wants two directories\n%s", usage_compare);
    if (par_rank() != 0) return OK;
    without_slash(job->argv[0], a);
    without_slash(job->argv[1], b);
    Err err = compare(&c);
    if (err == OK) err = tell(&c);
    str_free(&c.lines);
    str_free(&c.first);
    str_free(&c.recipe);
    return err;
}
