// SPDX-License-Identifier: Apache-2.0
// imf doctor: what this machine has, one line each: "ok", "note" (works, with a limit worth knowing) or "lack" (a stage will refuse,
// and the line says which). Needs no MPI.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/machine.h"
#include "base/version.h"
#include "judge/judge.h"
#include "kernels/cuda/device.h"
#include "par/par.h"
#include "par/par_nc.h"
#include "stage/stage.h"

const char usage_doctor[] =
    "imf doctor\n"
    "\n"
    "One line for everything that imf uses: ok, note (works, with a limit worth knowing) or lack (something will refuse).\n"
    "Exit code 0; 69 when imf cannot run here at all.\n";

static const double GIB = 1073741824.0;

static void say(const char *state, const char *what, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void say(const char *state, const char *what, const char *fmt, ...)
{
    va_list ap;
    printf("%-4s  %-8s  ", state, what);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
}

// The first `name` in PATH; false: there is none.
static bool in_path(const char *name, char out[IO_PATH])
{
    const char *at = getenv("PATH");
    while (at && *at) {
        size_t n = strcspn(at, ":");
        snprintf(out, IO_PATH, "%.*s/%s", (int)n, at, name);
        if (n && access(out, X_OK) == 0) return true;
        at += n + (at[n] == ':');
    }
    return false;
}

static void look_at_cores(void)
{
    const Cores c = machine_cores();
    if (c.quota > 0 && c.quota < (double)c.allowed)
        say("note", "cores", "%d online, %d allowed, but a control group gives %.1f of them: take ranks x threads up to that", c.online,
            c.allowed, c.quota);
    else if (c.allowed < c.online)
        say("note", "cores", "%d online, this process may use %d: take ranks x threads up to that", c.online, c.allowed);
    else
        say("ok", "cores", "%d, all allowed: ranks x threads up to that", c.online);
}

static Err look_at_kernels(void)
{
    Ctx ctx;
    TRY(ctx_init(&ctx, 1));
    const char *gemm = ctx.gemm_dnnl ? "oneDNN's gemm" : "our gemm (oneDNN failed its guard test, or was not asked)";
    if (ctx.isa < ISA_AVX2)
        say("note", "cpu", "%s: neither AVX2 nor AVX-512, everything is slow; float32 by %s", isa_name(ctx.isa), gemm);
    else
        say("ok", "cpu", "%s; float32 by %s, bfloat16 by our gemm%s", isa_name(ctx.isa), gemm,
            ctx.isa < ISA_AVX512BF16 ? " without bf16 instructions: it saves memory, not time" : "");
    return OK;
}

static void look_at_memory(void)
{
    const int64_t limit = machine_memory_limit();
    const double all = (double)machine_memory() / GIB, left = (double)machine_memory_free() / GIB;
    if (limit)
        say("note", "memory", "%.1f GiB, %.1f available, but a control group ends this process at %.1f GiB; imf plan counts with that",
            all, left, (double)limit / GIB);
    else
        say("ok", "memory", "%.1f GiB, %.1f available; imf plan RECIPE says what a recipe needs", all, left);
}

static void look_at_place(const char *what, const char *dir, const char *use)
{
    int64_t room;
    if (io_free_bytes(dir, &room) != OK || access(dir, W_OK) != 0) {
        say("lack", what, "%s cannot be written: %s", dir, use);
        return;
    }
    say(room < (1 << 30) ? "note" : "ok", what, "%s has %.1f GiB free; %s", dir, (double)room / GIB, use);
}

static void look_at_mpi(void)
{
    char path[IO_PATH];
    const char *names[] = {"mpirun", "mpiexec", "srun"};
    int found = -1;
    for (int i = 2; i >= 0; i--)
        if (in_path(names[i], path)) found = i;
    if (found < 0) say("note", "mpi", "%s, but no mpirun, mpiexec or srun in PATH: only one rank can be started", par_library());
    else say("ok", "mpi", "%s; started by %s", par_library(), names[found]);
}

static void look_at_netcdf(void)
{
    char text[128];
    const bool parallel = par_nc_describe(text, sizeof text);
    if (parallel) say("ok", "netcdf", "%s, parallel files", text);
    else say("lack", "netcdf", "%s without parallel files: checkpoints of several ranks fail; install libnetcdf-mpi-dev and build again", text);
}

static void look_at_sandbox(void)
{
    Str text = {0};
    const Err err = sandbox_describe(&text);
    if (err == OK) say("ok", "sandbox", "%s", str_text(&text));
    else say("lack", "sandbox", "%s", err_message());
    str_free(&text);
}

static void look_at_gpu(void)
{
    Device *d = NULL;
    if (device_plan(&d) != OK) {
        say("note", "gpu", "none in this build: everything runs on the CPU");
    } else if (device_open(0, &d) != OK) {
        say("lack", "gpu", "%s", err_message());
    } else {
        say("ok", "gpu", "a device is there; with device: cuda every rank of a node takes one");
        device_close(d);
    }
}

static void look_at_slurm(void)
{
    char path[IO_PATH];
    const char *job = getenv("SLURM_JOB_ID");
    if (job && *job) say("ok", "slurm", "inside job %s; start ranks with srun --mpi=pmix", job);
    else if (in_path("sbatch", path)) say("ok", "slurm", "sbatch is there; this is no job");
    else say("note", "slurm", "no sbatch: jobs are started by hand with mpirun");
}

Err stage_doctor(const Job *job)
{
    CHECK(job->argc == 0, ERR_USAGE, "imf doctor takes no argument, and got '%s'", job->argv[0]);
    const char *tmp = getenv("TMPDIR");
    say("ok", "imf", "%s, built by %s", imf_version, imf_compiler);
    look_at_cores();
    TRY(look_at_kernels());
    look_at_memory();
    look_at_place("shm", "/dev/shm", "ranks of a node share weights there (else in TMPDIR)");
    look_at_place("tmp", tmp && *tmp ? tmp : "/tmp", "shared weights go there when /dev/shm is too small");
    look_at_mpi();
    look_at_netcdf();
    look_at_sandbox();
    look_at_gpu();
    look_at_slurm();
    return OK;
}
