// SPDX-License-Identifier: Apache-2.0
// make bench: ISA level, GFLOP/s of the gemms of SmolLM2-135M and of the ops around them, and times of a training row.
//   bench_ops [threads]
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/log.h"
#include "base/mem.h"
#include "kernels/ops.h"

enum { T = 1024, H = 576, N = 9, K = 3, D = 64, F = 1536, V = 49152 };

static float *randoms(int64_t n)
{
    float *p = NULL;
    if (MEM_ARRAY(&p, n) != OK) abort();
    uint64_t x = 1;
    for (int64_t i = 0; i < n; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        p[i] = (float)(x >> 40) / 8388608.0f - 1;
    }
    return p;
}

typedef Err Op(Ctx *ctx, const void *args);

// One thread: its CPU time, so that other programs on the machine do not count; a team: the wall's.
static double clock_now(const Ctx *ctx)
{
    struct timespec t;
    if (ctx->threads > 1) return time_now();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// Best of some runs, at least a quarter of a second in all.
static double seconds(Ctx *ctx, Op *op, const void *args)
{
    double best = INFINITY, total = 0;
    for (int i = 0; i < 200 && (i < 3 || total < 0.25); i++) {
        double start = clock_now(ctx);
        if (op(ctx, args) != OK) fprintf(stderr, "%s\n", err_message());
        double spent = clock_now(ctx) - start;
        total += spent;
        if (spent < best) best = spent;
    }
    return best;
}

static Err run_fwd(Ctx *ctx, const void *a) { return op_gemm_fwd(ctx, a); }
static Err run_dx(Ctx *ctx, const void *a) { return op_gemm_bwd_x(ctx, a); }
static Err run_dw(Ctx *ctx, const void *a) { return op_gemm_bwd_w(ctx, a); }
static Err run_attn(Ctx *ctx, const void *a) { return op_attn_fwd(ctx, a); }
static Err run_attn_bwd(Ctx *ctx, const void *a) { return op_attn_bwd(ctx, a); }
static Err run_logprob(Ctx *ctx, const void *a) { return op_logprob_fwd(ctx, a); }
static Err run_logprob_bwd(Ctx *ctx, const void *a) { return op_logprob_bwd(ctx, a); }
static Err run_norm(Ctx *ctx, const void *a) { return op_rmsnorm_fwd(ctx, a); }
static Err run_swiglu(Ctx *ctx, const void *a) { return op_swiglu_fwd(ctx, a); }
static Err run_adamw(Ctx *ctx, const void *a) { return op_adamw(ctx, a); }

static void *space(int64_t bytes)
{
    void *p = NULL;
    if (mem_alloc(&p, bytes, 1) != OK) abort();
    return p;
}

static Tensor halves(int64_t rows, int64_t width)
{
    Tensor x = tensor_f32(randoms(rows * width), width), y = tensor_bf16(space(rows * width * 2), width);
    RoundArgs a = {x, y, rows, width};
    Ctx one = {.threads = 1};
    if (op_round(&one, &a) != OK) abort();
    mem_free(x.p);
    return y;
}

static void bench_gemm_bf16(Ctx *ctx, int64_t t, int64_t in, int64_t out)
{
    Tensor x = halves(t, in), y = halves(t, out), dx = halves(t, in);
    float *w = randoms(out * in), *dw = randoms(out * in);
    int32_t row[2] = {0, (int32_t)t};
    double flop = 2e-9 * (double)t * (double)in * (double)out;
    PackBf16Args p = {.w = tensor_f32(w, in), .packed = space(op_pack_bf16_elements(out, in) * 2), .out = out, .in = in, .to = out};
    if (op_pack_bf16(ctx, &p) != OK) abort();
    GemmArgs f = {.x = x, .w = tensor_bf16(p.packed, in), .y = y, .T = t, .in = in, .out = out};
    GemmDxArgs b = {.dy = y, .w = f.w, .dx = dx, .T = t, .in = in, .out = out};
    GemmDwArgs c = {.dy = y, .x = x, .dw = tensor_f32(dw, in), .row = row, .rows = 1, .in = in, .out = out};
    c.workspace = space(op_gemm_bwd_w_workspace(NULL, &c));
    printf("gemm bf16 %5ld x %5ld x %5ld: forward %6.1f, dx %6.1f, dw %6.1f GFLOP/s\n", (long)t, (long)out, (long)in,
           flop / seconds(ctx, run_fwd, &f), flop / seconds(ctx, run_dx, &b), flop / seconds(ctx, run_dw, &c));
    mem_free(x.p), mem_free(y.p), mem_free(dx.p), mem_free(w), mem_free(dw), mem_free(p.packed), mem_free(c.workspace);
}

static void bench_gemm(Ctx *ctx, int64_t t, int64_t in, int64_t out)
{
    float *x = randoms(t * in), *w = randoms(out * in), *y = randoms(t * out);
    int32_t row[2] = {0, (int32_t)t};
    double flop = 2e-9 * (double)t * (double)in * (double)out;
    GemmArgs f = {.x = tensor_f32(x, in), .w = tensor_f32(w, in), .y = tensor_f32(y, out), .T = t, .in = in, .out = out};
    GemmDxArgs b = {.dy = f.y, .w = f.w, .dx = f.x, .T = t, .in = in, .out = out};
    GemmDwArgs c = {.dy = f.y, .x = f.x, .dw = f.w, .row = row, .rows = 1, .in = in, .out = out};
    double fwd = flop / seconds(ctx, run_fwd, &f);
    Ctx own = *ctx;
    own.gemm_dnnl = false;
    double own_fwd = flop / seconds(&own, run_fwd, &f);
    printf("gemm %5ld x %5ld x %5ld: forward %6.1f, dx %6.1f, dw %6.1f GFLOP/s (our kernel, forward: %6.1f)\n", (long)t, (long)out,
           (long)in, fwd, flop / seconds(ctx, run_dx, &b), flop / seconds(ctx, run_dw, &c), own_fwd);
    mem_free(x), mem_free(w), mem_free(y);
}

static void bench_attention(Ctx *ctx)
{
    float *q = randoms(T * N * D), *k = randoms(T * K * D), *v = randoms(T * K * D), *o = randoms(T * N * D), *lse = randoms(N * T);
    float *dq = randoms(T * N * D), *dk = randoms(T * K * D), *dv = randoms(T * K * D);
    Segment seg = {0, T, -1, 0};
    AttnArgs f = {.q = tensor_f32(q, N * D), .k = tensor_f32(k, K * D), .v = tensor_f32(v, K * D), .o = tensor_f32(o, N * D), .lse = lse,
                  .seg = &seg, .T = T, .S = 1, .N = N, .K = K, .D = D, .scale = 0.125f};
    AttnBwdArgs b = {.q = f.q, .k = f.k, .v = f.v, .o = f.o, .dout = f.q, .dq = tensor_f32(dq, N * D), .dk = tensor_f32(dk, K * D),
                     .dv = tensor_f32(dv, K * D), .lse = lse, .seg = &seg, .T = T, .S = 1, .N = N, .K = K, .D = D, .scale = 0.125f};
    f.workspace = space(op_attn_fwd_workspace(NULL, &f));
    b.workspace = space(op_attn_bwd_workspace(NULL, &b));
    double flop = 4e-9 * T * T / 2 * D * N, fwd = seconds(ctx, run_attn, &f), bwd = seconds(ctx, run_attn_bwd, &b);
    printf("attention, %d tokens, one layer: forward %.2f ms (%.1f GFLOP/s), backward %.2f ms (%.1f GFLOP/s)\n", T, fwd * 1e3,
           flop / fwd, bwd * 1e3, 2.5 * flop / bwd);
    mem_free(q), mem_free(k), mem_free(v), mem_free(o), mem_free(lse), mem_free(dq), mem_free(dk), mem_free(dv);
    mem_free(f.workspace), mem_free(b.workspace);
}

static void bench_logprob(Ctx *ctx)
{
    float *hidden = randoms(T * H), *head = randoms((int64_t)V * H), *dhead = randoms((int64_t)V * H), *dhidden = randoms(T * H);
    float *logp = randoms(T), *lse = randoms(T), *coef = randoms(T);
    int32_t target[T], row[2] = {0, T};
    for (int t = 0; t < T; t++) target[t] = t * 37 % V;
    LogprobArgs f = {.hidden = tensor_f32(hidden, H), .head = tensor_f32(head, H), .target = target, .logp = logp, .lse = lse, .T = T, .H = H, .V = V};
    LogprobBwdArgs b = {.hidden = f.hidden, .head = f.head, .dhidden = tensor_f32(dhidden, H), .dhead = tensor_f32(dhead, H), .target = target,
                        .lse = lse, .coef = coef, .row = row, .rows = 1, .T = T, .H = H, .V = V};
    f.workspace = space(op_logprob_fwd_workspace(NULL, &f));
    b.workspace = space(op_logprob_bwd_workspace(NULL, &b));
    double flop = 2e-9 * T * (double)H * V, fwd = seconds(ctx, run_logprob, &f), bwd = seconds(ctx, run_logprob_bwd, &b);
    printf("log-probabilities, %d tokens, vocabulary %d: forward %.0f ms (%.1f GFLOP/s), backward %.0f ms (%.1f GFLOP/s), workspace %.1f MB\n",
           T, V, fwd * 1e3, flop / fwd, bwd * 1e3, 3 * flop / bwd, (double)op_logprob_bwd_workspace(NULL, &b) / 1e6);
    mem_free(hidden), mem_free(head), mem_free(dhead), mem_free(dhidden), mem_free(logp), mem_free(lse), mem_free(coef);
    mem_free(f.workspace), mem_free(b.workspace);
}

static void bench_rows(Ctx *ctx)
{
    enum { WEIGHTS = 1 << 24 };
    float *g = randoms(T * F), *u = randoms(T * F), *y = randoms(T * F), *w = randoms(H);
    float *p = randoms(WEIGHTS), *m = space(WEIGHTS * 4), *v = space(WEIGHTS * 4), *grad = randoms(WEIGHTS), clip = 1, lr = 1e-4f;
    int64_t step = 1;
    RmsNormArgs norm = {.x = tensor_f32(g, H), .y = tensor_f32(y, H), .w = w, .T = T, .H = H, .eps = 1e-5f};
    SwigluArgs silu = {.g = tensor_f32(g, F), .u = tensor_f32(u, F), .y = tensor_f32(y, F), .T = T, .F = F};
    AdamWArgs adamw = {.w = p, .m = m, .v = v, .g = grad, .n = WEIGHTS, .clip = &clip, .lr = &lr, .step = &step, .beta1 = 0.9f,
                       .beta2 = 0.999f, .eps = 1e-8f, .decay = 0.1f};
    printf("rmsnorm %.3f ms, swiglu %.3f ms, adamw %.2f ns a parameter\n", seconds(ctx, run_norm, &norm) * 1e3,
           seconds(ctx, run_swiglu, &silu) * 1e3, seconds(ctx, run_adamw, &adamw) / WEIGHTS * 1e9);
    mem_free(g), mem_free(u), mem_free(y), mem_free(w), mem_free(p), mem_free(m), mem_free(v), mem_free(grad);
}

int main(int argc, char **argv)
{
    Ctx ctx;
    if (ctx_init(&ctx, argc > 1 ? atoi(argv[1]) : 1) != OK) {
        fprintf(stderr, "%s\n", err_message());
        return 69;
    }
    printf("%s, %d thread%s, f32 gemm by %s\n", isa_name(ctx.isa), ctx.threads, ctx.threads == 1 ? "" : "s",
           ctx.gemm_dnnl ? "oneDNN" : "our kernel");
    static const int64_t shapes[][3] = {{T, H, 960}, {T, H, H}, {T, H, 2 * F}, {T, F, H}, {16, H, 2 * F}, {1, H, 2 * F}, {256, 128, 512}};
    for (int i = 0; i < 7; i++) bench_gemm(&ctx, shapes[i][0], shapes[i][1], shapes[i][2]);
    for (int i = 0; i < 6; i++) bench_gemm_bf16(&ctx, shapes[i][0], shapes[i][1], shapes[i][2]);
    bench_attention(&ctx);
    bench_logprob(&ctx);
    bench_rows(&ctx);
    return 0;
}
