// SPDX-License-Identifier: Apache-2.0
// imf plan RECIPE: what every stage will need, before a job waits in a queue for it: memory of a rank and a node by kind, disk,
// steps, tokens, hours. Reads configurations and, where they are there, tokenizers and rows; never a weight.
//
// Rank 0 works. A plan that does not fit ends with ERR_UNAVAILABLE, so that a job's script can stop in its first second.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/machine.h"
#include "par/par.h"
#include "stage/plan_parts.h"

enum { MOST_NODES = 4096 };
static const double MIB = 1048576.0, GIB = 1073741824.0;
static const char *const kind_name[PLAN_KINDS] = {"weights", "bf16 copy", "gradients", "optimiser state", "activations", "KV cache",
                                                  "other"};

const char usage_plan[] =
    "imf plan RECIPE [--ranks N] [--ranks-per-node N] [--memory GiB] [--gpu-memory GiB]\n"
    "                [--speed TOKENS_PER_S] [--stage NAME]\n"
    "\n"
    "Reads config.json of the recipe's models, never their weights. Where the tokenizer and the rows are there, they are\n"
    "read too and the numbers are exact; else bounds of the recipe take their place, and the plan says so.\n"
    "Exit code 69 when a stage does not fit a node; it names the bytes and the smallest number of nodes that would do.\n"
    "\n"
    "  --ranks N            ranks of the whole job; 1 unless said (under mpirun: as many as there are)\n"
    "  --ranks-per-node N   of these on one node; all unless said\n"
    "  --memory GiB         memory of a node; this machine's unless said\n"
    "  --gpu-memory GiB     of a GPU, with device: cuda; not looked at unless said\n"
    "  --speed TOKENS_PER_S of the whole job; unless said it is taken from this run directory's log, or this machine's\n"
    "                       matrix products are timed for 10 seconds (device: cpu)\n"
    "  --stage NAME         only sample, score, verify, sft, dpo or eval (the others need no memory to speak of)\n";

typedef struct Plan {
    const Job *job;
    PlanLayout layout;
    const char *only;     // NULL: every stage of the recipe
    double memory, speed; // bytes of a node; 0: not given
    double gpu_memory;    // bytes of a GPU; 0: not given
    bool given;           // memory is from the command line
    OwnMemory base;
    char refusal[512];    // of the first stage that does not fit; empty: all do
} Plan;

// --- options ---------------------------------------------------------------------------------------------------------------

static Err number(const char *key, const char *text, double least, double *out)
{
    char *end = NULL;
    *out = text ? strtod(text, &end) : 0;
    CHECK(text && *text && !*end && *out >= least && *out <= 1e12, ERR_USAGE, "%s wants a number from %g on, not '%s'", key, least,
          text ? text : "");
    return OK;
}

static Err option(Plan *p, const char *key, const char *value)
{
    double v;
    if (!strcmp(key, "--stage")) {
        CHECK(value, ERR_USAGE, "--stage wants a name");
        p->only = value;
        return OK;
    }
    const bool ranks = !strcmp(key, "--ranks"), per_node = !strcmp(key, "--ranks-per-node");
    const bool memory = !strcmp(key, "--memory"), speed = !strcmp(key, "--speed"), gpu = !strcmp(key, "--gpu-memory");
    CHECK(ranks || per_node || memory || speed || gpu, ERR_USAGE, "imf plan does not know '%s'; usage:\n%s", key, usage_plan);
    TRY(number(key, value, ranks || per_node ? 1 : 1e-6, &v));
    if (ranks) p->layout.ranks = (int64_t)v;
    if (per_node) p->layout.per_node = (int64_t)v;
    if (memory) p->memory = v * GIB, p->given = true;
    if (speed) p->speed = v;
    if (gpu) p->gpu_memory = v * GIB;
    return OK;
}

static Err read_options(Plan *p)
{
    p->layout.ranks = par_size();
    p->memory = (double)machine_memory_room();
    for (int i = 0; i < p->job->argc; i += 2) TRY(option(p, p->job->argv[i], i + 1 < p->job->argc ? p->job->argv[i + 1] : NULL));
    if (!p->layout.per_node || p->layout.per_node > p->layout.ranks) p->layout.per_node = p->layout.ranks;
    CHECK(p->layout.ranks <= INT32_MAX, ERR_USAGE, "--ranks %lld is too large", (long long)p->layout.ranks);
    return OK;
}

// --- does it fit? ----------------------------------------------------------------------------------------------------------

static int64_t sum_of(const int64_t bytes[PLAN_KINDS])
{
    int64_t all = 0;
    for (int i = 0; i < PLAN_KINDS; i++) all += bytes[i];
    return all;
}

static Err fits(const PlanStage *s, PlanLayout l, double memory, bool *yes)
{
    int64_t bytes[PLAN_KINDS];
    TRY(plan_bytes(s, l, bytes));
    *yes = (double)sum_of(bytes) <= memory;
    return OK;
}

// The smallest number of nodes on which the stage fits, with as many ranks on each as were asked for or fewer; nodes = 0: none.
// *least: bytes of a node when there are as many nodes as are of use, with one rank each.
static Err least_nodes(const Plan *p, const PlanStage *s, int64_t *nodes, int64_t *per_node, int64_t *least)
{
    const int64_t useful = plan_most_ranks(s), most = useful && useful < MOST_NODES ? useful : MOST_NODES;
    int64_t bytes[PLAN_KINDS];
    TRY(plan_bytes(s, (PlanLayout){most, 1}, bytes));
    const bool yes = (double)sum_of(bytes) <= p->memory;
    *nodes = *per_node = 0;
    *least = sum_of(bytes);
    for (int64_t n = 1; yes && n <= most && !*nodes; n++)
        for (int64_t r = p->layout.per_node; r >= 1 && !*nodes; r /= 2) {
            bool good = !useful || n * r <= useful;
            if (good) TRY(fits(s, (PlanLayout){n * r, r}, p->memory, &good));
            if (good) *nodes = n, *per_node = r;
        }
    return OK;
}

static Err refuse(Plan *p, const PlanStage *s, int64_t want)
{
    int64_t nodes = 0, per_node = 0, least = 0;
    char who[112] = "", advice[160];
    TRY(least_nodes(p, s, &nodes, &per_node, &least));
    snprintf(advice, sizeof advice, "no number of nodes would do: a node with one rank of very many still wants %lld bytes", (long long)least);
    if (nodes)
        snprintf(advice, sizeof advice, "the smallest number of nodes that would do is %lld, with %lld rank%s on each", (long long)nodes,
                 (long long)per_node, per_node > 1 ? "s" : "");
    if (*s->who) snprintf(who, sizeof who, " (%s)", s->who);
    snprintf(p->refusal, sizeof p->refusal, "%s%s wants %lld bytes on a node with %lld rank%s, and %s has %.0f bytes; %s", s->stage, who,
             (long long)want, (long long)p->layout.per_node, p->layout.per_node > 1 ? "s" : "",
             p->given ? "the node (--memory)" : "this machine", p->memory, advice);
    return OK;
}

// --- printing --------------------------------------------------------------------------------------------------------------

static void print_memory(const Plan *p, const PlanStage *s, const int64_t bytes[PLAN_KINDS])
{
    const int64_t all = sum_of(bytes), load = plan_load_bytes(s, p->layout);
    const double ranks = (double)p->layout.per_node;
    printf("  %-16s %16s %16s\n", "memory", "a rank", "a node");
    for (int i = 0; i < PLAN_KINDS; i++)
        if (bytes[i]) printf("  %-16s %12.1f MiB %12.1f MiB\n", kind_name[i], (double)bytes[i] / ranks / MIB, (double)bytes[i] / MIB);
    printf("  %-16s %12.1f MiB %12.1f MiB\n", "all", (double)all / ranks / MIB, (double)all / MIB);
    if (load > all)
        printf("  %-16s %12.1f MiB %12.1f MiB  (the model's file counts too, as far as there is room)\n", "while loading",
               (double)load / ranks / MIB, (double)load / MIB);
}

static int64_t sum_of_device(const DeviceNeed *n) { return n->weights + n->gradients + n->optimiser + n->activations + n->kv; }

// The smallest number of ranks whose GPUs are large enough; 0: none that is of use.
static Err least_gpus(const Plan *p, const PlanStage *s, int64_t *ranks)
{
    DeviceNeed n;
    const int64_t most = plan_most_ranks(s);
    for (*ranks = 1; *ranks <= most; ++*ranks) {
        TRY(plan_device(s, *ranks, &n));
        if ((double)sum_of_device(&n) <= p->gpu_memory) return OK;
    }
    *ranks = 0;
    return OK;
}

static Err refuse_gpu(Plan *p, const PlanStage *s, int64_t want)
{
    int64_t ranks;
    char advice[80] = "no number of ranks would do";
    if (s->work != WORK_TRAIN) {
        snprintf(p->refusal, sizeof p->refusal, "%s (%s) wants %lld bytes of a GPU, and one has %.0f bytes (--gpu-memory); its model "
                 "is not shared out: %sset device: cpu for this stage", s->stage, s->who, (long long)want, p->gpu_memory,
                 s->work == WORK_DECODE ? "take fewer sample.slots, or " : "");
        return OK;
    }
    TRY(least_gpus(p, s, &ranks));
    if (ranks) snprintf(advice, sizeof advice, "%lld ranks would do", (long long)ranks);
    snprintf(p->refusal, sizeof p->refusal, "%s (%s) wants %lld bytes of a GPU with %lld rank%s, and one has %.0f bytes (--gpu-memory); %s; %s%s.row_tokens "
             "changes it", s->stage, s->who, (long long)want, (long long)p->layout.ranks, p->layout.ranks > 1 ? "s" : "", p->gpu_memory, advice,
             strcmp(deck_str(s->deck, "shard"), "grads") ? "shard: grads takes less, and " : "", s->stage);
    return OK;
}

static Err print_gpu(Plan *p, const PlanStage *s)
{
    DeviceNeed n;
    TRY(plan_device(s, p->layout.ranks, &n));
    const int64_t all = sum_of_device(&n), bytes[] = {n.weights, n.gradients, n.optimiser, n.activations, n.kv, all};
    static const char *const name[] = {"weights", "gradients", "optimiser state", "activations", "KV pages", "all"};
    printf("  %-16s %16s\n", "GPU memory", "of each");
    for (int i = 0; i < 6; i++)
        if (bytes[i]) printf("  %-16s %12.1f MiB\n", name[i], (double)bytes[i] / MIB);
    printf("  CUDA's own context and libraries come on top\n");
    return p->gpu_memory > 0 && (double)all > p->gpu_memory && !*p->refusal ? refuse_gpu(p, s, all) : OK;
}

static void print_disk(const PlanStage *s)
{
    const PlanDisk d = plan_disk(s);
    if (d.checkpoint)
        printf("  disk: checkpoints %.2f GiB (at most %" PRId64 " of %.2f GiB), model %.2f GiB\n",
               (double)d.kept * (double)d.checkpoint / GIB, d.kept, (double)d.checkpoint / GIB, (double)d.model / GIB);
    if (d.records) printf("  disk: records up to about %.2f GiB\n", (double)d.records / GIB);
}

static Err print_time(const Plan *p, const PlanStage *s)
{
    PlanSpeed speed;
    if (s->work == WORK_PROGRAMS) return OK;
    TRY(plan_speed(s, p->job, p->layout, p->speed, &speed));
    printf("  work:");
    if (s->work == WORK_TRAIN && s->train.steps >= 0) printf(" %" PRId64 " steps,", s->train.steps);
    if (s->items >= 0) printf(" %" PRId64 " %s,", s->items, s->work == WORK_TRAIN ? (s->spec.pairs ? "pairs" : "examples") : "answers");
    if (s->tokens < 0) printf(" tokens not known yet");
    else printf(" %s%.0f tokens", s->at_most ? "at most " : "", s->tokens);
    if (speed.tokens <= 0) return printf("; how long GPUs take is not known (--speed)\n"), OK;
    if (s->tokens < 0) return printf("; %.0f tokens/s (%s)\n", speed.tokens, speed.source), OK;
    const double effort = s->tokens - s->reference * 2 / 3;  // forward alone is a third
    printf("; %.2f hours at %.0f tokens/s (%s)\n", effort / speed.tokens / 3600, speed.tokens, speed.source);
    return OK;
}

static Err print_stage(Plan *p, const PlanStage *s)
{
    int64_t bytes[PLAN_KINDS];
    const int64_t most = plan_most_ranks(s);
    CHECK(!most || p->layout.ranks <= most, ERR_RECIPE, "%s: %lld ranks but %s.grad_chains is %lld: the largest useful number of ranks is %lld",
          s->stage, (long long)p->layout.ranks, s->stage, (long long)most, (long long)most);
    TRY(plan_bytes(s, p->layout, bytes));
    printf("\n%s%s%s", s->stage, *s->who ? ": " : "", s->who);
    if (s->model.elements) printf(", %.2f million parameters", (double)s->model.elements / 1e6);
    printf("\n");
    if (*s->note) printf("  note: %s\n", s->note);
    print_memory(p, s, bytes);
    if (s->on_device) TRY(print_gpu(p, s));
    print_disk(s);
    TRY(print_time(p, s));
    if (most) printf("  ranks: up to %lld are of use (%s.grad_chains)\n", (long long)most, s->stage);
    if (*p->refusal || (double)sum_of(bytes) <= p->memory) return OK;
    return refuse(p, s, sum_of(bytes));
}

// --- stages ----------------------------------------------------------------------------------------------------------------

static bool wanted(const Plan *p, const char *stage, bool there)
{
    return p->only ? !strcmp(p->only, stage) : there;
}

static Err plan_one(Plan *p, const char *stage, int64_t source, bool there)
{
    PlanStage s;
    if (!wanted(p, stage, there)) return OK;
    Err err = plan_open(&s, p->job, stage, source, p->base);
    if (err == OK) err = print_stage(p, &s);
    plan_close(&s);
    return err;
}

static bool has(const Deck *d, const char *key) { return *deck_str(d, key) != '\0'; }

static Err plan_all(Plan *p)
{
    const Deck *d = p->job->deck;
    const int64_t sources = deck_count(d, "sources");
    const bool samples = sources > 0 && !has(d, "samples.path"), target = has(d, "target.path");
    CHECK(!p->only || strcmp(p->only, "sample") || sources, ERR_RECIPE, "the recipe names no sources; add sources: [{path: MODEL_DIR}]");
    for (int64_t i = 0; i < sources; i++) TRY(plan_one(p, "sample", i, samples));
    TRY(plan_one(p, "score", 0, has(d, "reward.path")));
    TRY(plan_one(p, "verify", 0, deck_count(d, "prompts") > 0));
    TRY(plan_one(p, "sft", 0, target));
    TRY(plan_one(p, "dpo", 0, target || has(d, "dpo.base")));
    return plan_one(p, "eval", 0, target && deck_count(d, "eval.sets") > 0);
}

static Err check_stage(const char *name)
{
    static const char *const known[] = {"sample", "score", "verify", "sft", "dpo", "eval"};
    for (size_t i = 0; name && i < sizeof known / sizeof known[0]; i++)
        if (!strcmp(name, known[i])) return OK;
    CHECK(!name, ERR_USAGE, "--stage '%s' is none of sample, score, verify, sft, dpo and eval", name);
    return OK;
}

static Err make_plan(const Job *job)
{
    Plan p = {.job = job, .base = machine_own_memory()};
    TRY(read_options(&p));
    TRY(check_stage(p.only));
    const int64_t nodes = (p.layout.ranks + p.layout.per_node - 1) / p.layout.per_node;
    printf("%lld rank%s on %lld node%s, %s; a node has %.1f GiB (%s)\n", (long long)p.layout.ranks, p.layout.ranks > 1 ? "s" : "",
           (long long)nodes, nodes > 1 ? "s" : "", job->ctx->dtype == DT_BF16 ? "bfloat16" : "float32", p.memory / GIB,
           p.given ? "--memory" : "this machine");
    TRY(plan_all(&p));
    fflush(stdout);
    CHECK(!*p.refusal, ERR_UNAVAILABLE, "%s", p.refusal);
    return OK;
}

// Collective.
Err stage_plan(const Job *job) { return par_agree(par_rank() == 0 ? make_plan(job) : OK); }
