// SPDX-License-Identifier: Apache-2.0
// make bench-gpu: times of the ops of kernels/cuda/device.h beside the peaks of a product and of a copy of the same run.
//   bench_gpu [tiny]     tiny: shapes that hostcuda can run, to try this program itself; its times then say nothing
//
// A time is the median of 9 turns, each some calls that are waited for once by the host's clock: a launch and a wait are in
// it. #wrong: results that leave the CPU's op on the first tokens by more than bf16 rounds; - where no such check is made.
// The product's peak is that of the algorithm that imf takes (no workspace, no split k).
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "kernels/cuda/device.h"

enum { TURNS = 9, SLICE = 32 };  // SLICE: tokens that the CPU computes too
static const double BF16 = 0x1p-7;

static Ctx cpu, gpu;
static bool tiny;
static double peak_gemm, peak_copy;  // FLOP/s, bytes/s

typedef Err Op(Ctx *ctx, const void *args);

static void ok(Err e)
{
    if (e == OK) return;
    fprintf(stderr, "%s\n", err_message());
    exit(1);
}

static void *space(int64_t bytes)
{
    void *p = NULL;
    ok(device_alloc_managed(gpu.device, &p, bytes));
    memset(p, 0, (size_t)bytes);
    return p;
}

static float next_value(void)
{
    static uint64_t x = 1;
    x = x * 6364136223846793005u + 1442695040888963407u;
    return (float)(x >> 40) / 8388608.0f - 1;
}

static Tensor floats(int64_t rows, int64_t width)
{
    float *p = space(rows * width * 4);
    for (int64_t i = 0; i < rows * width; i++) p[i] = next_value();
    return tensor_f32(p, width);
}

static Tensor halves(int64_t rows, int64_t width)
{
    uint16_t *p = space(rows * width * 2);
    for (int64_t i = 0; i < rows * width; i++) {
        const float f = next_value();
        uint32_t u;
        memcpy(&u, &f, 4);
        p[i] = (uint16_t)(u >> 16);
    }
    return tensor_bf16(p, width);
}

static double half(const Tensor *t, int64_t i)
{
    const uint32_t u = (uint32_t)((const uint16_t *)t->p)[i] << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static void release(const Tensor *t, int n)
{
    for (int i = 0; i < n; i++) device_free(gpu.device, t[i].p);
}

static int compare(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

static double seconds(Op *op, const void *args)
{
    const int calls = tiny ? 1 : 10;
    double t[TURNS];
    ok(op(&gpu, args)), ok(device_wait(gpu.device));  // pages of managed memory move here
    for (int turn = 0; turn < TURNS; turn++) {
        const double start = time_now();
        for (int i = 0; i < calls; i++) ok(op(&gpu, args));
        ok(device_wait(gpu.device));
        t[turn] = (time_now() - start) / calls;
    }
    qsort(t, TURNS, sizeof t[0], compare);
    return t[TURNS / 2];
}

static long wrong(const Tensor *got, const Tensor *want, int64_t n)
{
    long count = 0;
    for (int64_t i = 0; i < n; i++) count += !(fabs(half(got, i) - half(want, i)) <= 2 * BF16 * (0.05 + fabs(half(want, i))));
    return count;
}

// unit: FLOP of a call, or bytes. count < 0: not checked.
static void row(const char *what, double time, double work, bool flop, long count, const char *bar)
{
    char checked[24] = "-";
    if (count >= 0) snprintf(checked, sizeof checked, "%ld", count);
    printf("| %-38s | %10.4f | %8.1f %s | %5.1f | %6s | %s |\n", what, 1e3 * time, work / time / (flop ? 1e12 : 1e9),
           flop ? "TFLOP/s" : "GB/s   ", 100 * work / time / (flop ? peak_gemm : peak_copy), checked, bar);
    fflush(stdout);
}

static Err run_gemm(Ctx *c, const void *a) { return op_gemm_fwd(c, a); }
static Err run_attn(Ctx *c, const void *a) { return op_attn_fwd(c, a); }
static Err run_attn_bwd(Ctx *c, const void *a) { return op_attn_bwd(c, a); }
static Err run_norm(Ctx *c, const void *a) { return op_rmsnorm_fwd(c, a); }
static Err run_swiglu(Ctx *c, const void *a) { return op_swiglu_fwd(c, a); }
static Err run_rope(Ctx *c, const void *a) { return op_rope(c, a); }
static Err run_adamw(Ctx *c, const void *a) { return op_adamw(c, a); }

typedef struct Copy {
    void *to, *from;
    int64_t bytes;
} Copy;
static Err run_copy(Ctx *c, const void *args)
{
    const Copy *a = args;
    return device_copy(c->device, a->to, a->from, a->bytes);
}

static void bench_peaks(void)
{
    const int64_t n = tiny ? 64 : 8192, bytes = tiny ? 1 << 12 : (int64_t)1 << 30;
    const Tensor t[] = {halves(n, n), halves(n, n), halves(n, n)};
    const GemmArgs g = {.x = t[0], .w = t[1], .y = t[2], .T = n, .in = n, .out = n};
    const double gemm = seconds(run_gemm, &g), flop = 2.0 * (double)n * (double)n * (double)n;
    release(t, 3);
    Copy c = {NULL, NULL, bytes};
    ok(device_alloc(gpu.device, &c.to, bytes)), ok(device_alloc(gpu.device, &c.from, bytes)),
        ok(device_zero(gpu.device, c.from, bytes));
    const double copy = seconds(run_copy, &c);
    device_free(gpu.device, c.to), device_free(gpu.device, c.from);
    peak_gemm = flop / gemm, peak_copy = 2.0 * (double)bytes / copy;
    row("product 8192^3, cuBLASLt", gemm, flop, true, -1, "");
    row("copy 1 GiB, device to device", copy, 2.0 * (double)bytes, false, -1, "");
}

// One causal segment of T tokens. The first SLICE tokens see no later key: the CPU computes them alone.
static void bench_attention(int64_t D, int64_t T)
{
    const int64_t N = tiny ? 2 : 4096 / D, K = tiny ? 1 : N / 4;
    const Tensor t[] = {halves(T, N * D), halves(T, K * D), halves(T, K * D), halves(T, N * D),     halves(T, N * D),
                        halves(T, N * D), halves(T, K * D), halves(T, K * D), halves(SLICE, N * D), floats(N, T)};
    Segment *seg = space(sizeof *seg);
    *seg = (Segment){0, (int32_t)T, -1, 0};
    const Segment first = {0, SLICE, -1, 0};
    const float scale = (float)(1 / sqrt((double)D));
    AttnArgs f = {.q = t[0], .k = t[1], .v = t[2], .o = t[3], .lse = t[9].p, .seg = seg, .T = T, .S = 1, .N = N, .K = K, .D = D, .scale = scale}, c = f;
    AttnBwdArgs b = {.q = f.q, .k = f.k, .v = f.v, .o = f.o, .dout = t[4], .dq = t[5], .dk = t[6], .dv = t[7], .lse = f.lse, .seg = seg, .T = T, .S = 1,
                     .N = N, .K = K, .D = D, .scale = scale};
    const double forward = seconds(run_attn, &f), flop = 2.0 * (double)T * (double)T * (double)(N * D);
    c.o = t[8], c.lse = NULL, c.seg = &first, c.T = SLICE;
    c.workspace = space(op_attn_fwd_workspace(&cpu, &c));
    ok(op_attn_fwd(&cpu, &c));
    b.workspace = space(op_attn_bwd_workspace(&gpu, &b));
    char what[96];
    snprintf(what, sizeof what, "attention forward D %ld, %ld tokens", (long)D, (long)T);
    row(what, forward, flop, true, wrong(&t[3], &t[8], SLICE * N * D), "0.8 x cuDNN");
    snprintf(what, sizeof what, "attention backward D %ld, %ld tokens", (long)D, (long)T);
    row(what, seconds(run_attn_bwd, &b), 2.5 * flop, true, -1, "0.8 x cuDNN");
    release(t, 10);
    device_free(gpu.device, seg), device_free(gpu.device, c.workspace), device_free(gpu.device, b.workspace);
}

static void bench_rows(void)
{
    const int64_t T = tiny ? SLICE : 8192, H = tiny ? 64 : 4096, F = tiny ? 64 : 14336, D = 64;
    const Tensor t[] = {floats(T, H), halves(T, H), halves(SLICE, H), floats(1, H), halves(T, F),
                        halves(T, F), halves(T, F), halves(SLICE, F), floats(T, D)};
    int32_t *pos = space(T * 4);
    for (int64_t i = 0; i < T; i++) pos[i] = (int32_t)i;
    RmsNormArgs n = {.x = t[0], .y = t[1], .w = t[3].p, .T = T, .H = H, .eps = 1e-5f}, n_cpu = n;
    const double norm = seconds(run_norm, &n);
    n_cpu.y = t[2], n_cpu.T = SLICE;
    ok(op_rmsnorm_fwd(&cpu, &n_cpu));
    row("RMSNorm", norm, 6.0 * (double)(T * H), false, wrong(&t[1], &t[2], SLICE * H), "85 % of a copy");
    SwigluArgs s = {t[4], t[5], t[6], T, F}, s_cpu = {t[4], t[5], t[7], SLICE, F};
    const double swiglu = seconds(run_swiglu, &s);
    ok(op_swiglu_fwd(&cpu, &s_cpu));
    row("SwiGLU", swiglu, 6.0 * (double)(T * F), false, wrong(&t[6], &t[7], SLICE * F), "85 % of a copy");
    RopeArgs r = {t[1], pos, t[8].p, T, H / D, D, false}, r_cpu = r;
    const double rope = seconds(run_rope, &r);
    memcpy(t[1].p, t[2].p, (size_t)(SLICE * H * 2));  // both begin with the CPU's norm
    r_cpu.x = t[2], r_cpu.T = r.T = SLICE;
    ok(op_rope(&gpu, &r)), ok(device_wait(gpu.device)), ok(op_rope(&cpu, &r_cpu));
    row("RoPE", rope, 4.0 * (double)(T * H), false, wrong(&t[1], &t[2], SLICE * H), "85 % of a copy");
    release(t, 9);
    device_free(gpu.device, pos);
}

static void bench_adamw(void)
{
    const int64_t n = tiny ? 4096 : (int64_t)1 << 28;
    const Tensor t[] = {floats(1, n), floats(1, n), floats(1, n), floats(1, n), halves(1, n), floats(1, 8)};
    float *factor = t[5].p, *v = t[2].p;
    for (int64_t i = 0; i < n; i++) v[i] = fabsf(v[i]);
    factor[0] = 1, factor[1] = 1e-5f;
    int64_t *step = space(sizeof *step);
    *step = 1;
    AdamWArgs a = {.w = t[0].p, .m = t[1].p, .v = v, .g = t[3].p, .rounded = t[4].p, .n = n, .clip = factor, .lr = factor + 1, .step = step,
                   .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .decay = 0.1f};
    row("AdamW", seconds(run_adamw, &a), 30.0 * (double)n, false, -1, "85 % of a copy");
    release(t, 6);
    device_free(gpu.device, step);
}

int main(int argc, char **argv)
{
    tiny = argc > 1 && !strcmp(argv[1], "tiny");
    if (ctx_init(&cpu, 1) != OK) return 69;
    cpu.dtype = DT_BF16, gpu = cpu;
    if (device_open(0, &gpu.device) != OK) return printf("bench-gpu: nothing was measured: %s\n", err_message()), 77;
    peak_gemm = peak_copy = INFINITY;
    puts("cuDNN is not measured here: the bars beside it are not judged.");
    puts("| what | ms | rate | % of peak | #wrong | bar |\n|---|---|---|---|---|---|");
    bench_peaks();
    for (int64_t D = 64; D <= 256; D *= 2)
        for (int64_t T = tiny ? 64 : 2048; T <= (tiny ? 64 : 16384); T *= 2) bench_attention(D, T);
    bench_rows();
    bench_adamw();
    device_close(gpu.device);
    return 0;
}
