// SPDX-License-Identifier: Apache-2.0
// imf selftest: does this program compute what it promises on this machine? A tiny pipeline over the demo's models runs twice,
// in two layouts (rows a batch, answers in flight, threads), in a temporary directory; every digest must be the same (law 1).
// Digests are never compared with stored ones: they belong to a build and a kind of processor.
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/deck.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "par/par.h"
#include "stage/junit.h"
#include "stage/stage.h"
#include "text/record.h"

const char usage_selftest[] =
    "imf selftest [--data DIR] [--dir DIR] [--junit FILE]\n"
    "mpirun -n 2 imf selftest\n"
    "\n"
    "Runs select to eval on the demo's small models twice, in two layouts, and compares the digests. A minute on two cores.\n"
    "  --data DIR   the directory that holds demo/ (default: looked for beside the program: ../input, ../share/imf)\n"
    "  --dir DIR    where to put the temporary directory (default: TMPDIR, else /tmp); all machines of a job must see it\n"
    "  --junit FILE the result as JUnit XML too: a test case a line; written also when something fails\n"
    "Exit code 0: all digests agree; 70: they do not; 66: the demo's data are not there;\n"
    "73: DIR or FILE cannot be written.\n";

enum { KEYS = 48, KEY = IO_PATH + 64, STAGES = 8, LAYOUTS = 2, CHECKS = LAYOUTS * STAGES };

// %s: the demo's directory.
static const char *const recipe[] = {
    "seed=7", "prompts[0].path=%s/prompts.jsonl", "prompts[0].limit=24", "sources[0].name=abacus", "sources[0].path=%s/abacus",
    "sources[0].n=4", "sources[0].max_new_tokens=40", "sources[1].name=clerk", "sources[1].path=%s/clerk", "sources[1].n=3",
    "sources[1].temperature=1", "sources[1].top_p=0.9", "sources[1].max_new_tokens=40", "reward.path=%s/reward",
    "reward.max_length=128", "pair.margin_min=0.0001", "pair.margin_max=10", "pair.window_code=true", "target.path=%s/novice",
    "sft.learning_rate=5e-4", "sft.global_batch=6", "sft.num_train_epochs=2", "sft.max_length=128", "sft.row_tokens=160",
    "sft.export_dtype=float32", "dpo.learning_rate=1e-4", "dpo.global_batch=6", "dpo.num_train_epochs=2", "dpo.max_length=128",
    "dpo.row_tokens=160", "dpo.export_dtype=float32", "eval.sets[0].path=%s/heldout_math.jsonl", "eval.sets[0].name=math",
    "eval.sets[0].limit=6"};
static const char *const layouts[LAYOUTS][6] = {{"sft.micro_rows=1", "dpo.micro_rows=1", "sample.slots=24"},
                                                {"sft.micro_rows=3", "dpo.micro_rows=4", "sample.slots=5"}};

// A command and what its digest is made of: record sets, or files of weights.
typedef struct Part {
    const char *command, *made[3];
} Part;
static const Part parts[STAGES] = {{"select", {SET_PROMPTS}},
                                   {"sample", {SET_SAMPLES}},
                                   {"score", {SET_SCORES}},
                                   {"verify", {SET_VERDICTS}},
                                   {"pair", {SET_SFT, SET_PAIRS}},
                                   {"sft", {"sft/model/model.safetensors"}},
                                   {"dpo", {"dpo/model/model.safetensors"}},
                                   {"eval", {"eval/target", "eval/sft", "eval/dpo"}}};

typedef struct Selftest {
    const Job *job;
    char data[IO_PATH], dir[IO_PATH];  // the demo; temporary, removed at the end
    char key[KEYS][KEY];
    const char *keys[KEYS];
    int n_keys, threads;  // threads: of a rank in the second layout
    const char *data_given, *dir_given, *junit;  // of the command line; NULL: not there
    int ran;  // checks that have ended: stages of the first layout, then of the second
    Id digest[LAYOUTS][STAGES];
    double seconds[LAYOUTS][STAGES];
} Selftest;

// ---- the data --------------------------------------------------------------------------------------------------------

static bool is_demo(const char *dir)
{
    char path[IO_PATH];
    return io_join(path, dir, "prompts.jsonl") == OK && io_exists(path) && io_join(path, dir, "novice") == OK &&
           io_is_dir(path);
}

static bool look_in(const char *base, const char *const *below, char out[IO_PATH])
{
    for (int i = 0; below[i]; i++)
        if (io_join(out, base, below[i]) == OK && is_demo(out)) return true;
    return false;
}

static Err find_data(const char *given, char out[IO_PATH])
{
    static const char *const beside[] = {"../input/demo", "../share/imf/input/demo", "../share/imf/demo", NULL};
    static const char *const inside[] = {".", "demo", "input/demo", NULL};
    char program[IO_PATH];
    if (given) {
        CHECK(look_in(given, inside, out), ERR_NOINPUT, "%s holds no demo/ with prompts.jsonl and novice/", given);
        return OK;
    }
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    program[n > 0 ? n : 0] = '\0';
    if (strrchr(program, '/')) *strrchr(program, '/') = '\0';
    CHECK(look_in(program, beside, out) || look_in(".", inside, out), ERR_NOINPUT,
          "the demo's models are not beside the program (%s); name their directory: imf selftest --data DIR", program);
    return OK;
}

// ---- the place -------------------------------------------------------------------------------------------------------

// Rank 0 makes it, all know it.
static Err make_dir(Selftest *t)
{
    const char *tmp = getenv("TMPDIR"), *given = t->dir_given;
    Err err = OK;
    int n = snprintf(t->dir, sizeof t->dir, "%s/imf-selftest-XXXXXX", given ? given : tmp && *tmp ? tmp : "/tmp");
    if (par_rank() == 0 && (n >= (int)sizeof t->dir || !mkdtemp(t->dir)))
        err = err_raise(ERR_CREATE, __func__, __FILE__, __LINE__, "cannot create %s; say where to: imf selftest --dir DIR",
                        t->dir);
    if (err != OK) *t->dir = '\0';
    TRY(par_agree(err));
    return par_bcast(t->dir, sizeof t->dir, 0);
}

static Err parse(Selftest *t)
{
    const Job *job = t->job;
    for (int i = 0; i < job->argc; i += 2) {
        const char *name = job->argv[i];
        const char **out = !strcmp(name, "--data")    ? &t->data_given
                           : !strcmp(name, "--dir")   ? &t->dir_given
                           : !strcmp(name, "--junit") ? &t->junit
                                                      : NULL;
        CHECK(out && i + 1 < job->argc, ERR_USAGE, "imf selftest does not understand '%s'\n%s", name, usage_selftest);
        *out = job->argv[i + 1];
    }
    return OK;
}

// ---- the recipe ------------------------------------------------------------------------------------------------------

static Err add_key(Selftest *t, const char *form, const char *path)
{
    ASSERT(t->n_keys < KEYS);
    const char *hole = strstr(form, "%s");
    int n = snprintf(t->key[t->n_keys], KEY, "%.*s%s%s", hole ? (int)(hole - form) : (int)strlen(form), form, hole ? path : "",
                     hole ? hole + 2 : "");
    CHECK(n < KEY, ERR_USAGE, "the path %s is too long", path);
    t->keys[t->n_keys] = t->key[t->n_keys];
    t->n_keys++;
    return OK;
}

// Two threads a rank where every rank has two processors to itself: more threads than processors take turns, and minutes.
static Err choose_threads(Selftest *t)
{
    cpu_set_t own;
    int64_t one = sched_getaffinity(0, sizeof own, &own) != 0 || CPU_COUNT(&own) < 2 * par_node_size();
    TRY(par_max_i64(&one, 1));
    t->threads = one ? 1 : 2;
    if (par_rank() == 0)
        printf("first layout: %d rank%s of 1 thread; second: of %d, other batches\n", par_size(), par_size() > 1 ? "s" : "",
               t->threads);
    return OK;
}

static Err make_recipe(Selftest *t, int layout, Deck **out)
{
    char run[IO_PATH];
    t->n_keys = 0;
    TRY(io_join(run, t->dir, layout ? "second" : "first"));
    TRY(add_key(t, "run_dir=%s", run));
    for (size_t i = 0; i < sizeof recipe / sizeof recipe[0]; i++) TRY(add_key(t, recipe[i], t->data));
    TRY(add_key(t, layout && t->threads == 2 ? "threads=2" : "threads=1", ""));
    for (int i = 0; layouts[layout][i]; i++) TRY(add_key(t, layouts[layout][i], ""));
    TRY(deck_load(out, NULL, t->keys, t->n_keys));
    return par_rank() == 0 ? io_mkdirs(run) : OK;
}

// ---- running ---------------------------------------------------------------------------------------------------------

// Tables that stages print are not wanted here. -1: nothing was changed.
static int mute(void)
{
    fflush(stdout);
    int old = dup(STDOUT_FILENO);
    if (old >= 0 && !freopen("/dev/null", "w", stdout)) return close(old), -1;
    return old;
}

static void unmute(int old)
{
    fflush(stdout);
    if (old < 0) return;
    dup2(old, fileno(stdout));
    close(old);
}

static Err digest_of(const char *run_dir, const Part *p, Id *out)
{
    char path[IO_PATH];
    Hash *h;
    Err err = OK;
    TRY(hash_new(&h));
    for (int i = 0; i < 3 && p->made[i] && err == OK; i++) {
        Id id = {0};
        if (!record_done(run_dir, p->made[i], &id, NULL)) err = io_join(path, run_dir, p->made[i]);
        if (err == OK && id_equal(id, (Id){0})) err = hash_file(path, &id);
        hash_add_id(h, id);
    }
    *out = hash_end(h);
    return err;
}

static Err run_stage(Selftest *t, const Job *job, int layout, int s)
{
    const double start = time_now();
    int out = mute();
    Err err = t->job->call(job, parts[s].command);
    unmute(out);
    t->seconds[layout][s] = time_now() - start;
    TRY(err);
    return par_agree(par_rank() == 0 ? digest_of(job->run_dir, &parts[s], &t->digest[layout][s]) : OK);
}

// The first layout's lines are printed as they come, the second's digests are held against them.
static Err tell(const Selftest *t, int layout, int s, int *different)
{
    char text[ID_TEXT];
    if (par_rank() != 0) return OK;
    const bool same = id_equal(t->digest[0][s], t->digest[layout][s]);
    id_print(t->digest[layout][s], text);
    *different += !same;
    printf("%-6s %-6s  %s  %6.1f s%s\n", layout ? "second" : "first", parts[s].command, text, t->seconds[layout][s],
           same ? "" : "  DIFFERENT");
    fflush(stdout);
    return OK;
}

static Err run_layout(Selftest *t, int layout, int *different)
{
    Deck *deck = NULL;
    Ctx ctx;
    Err err = OK;
    TRY_DONE(par_agree(make_recipe(t, layout, &deck)));
    TRY_DONE(par_agree(ctx_init(&ctx, (int)deck_i64(deck, "threads"))));
    ctx.isa = t->job->ctx->isa, ctx.gemm_dnnl = t->job->ctx->gemm_dnnl, ctx.dtype = t->job->ctx->dtype;  // as the ranks agreed
    const Job job = {.deck = deck, .run_dir = deck_str(deck, "run_dir"), .ctx = &ctx, .call = t->job->call};
    for (int s = 0; s < STAGES; s++) {
        TRY_DONE(run_stage(t, &job, layout, s));
        t->ran++;
        TRY_DONE(tell(t, layout, s, different));
    }
done:
    deck_free(deck);
    return err;
}

static Err verdict(int different)
{
    CHECK(!different, ERR_INTERNAL,
          "selftest: %d of %d stages give another digest in another layout on this machine: results would depend "
          "on ranks and threads; report the lines above with the output of imf --version",
          different, STAGES);
    if (par_rank() == 0) printf("selftest: %d stages, all digests agree\n", STAGES);
    return OK;
}

// ---- the report ------------------------------------------------------------------------------------------------------

// Rank 0. What failed outside of a comparison is told by the check that did not come about for it; NULL: nothing did.
static Err write_report(const Selftest *t, const char *failure)
{
    JunitCase cases[CHECKS];
    char text[CHECKS][ID_TEXT], other[STAGES][2 * ID_TEXT + 64];
    for (int i = 0; i < CHECKS; i++) {
        const int layout = i / STAGES, s = i % STAGES;
        const bool ran = i < t->ran, same = id_equal(t->digest[0][s], t->digest[layout][s]);
        cases[i] = (JunitCase){.group = layout ? "imf.selftest.second" : "imf.selftest.first", .name = parts[s].command,
                               .seconds = t->seconds[layout][s], .ran = ran, .failure = i == t->ran ? failure : NULL};
        if (!ran) continue;
        id_print(t->digest[layout][s], text[i]);
        cases[i].out = text[i];
        if (same) continue;
        snprintf(other[s], sizeof other[s], "another digest in the second layout: %.32s, in the first: %.32s", text[i], text[s]);
        cases[i].failure = other[s];
    }
    return junit_write(t->junit, "imf selftest", cases, CHECKS);
}

// Collective. Until the selftest has ended its report says that it has not: so it does after kill -9 too, and a place that
// cannot be written is found before the work.
static Err begin_report(const Selftest *t)
{
    if (!t->junit) return OK;
    Err err = par_rank() == 0 ? write_report(t, "the selftest has not ended: it runs, or was killed") : OK;
    if (err != OK) err = err_add(err, "; say where to: imf selftest --junit FILE");
    return par_agree(err);
}

// Collective, with an error that all ranks know. That error, if it is one, goes before that of writing.
static Err end_report(const Selftest *t, Err err)
{
    Str failure = {0};
    if (!t->junit) return err;
    Err written = err != OK ? str_puts(&failure, err_message()) : OK;
    if (written == OK && par_rank() == 0) written = write_report(t, err != OK ? str_text(&failure) : NULL);
    if (err != OK) err_set_message(str_text(&failure));
    str_free(&failure);
    return err != OK ? err : par_agree(written);
}

static Err run_layouts(Selftest *t)
{
    int different = 0;
    TRY(par_agree(par_rank() == 0 ? find_data(t->data_given, t->data) : OK));
    TRY(par_bcast(t->data, sizeof t->data, 0));
    TRY(make_dir(t));
    TRY(choose_threads(t));
    log_quiet(true);
    for (int layout = 0; layout < LAYOUTS; layout++) TRY(run_layout(t, layout, &different));
    return par_agree(verdict(different));
}

static Err run_all(Selftest *t)
{
    TRY(par_agree(parse(t)));
    TRY(begin_report(t));
    return end_report(t, run_layouts(t));
}

Err stage_selftest(const Job *job)
{
    Selftest *t;
    TRY(par_agree(MEM_ARRAY(&t, 1)));
    t->job = job;
    Err err = run_all(t), removed = OK;
    if (par_rank() == 0 && *t->dir) removed = io_remove_tree(t->dir);
    mem_free(t);
    return err != OK ? err : removed;
}
