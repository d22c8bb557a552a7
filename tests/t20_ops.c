// SPDX-License-Identifier: Apache-2.0
// Gemms, embedding, element-wise ops and the optimiser: plain against formulas in double, fast against plain at every
// ISA level, and law 1 (a row has the same bits whatever the number of rows and threads).
#include "ops_support.h"

enum { T = 67, IN = 600, OUT = 80, ROWS = 3, H = 576, D = 64, HEADS = 3 };
static const int32_t row[ROWS + 1] = {0, 20, 21, T};

// A chain of 600 products in (-1, 1), longer than a block of k: partial sums below 30, each step rounds by at most 30 eps / 2
// = 2e-6; 600 of them with random signs: 24 * 2e-6 * 0.3.
static const double GEMM_TOLERANCE = 2e-5;
// Element-wise: a handful of roundings, and exp to 1-2 ulp.
static const double ROW_TOLERANCE = 2e-6;

static void gemm_want(const float *x, const float *w, const float *bias, float *y)
{
    for (int t = 0; t < T; t++)
        for (int o = 0; o < OUT; o++) {
            double sum = bias ? (double)bias[o] : 0;
            for (int i = 0; i < IN; i++) sum += (double)x[t * IN + i] * (double)w[o * IN + i];
            y[t * OUT + o] = (float)sum;
        }
}

static void check_gemm_fwd(Ctx *ctx)
{
    float *x = randoms(T * IN, 1), *w = randoms(OUT * IN, 2), *bias = randoms(OUT, 3), *y = array(T * OUT), *want = array(T * OUT);
    GemmArgs a = {.x = tensor_f32(x, IN), .w = tensor_f32(w, IN), .y = tensor_f32(y, OUT), .bias = bias, .T = T, .in = IN, .out = OUT};
    gemm_want(x, w, bias, want);
    assert_int_equal(op_gemm_fwd(ctx, &a), OK);
    close_to(y, want, T * OUT, GEMM_TOLERANCE, "y");
    a.add = a.y;
    assert_int_equal(op_gemm_fwd(ctx, &a), OK);
    for (int i = 0; i < T * OUT; i++) want[i] *= 2;
    close_to(y, want, T * OUT, 2 * GEMM_TOLERANCE, "y accumulated");
    mem_free(x), mem_free(w), mem_free(bias), mem_free(y), mem_free(want);
}

static void check_gemm_bwd(Ctx *ctx)
{
    float *x = randoms(T * IN, 1), *w = randoms(OUT * IN, 2), *dy = randoms(T * OUT, 3);
    float *dx = array(T * IN), *dw = randoms(OUT * IN, 4), *dbias = randoms(OUT, 5);
    float *dx_want = array(T * IN), *dw_want = randoms(OUT * IN, 4), *dbias_want = randoms(OUT, 5);
    for (int t = 0; t < T; t++)
        for (int i = 0; i < IN; i++) {
            double sum = 0;
            for (int o = 0; o < OUT; o++) sum += (double)dy[t * OUT + o] * (double)w[o * IN + i];
            dx_want[t * IN + i] = (float)sum;
        }
    for (int o = 0; o < OUT; o++) {
        for (int i = 0; i < IN; i++) {
            double sum = (double)dw_want[o * IN + i];
            for (int t = 0; t < T; t++) sum += (double)dy[t * OUT + o] * (double)x[t * IN + i];
            dw_want[o * IN + i] = (float)sum;
        }
        double sum = (double)dbias_want[o];
        for (int t = 0; t < T; t++) sum += (double)dy[t * OUT + o];
        dbias_want[o] = (float)sum;
    }
    GemmDxArgs b = {.dy = tensor_f32(dy, OUT), .w = tensor_f32(w, IN), .dx = tensor_f32(dx, IN), .T = T, .in = IN, .out = OUT};
    assert_int_equal(op_gemm_bwd_x(ctx, &b), OK);
    close_to(dx, dx_want, T * IN, GEMM_TOLERANCE, "dx");
    GemmDwArgs c = {.dy = b.dy, .x = tensor_f32(x, IN), .dw = tensor_f32(dw, IN), .dbias = dbias, .row = row, .rows = ROWS, .in = IN, .out = OUT};
    assert_int_equal(op_gemm_bwd_w(ctx, &c), OK);
    close_to(dw, dw_want, OUT * IN, GEMM_TOLERANCE, "dw");
    close_to(dbias, dbias_want, OUT, GEMM_TOLERANCE, "dbias");
    mem_free(x), mem_free(w), mem_free(dy), mem_free(dx), mem_free(dw), mem_free(dbias);
    mem_free(dx_want), mem_free(dw_want), mem_free(dbias_want);
}

static void gemms_match_double_sums(void **state)
{
    (void)state;
    Ctx ctx[MAX_CONTEXTS], plain = plain_ctx;
    int n = contexts(ctx);
    check_gemm_fwd(&plain);
    check_gemm_bwd(&plain);
    for (int i = 0; i < n; i++) check_gemm_fwd(&ctx[i]), check_gemm_bwd(&ctx[i]);
}

static void pack(float *w, int64_t in, int64_t out)
{
    Ctx ctx = plain_ctx;
    PackArgs a = {.w = tensor_f32(w, in), .in = in, .out = out};
    float *workspace = array(op_pack_workspace(&a) / 4);
    a.workspace = workspace;
    assert_int_equal(op_pack(&ctx, &a), OK);
    mem_free(workspace);
}

// Whole panels and one that is narrower, not a multiple of any vector either; x and y with padded rows.
static void check_gemm_packed(Ctx *ctx, int64_t in, int64_t out)
{
    float *x = randoms(T * (in + 4), 1), *rows = randoms(out * in, 2), *w = randoms(out * in, 2), *bias = randoms(out, 3);
    float *y = array(T * (out + 8));
    pack(w, in, out);
    GemmArgs a = {.x = tensor_f32(x, in + 4),
                  .w = tensor_f32(w, in),
                  .y = tensor_f32(y, out + 8),
                  .bias = bias,
                  .T = T,
                  .in = in,
                  .out = out,
                  .packed = true};
    for (int pass = 1; pass <= 2; pass++) {
        assert_int_equal(op_gemm_fwd(ctx, &a), OK);
        for (int64_t t = 0; t < T; t++)
            for (int64_t o = 0; o < out; o++) {
                double sum = (double)bias[o];
                for (int64_t i = 0; i < in; i++) sum += (double)x[t * (in + 4) + i] * (double)rows[o * in + i];
                const float want = (float)(pass * sum);
                close_to(&y[t * (out + 8) + o], &want, 1, pass * GEMM_TOLERANCE, "y");
            }
        a.add = a.y;
    }
    for (int64_t t = 0; t < T; t++)
        for (int o = 0; o < 8; o++) assert_true(y[t * (out + 8) + out + o] == 0);  // nothing beyond the row
    mem_free(x), mem_free(rows), mem_free(w), mem_free(bias), mem_free(y);
}

static void packed_gemms_match_double_sums(void **state)
{
    (void)state;
    static const int64_t shapes[][2] = {{IN, OUT}, {257, 128}, {3, 1}, {16, 65}, {64, 203}};
    Ctx ctx[MAX_CONTEXTS + 1];
    int n = contexts(ctx);
    ctx[n++] = plain_ctx;
    for (int s = 0; s < 5; s++)
        for (int i = 0; i < n; i++) check_gemm_packed(&ctx[i], shapes[s][0], shapes[s][1]);
}

// Rows of a padded operand go through our own kernel, which must agree with the dense one.
static void gemm_takes_padded_rows(void **state)
{
    (void)state;
    Ctx ctx[MAX_CONTEXTS];
    int n = contexts(ctx);
    float *x = randoms(T * (IN + 8), 1), *w = randoms(OUT * IN, 2), *y = array(T * (OUT + 4)), *dense = array(T * IN), *want = array(T * OUT);
    for (int t = 0; t < T; t++) memcpy(dense + t * IN, x + t * (IN + 8), IN * sizeof(float));
    gemm_want(dense, w, NULL, want);
    for (int i = 0; i < n; i++) {
        GemmArgs a = {.x = tensor_f32(x, IN + 8), .w = tensor_f32(w, IN), .y = tensor_f32(y, OUT + 4), .T = T, .in = IN, .out = OUT};
        assert_int_equal(op_gemm_fwd(&ctx[i], &a), OK);
        for (int t = 0; t < T; t++) close_to(y + t * (OUT + 4), want + t * OUT, OUT, GEMM_TOLERANCE, "y");
    }
    mem_free(x), mem_free(w), mem_free(y), mem_free(dense), mem_free(want);
}

// Rows alone have the bits that they have in company, on any team: the guard of ctx_init at work, and packed weights.
static void check_company(bool packed)
{
    static const int64_t shapes[][2] = {{64, 128}, {128, 512}, {576, 192}, {576, 1536}, {1536, 576}, {100, 36}};
    static const int64_t counts[] = {1, 2, 3, 17, 64, 65, 130};
    Ctx ctx[MAX_CONTEXTS];
    int n = contexts(ctx);
    for (int s = 0; s < 6; s++) {
        int64_t in = shapes[s][0], out = shapes[s][1], rows = 131;
        float *x = randoms(rows * in, 1), *w = randoms(out * in, 2), *whole = array(rows * out), *part = array(rows * out);
        if (packed) pack(w, in, out);
        for (int i = 0; i < n; i++) {
            GemmArgs a = {.x = tensor_f32(x, in),
                          .w = tensor_f32(w, in),
                          .y = tensor_f32(whole, out),
                          .T = rows,
                          .in = in,
                          .out = out,
                          .packed = packed};
            Ctx one = ctx[i];
            one.threads = 1;
            assert_int_equal(op_gemm_fwd(&one, &a), OK);
            a.y.p = part;
            for (int c = 0; c < 7; c++) {
                int64_t from = rows - counts[c];
                a.x.p = x + from * in;
                a.T = counts[c];
                assert_int_equal(op_gemm_fwd(&ctx[i], &a), OK);
                same_bits(part, whole + from * out, counts[c] * out, "y");
            }
        }
        mem_free(x), mem_free(w), mem_free(whole), mem_free(part);
    }
}

static void law1_gemm_rows_do_not_depend_on_company(void **state)
{
    (void)state;
    check_company(false);
    check_company(true);
}

static void embedding_gathers_and_scatters(void **state)
{
    (void)state;
    enum { V = 70, W = 16, N = 5 };  // a panel and a narrower one
    static const int32_t token[N] = {3, 0, 3, 67, 3};
    Ctx ctx = plain_ctx;
    float *table = randoms(V * W, 1), *y = array(N * W), *sum = array(V * W), *want = array(V * W);
    EmbedArgs a = {.table = tensor_f32(table, W), .y = tensor_f32(y, W), .token = token, .T = N, .H = W, .V = V};
    assert_int_equal(op_embed_fwd(&ctx, &a), OK);
    for (int t = 0; t < N; t++) same_bits(y + t * W, table + token[t] * W, W, "y");
    EmbedBwdArgs b = {.dy = a.y, .dtable = tensor_f32(sum, W), .token = token, .T = N, .H = W, .V = V};
    assert_int_equal(op_embed_bwd(&ctx, &b), OK);
    for (int t = 0; t < N; t++)
        for (int h = 0; h < W; h++) want[token[t] * W + h] += y[t * W + h];
    same_bits(sum, want, V * W, "dtable");
    pack(table, W, V);
    a.packed = true;
    float *packed = array(N * W);
    a.y.p = packed;
    assert_int_equal(op_embed_fwd(&ctx, &a), OK);
    same_bits(packed, y, N * W, "y from a packed table");
    int32_t beyond = V;
    a.token = &beyond, a.T = 1;
    assert_int_equal(op_embed_fwd(&ctx, &a), ERR_INTERNAL);
    mem_free(table), mem_free(y), mem_free(sum), mem_free(want), mem_free(packed);
}

// All element-wise ops over the same inputs; out[] receives every result, one after the other.
typedef struct Rows {
    float *x, *dy, *w, *u, *table;
    float *y, *rstd, *dx, *dw, *rope, *back, *silu, *dg, *du, *gelu, *gelu_dg, *gelu_du, *sum;
} Rows;
enum { TABLE = 100 };

static Rows rows_new(void)
{
    Rows r = {.x = randoms(T * H, 1), .dy = randoms(T * H, 2), .w = randoms(H, 3), .u = randoms(T * H, 4), .table = randoms(TABLE * D, 5)};
    float **out[] = {&r.y, &r.dx, &r.rope, &r.back, &r.silu, &r.dg, &r.du, &r.gelu, &r.gelu_dg, &r.gelu_du, &r.sum};
    for (int i = 0; i < 11; i++) *out[i] = array(T * H);
    r.rstd = array(T), r.dw = array(H);
    for (int i = 0; i < T * H; i++) r.x[i] *= 6;  // gates in (-6, 6)
    return r;
}

static void rows_free(Rows *r)
{
    float *all[] = {r->x, r->dy, r->w, r->u, r->table, r->y, r->rstd, r->dx, r->dw, r->rope, r->back, r->silu, r->dg, r->du, r->gelu, r->gelu_dg, r->gelu_du, r->sum};
    for (int i = 0; i < 18; i++) mem_free(all[i]);
}

// Tokens [first, T) only, so that a test can compare a part with the whole.
static void rows_run(Ctx *ctx, Rows *r, int first)
{
    int n = T - first, at = first * H, rope_at = first * HEADS * D, part[2] = {0, n};
    int32_t pos[T], whole_row[2] = {part[0], part[1]};
    for (int t = 0; t < n; t++) pos[t] = (first + t) * 13 % TABLE;
    Tensor x = tensor_f32(r->x + at, H), dy = tensor_f32(r->dy + at, H), u = tensor_f32(r->u + at, H);
    RmsNormArgs norm = {.x = x, .y = tensor_f32(r->y + at, H), .w = r->w, .rstd = r->rstd + first, .T = n, .H = H, .eps = 1e-5f};
    assert_int_equal(op_rmsnorm_fwd(ctx, &norm), OK);
    memset(r->dw, 0, H * sizeof(float));
    RmsNormBwdArgs back = {.x = x, .dy = dy, .dx_in = u, .dx = tensor_f32(r->dx + at, H), .w = r->w, .rstd = r->rstd + first,
                           .dw = r->dw, .row = first ? whole_row : row, .rows = first ? 1 : ROWS, .T = n, .H = H};
    assert_int_equal(op_rmsnorm_bwd(ctx, &back), OK);
    for (int t = 0; t < n; t++) memcpy(r->rope + rope_at + t * HEADS * D, r->x + at + t * H, HEADS * D * sizeof(float));
    RopeArgs rope = {.x = tensor_f32(r->rope + rope_at, HEADS * D), .pos = pos, .table = r->table, .T = n, .heads = HEADS, .D = D};
    assert_int_equal(op_rope(ctx, &rope), OK);
    memcpy(r->back + rope_at, r->rope + rope_at, (size_t)n * HEADS * D * sizeof(float));
    rope.x.p = r->back + rope_at, rope.inverse = true;
    assert_int_equal(op_rope(ctx, &rope), OK);
    SwigluArgs silu = {.g = x, .u = u, .y = tensor_f32(r->silu + at, H), .T = n, .F = H};
    assert_int_equal(op_swiglu_fwd(ctx, &silu), OK);
    SwigluBwdArgs silu_back = {.g = x, .u = u, .dy = dy, .dg = tensor_f32(r->dg + at, H), .du = tensor_f32(r->du + at, H), .T = n, .F = H};
    assert_int_equal(op_swiglu_bwd(ctx, &silu_back), OK);
    silu.y.p = r->gelu + at, silu_back.dg.p = r->gelu_dg + at, silu_back.du.p = r->gelu_du + at;
    assert_int_equal(op_geglu_fwd(ctx, &silu), OK);
    assert_int_equal(op_geglu_bwd(ctx, &silu_back), OK);
    AddArgs add = {.a = x, .b = u, .y = tensor_f32(r->sum + at, H), .T = n, .H = H};
    assert_int_equal(op_add(ctx, &add), OK);
}

static void rows_close(const Rows *got, const Rows *want)
{
    close_to(got->y, want->y, T * H, ROW_TOLERANCE, "rmsnorm y");
    close_to(got->rstd, want->rstd, T, ROW_TOLERANCE, "rstd");
    close_to(got->dx, want->dx, T * H, ROW_TOLERANCE, "rmsnorm dx");
    close_to(got->dw, want->dw, H, T * ROW_TOLERANCE, "rmsnorm dw");
    close_to(got->rope, want->rope, T * HEADS * D, 6 * ROW_TOLERANCE, "rope");
    close_to(got->silu, want->silu, T * H, ROW_TOLERANCE, "swiglu");
    close_to(got->dg, want->dg, T * H, ROW_TOLERANCE, "dg");
    close_to(got->du, want->du, T * H, ROW_TOLERANCE, "du");
    close_to(got->gelu, want->gelu, T * H, ROW_TOLERANCE, "geglu");
    close_to(got->gelu_dg, want->gelu_dg, T * H, ROW_TOLERANCE, "geglu dg");
    close_to(got->gelu_du, want->gelu_du, T * H, ROW_TOLERANCE, "geglu du");
    close_to(got->sum, want->sum, T * H, 0, "add");
}

// The loss L = sum dy . y of one token as a function of x, in double.
static double norm_loss(const double *x, const float *dy, const float *w)
{
    double sum = 0, loss = 0;
    for (int h = 0; h < H; h++) sum += x[h] * x[h];
    double r = 1 / sqrt(sum / H + 1e-5f);
    for (int h = 0; h < H; h++) loss += (double)dy[h] * x[h] * r * (double)w[h];
    return loss;
}

static double silu_loss(double g, double u, double dy) { return dy * g / (1 + exp(-g)) * u; }
static double gelu_loss(double g, double u, double dy) { return dy * g / 2 * (1 + tanh(sqrt(2 / M_PI) * (g + 0.044715 * g * g * g))) * u; }

static void plain_rows_match_finite_differences(void **state)
{
    (void)state;
    Ctx plain = plain_ctx;
    Rows r = rows_new();
    rows_run(&plain, &r, 0);
    const double step = 1e-4;  // central differences: error step^2 f''' / 6, about 1e-8
    for (int t = 0; t < T; t += 11) {
        double x[H];
        for (int h = 0; h < H; h++) x[h] = (double)r.x[t * H + h];
        for (int h = 0; h < H; h += 37) {
            int i = t * H + h;
            double keep = x[h], g = keep, u = (double)r.u[i], dy = (double)r.dy[i];
            x[h] = keep + step;
            double up = norm_loss(x, r.dy + t * H, r.w);
            x[h] = keep - step;
            double slope = (up - norm_loss(x, r.dy + t * H, r.w)) / (2 * step);
            x[h] = keep;
            assert_true(fabs((double)r.dx[i] - u - slope) < 1e-5);
            assert_true(fabs((double)r.silu[i] - silu_loss(g, u, 1)) < 1e-5);
            assert_true(fabs((double)r.dg[i] - (silu_loss(g + step, u, dy) - silu_loss(g - step, u, dy)) / (2 * step)) < 1e-5);
            assert_true(fabs((double)r.du[i] - silu_loss(g, 1, dy)) < 1e-5);
            assert_true(fabs((double)r.gelu[i] - gelu_loss(g, u, 1)) < 1e-5);
            assert_true(fabs((double)r.gelu_dg[i] - (gelu_loss(g + step, u, dy) - gelu_loss(g - step, u, dy)) / (2 * step)) < 1e-5);
            assert_true(fabs((double)r.gelu_du[i] - gelu_loss(g, 1, dy)) < 1e-5);
        }
    }
    double dw = 0;
    for (int t = 0; t < T; t++) dw += (double)r.dy[t * H + 5] * (double)r.x[t * H + 5] * (double)r.rstd[t];
    assert_true(fabs((double)r.dw[5] - dw) < 1e-4);
    rows_free(&r);
}

// A rotation by an angle and back is the identity up to rounding when cos^2 + sin^2 = 1.
static void rope_inverse_undoes_rope(void **state)
{
    (void)state;
    Ctx ctx[MAX_CONTEXTS];
    int n = contexts(ctx);
    Rows r = rows_new();
    for (int p = 0; p < TABLE; p++)
        for (int i = 0; i < D / 2; i++) r.table[p * D + i] = cosf((float)(p * i)), r.table[p * D + D / 2 + i] = sinf((float)(p * i));
    for (int i = 0; i < n; i++) {
        rows_run(&ctx[i], &r, 0);
        for (int t = 0; t < T; t++) close_to(r.back + t * HEADS * D, r.x + t * H, HEADS * D, ROW_TOLERANCE, "x");
    }
    rows_free(&r);
}

static void fast_rows_match_plain_and_law1(void **state)
{
    (void)state;
    Ctx ctx[MAX_CONTEXTS], plain = plain_ctx;
    int n = contexts(ctx);
    Rows want = rows_new(), whole = rows_new(), part = rows_new();
    rows_run(&plain, &want, 0);
    for (int i = 0; i < n; i++) {
        Ctx one = ctx[i];
        one.threads = 1;
        rows_run(&one, &whole, 0);
        rows_close(&whole, &want);
        for (int first = 0; first < T; first += 22) {
            rows_run(&ctx[i], &part, first);
            int64_t at = first * H, m = (T - first) * H, rope_at = first * HEADS * D;
            same_bits(part.y + at, whole.y + at, m, "rmsnorm y");
            same_bits(part.dx + at, whole.dx + at, m, "rmsnorm dx");
            same_bits(part.rope + rope_at, whole.rope + rope_at, (T - first) * HEADS * D, "rope");
            same_bits(part.silu + at, whole.silu + at, m, "swiglu");
            same_bits(part.dg + at, whole.dg + at, m, "dg");
            same_bits(part.gelu + at, whole.gelu + at, m, "geglu");
            same_bits(part.gelu_dg + at, whole.gelu_dg + at, m, "geglu dg");
            if (first == 0) same_bits(part.dw, whole.dw, H, "rmsnorm dw");
        }
    }
    rows_free(&want), rows_free(&whole), rows_free(&part);
}

// Rows in two calls give the bits of one call: the accumulator takes one sum a row.
static void law1_row_sums_do_not_depend_on_the_call(void **state)
{
    (void)state;
    Ctx ctx[MAX_CONTEXTS];
    int n = contexts(ctx);
    float *x = randoms(T * IN, 1), *dy = randoms(T * OUT, 2), *whole = array(OUT * IN), *parts = array(OUT * IN);
    for (int i = 0; i < n; i++) {
        memset(whole, 0, OUT * IN * sizeof(float));
        memset(parts, 0, OUT * IN * sizeof(float));
        GemmDwArgs a = {.dy = tensor_f32(dy, OUT), .x = tensor_f32(x, IN), .dw = tensor_f32(whole, IN), .row = row, .rows = ROWS, .in = IN, .out = OUT};
        assert_int_equal(op_gemm_bwd_w(&ctx[i], &a), OK);
        a.dw.p = parts;
        for (int r = 0; r < ROWS; r++) {
            int32_t own[2] = {0, row[r + 1] - row[r]};
            a.dy.p = dy + row[r] * OUT, a.x.p = x + row[r] * IN, a.row = own, a.rows = 1;
            assert_int_equal(op_gemm_bwd_w(&ctx[i], &a), OK);
        }
        same_bits(parts, whole, OUT * IN, "dw");
    }
    mem_free(x), mem_free(dy), mem_free(whole), mem_free(parts);
}

static void adamw_want(double *w, double *m, double *v, double g, int step)
{
    *w -= 0.01 * 0.1 * *w;
    *m = 0.9 * *m + 0.1 * g;
    *v = 0.999 * *v + 0.001 * g * g;
    *w -= 0.01 / (1 - pow(0.9, step)) * *m / (sqrt(*v) / sqrt(1 - pow(0.999, step)) + 1e-8);
}

static void check_adamw(Ctx *ctx)
{
    enum { N = 2 * NORM_BLOCK + 77 };
    float *w = randoms(N, 1), *m = array(N), *v = array(N), *g = randoms(N, 2), clip = 0.5f, lr = 0.01f;
    double dw[4], dm[4] = {0}, dv[4] = {0}, norm = 0;
    int at[4] = {0, 1, NORM_BLOCK, N - 1};
    for (int i = 0; i < 4; i++) dw[i] = (double)w[at[i]];
    for (int64_t step = 1; step <= 5; step++) {
        AdamWArgs a = {.w = w, .m = m, .v = v, .g = g, .n = N, .clip = &clip, .lr = &lr, .step = &step,
                       .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .decay = 0.1f};
        assert_int_equal(op_adamw(ctx, &a), OK);
        for (int i = 0; i < 4; i++) adamw_want(&dw[i], &dm[i], &dv[i], 0.5 * (double)g[at[i]], (int)step);
    }
    // A step moves a weight by at most about lr = 0.01; 0.999f differs from 0.999 by 1.3e-8, 5e-5 relative in v / (1 - b2).
    for (int i = 0; i < 4; i++) assert_true(fabs((double)w[at[i]] - dw[i]) < 2e-6);
    double sum[3];
    SqNormArgs s = {.g = g, .n = N, .sum = sum};
    assert_int_equal(op_sqnorm(ctx, &s), OK);
    for (int i = 2 * NORM_BLOCK; i < N; i++) norm += (double)g[i] * (double)g[i];
    assert_true(fabs(sum[2] - norm) < 1e-12 * norm);
    mem_free(w), mem_free(m), mem_free(v), mem_free(g);
}

static void adamw_and_norm_match_double(void **state)
{
    (void)state;
    Ctx ctx[MAX_CONTEXTS], plain = plain_ctx;
    int n = contexts(ctx);
    check_adamw(&plain);
    for (int i = 0; i < n; i++) check_adamw(&ctx[i]);
}

enum { ADDENDS = 6, FIXED = 5000 };

// sum of the addends first, first + step, ... (modulo ADDENDS)
static void fixed_sum(Ctx *ctx, int first, int step, int64_t sum[FIXED])
{
    uint32_t bad = 0;
    memset(sum, 0, FIXED * sizeof *sum);
    for (int k = 0; k < ADDENDS; k++) {
        float *g = randoms(FIXED, (uint64_t)((first + k * step) % ADDENDS + 1));
        FixedAddArgs a = {g, sum, FIXED, &bad};
        assert_int_equal(op_fixed_add(ctx, &a), OK);
        for (int i = 0; i < FIXED; i++) assert_true(g[i] == 0);
        mem_free(g);
    }
    assert_int_equal(bad, 0);
}

static void fixed_sums_do_not_depend_on_the_order(void **state)
{
    (void)state;
    static int64_t sum[FIXED], other[FIXED];
    static double want[FIXED];
    static float got[FIXED];
    Ctx ctx;
    assert_int_equal(ctx_init(&ctx, 1), OK);
    fixed_sum(&ctx, 0, 1, sum);
    fixed_sum(&ctx, 3, 5, other);
    assert_memory_equal(sum, other, sizeof sum);
    for (int k = 0; k < ADDENDS; k++) {
        float *g = randoms(FIXED, (uint64_t)k + 1);
        for (int i = 0; i < FIXED; i++) want[i] += (double)g[i];
        mem_free(g);
    }
    FixedGetArgs b = {sum, got, FIXED};
    assert_int_equal(op_fixed_get(&ctx, &b), OK);
    // Half a unit for each addend, then fp32's half ulp.
    for (int i = 0; i < FIXED; i++) assert_true(fabs((double)got[i] - want[i]) <= ADDENDS * 0x1p-41 + fabs(want[i]) * 0x1p-24);
    float wrong[2] = {2048, NAN};
    uint32_t bad = 0;
    FixedAddArgs c = {wrong, sum, 2, &bad};
    assert_int_equal(op_fixed_add(&ctx, &c), OK);
    assert_int_equal(bad, 1);
    assert_memory_equal(sum, other, sizeof sum);
}

static void isa_can_be_lowered_only(void **state)
{
    (void)state;
    Ctx ctx;
    setenv("IMF_ISA", "base", 1);
    assert_int_equal(ctx_init(&ctx, 1), OK);
    assert_string_equal(isa_name(ctx.isa), "base");
    setenv("IMF_ISA", "sse9", 1);
    assert_int_equal(ctx_init(&ctx, 1), ERR_USAGE);
    unsetenv("IMF_ISA");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gemms_match_double_sums),
        cmocka_unit_test(packed_gemms_match_double_sums),
        cmocka_unit_test(gemm_takes_padded_rows),
        cmocka_unit_test(law1_gemm_rows_do_not_depend_on_company),
        cmocka_unit_test(embedding_gathers_and_scatters),
        cmocka_unit_test(plain_rows_match_finite_differences),
        cmocka_unit_test(rope_inverse_undoes_rope),
        cmocka_unit_test(fast_rows_match_plain_and_law1),
        cmocka_unit_test(law1_row_sums_do_not_depend_on_the_call),
        cmocka_unit_test(adamw_and_norm_match_double),
        cmocka_unit_test(fixed_sums_do_not_depend_on_the_order),
        cmocka_unit_test(isa_can_be_lowered_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
