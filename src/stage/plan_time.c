// SPDX-License-Identifier: Apache-2.0
// Tokens a second: given, or as this run directory has measured them (log.jsonl), or this machine's gemm, measured for a while,
// times the share of it that docs/performance.md found in each kind of work. Of a device nothing is known before it has run.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "stage/plan_parts.h"
#include "text/record.h"

#define MEASURE_SECONDS 10.0
enum { ROWS = 512, IN = 1024, OUT = 4096 };  // of the gemm that is measured

// Share of the gemm's peak, SmolLM2-135M on two cores: fp32, bf16.
static const double share[][2] = {[WORK_TRAIN] = {0.78, 0.71}, [WORK_DECODE] = {0.55, 0.45}, [WORK_SCORE] = {0.62, 0.57}};

// --- measured in this run --------------------------------------------------------------------------------------------------

typedef struct Seen {
    const char *stage;
    double speed;   // tokens/s, the last there is
    int64_t ranks, now;  // that made it; of the job whose lines are being read
} Seen;

// "cpu: ... 2 ranks of 1 threads" begins a job; "sft: step 2/2 ... 55 tokens/s, ..." says how fast it was.
static Err see_line(void *user, const json_t *row, const char *where)
{
    (void)where;
    Seen *s = user;
    const char *component = json_string_value(json_object_get(row, "component")), *text = json_string_value(json_object_get(row, "text"));
    if (!component || !text) return OK;
    const char *ranks = strstr(text, " ranks of "), *speed = strstr(text, " tokens/s");
    if (!strcmp(component, "cpu") && ranks) {
        while (ranks > text && ranks[-1] >= '0' && ranks[-1] <= '9') ranks--;
        s->now = strtoll(ranks, NULL, 10);
    } else if (!strcmp(component, s->stage) && speed && s->now > 0) {
        while (speed > text && strchr("0123456789.", speed[-1])) speed--;
        s->speed = strtod(speed, NULL);
        s->ranks = s->now;
    }
    return OK;
}

static Err seen_speed(const PlanStage *p, const Job *job, PlanLayout l, PlanSpeed *out)
{
    char path[IO_PATH];
    Seen s = {.stage = p->stage};
    TRY(io_join(path, job->run_dir, "log.jsonl"));
    if (!io_exists(path) || jsonl_each(path, see_line, &s) != OK || s.speed <= 0) return OK;  // a torn line: not measured
    out->tokens = s.speed * (double)l.ranks / (double)s.ranks;
    snprintf(out->source, sizeof out->source, "measured in this run directory on %lld rank%s", (long long)s.ranks, s.ranks > 1 ? "s" : "");
    return OK;
}

// --- measured now ----------------------------------------------------------------------------------------------------------

static Err pack(Ctx *ctx, float *w, void *packed, Tensor *out)
{
    *out = tensor_f32(w, IN);
    if (ctx->dtype == DT_F32) return OK;
    PackBf16Args a = {.w = *out, .packed = packed, .out = OUT, .in = IN, .from = 0, .to = OUT};
    *out = tensor_bf16(packed, IN);
    return op_pack_bf16(ctx, &a);
}

// GFLOP/s of this process; the buffers are zero, whose products take as long as others.
static Err gemm_speed(Ctx *ctx, double *gflops)
{
    float *x = NULL, *w = NULL, *y = NULL;
    void *packed = NULL;
    int64_t times = 0;
    Err err = OK;
    TRY_DONE(MEM_ARRAY(&x, ROWS * IN));
    TRY_DONE(MEM_ARRAY(&w, OUT * IN));
    TRY_DONE(MEM_ARRAY(&y, ROWS * OUT));
    TRY_DONE(mem_alloc(&packed, op_pack_bf16_elements(OUT, IN), 2));
    GemmArgs a = {.x = {x, ctx->dtype, IN}, .y = {y, ctx->dtype, OUT}, .T = ROWS, .in = IN, .out = OUT};
    TRY_DONE(pack(ctx, w, packed, &a.w));
    TRY_DONE(op_gemm_fwd(ctx, &a));
    const double started = time_now();
    for (; time_now() - started < MEASURE_SECONDS; times++) TRY_DONE(op_gemm_fwd(ctx, &a));
    *gflops = 2e-9 * ROWS * IN * OUT * (double)times / (time_now() - started);
done:
    mem_free(x);
    mem_free(w);
    mem_free(y);
    mem_free(packed);
    return err;
}

// Arithmetic of a token, without attention (a few percent of it): 2 a weight forward, 4 backward.
static double token_flops(const PlanStage *p)
{
    const ModelConfig *c = &p->model.cfg;
    const double embed = (double)(c->V * c->H), all = (double)p->model.elements - (c->tied ? 0 : embed);
    if (p->work == WORK_SCORE) return 2 * (all - (c->tied ? embed : 0));
    return (p->work == WORK_TRAIN ? 6 : 2) * all;
}

static Err machine_speed(const PlanStage *p, Ctx *ctx, PlanLayout l, PlanSpeed *out)
{
    static double gflops;  // once a program
    if (gflops <= 0) TRY(gemm_speed(ctx, &gflops));
    const double part = share[p->work][ctx->dtype == DT_BF16];
    out->tokens = 1e9 * gflops * part * (double)l.ranks / token_flops(p);
    snprintf(out->source, sizeof out->source, "%.0f %% of this machine's gemm, %.0f GFLOP/s a rank", 100 * part, gflops);
    return OK;
}

Err plan_speed(const PlanStage *p, const Job *job, PlanLayout l, double given, PlanSpeed *out)
{
    *out = (PlanSpeed){.tokens = given, .source = "given"};
    if (given > 0 || p->work == WORK_PROGRAMS) return OK;
    TRY(seen_speed(p, job, l, out));
    return out->tokens > 0 || p->on_device ? OK : machine_speed(p, job->ctx, l, out);
}
