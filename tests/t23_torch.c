// SPDX-License-Identifier: Apache-2.0
// Ops against PyTorch (tests/data/ops/torch.json, made by tools/reference/ops.py).
#include <jansson.h>

#include "ops_support.h"

static json_t *data;
static int T, N, K, D, H, V;
// Both sides are float32 with sums of up to 24 terms of size 1.
static const double TOLERANCE = 3e-6;

static int size_of(const char *name) { return (int)json_integer_value(json_object_get(data, name)); }

static int load(void **state)
{
    (void)state;
    json_error_t error;
    data = json_load_file("tests/data/ops/torch.json", 0, &error);
    if (!data) return 1;
    T = size_of("T"), N = size_of("N"), K = size_of("K"), D = size_of("D"), H = size_of("H"), V = size_of("V");
    return 0;
}

static int unload(void **state)
{
    (void)state;
    json_decref(data);
    return 0;
}

static float *numbers(const char *name)
{
    const json_t *list = json_object_get(data, name);
    float *p = array((int64_t)json_array_size(list));
    assert_true(json_array_size(list) > 0);
    for (size_t i = 0; i < json_array_size(list); i++) p[i] = (float)json_number_value(json_array_get(list, i));
    return p;
}

static void is_torch(const float *got, const char *name)
{
    float *want = numbers(name);
    close_to(got, want, (int64_t)json_array_size(json_object_get(data, name)), TOLERANCE, name);
    mem_free(want);
}

static void check_attention(Ctx *ctx)
{
    float *q = numbers("q"), *k = numbers("k"), *v = numbers("v"), *dout = numbers("dout"), *lse = array(N * T);
    float *o = array(T * N * D), *dq = array(T * N * D), *dk = array(T * K * D), *dv = array(T * K * D);
    Segment seg = {0, T, -1, 0};
    void *space = NULL;
    AttnArgs f = {.q = tensor_f32(q, N * D), .k = tensor_f32(k, K * D), .v = tensor_f32(v, K * D), .o = tensor_f32(o, N * D), .lse = lse,
                  .seg = &seg, .T = T, .S = 1, .N = N, .K = K, .D = D, .scale = 1 / sqrtf((float)D)};
    AttnBwdArgs b = {.q = f.q, .k = f.k, .v = f.v, .o = f.o, .dout = tensor_f32(dout, N * D), .dq = tensor_f32(dq, N * D),
                     .dk = tensor_f32(dk, K * D), .dv = tensor_f32(dv, K * D), .lse = lse, .seg = &seg, .T = T, .S = 1, .N = N,
                     .K = K, .D = D, .scale = f.scale};
    assert_int_equal(mem_alloc(&space, op_attn_bwd_workspace(NULL, &b) + op_attn_fwd_workspace(NULL, &f), 1), OK);
    f.workspace = b.workspace = space;
    assert_int_equal(op_attn_fwd(ctx, &f), OK);
    assert_int_equal(op_attn_bwd(ctx, &b), OK);
    is_torch(o, "o"), is_torch(dq, "dq"), is_torch(dk, "dk"), is_torch(dv, "dv");
    float *all[] = {q, k, v, dout, lse, o, dq, dk, dv, space};
    for (int i = 0; i < 10; i++) mem_free(all[i]);
}

static void check_rows(Ctx *ctx)
{
    float *x = numbers("x"), *w = numbers("norm_w"), *g = numbers("g"), *u = numbers("u"), *dy = numbers("dy"), *y = array(T * H);
    float *rstd = array(T), *dx = array(T * H), *dw = array(H), *dg = array(T * H), *du = array(T * H), *q = numbers("q"), *table = numbers("rope_table");
    int32_t row[2] = {0, T}, pos[16];
    for (int t = 0; t < T; t++) pos[t] = t;
    RmsNormArgs f = {.x = tensor_f32(x, H), .y = tensor_f32(y, H), .w = w, .rstd = rstd, .T = T, .H = H, .eps = 1e-5f};
    RmsNormBwdArgs b = {.x = f.x, .dy = tensor_f32(dy, H), .dx = tensor_f32(dx, H), .w = w, .rstd = rstd, .dw = dw, .row = row, .rows = 1, .T = T, .H = H};
    assert_int_equal(op_rmsnorm_fwd(ctx, &f), OK);
    assert_int_equal(op_rmsnorm_bwd(ctx, &b), OK);
    is_torch(y, "norm_y"), is_torch(dx, "norm_dx"), is_torch(dw, "norm_dw");
    SwigluArgs s = {.g = tensor_f32(g, H), .u = tensor_f32(u, H), .y = f.y, .T = T, .F = H};
    assert_int_equal(op_swiglu_fwd(ctx, &s), OK);
    is_torch(y, "swiglu_y");
    SwigluBwdArgs e = {.g = s.g, .u = s.u, .dy = b.dy, .dg = tensor_f32(dg, H), .du = tensor_f32(du, H), .T = T, .F = H};
    assert_int_equal(op_geglu_fwd(ctx, &s), OK);
    assert_int_equal(op_geglu_bwd(ctx, &e), OK);
    is_torch(y, "geglu_y"), is_torch(dg, "geglu_dg"), is_torch(du, "geglu_du");
    SwigluBwdArgs t = {.g = s.g, .u = s.u, .dy = b.dy, .dg = s.g, .du = s.u, .T = T, .F = H};  // in place
    assert_int_equal(op_swiglu_bwd(ctx, &t), OK);
    is_torch(g, "dg"), is_torch(u, "du");
    RopeArgs r = {.x = tensor_f32(q, N * D), .pos = pos, .table = table, .T = T, .heads = N, .D = D};
    assert_int_equal(op_rope(ctx, &r), OK);
    is_torch(q, "rope_q");
    float *all[] = {x, w, g, u, dy, y, rstd, dx, dw, dg, du, q, table};
    for (int i = 0; i < 13; i++) mem_free(all[i]);
}

static void check_logprob(Ctx *ctx)
{
    float *hidden = numbers("hidden"), *head = numbers("head"), *coef = numbers("coef"), *logp = array(T), *lse = array(T);
    float *dhidden = array(T * H), *dhead = array(V * H);
    int32_t target[16], row[2] = {0, T};
    void *space = NULL;
    for (int t = 0; t < T; t++) target[t] = (int32_t)json_number_value(json_array_get(json_object_get(data, "target"), (size_t)t));
    LogprobArgs f = {.hidden = tensor_f32(hidden, H), .head = tensor_f32(head, H), .target = target, .logp = logp, .lse = lse, .T = T, .H = H, .V = V};
    LogprobBwdArgs b = {.hidden = f.hidden, .head = f.head, .dhidden = tensor_f32(dhidden, H), .dhead = tensor_f32(dhead, H),
                        .target = target, .lse = lse, .coef = coef, .row = row, .rows = 1, .T = T, .H = H, .V = V};
    assert_int_equal(mem_alloc(&space, op_logprob_bwd_workspace(NULL, &b), 1), OK);
    f.workspace = b.workspace = space;
    assert_int_equal(op_logprob_fwd(ctx, &f), OK);
    assert_int_equal(op_logprob_bwd(ctx, &b), OK);
    is_torch(logp, "logp"), is_torch(dhidden, "dhidden"), is_torch(dhead, "dhead");
    float *all[] = {hidden, head, coef, logp, lse, dhidden, dhead, space};
    for (int i = 0; i < 8; i++) mem_free(all[i]);
}

static void check_adamw(Ctx *ctx)
{
    float *w = numbers("adamw_before"), *m = array(H), *v = array(H), one = 1, lr = 0.01f;
    static const char *const names[] = {"adamw_grad0", "adamw_grad1", "adamw_grad2"};
    for (int64_t step = 1; step <= 3; step++) {
        float *g = numbers(names[step - 1]);
        AdamWArgs a = {.w = w, .m = m, .v = v, .g = g, .n = H, .clip = &one, .lr = &lr, .step = &step, .beta1 = 0.9f, .beta2 = 0.999f,
                       .eps = 1e-8f, .decay = 0.1f};
        assert_int_equal(op_adamw(ctx, &a), OK);
        mem_free(g);
    }
    is_torch(w, "adamw_after");
    mem_free(w), mem_free(m), mem_free(v);
}

static void every_op_agrees_with_torch(void **state)
{
    (void)state;
    Ctx ctx[MAX_CONTEXTS + 1];
    int n = contexts(ctx);
    ctx[n++] = plain_ctx;
    for (int i = 0; i < n; i++) check_attention(&ctx[i]), check_rows(&ctx[i]), check_logprob(&ctx[i]), check_adamw(&ctx[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_op_agrees_with_torch)};
    return cmocka_run_group_tests(tests, load, unload);
}
