// SPDX-License-Identifier: Apache-2.0
// Every op in bf16 against the same op in fp32 on the widened inputs, plain form included, at every level.
#include "ops_support.h"

#include "kernels/cpu/bf16.h"

enum { T = 37, H = 72, F = 90, D = 16, N = 6, K = 2, V = 1283, ROWS = 3 };
static const int32_t row[ROWS + 1] = {0, 16, 16, T};
static const int32_t pos[T] = {0, 5, 9, 3};

// Half an ulp of bf16 for the result, as much again where fp32 sums of different order fall to two sides of a tie.
static const double ROUNDED = 0x1p-8;
static const double SUMS = 2e-5;  // of up to 1,283 fp32 products (see t20_ops)

static Tensor half_of(const float *x, int64_t rows, int64_t width)
{
    uint16_t *h = NULL;
    assert_int_equal(MEM_ARRAY(&h, rows * width + 64), OK);
    for (int64_t i = 0; i < rows * width; i++) h[i] = bf16_from_f32(x[i]);
    return tensor_bf16(h, width);
}

// Values that bf16 can hold, so that both runs start from the same numbers.
static float *exact(int64_t n, uint64_t seed)
{
    float *x = randoms(n, seed);
    for (int64_t i = 0; i < n; i++) x[i] = bf16_to_f32(bf16_from_f32(x[i]));
    return x;
}

static void rounded_to(const Tensor *got, const float *want, int64_t rows, int64_t width, double tolerance, const char *what)
{
    double wrong = 0, size = 0;
    for (int64_t t = 0; t < rows; t++)
        for (int64_t i = 0; i < width; i++) {
            double a = (double)tensor_get(got, t, i), b = (double)want[t * width + i];
            if (!(fabs(a - b) <= tolerance * (1e-3 + fabs(b)))) fail_msg("%s[%ld][%ld] = %.9g, want %.9g", what, (long)t, (long)i, a, b);
            wrong += fabs(a - b), size += fabs(b);
        }
    assert_true(wrong <= tolerance * size);
}

static Tensor packed_bf16(Ctx *ctx, float *w, int64_t out, int64_t in)
{
    PackBf16Args a = {.w = tensor_f32(w, in), .out = out, .in = in, .to = out};
    assert_int_equal(mem_alloc(&a.packed, op_pack_bf16_elements(out, in), 2), OK);
    int64_t part = out / 2 / BF16_ROWS * BF16_ROWS;  // in two parts
    a.to = part;
    assert_int_equal(op_pack_bf16(ctx, &a), OK);
    a.from = part, a.to = out;
    assert_int_equal(op_pack_bf16(ctx, &a), OK);
    return tensor_bf16(a.packed, in);
}

static void check_rows(Ctx *ctx)
{
    float *x = exact(T * H, 1), *w = randoms(H, 2), *y = array(T * H), *table = randoms(10 * D, 3), *q = exact(T * N * D, 4);
    Tensor y16 = half_of(y, T, H), q16 = half_of(q, T, N * D);
    RmsNormArgs norm = {.x = tensor_f32(x, H), .y = tensor_f32(y, H), .w = w, .T = T, .H = H, .eps = 1e-5f};
    assert_int_equal(op_rmsnorm_fwd(ctx, &norm), OK);
    norm.y = y16;
    assert_int_equal(op_rmsnorm_fwd(ctx, &norm), OK);
    rounded_to(&y16, y, T, H, ROUNDED, "rmsnorm");
    RopeArgs rope = {.x = tensor_f32(q, N * D), .pos = pos, .table = table, .T = T, .heads = N, .D = D};
    assert_int_equal(op_rope(ctx, &rope), OK);
    rope.x = q16;
    assert_int_equal(op_rope(ctx, &rope), OK);
    rounded_to(&q16, q, T, N * D, ROUNDED, "rope");
    mem_free(x), mem_free(w), mem_free(y), mem_free(table), mem_free(q), mem_free(y16.p), mem_free(q16.p);
}

static void check_glu(Ctx *ctx, Err (*fwd)(Ctx *, const SwigluArgs *), Err (*bwd)(Ctx *, const SwigluBwdArgs *), const char *what)
{
    float *x = exact(T * 2 * F, 5), *dy = exact(T * F, 6), *y = array(T * F), *dx = array(T * 2 * F);
    for (int i = 0; i < T * 2 * F; i++) x[i] *= 4;
    Tensor in = tensor_f32(x, 2 * F), back = tensor_f32(dx, 2 * F);
    Tensor in16 = half_of(x, T, 2 * F), dy16 = half_of(dy, T, F), y16 = half_of(y, T, F), back16 = half_of(dx, T, 2 * F);
    SwigluArgs a = {in, tensor_at(in, F), tensor_f32(y, F), T, F}, h = {in16, tensor_at(in16, F), y16, T, F};
    SwigluBwdArgs b = {in, tensor_at(in, F), tensor_f32(dy, F), back, tensor_at(back, F), T, F};
    SwigluBwdArgs g = {in16, tensor_at(in16, F), dy16, back16, tensor_at(back16, F), T, F};
    assert_int_equal(fwd(ctx, &a), OK);
    assert_int_equal(fwd(ctx, &h), OK);
    assert_int_equal(bwd(ctx, &b), OK);
    assert_int_equal(bwd(ctx, &g), OK);
    rounded_to(&y16, y, T, F, ROUNDED, what);
    rounded_to(&back16, dx, T, 2 * F, ROUNDED, what);
    mem_free(x), mem_free(dy), mem_free(y), mem_free(dx);
    mem_free(in16.p), mem_free(dy16.p), mem_free(y16.p), mem_free(back16.p);
}

static void check_gemms(Ctx *ctx)
{
    float *x = exact(T * H, 7), *w = exact(F * H, 8), *dy = exact(T * F, 9), *y = array(T * F), *dx = array(T * H), *add = exact(T * F, 10);
    float *dw = randoms(F * H, 11), *dw16 = randoms(F * H, 11), *db = array(F), *db16 = array(F);
    Tensor w16 = packed_bf16(ctx, w, F, H), x16 = half_of(x, T, H), dy16 = half_of(dy, T, F), y16 = half_of(y, T, F), dx16 = half_of(dx, T, H);
    GemmArgs a = {.x = tensor_f32(x, H), .w = tensor_f32(w, H), .y = tensor_f32(y, F), .add = tensor_f32(add, F), .T = T, .in = H, .out = F};
    GemmArgs h = {.x = x16, .w = w16, .y = y16, .add = a.add, .T = T, .in = H, .out = F};
    assert_int_equal(op_gemm_fwd(ctx, &a), OK);
    assert_int_equal(op_gemm_fwd(ctx, &h), OK);
    rounded_to(&y16, y, T, F, ROUNDED, "gemm");
    GemmDxArgs b = {.dy = tensor_f32(dy, F), .w = a.w, .dx = tensor_f32(dx, H), .T = T, .in = H, .out = F};
    GemmDxArgs g = {.dy = dy16, .w = w16, .dx = dx16, .T = T, .in = H, .out = F};
    assert_int_equal(op_gemm_bwd_x(ctx, &b), OK);
    assert_int_equal(op_gemm_bwd_x(ctx, &g), OK);
    rounded_to(&dx16, dx, T, H, ROUNDED, "dx");
    GemmDwArgs c = {.dy = b.dy, .x = a.x, .dw = tensor_f32(dw, H), .dbias = db, .row = row, .rows = ROWS, .in = H, .out = F};
    GemmDwArgs e = {.dy = dy16, .x = x16, .dw = tensor_f32(dw16, H), .dbias = db16, .row = row, .rows = ROWS, .in = H, .out = F};
    assert_int_equal(mem_alloc(&e.workspace, op_gemm_bwd_w_workspace(NULL, &e), 1), OK);
    assert_int_equal(op_gemm_bwd_w(ctx, &c), OK);
    assert_int_equal(op_gemm_bwd_w(ctx, &e), OK);
    close_to(dw16, dw, F * H, SUMS, "dw");
    close_to(db16, db, F, SUMS, "dbias");
    void *all[] = {x, w, dy, y, dx, add, dw, dw16, db, db16, w16.p, x16.p, dy16.p, y16.p, dx16.p, e.workspace};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) mem_free(all[i]);
}

static void check_embedding(Ctx *ctx)
{
    static const int32_t token[3] = {V - 1, 0, 20};
    float *w = exact((int64_t)V * H, 12), *y = array(3 * H);
    Tensor w16 = packed_bf16(ctx, w, V, H);
    EmbedArgs a = {.table = w16, .y = tensor_f32(y, H), .token = token, .T = 3, .H = H, .V = V};
    assert_int_equal(op_embed_fwd(ctx, &a), OK);
    for (int t = 0; t < 3; t++) same_bits(y + t * H, w + token[t] * H, H, "embedding");
    mem_free(w), mem_free(y), mem_free(w16.p);
}

// Both directions; the two segments share a prefix. o and lse of the fp32 run serve both backward passes.
static void check_attention(Ctx *ctx)
{
    static const Segment seg[3] = {{0, 15, -1, 0}, {15, 10, 0, 15}, {25, T - 25, 0, 15}};
    enum { ND = N * D, KD = K * D, QKV = ND + 2 * KD };
    float *qkv = exact(T * QKV, 13), *dout = exact(T * ND, 14), *o = array(T * ND), *dqkv = array(T * QKV), *lse = array(N * T), *lse16 = array(N * T);
    Tensor in = tensor_f32(qkv, QKV), back = tensor_f32(dqkv, QKV), in16 = half_of(qkv, T, QKV), o16 = half_of(o, T, ND);
    Tensor dout16 = half_of(dout, T, ND), back16 = half_of(dqkv, T, QKV);
    AttnArgs f = {.q = in, .k = tensor_at(in, ND), .v = tensor_at(in, ND + KD), .o = tensor_f32(o, ND), .lse = lse, .seg = seg, .T = T,
                  .S = 3, .N = N, .K = K, .D = D, .scale = 0.5f, .window = 21};
    AttnArgs h = f;
    h.q = in16, h.k = tensor_at(in16, ND), h.v = tensor_at(in16, ND + KD), h.o = o16, h.lse = lse16;
    assert_int_equal(mem_alloc(&f.workspace, op_attn_fwd_workspace(NULL, &f), 1), OK);
    assert_int_equal(mem_alloc(&h.workspace, op_attn_fwd_workspace(NULL, &h), 1), OK);
    assert_int_equal(op_attn_fwd(ctx, &f), OK);
    assert_int_equal(op_attn_fwd(ctx, &h), OK);
    close_to(lse16, lse, N * T, SUMS, "lse");
    for (int64_t i = 0; i < T * ND; i++) {  // probabilities, which sum to 1, are rounded, then the result
        double got = (double)bf16_to_f32(((uint16_t *)o16.p)[i]), want = (double)o[i];
        if (!(fabs(got - want) <= ROUNDED / 2 + ROUNDED * fabs(want))) fail_msg("o[%ld] = %g, want %g", (long)i, got, want);
    }
    for (int64_t i = 0; i < T * ND; i++) o[i] = bf16_to_f32(((uint16_t *)o16.p)[i]);
    AttnBwdArgs b = {.q = f.q, .k = f.k, .v = f.v, .o = f.o, .dout = tensor_f32(dout, ND), .dq = back, .dk = tensor_at(back, ND),
                     .dv = tensor_at(back, ND + KD), .lse = lse, .seg = seg, .T = T, .S = 3, .N = N, .K = K, .D = D, .scale = 0.5f, .window = 21};
    AttnBwdArgs g = b;
    g.q = h.q, g.k = h.k, g.v = h.v, g.o = o16, g.dout = dout16, g.dq = back16, g.dk = tensor_at(back16, ND), g.dv = tensor_at(back16, ND + KD);
    assert_int_equal(mem_alloc(&b.workspace, op_attn_bwd_workspace(NULL, &b), 1), OK);
    assert_int_equal(mem_alloc(&g.workspace, op_attn_bwd_workspace(NULL, &g), 1), OK);
    assert_int_equal(op_attn_bwd(ctx, &b), OK);
    assert_int_equal(op_attn_bwd(ctx, &g), OK);
    double wrong = 0, size = 0;  // probabilities and their gradients are rounded inside: single elements may cancel
    for (int64_t i = 0; i < T * QKV; i++) {
        double want = (double)dqkv[i], got = (double)bf16_to_f32(((uint16_t *)back16.p)[i]);
        if (!(fabs(got - want) <= 4 * ROUNDED * (1 + fabs(want)))) fail_msg("dqkv[%ld] = %g, want %g", (long)i, got, want);
        wrong += fabs(got - want), size += fabs(want);
    }
    assert_true(wrong <= 2 * ROUNDED * size);
    void *all[] = {qkv, dout, o, dqkv, lse, lse16, in16.p, o16.p, dout16.p, back16.p, f.workspace, h.workspace, b.workspace, g.workspace};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) mem_free(all[i]);
}

static void check_logprob(Ctx *ctx)
{
    float *hidden = exact(T * H, 15), *head = exact((int64_t)V * H, 16), *coef = randoms(T, 17), *out[8];
    int32_t target[T];
    Tensor head16 = packed_bf16(ctx, head, V, H);
    for (int t = 0; t < T; t++) target[t] = t % 5 == 4 ? -1 : t * 977 % V;
    for (int half = 0; half < 2; half++) {
        float *logp = array(T), *lse = array(T), *dhidden = array(T * H), *dhead = array((int64_t)V * H);
        LogprobArgs f = {.hidden = tensor_f32(hidden, H), .head = half ? head16 : tensor_f32(head, H), .target = target, .logp = logp, .lse = lse,
                         .T = T, .H = H, .V = V};
        LogprobBwdArgs b = {.hidden = f.hidden, .head = f.head, .dhidden = tensor_f32(dhidden, H), .dhead = tensor_f32(dhead, H),
                            .target = target, .lse = lse, .coef = coef, .row = row, .rows = ROWS, .T = T, .H = H, .V = V};
        assert_int_equal(mem_alloc(&b.workspace, op_logprob_fwd_workspace(NULL, &f) + op_logprob_bwd_workspace(NULL, &b), 1), OK);
        f.workspace = b.workspace;
        assert_int_equal(op_logprob_fwd(ctx, &f), OK);
        assert_int_equal(op_logprob_bwd(ctx, &b), OK);
        out[half * 4] = logp, out[half * 4 + 1] = lse, out[half * 4 + 2] = dhidden, out[half * 4 + 3] = dhead;
        mem_free(b.workspace);
    }
    close_to(out[4], out[0], T, SUMS, "logp");
    close_to(out[5], out[1], T, SUMS, "lse");
    // The gradient of the logits is rounded; of each row of it at most 2 |coef| in all.
    close_to(out[6], out[2], T * H, 0x1p-8, "dhidden");
    close_to(out[7], out[3], (int64_t)V * H, 0x1p-8, "dhead");
    double wrong = 0, size = 0;
    for (int64_t i = 0; i < (int64_t)V * H; i++) wrong += fabs((double)out[7][i] - (double)out[3][i]), size += fabs((double)out[3][i]);
    assert_true(wrong <= 0x1p-9 * size);
    for (int i = 0; i < 8; i++) mem_free(out[i]);
    mem_free(hidden), mem_free(head), mem_free(coef), mem_free(head16.p);
}

static void bf16_ops_match_fp32(void **state)
{
    (void)state;
    Ctx ctx[MAX_CONTEXTS];
    int n = contexts(ctx);
    ctx[n++] = plain_ctx;
    for (int i = 0; i < n; i++) {
        check_rows(&ctx[i]);
        check_glu(&ctx[i], op_swiglu_fwd, op_swiglu_bwd, "swiglu");
        check_glu(&ctx[i], op_geglu_fwd, op_geglu_bwd, "geglu");
        check_gemms(&ctx[i]);
        check_embedding(&ctx[i]);
        check_attention(&ctx[i]);
        check_logprob(&ctx[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bf16_ops_match_fp32)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
