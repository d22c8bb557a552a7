// SPDX-License-Identifier: Apache-2.0
// make bench-gpu: times of the ops of kernels/cuda/device.h beside the peaks of a product and of a copy of the same run.
//   bench_gpu [tiny]     tiny: shapes that hostcuda can run, to try this program itself; its times then say nothing
//
// A time is the median of 9 turns, each a CUDA graph of 10 calls that is waited for once by the host's clock: a tenth of one launch
// and wait is in it. #wrong: results that leave the CPU's op (a product: sums in double) on the first tokens by more than bf16
// rounds, fp32 ones by more than 1e-5; - where no such check is made. The product's peak is that of the algorithm that imf takes
// (no workspace, no split k).
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
    DeviceGraph *graph;
    ok(op(&gpu, args)), ok(device_wait(gpu.device));  // pages of managed memory move here
    ok(device_record(gpu.device));
    for (int i = 0; i < calls; i++) ok(op(&gpu, args));
    ok(device_recorded(gpu.device, &graph));
    for (int turn = -1; turn < TURNS; turn++) {  // the first one is not counted
        const double start = time_now();
        ok(device_replay(gpu.device, graph)), ok(device_wait(gpu.device));
        if (turn >= 0) t[turn] = (time_now() - start) / calls;
    }
    device_graph_free(graph);
    qsort(t, TURNS, sizeof t[0], compare);
    return t[TURNS / 2];
}

static long wrong(const Tensor *got, const Tensor *want, int64_t n)
{
    long count = 0;
    for (int64_t i = 0; i < n; i++) count += !(fabs(half(got, i) - half(want, i)) <= 2 * BF16 * (0.05 + fabs(half(want, i))));
    return count;
}

static long wrong_floats(const float *got, const float *want, int64_t n)
{
    long count = 0;
    for (int64_t i = 0; i < n; i++) count += !(fabs((double)got[i] - want[i]) <= 1e-5 * (1 + fabs((double)want[i])));
    return count;
}

// work: FLOP of a call, or bytes. count < 0: not checked. bar: what the first version must reach, and what comes then.
static void row(const char *what, double time, double work, bool flop, long count, const char *bar)
{
    char checked[24] = "-";
    if (count >= 0) snprintf(checked, sizeof checked, "%ld", count);
    printf("| %-40s | %10.4f | %8.1f %s | %5.1f | %6s | %s |\n", what, 1e3 * time, work / time / (flop ? 1e12 : 1e9),
           flop ? "TFLOP/s" : "GB/s   ", 100 * work / time / (flop ? peak_gemm : peak_copy), checked, bar);
    fflush(stdout);
}

static Err run_gemm(Ctx *c, const void *a) { return op_gemm_fwd(c, a); }
static Err run_attn(Ctx *c, const void *a) { return op_attn_fwd(c, a); }
static Err run_attn_bwd(Ctx *c, const void *a) { return op_attn_bwd(c, a); }
static Err run_norm(Ctx *c, const void *a) { return op_rmsnorm_fwd(c, a); }
static Err run_swiglu(Ctx *c, const void *a) { return op_swiglu_fwd(c, a); }
static Err run_rope(Ctx *c, const void *a) { return op_rope(c, a); }
static Err run_logprob(Ctx *c, const void *a) { return op_logprob_fwd(c, a); }
static Err run_logprob_bwd(Ctx *c, const void *a) { return op_logprob_bwd(c, a); }
static Err run_decode(Ctx *c, const void *a) { return op_attn_decode(c, a); }
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

// y = x . w^T, the first SLICE rows and columns.
static long wrong_product(const Tensor *t, int64_t n)
{
    long count = 0;
    for (int64_t r = 0; r < SLICE; r++)
        for (int64_t c = 0; c < SLICE; c++) {
            double want = 0;
            for (int64_t i = 0; i < n; i++) want += half(&t[0], r * n + i) * half(&t[1], c * n + i);
            count += !(fabs(half(&t[2], r * n + c) - want) <= 2 * BF16 * (0.05 + fabs(want)));
        }
    return count;
}

static void bench_peaks(void)
{
    const int64_t n = tiny ? 64 : 8192, bytes = tiny ? 1 << 12 : (int64_t)1 << 30;
    const Tensor t[] = {halves(n, n), halves(n, n), halves(n, n)};
    const GemmArgs g = {.x = t[0], .w = t[1], .y = t[2], .T = n, .in = n, .out = n};
    const double gemm = seconds(run_gemm, &g), flop = 2.0 * (double)n * (double)n * (double)n;
    const long bad = wrong_product(t, n);
    release(t, 3);
    Copy c = {NULL, NULL, bytes};
    ok(device_alloc(gpu.device, &c.to, bytes)), ok(device_alloc(gpu.device, &c.from, bytes)),
        ok(device_zero(gpu.device, c.from, bytes));
    const double copy = seconds(run_copy, &c);
    device_free(gpu.device, c.to), device_free(gpu.device, c.from);
    peak_gemm = flop / gemm, peak_copy = 2.0 * (double)bytes / copy;
    row("product 8192^3, cuBLASLt", gemm, flop, true, bad, "");
    row("copy 1 GiB, device to device", copy, 2.0 * (double)bytes, false, -1, "");
}

// One causal segment of T tokens. The first SLICE tokens see no later key: the CPU computes them alone, but dK and dV.
static void bench_attention(int64_t D, int64_t T)
{
    const int64_t N = tiny ? 2 : 4096 / D, K = tiny ? 1 : N / 4;
    enum { Q, KEYS, V, O, DO, DQ, DK, DV, LSE, O_CPU, DQ_CPU, DK_CPU, DV_CPU, LSE_CPU, ALL };
    const Tensor t[ALL] = {halves(T, N * D),     halves(T, K * D),     halves(T, K * D),     halves(T, N * D),     halves(T, N * D),
                           halves(T, N * D),     halves(T, K * D),     halves(T, K * D),     floats(N, T),         halves(SLICE, N * D),
                           halves(SLICE, N * D), halves(SLICE, K * D), halves(SLICE, K * D), floats(N, SLICE)};
    Segment *seg = space(sizeof *seg);
    *seg = (Segment){0, (int32_t)T, -1, 0};
    const Segment first = {0, SLICE, -1, 0};
    AttnArgs f = {.q = t[Q], .k = t[KEYS], .v = t[V], .o = t[O], .lse = t[LSE].p, .seg = seg, .T = T, .S = 1, .N = N, .K = K, .D = D,
                  .scale = (float)(1 / sqrt((double)D))}, f_cpu = f;
    AttnBwdArgs b = {.q = f.q, .k = f.k, .v = f.v, .o = f.o, .dout = t[DO], .dq = t[DQ], .dk = t[DK], .dv = t[DV], .lse = f.lse, .seg = seg, .T = T, .S = 1,
                     .N = N, .K = K, .D = D, .scale = f.scale}, b_cpu = b;
    f_cpu.o = b_cpu.o = t[O_CPU], f_cpu.lse = t[LSE_CPU].p, b_cpu.lse = f_cpu.lse, f_cpu.seg = b_cpu.seg = &first, f_cpu.T = b_cpu.T = SLICE;
    b_cpu.dq = t[DQ_CPU], b_cpu.dk = t[DK_CPU], b_cpu.dv = t[DV_CPU];
    void *const spaces[] = {space(op_attn_fwd_workspace(&cpu, &f_cpu)), space(op_attn_bwd_workspace(&cpu, &b_cpu)), space(op_attn_bwd_workspace(&gpu, &b))};
    f_cpu.workspace = spaces[0], b_cpu.workspace = spaces[1], b.workspace = spaces[2];
    const double flop = 2.0 * (double)T * (double)T * (double)(N * D), forward = seconds(run_attn, &f), backward = seconds(run_attn_bwd, &b);
    ok(op_attn_fwd(&cpu, &f_cpu)), ok(op_attn_bwd(&cpu, &b_cpu));
    char what[96];
    snprintf(what, sizeof what, "attention forward D %ld, %ld tokens", (long)D, (long)T);
    row(what, forward, flop, true, wrong(&t[O], &t[O_CPU], SLICE * N * D), "0.8 x cuDNN, then 1.05");
    snprintf(what, sizeof what, "attention backward D %ld, %ld tokens", (long)D, (long)T);
    row(what, backward, 2.5 * flop, true, wrong(&t[DQ], &t[DQ_CPU], SLICE * N * D), "0.8 x cuDNN, then 1.05");
    release(t, ALL);
    device_free(gpu.device, seg);
    for (int i = 0; i < 3; i++) device_free(gpu.device, spaces[i]);
}

// Weights as the CPU's products read them; wide: room for them in fp32.
static void *packed(Tensor w, float *wide, int64_t out, int64_t in)
{
    void *p = space(op_pack_bf16_elements(out, in) * 2);
    for (int64_t i = 0; i < out * in; i++) wide[i] = (float)half(&w, i);
    const PackBf16Args a = {tensor_f32(wide, in), p, out, in, 0, out};
    ok(op_pack_bf16(&cpu, &a));
    return p;
}

// The loss of SFT and DPO. FLOP: a product forward, three backward (logits again, two gradients).
static void bench_logprob(void)
{
    const int64_t T = tiny ? SLICE : 8192, H = tiny ? 64 : 4096, V = tiny ? 512 : 128256;
    const Tensor t[] = {floats(T, H), halves(V, H), floats(T, H), floats(V, H), floats(2, T), floats(1, T), floats(2, SLICE)};
    int32_t *target = space(T * 4), *whole = space(8);
    for (int64_t i = 0; i < T; i++) target[i] = (int32_t)(i * 7919 % V);
    whole[1] = (int32_t)T;
    float *logp = t[4].p, *logp_cpu = t[6].p;
    LogprobArgs f = {.hidden = t[0], .head = t[1], .target = target, .logp = logp, .lse = logp + T, .T = T, .H = H, .V = V}, f_cpu = f;
    LogprobBwdArgs b = {.hidden = t[0], .head = t[1], .dhidden = t[2], .dhead = t[3], .target = target, .lse = f.lse, .coef = t[5].p, .row = whole, .rows = 1,
                        .T = T, .H = H, .V = V};
    f_cpu.logp = logp_cpu, f_cpu.lse = logp_cpu + SLICE, f_cpu.T = SLICE, f_cpu.head.p = packed(t[1], t[3].p, V, H);
    const int64_t bytes = op_logprob_fwd_workspace(&gpu, &f), more = op_logprob_bwd_workspace(&gpu, &b);
    f.workspace = space(bytes), b.workspace = space(more), f_cpu.workspace = space(op_logprob_fwd_workspace(&cpu, &f_cpu));
    const double forward = seconds(run_logprob, &f), backward = seconds(run_logprob_bwd, &b), flop = 2.0 * (double)T * (double)H * (double)V;
    ok(op_logprob_fwd(&cpu, &f_cpu));
    row("log-prob loss, forward", forward, flop, true, wrong_floats(logp, logp_cpu, SLICE), "");
    row("log-prob loss, backward", backward, 3 * flop, true, -1, "");
    row("log-prob loss, both", forward + backward, 4 * flop, true, -1, "550 TFLOP/s, then 680");
    printf("| log-prob loss, workspace | %lld bytes | | | | 512 MB |\n", (long long)(bytes > more ? bytes : more));
    release(t, 7);
    void *const all[] = {target, whole, f.workspace, b.workspace, f_cpu.workspace, f_cpu.head.p};
    for (int i = 0; i < 6; i++) device_free(gpu.device, all[i]);
}

// Paged attention of one layer: `slots` samples, each with keys of its own; a rate of bytes of keys and values.
static void bench_decode(const char *model, int64_t N, int64_t K, int64_t D)
{
    enum { CHECKED = 2 };
    const int64_t slots = tiny ? 4 : 256, pages = tiny ? 2 : 16, len = pages * KV_PAGE - 5, tokens = slots * pages * KV_PAGE;
    const Tensor t[] = {halves(slots, N * D), halves(slots, N * D), halves(CHECKED, N * D), halves(tokens, K * D), halves(tokens, K * D)};
    int32_t *page = space(tokens * 4), *place = space(tokens * 4), *own = space(slots * pages * 4), *one = space((slots + 1) * 5 * 4);
    int32_t *const prefix_len = one, *const own_len = one + slots, *const order = own_len + slots, *const group = order + slots;
    for (int64_t i = 0; i < tokens; i++) page[i] = (int32_t)(i / KV_PAGE), place[i] = (int32_t)(i % KV_PAGE);
    for (int64_t i = 0; i < slots * pages; i++) own[i] = (int32_t)i;
    for (int64_t i = 0; i < slots; i++) own_len[i] = (int32_t)len, order[i] = group[i] = (int32_t)i;
    group[slots] = (int32_t)slots;
    KvStoreArgs s = {t[3], t[4], NULL, page, place, tokens, K, D}, s_cpu = s;
    s_cpu.n = CHECKED * pages * KV_PAGE;
    s.pages = space(slots * pages * op_kv_page_bytes(&gpu, DT_BF16, K, D)), s_cpu.pages = space(CHECKED * pages * op_kv_page_bytes(&cpu, DT_BF16, K, D));
    DecodeAttnArgs a = {.q = t[0], .o = t[1], .pages = s.pages, .prefix_page = own, .prefix_len = prefix_len, .own_page = own, .own_len = own_len, .order = order,
                        .group = group, .groups = slots, .slots = slots, .N = N, .K = K, .D = D, .max_prefix_pages = 1, .max_own_pages = pages,
                        .scale = (float)(1 / sqrt((double)D))}, c = a;
    c.pages = s_cpu.pages, c.o = t[2], c.groups = c.slots = CHECKED;
    a.workspace = space(op_attn_decode_workspace(&gpu, &a)), c.workspace = space(op_attn_decode_workspace(&cpu, &c) + 1);
    ok(op_kv_store(&gpu, &s)), ok(device_wait(gpu.device)), ok(op_kv_store(&cpu, &s_cpu));
    const double time = seconds(run_decode, &a);
    ok(op_attn_decode(&cpu, &c));
    char what[96];
    snprintf(what, sizeof what, "decode attention, %s, %ld x %ld", model, (long)slots, (long)len);
    row(what, time, 4.0 * (double)(slots * len * K * D), false, wrong(&t[1], &t[2], CHECKED * N * D), "60 % of a copy, then 75");
    release(t, 5);
    void *const all[] = {page, place, own, one, s.pages, s_cpu.pages, a.workspace, c.workspace};
    for (int i = 0; i < 8; i++) device_free(gpu.device, all[i]);
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
    row("RMSNorm", norm, 6.0 * (double)(T * H), false, wrong(&t[1], &t[2], SLICE * H), "85 % of a copy, then 92");
    SwigluArgs s = {t[4], t[5], t[6], T, F}, s_cpu = {t[4], t[5], t[7], SLICE, F};
    const double swiglu = seconds(run_swiglu, &s);
    ok(op_swiglu_fwd(&cpu, &s_cpu));
    row("SwiGLU", swiglu, 6.0 * (double)(T * F), false, wrong(&t[6], &t[7], SLICE * F), "85 % of a copy, then 92");
    RopeArgs r = {t[1], pos, t[8].p, T, H / D, D, false}, r_cpu = r;
    const double rope = seconds(run_rope, &r);
    memcpy(t[1].p, t[2].p, (size_t)(SLICE * H * 2));  // both begin with the CPU's norm
    r_cpu.x = t[2], r_cpu.T = r.T = SLICE;
    ok(op_rope(&gpu, &r)), ok(device_wait(gpu.device)), ok(op_rope(&cpu, &r_cpu));
    row("RoPE", rope, 4.0 * (double)(T * H), false, wrong(&t[1], &t[2], SLICE * H), "85 % of a copy, then 92");
    release(t, 9);
    device_free(gpu.device, pos);
}

static void bench_adamw(void)
{
    enum { CHECKED = 4096 };
    const int64_t n = tiny ? CHECKED : (int64_t)1 << 28;
    const Tensor t[] = {floats(1, n), floats(1, n), floats(1, n), floats(1, n), halves(1, n), floats(1, 8), floats(4, CHECKED)};
    float *factor = t[5].p, *v = t[2].p, *const same = t[6].p;
    for (int64_t i = 0; i < n; i++) v[i] = fabsf(v[i]);
    factor[0] = 1, factor[1] = 1e-5f;
    int64_t *step = space(sizeof *step);
    *step = 1;
    AdamWArgs a = {.w = t[0].p, .m = t[1].p, .v = v, .g = t[3].p, .rounded = t[4].p, .n = n, .clip = factor, .lr = factor + 1, .step = step,
                   .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .decay = 0.1f}, c = a;
    const double time = seconds(run_adamw, &a);
    for (int i = 0; i < 4; i++) memcpy(same + i * CHECKED, t[i].p, CHECKED * sizeof(float));
    c.w = same, c.m = same + CHECKED, c.v = same + 2 * CHECKED, c.g = same + 3 * CHECKED, c.rounded = NULL, c.n = CHECKED;
    ok(op_adamw(&gpu, &a)), ok(device_wait(gpu.device)), ok(op_adamw(&cpu, &c));
    row("AdamW", time, 30.0 * (double)n, false, wrong_floats(a.w, c.w, CHECKED), "85 % of a copy, then 92");
    release(t, 7);
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
    bench_logprob();
    bench_decode("Llama-3.2-1B", 32, 8, 64);
    bench_decode("Llama-3.1-8B", 32, 8, 128);
    bench_rows();
    bench_adamw();
    device_close(gpu.device);
    return 0;
}
