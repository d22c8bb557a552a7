// SPDX-License-Identifier: Apache-2.0
// imf audit RUNDIR: holds every file of a run directory against what vouches for it, and every id against its parents. Rank 0
// reads, nothing is written, so that a finished run can be audited on a read-only file system, and a running one at any time.
// Drawback: what nothing vouches for (log.jsonl, report.html) is only looked at for its form.
#include <fnmatch.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "par/par.h"
#include "stage/audit_parts.h"
#include "stage/stage.h"

const char usage_audit[] =
    "imf audit RUNDIR\n"
    "\n"
    "Prints a line for every part of the run directory, then every fault with its file, line or id and what to do. Writes\n"
    "nothing.\n"
    "Exit code 0: all is good; 65: there are faults. A stage that has not ended is no fault.\n";

enum { SHOWN = 20 };  // faults of one part

// ---- lines and faults ------------------------------------------------------------------------------------------------

void audit_begin(Audit *a, const char *advice)
{
    a->advice = advice;
    a->before = a->n_faults;
    a->hidden = 0;
}

Err audit_fault(Audit *a, const char *fmt, ...)
{
    char what[IO_PATH + 512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    if (a->n_faults++ - a->before >= SHOWN) {
        a->hidden++;
        return OK;
    }
    return str_printf(&a->faults, "fault: %s%s%s\n", what, *a->advice ? "; " : "", a->advice);
}

Err audit_end(Audit *a, const char *fmt, ...)
{
    const int64_t faults = a->n_faults - a->before;
    char what[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    if (a->hidden)
        TRY(str_printf(&a->faults, "fault: %.*s: %" PRId64 " faults more of this part\n", (int)strcspn(what, ":"), what,
                       a->hidden));
    if (faults == 0) return str_printf(&a->lines, "%s good\n", what);
    return str_printf(&a->lines, "%s %" PRId64 " fault%s\n", what, faults, faults > 1 ? "s" : "");
}

Err audit_caught(Audit *a, Err err)
{
    const char *text = err_message();
    const size_t n = strlen(a->dir);
    if (err == OK || err == ERR_UNAVAILABLE || err == ERR_INTERNAL) return err;
    if (!strncmp(text, a->dir, n) && text[n] == '/') text += n + 1;
    return audit_fault(a, "%s", text);
}

bool audit_path(const Audit *a, const char *name, char path[IO_PATH])
{
    return io_join(path, a->dir, name) == OK && io_exists(path);
}

// ---- recipe and files of lines ---------------------------------------------------------------------------------------

static Err audit_recipe(Audit *a)
{
    char path[IO_PATH];
    audit_begin(a, "any command with the recipe writes it anew");
    if (!audit_path(a, "recipe.yaml", path)) TRY(audit_fault(a, "recipe.yaml: the file is missing"));
    else TRY(audit_caught(a, deck_load(&a->deck, path, NULL, 0)));
    return audit_end(a, "recipe.yaml:");
}

typedef struct Lines {
    Audit *a;
    const char *const *texts, *const *numbers;  // fields that every line has
    int64_t n;
    int64_t step[4];  // metrics: of the last line; sft, dpo, their held-out lines
} Lines;

// "metrics.jsonl:12" of a path with line.
static const char *place(const char *where) { return io_basename(where); }

static Err check_fields(Lines *l, const json_t *row, const char *where)
{
    for (int i = 0; l->texts[i]; i++)
        if (!json_is_string(json_object_get(row, l->texts[i])))
            TRY(audit_fault(l->a, "%s: the line has no text \"%s\"", place(where), l->texts[i]));
    for (int i = 0; l->numbers[i]; i++)
        if (!json_is_number(json_object_get(row, l->numbers[i])))
            TRY(audit_fault(l->a, "%s: the line has no number \"%s\"", place(where), l->numbers[i]));
    return OK;
}

// Steps rise within a stage; a step may have a line of training and one of the held-out loss.
static Err check_step(Lines *l, const json_t *row, const char *where)
{
    const char *stage = json_string_value(json_object_get(row, "stage"));
    const int64_t step = json_integer_value(json_object_get(row, "step"));
    const bool held = json_object_get(row, "eval_loss"), loss = json_object_get(row, "loss");
    if (!stage) return OK;
    if (strcmp(stage, "sft") && strcmp(stage, "dpo"))
        return audit_fault(l->a, "%s: stage '%.40s' is neither sft nor dpo", place(where), stage);
    if (!held && !loss) return audit_fault(l->a, "%s: the line has neither loss nor eval_loss", place(where));
    int64_t *last = &l->step[2 * !strcmp(stage, "dpo") + held];
    if (step <= *last)
        TRY(audit_fault(l->a, "%s: step %" PRId64 " of %s comes behind step %" PRId64, place(where), step, stage, *last));
    *last = step;
    return OK;
}

static Err take_line(void *user, const json_t *row, const char *where)
{
    Lines *l = user;
    l->n++;
    TRY(check_fields(l, row, where));
    return l->numbers[0] && !strcmp(l->numbers[0], "step") ? check_step(l, row, where) : OK;
}

static Err audit_lines(Audit *a, const char *name, const char *const *texts, const char *const *numbers)
{
    char path[IO_PATH];
    Lines l = {.a = a, .texts = texts, .numbers = numbers, .step = {-1, -1, -1, -1}};
    if (!audit_path(a, name, path)) return OK;
    audit_begin(a, "no result depends on this file: take it from a copy, or leave it");
    TRY(audit_caught(a, jsonl_each(path, take_line, &l)));
    return audit_end(a, "%s: %" PRId64 " lines,", name, l.n);
}

static Err audit_all_lines(Audit *a)
{
    static const char *const metrics[] = {"stage", NULL}, *const step[] = {"step", "epoch", NULL};
    static const char *const profile[] = {"stage", "time", "program", NULL}, *const wall[] = {"ranks", "wall_ms", NULL};
    static const char *const jobs[] = {"time", "command", "isa", "gemm", "program", NULL}, *const ranks[] = {"ranks", NULL};
    static const char *const speed[] = {"stage", NULL}, *const spent[] = {"tokens", "seconds", NULL};
    static const char *const log[] = {"time", "level", "component", "text", NULL}, *const none[] = {NULL};
    TRY(audit_lines(a, "metrics.jsonl", metrics, step));
    TRY(audit_lines(a, "profile.jsonl", profile, wall));
    TRY(audit_lines(a, "jobs.jsonl", jobs, ranks));
    TRY(audit_lines(a, "speed.jsonl", speed, spent));
    return audit_lines(a, "log.jsonl", log, none);
}

// ---- files that nobody vouches for -----------------------------------------------------------------------------------

static const char *const known_files[] = {
    "recipe.yaml", "log.jsonl", "metrics.jsonl", "profile.jsonl", "jobs.jsonl", "pair.json", "report.html", "lease",
    "lease.world", "lease.bye.*", "speed.jsonl", "progress.json",
    "export/sft.jsonl", "export/dpo.jsonl", "eval/summary.json", "eval/dropped.jsonl", "sft/done.json", "dpo/done.json",
    "sft/dropped.jsonl", "dpo/dropped.jsonl", "reward/dropped.jsonl", "dpo/ref_logps.bin", "sft/model/*", "dpo/model/*",
    "reward/model/*", "sft/step_*/MANIFEST.json", "dpo/step_*/MANIFEST.json", "sft/step_*/shard-*.nc", "dpo/step_*/shard-*.nc",
    "sft/events.out.tfevents.*", "dpo/events.out.tfevents.*"};
static const char *const set_files[] = {"done", "data-*.jsonl", "data-*.idx", "part-*.jsonl", "part-*.idx"};

static bool known_in(const char *set, const char *name)
{
    char pattern[300];
    for (size_t i = 0; i < sizeof set_files / sizeof set_files[0]; i++) {
        snprintf(pattern, sizeof pattern, "%s/%s", set, set_files[i]);
        if (fnmatch(pattern, name, FNM_PATHNAME) == 0) return true;
    }
    return false;
}

static bool known(const char *name)
{
    for (size_t i = 0; i < sizeof known_files / sizeof known_files[0]; i++)
        if (fnmatch(known_files[i], name, FNM_PATHNAME) == 0) return true;
    for (int i = 0; i < AUDIT_SETS; i++)
        if (known_in(audit_set_names[i], name)) return true;
    return known_in("eval/*", name);
}

// What a process was writing when it ended; the next start removes or replaces it.
static bool unfinished(const char *name) { return strstr(name, ".tmp"); }

static Err walk(Audit *a, const char *sub, int depth)
{
    char path[IO_PATH], item[IO_PATH], **name = NULL;
    int64_t n = 0;
    Err err = OK;
    snprintf(path, sizeof path, "%s%s%s", a->dir, *sub ? "/" : "", sub);
    TRY(audit_caught(a, io_list(path, &name, &n)));
    for (int64_t i = 0; i < n; i++) {
        char below[IO_PATH];
        snprintf(below, sizeof below, "%.2000s%s%.250s", sub, *sub ? "/" : "", name[i]);
        TRY_DONE(io_join(item, path, name[i]));
        if (unfinished(below)) TRY_DONE(str_printf(&a->lines, "unfinished: %s (left by a process that was stopped)\n", below));
        else if (io_is_dir(item) && depth < 8) TRY_DONE(walk(a, below, depth + 1));
        else if (!known(below)) TRY_DONE(str_printf(&a->lines, "unknown file: %s\n", below));
    }
done:
    io_list_free(name, n);
    return err;
}

// ---- all of it -------------------------------------------------------------------------------------------------------

static Err audit_all(Audit *a)
{
    TRY(audit_recipe(a));
    TRY(audit_sets(a));
    TRY(audit_training(a));
    TRY(audit_all_lines(a));
    audit_begin(a, "");
    return walk(a, "", 0);
}

static Err audit_run(Audit *a)
{
    Err err = audit_all(a);
    printf("%s%s", str_text(&a->lines), str_text(&a->faults));
    TRY(err);
    CHECK(a->n_faults == 0, ERR_DATA, "%s has %" PRId64 " fault%s; what to do stands behind each", a->dir, a->n_faults,
          a->n_faults > 1 ? "s" : "");
    return OK;
}

static Err check_run(const char *dir)
{
    static const char *const signs[] = {"recipe.yaml", "prompts", "samples", "sft", "dpo", "log.jsonl"};
    char path[IO_PATH];
    CHECK(io_is_dir(dir), ERR_NOINPUT, "%s is no directory", dir);
    for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++) {
        TRY(io_join(path, dir, signs[i]));
        if (io_exists(path)) return OK;
    }
    FAIL(ERR_NOINPUT, "%s is no run directory: nothing that a recipe writes is there", dir);
}

Err stage_audit(const Job *job)
{
    char dir[IO_PATH];
    Audit a = {.dir = dir, .advice = ""};
    Err err = OK;
    CHECK(job->argc == 1, ERR_USAGE, "imf audit wants one run directory\n%s", usage_audit);
    snprintf(dir, sizeof dir, "%s", job->argv[0]);
    for (size_t n = strlen(dir); n > 1 && dir[n - 1] == '/'; n--) dir[n - 1] = '\0';
    if (par_rank() != 0) return OK;
    TRY_DONE(check_run(dir));
    TRY_DONE(audit_run(&a));
done:
    for (int i = 0; i < AUDIT_SETS; i++) audit_set_free(&a.set[i]);
    deck_free(a.deck);
    str_free(&a.lines);
    str_free(&a.faults);
    return err;
}
