// SPDX-License-Identifier: Apache-2.0
// main: the command table, the common options, and the only place that ends the process.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/io.h"
#include "base/lease.h"
#include "base/log.h"
#include "base/manual.h"
#include "base/mem.h"
#include "base/roll.h"
#include "base/stop.h"
#include "base/version.h"
#include "judge/judge.h"
#include "kernels/cuda/device.h"
#include "model/model.h"
#include "par/par.h"
#include "par/par_place.h"
#include "stage/import.h"
#include "stage/jobs.h"
#include "stage/phases.h"
#include "stage/stage.h"

// RUN_DIR: writes there. DIRECT: works without a recipe too, when its first argument is an option. MORE: takes arguments
// behind the recipe. BARE: answers without MPI. GPU: can use the recipe's device.
enum { RECIPE = 1, RUN_DIR = 2, SANDBOX = 4, DIRECT = 8, MORE = 16, BARE = 32, GPU = 64, MAX_SETS = 256 };

typedef struct Command {
    const char *name;
    Err (*run)(const Job *job);
    int needs;
    const char *sections;  // recipe sections that its help prints, space separated
    const char *help;
    const char *usage;     // flags and rows of commands that work without a recipe; NULL: none
} Command;

static const Command commands[] = {
    // pipeline order: `run` executes those that need a recipe from select to eval
    {"select", stage_select, RECIPE | RUN_DIR, "prompts select", "import prompts, drop duplicates, give ids", NULL},
    {"sample", stage_sample, RECIPE | RUN_DIR | GPU, "sources sample", "sample n answers a prompt from every source model", NULL},
    {"score", stage_score, RECIPE | RUN_DIR | DIRECT | GPU, "reward",
     "score every sample with the reward model; or score --model DIR < JSONL", usage_score},
    {"verify", stage_verify, RECIPE | RUN_DIR | SANDBOX, "verify", "check math answers and run code against its tests", NULL},
    {"pair", stage_pair, RECIPE | RUN_DIR, "pair", "best answers to SFT rows, best against worst to pairs", NULL},
    {"sft", stage_sft, RECIPE | RUN_DIR | GPU, "target sft", "fine-tune the target on SFT rows", NULL},
    {"dpo", stage_dpo, RECIPE | RUN_DIR | GPU, "target dpo", "DPO or length-normalised DPO on pairs", NULL},
    {"eval", stage_eval, RECIPE | RUN_DIR | SANDBOX | GPU, "eval", "evaluate target, SFT and DPO models", NULL},
    {"reward", stage_reward, RECIPE | RUN_DIR | GPU, "reward_train", "train a reward model of ArmoRM's shape", NULL},
    {"trace", stage_trace, RECIPE | MORE, "", "print the life of a prompt, sample or pair: trace RECIPE|RUNDIR ID", NULL},
    {"report", stage_report, RECIPE, "", "write the run's page, report.html, and print its table: report RECIPE|RUNDIR", NULL},
    {"plan", stage_plan, RECIPE | MORE, "", "memory, disk and hours that every stage will need: plan RECIPE [--ranks N ...]", usage_plan},
    {"status", stage_status, BARE, "", "what a run is doing, or where it stopped, from any shell: status RUNDIR", usage_status},
    {"doctor", stage_doctor, BARE | SANDBOX, "", "what this machine has for imf, and what each lack means", usage_doctor},
    {"show", stage_show, 0, "", "describe any file or directory that imf writes: show PATH", NULL},
    {"audit", stage_audit, 0, "", "check every file and id of a run directory: audit RUNDIR", usage_audit},
    {"compare", stage_compare, 0, "", "the first difference of two runs, models or record sets: compare A B", usage_compare},
    {"selftest", stage_selftest, SANDBOX, "", "a tiny pipeline in two layouts on this machine: do all digests agree?",
     usage_selftest},
    {"tokens", stage_tokens, 0, "", "text or messages to token ids and back: tokens MODEL < JSONL", usage_tokens},
    {"logprobs", stage_logprobs, 0, "", "log-probabilities of tokens: logprobs MODEL < JSONL", usage_logprobs},
    {"generate", stage_generate, 0, "", "answers to messages: generate MODEL [--greedy ...] < JSONL", usage_generate},
    {"judge", stage_judge, SANDBOX, "", "verdicts on answers: judge math|fuseeval|checks|code < JSONL", usage_judge},
};
enum { COMMANDS = sizeof commands / sizeof commands[0], PIPELINE = 8 };
static const Command run_pipeline = {"run", NULL, RECIPE | RUN_DIR | SANDBOX | GPU, "",
                                     "every stage from select to eval, in order; ended stages are skipped", NULL};

static const Command *find_command(const char *name)
{
    for (int i = 0; i < COMMANDS; i++)
        if (!strcmp(commands[i].name, name)) return &commands[i];
    return NULL;
}

static const char usage[] =
    "imf: implicit model fusion, from prompts to a fused model\n"
    "\n"
    "  imf COMMAND RECIPE.yaml [--set a.b=c ...] [--quiet] [--profile]\n"
    "  imf COMMAND ... [--dtype float32|bfloat16] [--quiet] [--profile]    (commands without a recipe)\n"
    "  mpirun -n 4 imf run RECIPE.yaml\n"
    "\n";

static void print_usage(void)
{
    fputs(usage, stdout);
    printf("  %-10s %s\n", run_pipeline.name, run_pipeline.help);
    for (int i = 0; i < COMMANDS; i++) printf("  %-10s %s\n", commands[i].name, commands[i].help);
    puts("\n  --profile            every stage ends with a table of its time: gemm, attention, communication, wait, ..."
         "\n  imf help COMMAND     its flags, rows and keys of the recipe (also: imf COMMAND --help)"
         "\n  imf help recipe      every key; imf help --markdown: the same as a page\n"
         "  imf help --man       the manual page\n"
         "  imf --version");
}

static Err print_manual(Str *out)
{
    ManualCommand c[COMMANDS];
    for (int i = 0; i < COMMANDS; i++)
        c[i] = (ManualCommand){commands[i].name, commands[i].help, commands[i].usage, commands[i].sections};
    return manual_page(c, COMMANDS, out);
}

// The common options that a command takes.
static Err common_help(int needs, Str *out)
{
    if (needs & BARE) return OK;
    const bool deck = needs & RECIPE, direct = !deck || needs & DIRECT;
    return str_printf(out, "\nalso: %s%s--quiet, --profile (imf --help)\n", deck ? "--set a.b=c, " : "",
                      direct ? "--dtype float32|bfloat16, " : "");
}

// tools/imf.bash reads the options there.
static Err command_help(const char *name, Str *out)
{
    const Command *c = !strcmp(name, run_pipeline.name) ? &run_pipeline : find_command(name);
    CHECK(c, ERR_USAGE, "no command is called '%s'; imf --help lists them", name);
    TRY(str_printf(out, "imf %s: %s\n", c->name, c->help));
    if (c->usage) TRY(str_printf(out, "\n%s", c->usage));
    if (*c->sections) TRY(str_puts(out, "\nkeys of the recipe (imf help recipe lists all):\n"));
    char sections[128], *save = NULL;
    snprintf(sections, sizeof sections, "%s", c->sections);
    for (char *s = strtok_r(sections, " ", &save); s; s = strtok_r(NULL, " ", &save)) TRY(deck_manual(out, s));
    return common_help(c->needs, out);
}

static Err print_help(const char *name)
{
    Str text = {0};
    Err err = OK;
    if (!strcmp(name, "recipe")) {
        TRY_DONE(deck_manual(&text, ""));
    } else if (!strcmp(name, "--man")) {
        TRY_DONE(print_manual(&text));
    } else if (!strcmp(name, "--markdown")) {
        TRY_DONE(manual_markdown(&text));
    } else {
        TRY_DONE(command_help(name, &text));
    }
    fputs(str_text(&text), stdout);
done:
    str_free(&text);
    return err;
}

static void print_version(void)
{
    printf("imf %s\ncompiler: %s\n", imf_version, imf_compiler);
    Ctx ctx;
    if (ctx_init(&ctx, 1) == OK)
        printf("cpu: %s; f32 gemm by %s, bf16 gemm by our kernel\n", isa_name(ctx.isa), ctx.gemm_dnnl ? "oneDNN" : "our kernel");
    puts("cuda: not in this build");
}

typedef struct Options {
    const char *sets[MAX_SETS];
    int n_sets;
    bool quiet, profile;
    DType dtype;  // of commands without a recipe
    char *rest[MAX_SETS];
    int n_rest;
} Options;

static Err parse_options(int argc, char **argv, Options *o)
{
    for (int i = 0; i < argc; i++) {
        if (!strcmp(argv[i], "--set")) {
            CHECK(i + 1 < argc && strchr(argv[i + 1], '='), ERR_USAGE, "--set wants key=value");
            CHECK(o->n_sets < MAX_SETS, ERR_USAGE, "more than %d --set", MAX_SETS);
            o->sets[o->n_sets++] = argv[++i];
        } else if (!strcmp(argv[i], "--dtype")) {
            CHECK(i + 1 < argc, ERR_USAGE, "--dtype wants float32 or bfloat16");
            TRY(model_dtype(argv[++i], &o->dtype));
        } else if (!strcmp(argv[i], "--quiet")) {
            o->quiet = true;
        } else if (!strcmp(argv[i], "--profile")) {
            o->profile = true;
        } else {
            CHECK(o->n_rest < MAX_SETS, ERR_USAGE, "too many arguments");
            o->rest[o->n_rest++] = argv[i];
        }
    }
    return OK;
}

static RollRank *ranks;  // of this job; rank 0

// Who was in the job that died in this run directory, if one did.
static Err tell_deaths(const char *dir)
{
    Str text = {0};
    Err err = roll_call(dir, &text);
    if (text.len && roll_was_ended()) log_info("run", "%s", str_text(&text));
    else if (text.len) log_warn("run", "%s", str_text(&text));
    str_free(&text);
    return err;
}

// Collective: rank 0 learns who is in this job; each rank leaves a farewell from now on when it is told to end.
static Err join_roll(const char *dir)
{
    RollRank own = {.pid = getpid()}, *all;
    int64_t bytes;
    snprintf(own.host, sizeof own.host, "%.100s", par_host());
    TRY(par_agree(par_rank() == 0 ? tell_deaths(dir) : OK));
    TRY(par_agree(roll_join(dir, par_rank())));
    TRY(par_allgather(&own, sizeof own, &all, &bytes, NULL));
    if (par_rank() == 0) ranks = all;
    else mem_free(all);
    return OK;
}

// Rank 0 makes the run directory, takes its lease and keeps the resolved recipe there.
static Err open_run_dir(const Deck *deck, const char *dir)
{
    if (par_rank() != 0) return OK;
    Str text = {0};
    char path[IO_PATH];
    Err err = OK;
    TRY_DONE(io_mkdirs(dir));
    TRY_DONE(lease_take(dir, par_host()));
    TRY_DONE(io_join(path, dir, "recipe.yaml"));
    TRY_DONE(deck_print(deck, &text));
    TRY_DONE(io_write(path, str_text(&text), text.len));
done:
    str_free(&text);
    return err;
}

// A user's own answers (samples.path) take the place of the first two stages.
static Err run_stage(const Command *c, const Job *job)
{
    fault_stage(c->name);
    if (c >= commands + 2 || !*deck_str(job->deck, "samples.path")) return c->run(job);
    log_info(c->name, "samples.path takes its place");
    return OK;
}

// Collective. A signal that came before the stage ends it before it begins.
static Err begin_stage(const Command *c, const Job *job)
{
    if (!(c->needs & RUN_DIR) || !job->deck) return OK;
    TRY(par_agree(par_rank() == 0 ? roll_write(job->run_dir, c->name, ranks, par_size()) : OK));
    return par_stop_agree(c->name);
}

// progress.json says which stage runs, until it has ended well.
static Err run_told(const Command *c, const Job *job)
{
    if (c->needs & RUN_DIR) log_stage(c->name);
    Err err = par_agree(run_stage(c, job));
    if (err == OK && c->needs & RUN_DIR) log_stage(NULL);
    return err;
}

// Collective. A stage that was stopped half-way has spent its time too.
static Err run_profiled(const Command *c, const Job *job, bool print)
{
    TRY(begin_stage(c, job));
    Err err = run_told(c, job);
    if (err != OK && err != ERR_REQUEUE) return err;
    Err told = phases_end(c->name, c->needs & RUN_DIR ? job->run_dir : NULL, print);
    return err != OK ? err : told;
}

static Err run_command(const Command *c, const Job *job, bool print)
{
    if (c) return run_profiled(c, job, print);
    for (int i = 0; i < PIPELINE; i++) TRY(run_profiled(&commands[i], job, print));
    return run_profiled(find_command("report"), job, print);
}

// Local. Commands that only look may be given a run directory for its recipe; it is looked at where it is now, wherever it was
// made.
static Err find_recipe(const char *name, int needs, const char *path, char recipe[IO_PATH])
{
    if (!io_is_dir(path)) {
        snprintf(recipe, IO_PATH, "%s", path);
        return OK;
    }
    TRY(io_join(recipe, path, "recipe.yaml"));
    CHECK(!(needs & RUN_DIR), ERR_USAGE, "%s is a directory, and imf %s wants a recipe: imf %s %s", path, name, name, recipe);
    CHECK(io_exists(recipe), ERR_NOINPUT,
          "%s is no run directory: it has no recipe.yaml; give the recipe or a directory that a run left", path);
    return OK;
}

// For imf selftest, which runs commands as `run` does, on recipes of its own.
static Err call_command(const Job *job, const char *name)
{
    const Command *c = find_command(name);
    ASSERT(c);
    return par_agree(c->run(job));
}

// Local. Takes the recipe's path off the arguments; nothing may stand behind it unless the command takes more.
static Err load_recipe(const char *name, int needs, const Options *o, Job *job, Deck **deck)
{
    CHECK(job->argc >= 1, ERR_USAGE, "imf %s wants a recipe: imf %s RECIPE.yaml", name, name);
    char recipe[IO_PATH];
    TRY(find_recipe(name, needs, job->argv[0], recipe));
    TRY(deck_load(deck, recipe, o->sets, o->n_sets));
    const char *given = job->argv[0];
    job->argc--, job->argv++;
    CHECK(!job->argc || needs & MORE, ERR_USAGE, "imf %s does not understand '%s'; keys of the recipe are given as --set key=value",
          name, job->argv[0]);
    job->deck = *deck;
    job->run_dir = io_is_dir(given) ? given : deck_str(*deck, "run_dir");
    return OK;
}

// Ranks of different machines take the lowest level of all, and oneDNN where all may: else bits would depend on who computes.
static Err open_ctx(Ctx *ctx, const Deck *deck, const Options *o)
{
    TRY(par_agree(ctx_init(ctx, deck ? (int)deck_i64(deck, "threads") : 1)));
    int64_t least[2] = {-(int64_t)ctx->isa, !ctx->gemm_dnnl};
    TRY(par_max_i64(least, 2));
    ctx->isa = (Isa)-least[0];
    ctx->gemm_dnnl = !least[1];
    ctx->dtype = o->dtype;
    return deck ? par_agree(model_dtype(deck_str(deck, "dtype"), &ctx->dtype)) : OK;
}

// The rank's GPU, where the recipe wants one. Devices are dealt by the rank's number on its node.
static Err open_gpu(Ctx *ctx, const Deck *deck)
{
    if (!deck || strcmp(deck_str(deck, "device"), "cuda")) return OK;
    CHECK(ctx->dtype == DT_BF16, ERR_RECIPE, "device: cuda computes in bfloat16; set dtype: bfloat16, or device: cpu");
    return device_open(par_node_rank(), &ctx->gpu);
}

static void tell_ctx(const Ctx *ctx)
{
    const char *gemm = ctx->dtype == DT_BF16 || !ctx->gemm_dnnl ? "our gemm" : "oneDNN's gemm";
    log_info("cpu", "%s on %s with %s, %d ranks of %d threads", ctx->dtype == DT_BF16 ? "bfloat16" : "float32", isa_name(ctx->isa), gemm,
             par_size(), ctx->threads);
}

// Collective. Results are the same bits on devices of one kind.
static Err tell_gpus(const Ctx *ctx)
{
    const int own = device_architecture(ctx->gpu);
    int64_t range[2] = {own, -own};
    TRY(par_max_i64(range, 2));
    const int most = (int)range[0], least = (int)-range[1];
    if (most == least) log_info("gpu", "compute capability %d.%d: kernels for %s", most / 10, most % 10, most == 90 ? "Hopper" : "Ampere and later");
    else log_warn("gpu", "ranks have devices of compute capability %d.%d to %d.%d: results depend on which of them computes what", least / 10, least % 10,
                  most / 10, most % 10);
    return OK;
}

// Collective.
static Err tell_peak(const Ctx *ctx)
{
    int64_t most = device_peak(ctx->gpu);
    TRY(par_max_i64(&most, 1));
    log_info("gpu", "at most %.1f MiB of a GPU's memory were in use", (double)most / 1048576.0);
    return OK;
}

static Err run_job(const char *name, const Options *o)
{
    const Command *c = find_command(name);
    int needs = (c ? c : &run_pipeline)->needs;
    if (needs & DIRECT && o->n_rest && !strncmp(o->rest[0], "--", 2)) needs &= ~(RECIPE | RUN_DIR);
    Job job = {.argc = o->n_rest, .argv = (char **)o->rest, .call = call_command};
    Deck *deck = NULL;
    Ctx ctx = {0};
    Err err = OK;
    if (needs & RECIPE) TRY_DONE(par_agree(load_recipe(name, needs, o, &job, &deck)));
    if (needs & RUN_DIR) {
        TRY_DONE(par_agree(open_run_dir(deck, job.run_dir)));
        TRY_DONE(par_agree(log_to(job.run_dir)));
        TRY_DONE(join_roll(job.run_dir));
        TRY_DONE(import_samples(deck, job.run_dir));
    }
    TRY_DONE(open_ctx(&ctx, deck, o));
    if (needs & GPU) TRY_DONE(par_agree(open_gpu(&ctx, deck)));
    if (needs & RUN_DIR) {
        tell_ctx(&ctx);
        if (ctx.gpu) TRY_DONE(tell_gpus(&ctx));
        TRY_DONE(par_check_cores(ctx.threads));
        TRY_DONE(jobs_begin(job.run_dir, name, &ctx));
    }
    job.ctx = &ctx;
    TRY_DONE(run_command(c, &job, o->profile));
    if (ctx.gpu) TRY_DONE(tell_peak(&ctx));
done:
    device_close(ctx.gpu);
    deck_free(deck);
    mem_free(ranks);
    return err;
}

static void print_error(Err err)
{
    fprintf(stderr, "imf: error %d%s%s: %s\n", (int)err, par_size() > 1 ? " on " : "", par_size() > 1 ? par_host() : "",
            err_message());
    if (getenv("IMF_TRACE") || err == ERR_INTERNAL) fputs(err_trace(), stderr);
}

// A command that needs no MPI.
static Err run_bare(const Command *c, int argc, char **argv, int *code)
{
    Job job = {.argc = argc, .argv = argv, .exit_code = code};
    if (c->needs & SANDBOX) TRY(sandbox_start());
    Err err = c->run(&job), stopped = c->needs & SANDBOX ? sandbox_stop() : OK;
    TRY(err != OK ? err : stopped);
    CHECK(fflush(stdout) == 0 && !ferror(stdout), ERR_IO, "cannot write standard output");
    return OK;
}

// Questions that are answered without MPI. False: there is work to do. *code: of an answer that is no error.
static bool answer_question(int argc, char **argv, Err *err, int *code)
{
    const char *name = argc > 1 ? argv[1] : "--help";
    const bool help = !strcmp(name, "help"), asked = argc > 2 && !strcmp(argv[2], "--help");
    const Command *c = find_command(name);
    *err = OK;
    if (!strcmp(name, "--version")) print_version();
    else if (!strcmp(name, "--help") || (help && argc < 3)) print_usage(), *err = argc > 1 ? OK : ERR_USAGE;
    else if (help || asked) *err = print_help(asked ? name : argv[2]);
    else if (c && c->needs & BARE) *err = run_bare(c, argc - 2, argv + 2, code);
    else return false;
    return true;
}

static Err start(const char *name, int *argc, char ***argv)
{
    const Command *c = find_command(name);
    bool known = c || !strcmp(name, "run");
    if (known && (!c || c->needs & SANDBOX)) TRY(sandbox_start());  // forks: before MPI
    TRY(par_init(argc, argv));
    log_open(par_rank(), par_host());
    TRY(par_agree(par_check_world()));
    Err err = known ? OK : err_raise(ERR_USAGE, __func__, __FILE__, __LINE__,
                                     "no command is called '%s'; imf --help lists them", name);
    return par_agree(err != OK ? err : fault_open(par_rank()));
}

static Err work(int argc, char **argv)
{
    const char *name = argv[1];
    Options o = {0};
    const Command *c = find_command(name);
    phases_start();
    const bool direct = c && c->needs & DIRECT && argc > 2 && !strncmp(argv[2], "--", 2);
    if (c ? c->needs & RUN_DIR && !direct : !strcmp(name, "run")) stop_listen();
    TRY(start(name, &argc, &argv));
    TRY(par_agree(parse_options(argc - 2, argv + 2, &o)));
    log_quiet(o.quiet);
    TRY(run_job(name, &o));
    int failed = fflush(stdout) | ferror(stdout);
    return par_agree(failed ? err_raise(ERR_IO, __func__, __FILE__, __LINE__,
                                        "cannot write standard output; is its disk full or its reader gone?")
                            : OK);
}

// Ends MPI and the sandbox; returns the exit code. An agreed error is the same on all ranks: rank 0 speaks, and all wait for
// it. Otherwise nobody can be waited for.
static int leave(Err err)
{
    const bool failed = err != OK && err != ERR_DIFFERENT;
    if (failed && (par_rank() == 0 || !par_agreed())) print_error(err);
    log_close();
    if (err == OK || par_agreed() || par_size() == 1) roll_leave();
    else stop_farewell((int)err);
    lease_drop();  // before the barrier: behind it another rank's abort may end this one
    if (par_agreed() && par_barrier() != OK) par_abort((int)err);
    Err stopped = sandbox_stop();
    if (!failed && stopped != OK) err = stopped;
    // After a failed write HDF5's exit handler may crash: leave without it.
    if ((failed || stopped != OK) && (par_size() > 1 || err == ERR_IO)) par_abort((int)err);
    par_finish();
    return (int)err;
}

int main(int argc, char **argv)
{
    Err err;
    int code = 0;
    mem_init();
    if (!answer_question(argc, argv, &err, &code)) return leave(work(argc, argv));
    if (err != OK && argc > 1) print_error(err);
    return err != OK ? (int)err : code;
}
