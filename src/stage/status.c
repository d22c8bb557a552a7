// SPDX-License-Identifier: Apache-2.0
// imf status RUNDIR: what a run is doing, for another shell: reads its files, writes nothing, needs no MPI.
//
// Who holds the lease runs or ran it; progress.json says which stage and how far (base/log.h); the marks of ended stages say what is
// there. progress.json without a living owner is a stage that stopped half-way.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/lease.h"
#include "base/log.h"
#include "par/par.h"
#include "stage/stage.h"
#include "text/record.h"

const char usage_status[] =
    "imf status RUNDIR\n"
    "\n"
    "Stage, owner, progress, last checkpoint, warnings and disk of a run directory, from any shell; changes nothing there.\n"
    "Exit code 0: it runs, or what was begun has ended; 1: it stopped half-way (the same command goes on); 66: no run there.\n";

enum { LAST_WARNINGS = 3, WARNING = 400, DEPTH = 16 };

// A stage has ended when its mark is there, and was begun when its directory is.
static const struct {
    const char *stage, *dir, *mark;
} stages[] = {
    {"select", SET_PROMPTS, SET_PROMPTS "/done"}, {"sample", SET_SAMPLES, SET_SAMPLES "/done"}, {"score", SET_SCORES, SET_SCORES "/done"},
    {"verify", SET_VERDICTS, SET_VERDICTS "/done"}, {"pair", SET_PAIRS, SET_PAIRS "/done"}, {"sft", "sft", "sft/done.json"},
    {"dpo", "dpo", "dpo/done.json"}, {"eval", "eval", "eval/summary.json"}};
enum { STAGES = sizeof stages / sizeof stages[0] };

typedef struct Status {
    const char *dir;
    LeaseOwner owner;
    bool held, running;
    json_t *progress;    // NULL: there is none
    bool ended[STAGES], begun[STAGES];
    int64_t warnings;
    char warning[LAST_WARNINGS][WARNING];  // ring, the last at (warnings - 1) % LAST_WARNINGS
} Status;

// --- reading ---------------------------------------------------------------------------------------------------------------

static Err read_progress(Status *s)
{
    char path[IO_PATH];
    Str text = {0};
    TRY(io_join(path, s->dir, "progress.json"));
    // It is replaced and removed at any moment: what cannot be read is not there.
    if (io_read(path, &text, 1 << 16) != OK || json_parse(str_text(&text), text.len, path, &s->progress) != OK) s->progress = NULL;
    str_free(&text);
    return OK;
}

// Lines are told apart by their text before they are parsed: a log may be long.
static void take_log_line(Status *s, const char *line, int64_t n)
{
    json_t *o = NULL;
    if (!memmem(line, (size_t)n, "\"level\":\"warn\"", 14) || json_parse(line, n, "log.jsonl", &o) != OK) return;
    const char *component = json_string_value(json_object_get(o, "component")), *text = json_string_value(json_object_get(o, "text"));
    if (component && text) snprintf(s->warning[s->warnings++ % LAST_WARNINGS], WARNING, "%s: %s", component, text);
    json_decref(o);
}

static Err read_log(Status *s)
{
    char path[IO_PATH];
    FileMap map;
    TRY(io_join(path, s->dir, "log.jsonl"));
    if (!io_exists(path)) return OK;
    TRY(io_map(path, &map));
    const char *p = map.p, *end = map.p + map.size;
    for (const char *stop; p < end && (stop = memchr(p, '\n', (size_t)(end - p))); p = stop + 1) take_log_line(s, p, stop - p);
    io_unmap(&map);
    return OK;
}

static Err read_all(Status *s)
{
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    CHECK(io_is_dir(s->dir) && (io_has(s->dir, "recipe.yaml") || io_has(s->dir, "log.jsonl")), ERR_NOINPUT,
          "%s holds no run: give the run_dir of a recipe that was started", s->dir);
    TRY(lease_look(s->dir, host, &s->owner, &s->held));
    s->running = s->held && s->owner.alive;
    TRY(read_progress(s));
    for (int i = 0; i < STAGES; i++) s->ended[i] = io_has(s->dir, stages[i].mark), s->begun[i] = io_has(s->dir, stages[i].dir);
    return read_log(s);
}

// Bytes that files take on the disk, links not followed.
static int64_t disk_used(const char *path, int depth)
{
    struct stat st;
    char **names = NULL, inner[IO_PATH];
    int64_t n = 0;
    if (lstat(path, &st) != 0) return 0;
    int64_t bytes = (int64_t)st.st_blocks * 512;
    if (!S_ISDIR(st.st_mode) || depth == DEPTH || io_list(path, &names, &n) != OK) return bytes;
    for (int64_t i = 0; i < n; i++)
        if (io_join(inner, path, names[i]) == OK) bytes += disk_used(inner, depth + 1);
    io_list_free(names, n);
    return bytes;
}

// --- printing --------------------------------------------------------------------------------------------------------------

static const char *text_of(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text ? text : "";
}
static double number_of(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }

static void print_progress(const Status *s)
{
    char spent[32], left[32];
    const json_t *p = s->progress;
    const double total = number_of(p, "total"), done = number_of(p, "done"), speed = number_of(p, "tokens_per_s");
    time_span(number_of(p, "spent_s"), spent);
    time_span(number_of(p, "left_s"), left);
    printf("  %s:", text_of(p, "what"));
    if (total > 0) printf(" %.0f of %.0f %s (%.0f %%)", done, total, text_of(p, "unit"), 100 * done / total);
    else printf(" started");
    if (speed > 0) printf(", %.0f tokens/s", speed);
    printf(", %s spent", spent);
    if (total > 0 && done > 0 && s->running) printf(", about %s left", left);
    printf(" (at %s)\n", text_of(p, "time"));
}

static void print_owner(const Status *s)
{
    char age[32];
    time_span(s->owner.age, age);
    if (s->held)
        printf("  owner: job %s, host %s, process %ld, %s; lease renewed %s ago\n", s->owner.job, s->owner.host, s->owner.pid,
               s->owner.alive ? "alive" : "gone", age);
}

static void print_stages(const Status *s)
{
    int n = 0;
    printf("  ended:");
    for (int i = 0; i < STAGES; i++)
        if (s->ended[i]) printf("%s %s", n++ ? "," : "", stages[i].stage);
    puts(n ? "" : " no stage");
}

// The newest committed checkpoint of a training stage.
static void print_checkpoint(const Status *s, const char *stage)
{
    char dir[IO_PATH], path[IO_PATH], **names = NULL, age[32];
    struct stat st = {0};
    int64_t n = 0, newest = -1;
    if (io_join(dir, s->dir, stage) != OK || !io_is_dir(dir) || io_list(dir, &names, &n) != OK) return;
    for (int64_t i = 0; i < n; i++) {
        int64_t step;
        int used = 0;
        if (sscanf(names[i], "step_%" SCNd64 "%n", &step, &used) != 1 || names[i][used] || step <= newest) continue;
        if (io_join(path, dir, names[i]) != OK || !io_has(path, "MANIFEST.json") || stat(path, &st) != 0) continue;
        newest = step;
    }
    io_list_free(names, n);
    if (newest < 0) return;
    time_span(difftime(time(NULL), st.st_mtime), age);
    printf("  checkpoint of %s: step %" PRId64 ", %s old\n", stage, newest, age);
}

static void print_warnings(const Status *s)
{
    printf("  warnings: %" PRId64 "\n", s->warnings);
    for (int64_t i = s->warnings > LAST_WARNINGS ? s->warnings - LAST_WARNINGS : 0; i < s->warnings; i++)
        printf("    %s\n", s->warning[i % LAST_WARNINGS]);
}

// The stage that was begun and neither ended nor runs; NULL: none.
static const char *half_way(const Status *s)
{
    if (s->running) return NULL;
    if (s->progress) return text_of(s->progress, "stage");
    for (int i = 0; i < STAGES; i++)
        if (s->begun[i] && !s->ended[i]) return stages[i].stage;
    return NULL;
}

static void print_state(const Status *s, const char *half)
{
    const char *stage = s->progress ? text_of(s->progress, "stage") : "";
    if (s->running) printf("%s: running%s%s\n", s->dir, *stage ? ", stage " : " (between stages)", stage);
    else if (half) printf("%s: stopped half-way in stage %s; run the same command to go on\n", s->dir, half);
    else printf("%s: not running; what was begun has ended\n", s->dir);
}

Err stage_status(const Job *job)
{
    CHECK(job->argc == 1, ERR_USAGE, "imf status wants one run directory; usage:\n%s", usage_status);
    const char *dir = job->argv[0];
    Status s = {.dir = dir};
    TRY(read_all(&s));
    const char *half = half_way(&s);
    print_state(&s, half);
    if (s.progress) print_progress(&s);
    print_owner(&s);
    print_stages(&s);
    print_checkpoint(&s, "sft");
    print_checkpoint(&s, "dpo");
    print_warnings(&s);
    printf("  disk: %.1f MiB\n", (double)disk_used(dir, 0) / 1048576.0);
    json_decref(s.progress);
    *job->exit_code = half != NULL;
    return OK;
}
