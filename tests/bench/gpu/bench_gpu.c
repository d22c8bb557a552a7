// SPDX-License-Identifier: Apache-2.0
// make bench-gpu: times of the ops of kernels/cuda/device.h beside the peaks of a product and of a copy of the same run, and cuDNN's attention.
//   bench_gpu [tiny]          tiny: shapes that hostcuda can run, to try this program itself; its times and verdicts then say nothing
//   bench_gpu plan DEVICE     does cuDNN take attention's graphs and build kernels for the device that this JSON describes? without a GPU
//
// A time is the median of 9 turns, each a CUDA graph of 10 calls that is waited for once by the host's clock: a tenth of one launch
// and wait is in it. #wrong: results that leave the CPU's op on the first tokens by more than bf16 rounds, fp32 ones by more than
// 1e-5, or (attention, gradients of the loss, products) sums in double at some places (sampled.h); - where no such check is made.
// The product's peak is the best of the algorithms that cuBLASLt offers; imf takes one without workspace and split k.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cudnn_sdpa.h"
#include "gemm_peak.h"
#include "kernels/cpu/bf16.h"
#include "kernels/cuda/device.h"
#include "sampled.h"

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

static void zero(const Tensor *t, int64_t elements) { memset(t->p, 0, (size_t)elements * 2); }

static void release(const Tensor *t, int n)
{
    for (int i = 0; i < n; i++) device_free(gpu.device, t[i].p);
}

static int compare(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

static Err taken_down(Op *op, const void *args, int calls, DeviceGraph **out)
{
    Err e = OK;
    TRY(device_record(gpu.device));
    for (int i = 0; i < calls && e == OK; i++) e = op(&gpu, args);
    const Err end = device_recorded(gpu.device, out);
    TRY(e);
    return end;
}

static Err measure(Op *op, const void *args, double *seconds)
{
    const int calls = tiny ? 1 : 10;
    double t[TURNS];
    DeviceGraph *graph;
    Err e = OK;
    TRY(op(&gpu, args));
    TRY(device_wait(gpu.device));  // pages of managed memory have moved
    TRY(taken_down(op, args, calls, &graph));
    for (int turn = -1; turn < TURNS && e == OK; turn++) {  // the first one is not counted
        const double start = time_now();
        if ((e = device_replay(gpu.device, graph)) == OK) e = device_wait(gpu.device);
        if (turn >= 0) t[turn] = (time_now() - start) / calls;
    }
    device_graph_free(graph);
    TRY(e);
    qsort(t, TURNS, sizeof t[0], compare);
    *seconds = t[TURNS / 2];
    return OK;
}

static double seconds(Op *op, const void *args)
{
    double t = 0;
    ok(measure(op, args, &t));
    return t;
}

static double value_of(const Tensor *t, int64_t row, int64_t column) { return (double)tensor_get(t, row, column); }

static long wrong(const Tensor *got, const Tensor *want, int64_t n)
{
    long count = 0;
    for (int64_t i = 0; i < n; i++)
        count += !(fabs(value_of(got, 0, i) - value_of(want, 0, i)) <= 2 * BF16 * (0.05 + fabs(value_of(want, 0, i))));
    return count;
}

static long wrong_floats(const float *got, const float *want, int64_t n)
{
    long count = 0;
    for (int64_t i = 0; i < n; i++) count += !(fabs((double)got[i] - want[i]) <= 1e-5 * (1 + fabs((double)want[i])));
    return count;
}

// What a row must reach, at first and later: a share of a copy's rate, TFLOP/s, or times another program's rate.
typedef struct Bar {
    double first, then;
    const char *unit;
} Bar;
static const Bar NO_BAR = {0, 0, NULL}, OF_COPY = {0.85, 0.92, "of a copy"}, DECODE = {0.60, 0.75, "of a copy"},
                 LOSS = {550, 680, "TFLOP/s"};

static void judge(char text[96], double value, Bar b)
{
    if (!b.unit) text[0] = 0;
    else if (isnan(value)) snprintf(text, 96, "%g %s, then %g: not judged", b.first, b.unit, b.then);
    else
        snprintf(text, 96, "%.2f; %g %s: %s, then %g: %s", value, b.first, b.unit, value >= b.first ? "met" : "NOT MET", b.then,
                 value >= b.then ? "met" : "not met");
}

// work: FLOP of a call, or bytes. count < 0: not checked. value: what the bar is about, NaN where it is not known.
static void judged_row(const char *what, double time, double work, bool flop, long count, double value, Bar bar)
{
    char checked[24] = "-", verdict[96];
    if (count >= 0) snprintf(checked, sizeof checked, "%ld", count);
    judge(verdict, value, bar);
    printf("| %-40s | %10.4f | %8.1f %s | %5.1f | %6s | %s |\n", what, 1e3 * time, work / time / (flop ? 1e12 : 1e9),
           flop ? "TFLOP/s" : "GB/s   ", 100 * work / time / (flop ? peak_gemm : peak_copy), checked, verdict);
    fflush(stdout);
}

static void row(const char *what, double time, double work, bool flop, long count, Bar bar)
{
    judged_row(what, time, work, flop, count, flop ? work / time / 1e12 : work / time / peak_copy, bar);
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
static Err run_cudnn(Ctx *c, const void *s) { return (void)c, cudnn_sdpa_run(*(CudnnSdpa *const *)s); }

typedef struct Offer {
    GemmPeak *peak;
    int which;
} Offer;
static Err run_offer(Ctx *c, const void *a)
{
    return (void)c, gemm_peak_run(((const Offer *)a)->peak, ((const Offer *)a)->which);
}

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
            for (int64_t i = 0; i < n; i++) want += value_of(&t[0], r, i) * value_of(&t[1], c, i);
            count += !(fabs(value_of(&t[2], r, c) - want) <= 2 * BF16 * (0.05 + fabs(want)));
        }
    return count;
}

// The fastest of cuBLASLt's algorithms that run; its results stay in t[2].
static double best_offer(const Tensor *t, int64_t n, int *count)
{
    Offer offer = {NULL, 0}, best = offer;
    double least = INFINITY, time;
    ok(gemm_peak_open(gpu.device, n, &t[0], &t[1], &t[2], &offer.peak, count));
    Err last = OK;
    for (; offer.which < *count; offer.which++)
        if ((last = measure(run_offer, &offer, &time)) == OK && time < least) least = time, best = offer;
    if (!best.peak) ok(last);
    zero(&t[2], n * n);
    ok(run_offer(&gpu, &best)), ok(device_wait(gpu.device));
    gemm_peak_close(offer.peak);
    return least;
}

static void bench_peaks(void)
{
    const int64_t n = tiny ? 64 : 8192, bytes = tiny ? 1 << 12 : (int64_t)1 << 30;
    const Tensor t[] = {halves(n, n), halves(n, n), halves(n, n)};
    const double flop = 2.0 * (double)n * (double)n * (double)n;
    int count;
    const double best = best_offer(t, n, &count);
    const long bad = wrong_product(t, n);
    const GemmArgs g = {.x = t[0], .w = t[1], .y = t[2], .T = n, .in = n, .out = n};
    const double gemm = seconds(run_gemm, &g);
    const long bad_gemm = wrong_product(t, n);
    release(t, 3);
    Copy c = {NULL, NULL, bytes};
    ok(device_alloc(gpu.device, &c.to, bytes)), ok(device_alloc(gpu.device, &c.from, bytes)),
        ok(device_zero(gpu.device, c.from, bytes));
    const double copy = seconds(run_copy, &c);
    device_free(gpu.device, c.to), device_free(gpu.device, c.from);
    peak_gemm = flop / best, peak_copy = 2.0 * (double)bytes / copy;
    char what[96];
    snprintf(what, sizeof what, "product 8192^3, cuBLASLt's best of %d", count);
    row(what, best, flop, true, bad, NO_BAR);
    row("product 8192^3, as imf has it", gemm, flop, true, bad_gemm, NO_BAR);
    row("copy 1 GiB, device to device", copy, 2.0 * (double)bytes, false, -1, NO_BAR);
}

enum { FORWARD, BACKWARD, BACKWARD_ANY_ORDER };
static const char *const PASS[] = {"forward", "backward", "backward in any order"};

// Results of the pass before do not count.
static void forget(const AttnBwdArgs *a, int pass)
{
    const int64_t queries = a->T * a->N * a->D, keys = a->T * a->K * a->D;
    if (pass == FORWARD) zero(&a->o, queries);
    else zero(&a->dq, queries), zero(&a->dk, keys), zero(&a->dv, keys);
}

// cuDNN's time for the same tensors, results in those of `a`; NaN: none, and a row says why.
static double yardstick(const AttnBwdArgs *a, int pass)
{
    const CudnnSdpaShape shape = {a->T, a->N, a->K, a->D, a->scale, pass != FORWARD, pass != BACKWARD_ANY_ORDER};
    const CudnnSdpaTensors t = {a->q.p,    a->k.p,  a->v.p,  a->o.p, (void *)(uintptr_t)a->lse,
                                a->dout.p, a->dq.p, a->dk.p, a->dv.p};
    CudnnSdpa *s = NULL;
    void *workspace = NULL;
    double time = NAN;
    forget(a, pass);
    Err e = cudnn_sdpa_plan(&shape, NULL, &s);
    if (e == OK) e = device_alloc(gpu.device, &workspace, cudnn_sdpa_workspace(s) + 256);
    if (e == OK) e = cudnn_sdpa_bind(s, &t, workspace, device_stream(gpu.device));
    if (e == OK) e = measure(run_cudnn, &s, &time);
    if (e != OK)
        printf("| cuDNN %s D %ld, %ld tokens | | | | | not measured: %s |\n", PASS[pass], (long)a->D, (long)a->T,
               err_message());
    device_free(gpu.device, workspace);
    cudnn_sdpa_free(s);
    return e == OK ? time : NAN;
}

// Its whole rectangle would be 4 products forward, in units of T x T x heads x D, and 10 backward: half of it is seen.
static double flop_of(const AttnBwdArgs *a, int pass)
{
    return (pass == FORWARD ? 2.0 : 5.0) * (double)a->T * (double)a->T * (double)(a->N * a->D);
}

static void our_row(const AttnBwdArgs *a, int pass, double ours, long bad, double theirs)
{
    char what[96];
    snprintf(what, sizeof what, "attention %s D %ld, %ld tokens", PASS[pass], (long)a->D, (long)a->T);
    judged_row(what, ours, flop_of(a, pass), true, bad, theirs / ours, (Bar){0.8, a->D == 128 ? 1.05 : 1.0, "x cuDNN"});
}

// Where it was measured.
static void cudnn_row(const AttnBwdArgs *a, int pass, double theirs, long bad)
{
    char what[96];
    snprintf(what, sizeof what, "cuDNN %s D %ld, %ld tokens", PASS[pass], (long)a->D, (long)a->T);
    if (!isnan(theirs)) row(what, theirs, flop_of(a, pass), true, bad, NO_BAR);
}

// One causal segment of T tokens. cuDNN reads what ours reads, our o and lse too in the backward pass, and writes elsewhere.
static void bench_attention(int64_t D, int64_t T)
{
    const int64_t N = tiny ? 2 : 4096 / D, K = tiny ? 1 : N / 4;
    enum { Q, KEYS, V, DO, O, DQ, DK, DV, LSE, O2, DQ2, DK2, DV2, LSE2, ALL };
    const Tensor t[ALL] = {halves(T, N * D), halves(T, K * D), halves(T, K * D), halves(T, N * D), halves(T, N * D),
                           halves(T, N * D), halves(T, K * D), halves(T, K * D), floats(N, T),     halves(T, N * D),
                           halves(T, N * D), halves(T, K * D), halves(T, K * D), floats(N, T)};
    Segment *seg = space(sizeof *seg);
    *seg = (Segment){0, (int32_t)T, -1, 0};
    const AttnArgs f = {.q = t[Q], .k = t[KEYS], .v = t[V], .o = t[O], .lse = t[LSE].p, .seg = seg, .T = T, .S = 1, .N = N,
                        .K = K, .D = D, .scale = (float)(1 / sqrt((double)D))};
    AttnArgs f2 = f;
    AttnBwdArgs b = {.q = f.q, .k = f.k, .v = f.v, .o = f.o, .dout = t[DO], .dq = t[DQ], .dk = t[DK], .dv = t[DV],
                     .lse = f.lse, .seg = seg, .T = T, .S = 1, .N = N, .K = K, .D = D, .scale = f.scale};
    b.workspace = space(op_attn_bwd_workspace(&gpu, &b));
    AttnBwdArgs b2 = b, forward2 = b;
    f2.o = forward2.o = t[O2], f2.lse = t[LSE2].p, forward2.lse = f2.lse;
    b2.dq = t[DQ2], b2.dk = t[DK2], b2.dv = t[DV2];
    const double forward = seconds(run_attn, &f), backward = seconds(run_attn_bwd, &b);
    const double cudnn = yardstick(&forward2, FORWARD), any = yardstick(&b2, BACKWARD_ANY_ORDER);
    const long wrong_any = isnan(any) ? -1 : sampled_attn_bwd(&b2);
    const double cudnn_backward = yardstick(&b2, BACKWARD);
    our_row(&b, FORWARD, forward, sampled_attn_fwd(&f), cudnn);
    cudnn_row(&b, FORWARD, cudnn, isnan(cudnn) ? -1 : sampled_attn_fwd(&f2));
    our_row(&b, BACKWARD, backward, sampled_attn_bwd(&b), cudnn_backward);
    cudnn_row(&b, BACKWARD, cudnn_backward, isnan(cudnn_backward) ? -1 : sampled_attn_bwd(&b2));
    cudnn_row(&b, BACKWARD_ANY_ORDER, any, wrong_any);
    release(t, ALL);
    device_free(gpu.device, seg), device_free(gpu.device, b.workspace);
}

// Weights as the CPU's products read them; wide: room for them in fp32.
static void *packed(Tensor w, float *wide, int64_t out, int64_t in)
{
    void *p = space(op_pack_bf16_elements(out, in) * 2);
    for (int64_t i = 0; i < out * in; i++) wide[i] = (float)value_of(&w, 0, i);
    const PackBf16Args a = {tensor_f32(wide, in), p, out, in, 0, out};
    ok(op_pack_bf16(&cpu, &a));
    return p;
}

// The gradients of one call: those that were timed have been added up.
static long wrong_gradients(const LogprobBwdArgs *b)
{
    ok(device_zero(gpu.device, b->dhead.p, b->V * b->H * 4)), ok(op_logprob_bwd(&gpu, b)), ok(device_wait(gpu.device));
    return sampled_logprob_bwd(b);
}

// The loss of SFT and DPO. FLOP: a product forward, three backward (logits again, two gradients). Logits have a deviation of about 1.
static void bench_logprob(void)
{
    const int64_t T = tiny ? SLICE : 8192, H = tiny ? 64 : 4096, V = tiny ? 512 : 128256;
    const Tensor t[] = {floats(T, H), halves(V, H), floats(T, H), floats(V, H), floats(2, T), floats(1, T), floats(2, SLICE)};
    int32_t *target = space(T * 4), *whole = space(8);
    for (int64_t i = 0; i < T; i++) target[i] = (int32_t)(i * 7919 % V);
    for (int64_t i = 0; i < T * H; i++) ((float *)t[0].p)[i] *= (float)(3 / sqrt((double)H));
    whole[1] = (int32_t)T;
    float *logp = t[4].p, *logp_cpu = t[6].p;
    LogprobArgs f = {.hidden = t[0], .head = t[1], .target = target, .logp = logp, .lse = logp + T, .T = T, .H = H, .V = V}, f_cpu = f;
    LogprobBwdArgs b = {.hidden = t[0], .head = t[1], .dhidden = t[2], .dhead = t[3], .target = target, .lse = f.lse, .coef = t[5].p, .row = whole, .rows = 1,
                        .T = T, .H = H, .V = V};
    f_cpu.logp = logp_cpu, f_cpu.lse = logp_cpu + SLICE, f_cpu.T = SLICE, f_cpu.head.p = packed(t[1], t[3].p, V, H);
    const int64_t bytes = op_logprob_fwd_workspace(&gpu, &f), more = op_logprob_bwd_workspace(&gpu, &b),
                  most = bytes > more ? bytes : more;
    f.workspace = space(bytes), b.workspace = space(more), f_cpu.workspace = space(op_logprob_fwd_workspace(&cpu, &f_cpu));
    const double forward = seconds(run_logprob, &f), backward = seconds(run_logprob_bwd, &b), flop = 2.0 * (double)T * (double)H * (double)V;
    ok(op_logprob_fwd(&cpu, &f_cpu));
    row("log-prob loss, forward", forward, flop, true,
        wrong_floats(logp, logp_cpu, SLICE) + wrong_floats(f.lse, f_cpu.lse, SLICE), NO_BAR);
    row("log-prob loss, backward", backward, 3 * flop, true, wrong_gradients(&b), NO_BAR);
    row("log-prob loss, both", forward + backward, 4 * flop, true, -1, LOSS);
    printf("| log-prob loss, workspace | %.1f MB | | | | at most 512 MB: %s |\n", (double)most / 1e6,
           most <= 512000000 ? "met" : "NOT MET");
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
    row(what, time, 4.0 * (double)(slots * len * K * D), false, wrong(&t[1], &t[2], CHECKED * N * D), DECODE);
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
    row("RMSNorm", norm, 6.0 * (double)(T * H), false, wrong(&t[1], &t[2], SLICE * H), OF_COPY);
    SwigluArgs s = {t[4], t[5], t[6], T, F}, s_cpu = {t[4], t[5], t[7], SLICE, F};
    const double swiglu = seconds(run_swiglu, &s);
    ok(op_swiglu_fwd(&cpu, &s_cpu));
    row("SwiGLU", swiglu, 6.0 * (double)(T * F), false, wrong(&t[6], &t[7], SLICE * F), OF_COPY);
    RopeArgs r = {t[1], pos, t[8].p, T, H / D, D, false}, r_cpu = r;
    const double rope = seconds(run_rope, &r);
    memcpy(t[1].p, t[2].p, (size_t)(SLICE * H * 2));  // both begin with the CPU's norm
    r_cpu.x = t[2], r_cpu.T = r.T = SLICE;
    ok(op_rope(&gpu, &r)), ok(device_wait(gpu.device)), ok(op_rope(&cpu, &r_cpu));
    row("RoPE", rope, 4.0 * (double)(T * H), false, wrong(&t[1], &t[2], SLICE * H), OF_COPY);
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
    row("AdamW", time, 30.0 * (double)n, false, wrong_floats(a.w, c.w, CHECKED), OF_COPY);
    release(t, 7);
    device_free(gpu.device, step);
}

static void plan(int64_t D, int pass, const char *device)
{
    const CudnnSdpaShape shape = {
        2048, 4096 / D, 1024 / D, D, (float)(1 / sqrt((double)D)), pass != FORWARD, pass != BACKWARD_ANY_ORDER};
    CudnnSdpa *s;
    if (cudnn_sdpa_plan(&shape, device, &s) == OK)
        printf("D %ld, %s: workspace %lld bytes\n", (long)D, PASS[pass], (long long)cudnn_sdpa_workspace(s));
    else printf("D %ld, %s: %s\n", (long)D, PASS[pass], err_message());
    cudnn_sdpa_free(s);
}

// cuDNN's kernels for a GPU that is only described, a line each; for head size 512 it has none.
static int plans(const char *path)
{
    static char device[1 << 14];
    FILE *f = fopen(path, "r");
    const size_t n = f ? fread(device, 1, sizeof device - 1, f) : 0;
    if (f) fclose(f);
    if (!n) return fprintf(stderr, "%s: cannot be read\n", path), 66;
    printf("%s\n", cudnn_sdpa_version() ? cudnn_sdpa_version() : "no cuDNN");
    for (int64_t D = 64; D <= 256; D *= 2) plan(D, FORWARD, device), plan(D, BACKWARD, device);
    plan(128, BACKWARD_ANY_ORDER, device), plan(512, BACKWARD, device);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "plan")) return plans(argv[2]);
    tiny = argc > 1 && !strcmp(argv[1], "tiny");
    if (ctx_init(&cpu, 1) != OK) return 69;
    cpu.dtype = DT_BF16, gpu = cpu;
    if (device_open(0, &gpu.device) != OK) return printf("bench-gpu: nothing was measured: %s\n", err_message()), 77;
    peak_gemm = peak_copy = INFINITY;
    printf("Attention's yardstick: %s\n",
           cudnn_sdpa_version() ? cudnn_sdpa_version() : "none, this program was built without cuDNN");
    if (tiny) puts("Tiny shapes: times and verdicts say nothing.");
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
