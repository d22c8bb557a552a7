// SPDX-License-Identifier: Apache-2.0
// Ops on the device against the same ops on the CPU, with the same arguments in memory that both reach. Odd widths; rows with a gap behind them.
// Attention and log-probabilities on both architectures.
#include "kernels/cuda/device.hpp"

#include "tests/hostcuda/arrays.hpp"

#include <algorithm>
#include <string>

static Device *device;
static Ctx cpu, gpu;

enum { T = 37, H = 72, F = 104, D = 64, N = 4, K = 2, V = 203, ROWS = 2 };

// n values that both sides reach.
template <typename V_> struct Managed {
    V_ *p = nullptr;
    size_t n;
    explicit Managed(size_t n_) : n(n_)
    {
        if (device_alloc_managed(device, &p, (int64_t)(n * sizeof(V_))) != OK) abort();
        memset((void *)p, 0, n * sizeof(V_));
    }
    explicit Managed(const std::vector<V_> &v) : Managed(v.size()) { std::copy(v.begin(), v.end(), p); }
    Managed(const Managed &o) : Managed(o.n) { std::copy(o.p, o.p + n, p); }
    Managed &operator=(const Managed &) = delete;
    ~Managed() { device_free(device, p); }
};

static Managed<float> floats(size_t n)
{
    Managed<float> m(n);
    for (size_t i = 0; i < n; i++) m.p[i] = random_value();
    return m;
}

static Managed<uint16_t> halves(size_t n)
{
    Managed<uint16_t> m(n);
    for (size_t i = 0; i < n; i++) m.p[i] = as_bf16(random_value());
    return m;
}

static void ok(Err e)
{
    if (e == OK) return;
    printf("%s\n%s\n", err_message(), hostcuda::report());
    exit(1);
}

static void both(Err on_cpu, Err on_gpu)
{
    ok(on_cpu), ok(on_gpu);
    ok(device_wait(device));
}

static double value(float x) { return x; }
static double value(double x) { return x; }
static double value(uint16_t x) { return of_bf16(x); }

// Did Hopper's kernels run since the last call? They do on Hopper, and nowhere else.
static void check_form(const char *name)
{
    const bool ran = hostcuda::take_counts().wgmmas > 0;
    if (ran == (hostcuda::architecture() == 90)) return;
    printf("%s: Hopper's form %s on sm_%d\n", name, ran ? "runs" : "does not run", hostcuda::architecture());
    exit(1);
}

// Sums are formed in another order; a bf16 result may fall to the other side of a tie: 2^-7 of it.
// base: values that are smaller are held to it; attention rounds weights, which sum to 1, of values up to 1.7, by 2^-9 of them on both sides.
static const double WEIGHTED = 0.5;
template <typename V_> static void near(const char *name, const Managed<V_> &got, const Managed<V_> &want, double tolerance, double base = 0.05)
{
    double wrong = 0, size = 0;
    for (size_t i = 0; i < got.n; i++) {
        const double a = value(got.p[i]), b = value(want.p[i]);
        if (!(std::fabs(a - b) <= tolerance * (base + std::fabs(b)))) printf("%s[%zu] = %g, the CPU has %g\n", name, i, a, b), exit(1);
        wrong += std::fabs(a - b), size += std::fabs(b);
    }
    if (!(size > 0) || !(wrong <= tolerance / 4 * size)) printf("%s: off by %g of its size\n", name, wrong / size), exit(1);
}

static const double FP64 = 1e-13, FP32 = 4e-6, BF16 = 0x1p-7;

static void check_norms()
{
    enum { S = H + 8 };
    const auto x = floats(T * S), w = floats(H), dy = floats(T * S), in = floats(T * S), dw = floats(H);
    const Managed<int32_t> row(std::vector<int32_t>{0, 16, T});
    for (DType type : {DT_F32, DT_BF16}) {
        Managed<float> y(T * S), y_cpu(T * S), rstd(T), rstd_cpu(T);
        Managed<uint16_t> y16(T * S), y16_cpu(T * S);
        RmsNormArgs a = {tensor_f32(x.p, S), {}, w.p, rstd_cpu.p, T, H, 1e-5f}, g = a;
        a.y = type == DT_F32 ? tensor_f32(y_cpu.p, S) : tensor_bf16(y16_cpu.p, S);
        g.y = type == DT_F32 ? tensor_f32(y.p, S) : tensor_bf16(y16.p, S), g.rstd = rstd.p;
        both(op_rmsnorm_fwd(&cpu, &a), op_rmsnorm_fwd(&gpu, &g));
        if (type == DT_F32) near("norm", y, y_cpu, FP32);
        else near("norm in bf16", y16, y16_cpu, BF16);
        near("rstd", rstd, rstd_cpu, FP32);
        for (bool carry : {false, true}) {
            Managed<float> dx(T * S), dx_cpu(T * S), dw_gpu = dw, dw_cpu = dw;
            Tensor none = {};
            RmsNormBwdArgs b = {tensor_f32(x.p, S), tensor_f32(dy.p, S), carry ? tensor_f32(in.p, S) : none, tensor_f32(dx_cpu.p, S), w.p, rstd.p, dw_cpu.p,
                                row.p, ROWS, T, H}, h = b;
            h.dx = tensor_f32(dx.p, S), h.dw = dw_gpu.p;
            both(op_rmsnorm_bwd(&cpu, &b), op_rmsnorm_bwd(&gpu, &h));
            near("norm's dx", dx, dx_cpu, 10 * FP32);
            near("norm's dw", dw_gpu, dw_cpu, 10 * FP32);
        }
    }
}

// Gate and up side by side in rows of in; gradients take their place.
static void check_glu(const char *name, Err (*fwd)(Ctx *, const SwigluArgs *), Err (*bwd)(Ctx *, const SwigluBwdArgs *), const Managed<uint16_t> &in, const Managed<uint16_t> &dy)
{
    enum { S = 2 * F };
    Managed<uint16_t> y(T * F), y_cpu(T * F), back = in, back_cpu = in;
    const Tensor x = tensor_bf16(in.p, S), g = tensor_bf16(back.p, S), c = tensor_bf16(back_cpu.p, S);
    SwigluArgs a = {x, tensor_at(x, F), tensor_bf16(y_cpu.p, F), T, F}, b = {x, tensor_at(x, F), tensor_bf16(y.p, F), T, F};
    both(fwd(&cpu, &a), fwd(&gpu, &b));
    near(name, y, y_cpu, BF16);
    SwigluBwdArgs d = {c, tensor_at(c, F), tensor_bf16(dy.p, F), c, tensor_at(c, F), T, F}, e = {g, tensor_at(g, F), tensor_bf16(dy.p, F), g, tensor_at(g, F), T, F};
    both(bwd(&cpu, &d), bwd(&gpu, &e));
    near(name, back, back_cpu, BF16);
}

static void check_activations()
{
    enum { S = 2 * F, W = N * D };
    const auto in = halves(T * S), dy = halves(T * F), q = halves(T * W);
    const auto table = floats(10 * D);
    std::vector<int32_t> at(T);
    for (int t = 0; t < T; t++) at[t] = t * 3 % 10;
    const Managed<int32_t> pos(at);
    Managed<uint16_t> turned = q, turned_cpu = q;
    check_glu("swiglu", op_swiglu_fwd, op_swiglu_bwd, in, dy), check_glu("geglu", op_geglu_fwd, op_geglu_bwd, in, dy);
    for (bool inverse : {false, true}) {
        RopeArgs r = {tensor_bf16(turned_cpu.p, W), pos.p, table.p, T, N, D, inverse}, s = r;
        s.x = tensor_bf16(turned.p, W);
        both(op_rope(&cpu, &r), op_rope(&gpu, &s));
        near("rope", turned, turned_cpu, 2 * BF16);
    }
}

// The CPU packs weights; the device has them as they are.
static void *packed_of(const Managed<uint16_t> &w, int64_t out, int64_t in)
{
    Managed<float> wide(w.n);
    for (size_t i = 0; i < w.n; i++) wide.p[i] = of_bf16(w.p[i]);
    void *packed = calloc((size_t)op_pack_bf16_elements(out, in), 2);
    PackBf16Args a = {tensor_f32(wide.p, in), packed, out, in, 0, out};
    ok(op_pack_bf16(&cpu, &a));
    return packed;
}

static void check_products()
{
    const auto x = halves(T * H), w = halves(F * H), dy = halves(T * F);
    const auto bias = floats(F), add = floats(T * F), dw = floats(F * H);
    const Managed<int32_t> row(std::vector<int32_t>{0, 16, 16, T});
    void *packed = packed_of(w, F, H);
    const Tensor x16 = tensor_bf16(x.p, H), dy16 = tensor_bf16(dy.p, F), w_cpu = tensor_bf16(packed, H), w_gpu = tensor_bf16(w.p, H), none = {};
    Managed<float> y(T * F), y_cpu(T * F), dx(T * H), dx_cpu(T * H), dw_gpu = dw, dw_cpu = dw, db = bias, db_cpu = bias;
    Managed<uint16_t> half(T * F), half_cpu(T * F);
    for (bool with : {false, true}) {
        GemmArgs a = {x16, w_cpu, tensor_bf16(half_cpu.p, F), with ? bias.p : nullptr, none, T, H, F, false}, b = a;
        b.w = w_gpu, b.y = tensor_bf16(half.p, F);
        both(op_gemm_fwd(&cpu, &a), op_gemm_fwd(&gpu, &b));
        near("product in bf16", half, half_cpu, BF16);
        a.y = tensor_f32(y_cpu.p, F), a.add = tensor_f32(add.p, F);
        b.y = tensor_f32(y.p, F), b.add = a.add;
        both(op_gemm_fwd(&cpu, &a), op_gemm_fwd(&gpu, &b));
        near("product and sum", y, y_cpu, 10 * FP32);
    }
    GemmDxArgs c = {dy16, w_cpu, tensor_f32(dx_cpu.p, H), T, H, F}, d = {dy16, w_gpu, tensor_f32(dx.p, H), T, H, F};
    both(op_gemm_bwd_x(&cpu, &c), op_gemm_bwd_x(&gpu, &d));
    near("product's dx", dx, dx_cpu, 10 * FP32);
    GemmDwArgs e = {dy16, x16, tensor_f32(dw_cpu.p, H), db_cpu.p, row.p, 3, H, F, nullptr}, f = e;
    e.workspace = aligned_alloc(64, (size_t)op_gemm_bwd_w_workspace(&cpu, &e) / 64 * 64 + 64);
    f.dw = tensor_f32(dw_gpu.p, H), f.dbias = db.p;
    both(op_gemm_bwd_w(&cpu, &e), op_gemm_bwd_w(&gpu, &f));
    near("product's dw", dw_gpu, dw_cpu, 10 * FP32), near("product's dbias", db, db_cpu, 10 * FP32);
    free(packed), free(e.workspace);
}

static void check_linear()
{
    const auto wide = floats(T * H), w = floats(F * H), bias = floats(F);
    Managed<double> x(T * H), y(T * F), y_cpu(T * F);
    std::copy(wide.p, wide.p + wide.n, x.p);
    for (bool relu : {false, true}) {
        LinearF64Args a = {x.p, w.p, relu ? bias.p : nullptr, y_cpu.p, T, H, F, relu}, b = a;
        b.y = y.p;
        both(op_linear_f64(&cpu, &a), op_linear_f64(&gpu, &b));
        near("linear in fp64", y, y_cpu, FP64);
    }
}

static void check_sums()
{
    const auto a = floats(T * H), b = floats(T * H), dtable = floats(V * H);
    const auto table = halves(V * H);
    std::vector<int32_t> ids(T);
    for (int t = 0; t < T; t++) ids[t] = t * t % V;
    const Managed<int32_t> token(ids);
    Managed<float> y(T * H), y_cpu(T * H), e(T * H), e_cpu(T * H), d = dtable, d_cpu = dtable;
    Managed<uint16_t> r(T * H), r_cpu(T * H);
    void *packed = packed_of(table, V, H);
    AddArgs add = {tensor_f32(a.p, H), tensor_f32(b.p, H), tensor_f32(y_cpu.p, H), T, H}, add_gpu = add;
    add_gpu.y = tensor_f32(y.p, H);
    both(op_add(&cpu, &add), op_add(&gpu, &add_gpu));
    RoundArgs round = {tensor_f32(a.p, H), tensor_bf16(r_cpu.p, H), T, H}, round_gpu = round;
    round_gpu.y = tensor_bf16(r.p, H);
    both(op_round(&cpu, &round), op_round(&gpu, &round_gpu));
    EmbedArgs embed = {tensor_bf16(packed, H), tensor_f32(e_cpu.p, H), token.p, T, H, V, false}, embed_gpu = embed;
    embed_gpu.table = tensor_bf16(table.p, H), embed_gpu.y = tensor_f32(e.p, H);
    both(op_embed_fwd(&cpu, &embed), op_embed_fwd(&gpu, &embed_gpu));
    EmbedBwdArgs back = {tensor_f32(a.p, H), tensor_f32(d_cpu.p, H), token.p, T, H, V}, back_gpu = back;
    back_gpu.dtable = tensor_f32(d.p, H);
    both(op_embed_bwd(&cpu, &back), op_embed_bwd(&gpu, &back_gpu));
    near("sum", y, y_cpu, 0), near("rounded", r, r_cpu, 0), near("embedding", e, e_cpu, 0), near("embedding's gradient", d, d_cpu, 0);
    free(packed);
}

static void check_optimiser()
{
    enum { COUNT = 9001 };
    const auto w = floats(COUNT), m = floats(COUNT), g = floats(COUNT);
    auto v = floats(COUNT);
    for (size_t i = 0; i < v.n; i++) v.p[i] = std::fabs(v.p[i]);
    const Managed<float> factor(std::vector<float>{0.5f, 1e-2f});
    const Managed<int64_t> step(std::vector<int64_t>{3});
    Managed<float> w1 = w, w2 = w, m1 = m, m2 = m, v1 = v, v2 = v;
    Managed<uint16_t> r1(COUNT), r2(COUNT);
    AdamWArgs a = {w1.p, m1.p, v1.p, g.p, r1.p, COUNT, factor.p, factor.p + 1, step.p, 0.9f, 0.95f, 1e-8f, 0.1f}, b = a;
    b.w = w2.p, b.m = m2.p, b.v = v2.p, b.rounded = r2.p;
    both(op_adamw(&cpu, &a), op_adamw(&gpu, &b));
    near("weights", w2, w1, FP32), near("first moment", m2, m1, FP32), near("second moment", v2, v1, FP32), near("rounded weights", r2, r1, BF16);
    const Managed<double> sum(3), sum_cpu(3);
    SqNormArgs s = {g.p, COUNT, sum_cpu.p}, t = {g.p, COUNT, sum.p};
    both(op_sqnorm(&cpu, &s), op_sqnorm(&gpu, &t));
    for (int i = 0; i < 3; i++)
        if (!(std::fabs(sum.p[i] / sum_cpu.p[i] - 1) < 1e-12)) printf("squares %d: %g, the CPU has %g\n", i, sum.p[i], sum_cpu.p[i]), exit(1);
}

// Exactly the CPU's, what is refused too.
static void check_fixed()
{
    enum { COUNT = 9001 };
    auto g = floats(COUNT);
    g.p[0] = 0x1p-41f, g.p[1] = 0x3p-41f, g.p[2] = -2047.99f, g.p[3] = 1e-30f;  // two ties
    for (int pass = 0; pass < 3; pass++) {
        if (pass == 1) g.p[COUNT - 2] = 2048;
        if (pass == 2) g.p[COUNT - 2] = NAN;
        Managed<float> mine = g, cpus = g;
        Managed<int64_t> sum(std::vector<int64_t>(COUNT, -3)), sum_cpu = sum;
        Managed<uint32_t> bad(1), bad_cpu(1);
        FixedAddArgs a = {cpus.p, sum_cpu.p, COUNT, bad_cpu.p}, b = {mine.p, sum.p, COUNT, bad.p};
        both(op_fixed_add(&cpu, &a), op_fixed_add(&gpu, &b));
        const bool zero = std::all_of(mine.p, mine.p + COUNT, [](float x) { return x == 0; });
        if (memcmp(sum.p, sum_cpu.p, COUNT * 8) || *bad.p != (pass > 0) || *bad_cpu.p != *bad.p || !zero) puts("fixed point: not the CPU's sums"), exit(1);
        if (sum.p[0] != -3 || sum.p[1] != -1 || sum.p[3] != -3 || (pass && sum.p[COUNT - 2] != -3)) puts("fixed point: wrong sums"), exit(1);
        FixedGetArgs c = {sum_cpu.p, cpus.p, COUNT}, d = {sum.p, mine.p, COUNT};
        both(op_fixed_get(&cpu, &c), op_fixed_get(&gpu, &d));
        if (memcmp(mine.p, cpus.p, COUNT * 4) || mine.p[1] != -0x1p-40f) puts("fixed point: not the CPU's values"), exit(1);
    }
}

// Tokens behind the last segment are padding.
static void check_attention(int D_, std::vector<Segment> segments, int tokens, float softcap)
{
    const int W = (N + 2 * K) * D_, O = N * D_, S = (int)segments.size();
    const float scale = 1 / sqrtf((float)D_);
    const Managed<Segment> seg(segments);
    const auto in = halves((size_t)(tokens * W)), dout = halves((size_t)(tokens * O));
    Managed<uint16_t> o(dout.n), o_cpu(dout.n), back(in.n), back_cpu(in.n);
    Managed<float> lse((size_t)(N * tokens)), lse_cpu(lse.n);
    const Tensor x = tensor_bf16(in.p, W), g = tensor_bf16(back.p, W), c = tensor_bf16(back_cpu.p, W);
    AttnArgs a = {x, tensor_at(x, O), tensor_at(x, O + K * D_), tensor_bf16(o_cpu.p, O), lse_cpu.p, seg.p, tokens, S, N, K, D_, scale, softcap, 0, nullptr}, b = a;
    a.workspace = aligned_alloc(64, (size_t)op_attn_fwd_workspace(&cpu, &a) / 64 * 64 + 64);
    b.o = tensor_bf16(o.p, O), b.lse = lse.p;
    memset(o.p, 0xff, o.n * 2), memset(lse.p, 0xff, lse.n * 4), memset(back.p, 0xff, back.n * 2);  // padding is cleared
    both(op_attn_fwd(&cpu, &a), op_attn_fwd(&gpu, &b));
    check_form("attention");
    near("attention", o, o_cpu, BF16, WEIGHTED), near("log-sum-exp", lse, lse_cpu, 10 * FP32);
    AttnBwdArgs d = {x, a.k, a.v, b.o, tensor_bf16(dout.p, O), c, tensor_at(c, O), tensor_at(c, O + K * D_), lse.p, seg.p, tokens, S, N, K, D_, scale, softcap, 0, nullptr};
    AttnBwdArgs e = d;
    e.dq = g, e.dk = tensor_at(g, O), e.dv = tensor_at(g, O + K * D_);
    const Managed<char> space((size_t)op_attn_bwd_workspace(&gpu, &e));
    d.workspace = aligned_alloc(64, (size_t)op_attn_bwd_workspace(&cpu, &d) / 64 * 64 + 64), e.workspace = space.p;
    both(op_attn_bwd(&cpu, &d), op_attn_bwd(&gpu, &e));
    check_form("attention's gradients");
    near("attention's gradients", back, back_cpu, 2 * BF16, WEIGHTED);
    free(a.workspace), free(d.workspace);
    AttnArgs odd = b;
    odd.D = 32;
    if (op_attn_fwd(&gpu, &odd) != ERR_RECIPE || !strstr(err_message(), "not of 32")) printf("a head of 32: %s\n", err_message()), exit(1);
}

// Two prompts of 70 and 5 tokens; three samples of the first, one of the second. Both sides store the same tokens in pages of their own form.
static void check_decode()
{
    enum { SLOTS = 4, PAGES = 7, TOKENS = 70 + 5 + 1 + 65 + 3 + 64, W = K * D, O = N * D };
    const int first[] = {0, 70, 75, 76, 141, 144, TOKENS};  // tokens of prompts, then of slots
    const int pages[6][2] = {{6, 0}, {2, -1}, {1, -1}, {3, 4}, {5, -1}, {0, -1}};
    const auto k = halves(TOKENS * W), v = halves(TOKENS * W), q = halves(SLOTS * O);
    std::vector<int32_t> page, place;
    for (int list = 0; list < 5; list++)
        for (int t = first[list]; t < first[list + 1]; t++) page.push_back(pages[list][(t - first[list]) / KV_PAGE]), place.push_back((t - first[list]) % KV_PAGE);
    const int stored = (int)page.size();
    const Managed<int32_t> page_(page), place_(place);
    const Managed<int32_t> prefix_page(std::vector<int32_t>{6, 0, 6, 0, 6, 0, 2, -1}), prefix_len(std::vector<int32_t>{70, 70, 70, 5});
    const Managed<int32_t> own_page(std::vector<int32_t>{1, -1, 3, 4, 5, -1, 5, -1}), own_len(std::vector<int32_t>{1, 65, 3, 2});
    const Managed<int32_t> order(std::vector<int32_t>{0, 1, 2, 3}), group(std::vector<int32_t>{0, 3, 4});
    const Managed<char> cache((size_t)(PAGES * op_kv_page_bytes(&gpu, DT_BF16, K, D)));
    void *cache_cpu = aligned_alloc(64, (size_t)(PAGES * op_kv_page_bytes(&cpu, DT_BF16, K, D)));
    memset(cache_cpu, 0, (size_t)(PAGES * op_kv_page_bytes(&cpu, DT_BF16, K, D)));
    KvStoreArgs a = {tensor_bf16(k.p, W), tensor_bf16(v.p, W), cache_cpu, page_.p, place_.p, stored, K, D}, b = a;
    b.pages = cache.p;
    both(op_kv_store(&cpu, &a), op_kv_store(&gpu, &b));
    Managed<uint16_t> o(SLOTS * O), o_cpu(SLOTS * O);
    DecodeAttnArgs c = {tensor_bf16(q.p, O), tensor_bf16(o_cpu.p, O), cache_cpu, prefix_page.p, prefix_len.p, own_page.p, own_len.p, order.p, group.p,
                        2, SLOTS, N, K, D, 2, 2, 0.125f, 0, 0, nullptr}, d = c;
    c.workspace = aligned_alloc(64, (size_t)op_attn_decode_workspace(&cpu, &c) / 64 * 64 + 64);
    const Managed<char> space((size_t)op_attn_decode_workspace(&gpu, &d));
    d.o = tensor_bf16(o.p, O), d.pages = cache.p, d.workspace = space.p;
    both(op_attn_decode(&cpu, &c), op_attn_decode(&gpu, &d));
    near("decode attention", o, o_cpu, BF16, WEIGHTED);
    free(cache_cpu), free(c.workspace);
    d.N = 9 * K;
    if (op_attn_decode(&gpu, &d) != ERR_RECIPE) printf("nine query heads of a kv head are not refused\n"), exit(1);
}

static void check_logprob(int words, float softcap)
{
    const auto hidden = floats(T * H);
    const auto head = halves(words * H);
    for (size_t i = 0; i < hidden.n; i++) hidden.p[i] = of_bf16(as_bf16(hidden.p[i] / 4));
    std::vector<int32_t> ids(T);
    for (int t = 0; t < T; t++) ids[t] = t % 5 == 4 ? -1 : t * 41 % words;
    const Managed<int32_t> target(ids);
    Managed<float> logp(T), logp_cpu(T), lse(T), lse_cpu(T);
    const Managed<uint8_t> best(T), best_cpu(T);
    void *packed = packed_of(head, words, H);
    LogprobArgs a = {tensor_f32(hidden.p, H), tensor_bf16(packed, H), target.p, logp_cpu.p, lse_cpu.p, best_cpu.p, T, H, words, softcap, nullptr}, b = a;
    b.head = tensor_bf16(head.p, H), b.logp = logp.p, b.lse = lse.p, b.best = best.p;
    const Managed<char> space((size_t)op_logprob_fwd_workspace(&gpu, &b));
    a.workspace = aligned_alloc(64, (size_t)op_logprob_fwd_workspace(&cpu, &a) / 64 * 64 + 64), b.workspace = space.p;
    both(op_logprob_fwd(&cpu, &a), op_logprob_fwd(&gpu, &b));
    check_form("log-probability");
    near("log-probability", logp, logp_cpu, 10 * FP32), near("log-sum-exp", lse, lse_cpu, 10 * FP32);
    if (memcmp(best.p, best_cpu.p, T)) printf("the best tokens differ\n"), exit(1);
    const auto coef = floats(T), dhead = floats(words * H);
    const Managed<int32_t> row(std::vector<int32_t>{0, 16, 16, T});
    Managed<float> dh(T * H), dh_cpu(T * H), dw = dhead, dw_cpu = dhead;
    LogprobBwdArgs c = {a.hidden, a.head, tensor_f32(dh_cpu.p, H), tensor_f32(dw_cpu.p, H), target.p, lse.p, coef.p, row.p, 3, T, H, words, softcap, nullptr}, d = c;
    d.head = b.head, d.dhidden = tensor_f32(dh.p, H), d.dhead = tensor_f32(dw.p, H);
    const Managed<char> back((size_t)op_logprob_bwd_workspace(&gpu, &d));
    c.workspace = aligned_alloc(64, (size_t)op_logprob_bwd_workspace(&cpu, &c) / 64 * 64 + 64), d.workspace = back.p;
    memset(dh.p, 0xff, dh.n * 4);
    both(op_logprob_bwd(&cpu, &c), op_logprob_bwd(&gpu, &d));
    check_form("log-probability's gradients");
    near("dhidden", dh, dh_cpu, BF16, WEIGHTED), near("dhead", dw, dw_cpu, BF16, WEIGHTED);
    free(packed), free(a.workspace), free(c.workspace);
}

// Nothing to learn: zeros, and the head's gradient stays.
static void check_no_target()
{
    const auto hidden = floats(T * H), coef = floats(T), dhead = floats(V * H);
    const auto head = halves(V * H);
    const Managed<int32_t> target(std::vector<int32_t>(T, -1)), row(std::vector<int32_t>{0, T});
    Managed<float> logp = coef, lse = coef, dh = hidden, dw = dhead;
    Managed<uint8_t> best(std::vector<uint8_t>(T, 1));
    LogprobArgs a = {tensor_f32(hidden.p, H), tensor_bf16(head.p, H), target.p, logp.p, lse.p, best.p, T, H, V, 0, nullptr};
    LogprobBwdArgs b = {a.hidden, a.head, tensor_f32(dh.p, H), tensor_f32(dw.p, H), target.p, lse.p, coef.p, row.p, 1, T, H, V, 0, nullptr};
    const Managed<char> forward((size_t)op_logprob_fwd_workspace(&gpu, &a)), backward((size_t)op_logprob_bwd_workspace(&gpu, &b));
    a.workspace = forward.p, b.workspace = backward.p;
    ok(op_logprob_fwd(&gpu, &a)), ok(op_logprob_bwd(&gpu, &b)), ok(device_wait(device));
    bool zero = !memcmp(dw.p, dhead.p, dw.n * 4);
    for (int t = 0; t < T; t++) zero = zero && logp.p[t] == 0 && lse.p[t] == 0 && !best.p[t];
    for (size_t i = 0; i < dh.n; i++) zero = zero && dh.p[i] == 0;
    if (!zero) printf("without targets something is left\n"), exit(1);
}

static void check_losses()
{
    const std::vector<Segment> few = {{0, 15, -1, 0}, {15, 9, 0, 15}, {24, 11, 0, 15}}, tiles = {{0, 140, -1, 0}, {140, 9, 0, 140}, {149, 70, 0, 140}};
    check_attention(64, few, 37, 0), check_attention(64, few, 37, 5), check_attention(64, tiles, 222, 0);
    check_attention(128, few, 37, 0), check_attention(256, few, 37, 5);
    check_logprob(V, 0), check_logprob(V, 3), check_logprob(8300, 0), check_no_target();  // 8300: beyond a chunk
}

static void check_architecture()
{
    Device *none = nullptr;
    hostcuda::set_architecture(100);
    if (device_open(0, &none) != ERR_UNAVAILABLE || none || !strstr(err_message(), "compute capability 10.0")) printf("sm_100 is not refused\n"), exit(1);
}

int main()
{
    ok(ctx_init(&cpu, 1));
    cpu.dtype = DT_BF16;
    check_architecture();
    for (int sm : {80, 90}) {
        hostcuda::set_architecture(sm);
        ok(device_open(0, &device));
        gpu = cpu;
        gpu.device = device;
        for (uint64_t seed = 1; seed <= 3; seed++) {
            state = (uint32_t)seed;
            hostcuda::set_order(hostcuda::Order::RANDOM, seed);
            if (sm == 90) check_norms(), check_activations(), check_products(), check_linear(), check_sums(), check_optimiser(), check_fixed(), check_decode();
            check_losses();
        }
        device_close(device);
    }
    return 0;
}
