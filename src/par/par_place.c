// SPDX-License-Identifier: Apache-2.0
// Every rank gives its allowed cores as a set of bits; a rank looks at those of its own node, and rank 0 says what the worst node is.
// Ranks that are not bound share one set, which is as it should be while there is a core for each thread.
#include "par/par_place.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/machine.h"
#include "base/mem.h"
#include "par/par.h"

enum { CORES = 1024, WORDS = CORES / 64 };

typedef struct Place {
    int64_t node, cores, quota;  // quota: of the node's control group in hundredths of a core; 0: none
    uint64_t set[WORDS];
} Place;

static long number_of(const char *name)
{
    const char *text = getenv(name);
    return text ? strtol(text, NULL, 10) : 0;
}

// Inside a step of srun its count of tasks speaks. In a batch script, where one process may well ask for a plan, SLURM_NTASKS is
// what the job could have started: a warning, and only where work is done (par_check_cores).
Err par_check_world(void)
{
    const bool step = getenv("SLURM_STEP_ID") || getenv("SLURM_STEP_NUM_TASKS");
    const long tasks = !step ? 0 : number_of(getenv("SLURM_STEP_NUM_TASKS") ? "SLURM_STEP_NUM_TASKS" : "SLURM_NTASKS");
    CHECK(par_size() > 1 || tasks <= 1, ERR_UNAVAILABLE,
          "Slurm started %ld tasks, but MPI connects none of them (this one is alone): each would do all the work. Start imf with "
          "srun --mpi=pmix, or with mpirun", tasks);
    return OK;
}

static void own_place(Place *p)
{
    int core[CORES];
    const Cores c = machine_cores();
    int n = machine_core_list(core, CORES);
    *p = (Place){.node = par_node(), .cores = n, .quota = (int64_t)(100 * c.quota)};
    for (int i = 0; i < n && i < CORES; i++) p->set[core[i] / 64 % WORDS] |= (uint64_t)1 << (core[i] % 64);
}

static int64_t bits(const uint64_t *set)
{
    int64_t n = 0;
    for (int i = 0; i < WORDS; i++) n += __builtin_popcountll(set[i]);
    return n;
}

// Cores that the ranks of a node may use together, as far as the control group lets them; and how many ranks there are.
static double node_cores(const Place *all, int64_t node, int *ranks)
{
    uint64_t set[WORDS] = {0};
    int64_t quota = 0;
    *ranks = 0;
    for (int r = 0; r < par_size(); r++) {
        if (all[r].node != node) continue;
        for (int i = 0; i < WORDS; i++) set[i] |= all[r].set[i];
        quota = all[r].quota;
        ++*ranks;
    }
    const double cores = (double)bits(set), limit = (double)quota / 100;
    return limit > 0 && limit < cores ? limit : cores;
}

// Two ranks of a node that are bound to the same single core.
static bool share_core(const Place *all, int *a, int *b)
{
    for (*b = 1; *b < par_size(); ++*b)
        for (*a = 0; *a < *b; ++*a)
            if (all[*a].node == all[*b].node && all[*a].cores == 1 && !memcmp(all[*a].set, all[*b].set, sizeof all->set)) return true;
    return false;
}

static void warn(const Place *all, int threads)
{
    int a, b, ranks;
    if (par_size() == 1 && number_of("SLURM_NTASKS") > 1)
        log_warn("start", "Slurm has %ld tasks for this job, and imf runs as one rank alone: start it with srun --mpi=pmix to use them",
                 number_of("SLURM_NTASKS"));
    for (int64_t node = 0; node <= all[par_size() - 1].node; node++) {
        const double cores = node_cores(all, node, &ranks);
        if (cores > 0 && (double)ranks * threads > cores + 0.01) {
            log_warn("start", "%d rank%s of %d thread%s on a node that gives them %.4g core%s: they wait for one another; take fewer ranks or "
                     "threads", ranks, ranks > 1 ? "s" : "", threads, threads > 1 ? "s" : "", cores, cores > 1 ? "s" : "");
            return;
        }
    }
    if (share_core(all, &a, &b))
        log_warn("start", "ranks %d and %d are bound to the same core: they wait for one another; let mpirun bind to core (--bind-to core) or "
                 "to none, or give every task of srun its own (--cpus-per-task)", a, b);
}

Err par_check_cores(int threads)
{
    Place mine, *all = NULL;
    int64_t bytes;
    own_place(&mine);
    TRY(par_allgather(&mine, (int64_t)sizeof mine, &all, &bytes, NULL));
    if (par_rank() == 0) warn(all, threads);
    mem_free(all);
    return OK;
}
