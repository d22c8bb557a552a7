// SPDX-License-Identifier: Apache-2.0
#include "stage/jobs.h"

#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "base/version.h"
#include "par/par.h"
#include "text/record.h"

typedef struct Last {
    char isa[32], gemm[32];
} Last;

static Err take_line(void *user, const json_t *row, const char *where)
{
    Last *last = user;
    const char *isa, *gemm;
    TRY(json_get_text(row, "isa", where, &isa));
    TRY(json_get_text(row, "gemm", where, &gemm));
    snprintf(last->isa, sizeof last->isa, "%s", isa);
    snprintf(last->gemm, sizeof last->gemm, "%s", gemm);
    return OK;
}

static Err make_line(const char *command, const Ctx *ctx, const char *gemm, const char *broken, Str *out)
{
    char when[32];
    time_text(when);
    json_t *line = json_pack("{s:s, s:s, s:s, s:i, s:i, s:s, s:s, s:s, s:s}", "time", when, "command", command, "host", par_host(),
                             "ranks", par_size(), "threads", ctx->threads, "dtype",
                             ctx->dtype == DT_BF16 ? "bfloat16" : "float32", "isa", isa_name(ctx->isa), "gemm", gemm, "program",
                             imf_version);
    if (line && ctx->gpu) json_object_set_new(line, "device", json_string("cuda"));
    if (line && *broken) json_object_set_new(line, "break", json_string(broken));
    CHECK(line, ERR_UNAVAILABLE, "out of memory for JSON");
    Err err = json_canonical(line, out);
    json_decref(line);
    return err == OK ? str_puts(out, "\n") : err;
}

static Err add_line(const char *run_dir, const char *command, const Ctx *ctx)
{
    const char *gemm = ctx->gemm_dnnl ? "oneDNN" : "own", *isa = isa_name(ctx->isa);
    char path[IO_PATH], broken[160] = "";
    Last last = {0};
    Str text = {0};
    Err err = OK;
    TRY(io_join(path, run_dir, JOBS_FILE));
    if (io_exists(path)) {
        TRY(jsonl_each(path, take_line, &last));
        TRY_DONE(io_read(path, &text, INT64_MAX));
    }
    if (*last.isa && (strcmp(last.isa, isa) || strcmp(last.gemm, gemm)))
        snprintf(broken, sizeof broken, "%s with %s -> %s with %s", last.isa, last.gemm, isa, gemm);
    TRY_DONE(make_line(command, ctx, gemm, broken, &text));
    TRY_DONE(io_write(path, str_text(&text), text.len));
    if (*broken)
        log_warn("cpu", "the job before computed on %s with %s's gemm, this one on %s with %s's: what is computed from here on is not the "
                 "bits of an undisturbed run (recorded in %s); for the same bits run it where the other jobs ran, or set IMF_ISA=%s",
                 last.isa, last.gemm, isa, gemm, path, last.isa);
done:
    str_free(&text);
    return err;
}

Err jobs_begin(const char *run_dir, const char *command, const Ctx *ctx)
{
    return par_agree(par_rank() == 0 ? add_line(run_dir, command, ctx) : OK);
}
