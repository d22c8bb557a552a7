// SPDX-License-Identifier: Apache-2.0
// Attention: plain against formulas and finite differences in double on unshared sequences, fast against plain at every
// ISA level, law 1 (a segment's bits do not depend on its place or neighbours), padding, and paged decode.
#include "ops_support.h"

#include "kernels/cpu/bf16.h"

enum { MAX_T = 420, MAX_S = 6 };

typedef struct Shape {
    int64_t N, K, D;
    float softcap;
    int32_t window;
} Shape;

// A row of segments with everything that the forward and the backward touch.
typedef struct Attn {
    Shape shape;
    Segment seg[MAX_S];
    int64_t T, S;
    float *q, *k, *v, *o, *lse, *dout, *dq, *dk, *dv;
} Attn;

static int64_t nd(const Attn *a) { return a->shape.N * a->shape.D; }
static int64_t kd(const Attn *a) { return a->shape.K * a->shape.D; }

static Attn attn_new(Shape shape, const Segment *seg, int64_t S, int64_t T)
{
    Attn a = {.shape = shape, .T = T, .S = S};
    memcpy(a.seg, seg, (size_t)S * sizeof *seg);
    a.q = array(T * nd(&a)), a.k = array(T * kd(&a)), a.v = array(T * kd(&a)), a.dout = array(T * nd(&a));
    a.o = array(T * nd(&a)), a.dq = array(T * nd(&a)), a.dk = array(T * kd(&a)), a.dv = array(T * kd(&a));
    a.lse = array(shape.N * T);
    for (int64_t i = 0; i < T * nd(&a); i++) a.q[i] = a.dout[i] = NAN;  // padding must not leak
    for (int64_t i = 0; i < T * kd(&a); i++) a.k[i] = a.v[i] = NAN;
    return a;
}

static void attn_free(Attn *a)
{
    float *all[] = {a->q, a->k, a->v, a->o, a->lse, a->dout, a->dq, a->dk, a->dv};
    for (int i = 0; i < 9; i++) mem_free(all[i]);
}

// Segment s's tokens get values that depend on `seed` and the index inside the segment only.
static void attn_fill(Attn *a, int64_t s, uint64_t seed)
{
    int64_t at = a->seg[s].start, n = a->seg[s].len;
    float *to[] = {a->q + at * nd(a), a->dout + at * nd(a), a->k + at * kd(a), a->v + at * kd(a)};
    for (int i = 0; i < 4; i++) {
        int64_t count = n * (i < 2 ? nd(a) : kd(a));
        float *r = randoms(count, seed * 4 + (uint64_t)i);
        memcpy(to[i], r, (size_t)count * sizeof(float));
        mem_free(r);
    }
}

static void attn_run(Ctx *ctx, Attn *a)
{
    int64_t N = a->shape.N, K = a->shape.K, D = a->shape.D;
    void *space = NULL, *back_space = NULL;
    AttnArgs f = {.q = tensor_f32(a->q, N * D), .k = tensor_f32(a->k, K * D), .v = tensor_f32(a->v, K * D), .o = tensor_f32(a->o, N * D),
                  .lse = a->lse, .seg = a->seg, .T = a->T, .S = a->S, .N = N, .K = K, .D = D, .scale = 1 / sqrtf((float)D) * 4,
                  .softcap = a->shape.softcap, .window = a->shape.window};
    AttnBwdArgs b = {.q = f.q, .k = f.k, .v = f.v, .o = f.o, .dout = tensor_f32(a->dout, N * D), .dq = tensor_f32(a->dq, N * D),
                     .dk = tensor_f32(a->dk, K * D), .dv = tensor_f32(a->dv, K * D), .lse = a->lse, .seg = a->seg, .T = a->T,
                     .S = a->S, .N = N, .K = K, .D = D, .scale = f.scale, .softcap = f.softcap, .window = f.window};
    assert_int_equal(mem_alloc(&space, op_attn_fwd_workspace(NULL, &f), 1), OK);
    assert_int_equal(mem_alloc(&back_space, op_attn_bwd_workspace(NULL, &b), 1), OK);
    f.workspace = space, b.workspace = back_space;
    assert_int_equal(op_attn_fwd(ctx, &f), OK);
    assert_int_equal(op_attn_bwd(ctx, &b), OK);
    mem_free(space), mem_free(back_space);
}

// The same in bf16: inputs rounded, outputs widened.
static Tensor rounded(const float *x, int64_t T, int64_t width)
{
    uint16_t *h = NULL;
    assert_int_equal(MEM_ARRAY(&h, T * width + 64), OK);
    for (int64_t i = 0; i < T * width; i++) h[i] = bf16_from_f32(x[i]);
    return tensor_bf16(h, width);
}

static void widen(const Tensor *h, float *x, int64_t T)
{
    for (int64_t i = 0; i < T * h->stride; i++) x[i] = bf16_to_f32(((uint16_t *)h->p)[i]);
    mem_free(h->p);
}

static void attn_run16(Ctx *ctx, Attn *a)
{
    int64_t N = a->shape.N, K = a->shape.K, D = a->shape.D, T = a->T;
    void *space = NULL, *back_space = NULL;
    AttnBwdArgs b = {.q = rounded(a->q, T, N * D), .k = rounded(a->k, T, K * D), .v = rounded(a->v, T, K * D), .o = rounded(a->o, T, N * D),
                     .dout = rounded(a->dout, T, N * D), .dq = rounded(a->dq, T, N * D), .dk = rounded(a->dk, T, K * D),
                     .dv = rounded(a->dv, T, K * D), .lse = a->lse, .seg = a->seg, .T = T, .S = a->S, .N = N, .K = K, .D = D,
                     .scale = 1 / sqrtf((float)D) * 4, .softcap = a->shape.softcap, .window = a->shape.window};
    AttnArgs f = {.q = b.q, .k = b.k, .v = b.v, .o = b.o, .lse = a->lse, .seg = a->seg, .T = T, .S = a->S, .N = N, .K = K, .D = D,
                  .scale = b.scale, .softcap = b.softcap, .window = b.window};
    assert_int_equal(mem_alloc(&space, op_attn_fwd_workspace(NULL, &f), 1), OK);
    assert_int_equal(mem_alloc(&back_space, op_attn_bwd_workspace(NULL, &b), 1), OK);
    memset(space, 0xff, (size_t)op_attn_fwd_workspace(NULL, &f));  // NaN
    memset(back_space, 0xff, (size_t)op_attn_bwd_workspace(NULL, &b));
    f.workspace = space, b.workspace = back_space;
    assert_int_equal(op_attn_fwd(ctx, &f), OK);
    assert_int_equal(op_attn_bwd(ctx, &b), OK);
    widen(&b.o, a->o, T), widen(&b.dq, a->dq, T), widen(&b.dk, a->dk, T), widen(&b.dv, a->dv, T);
    mem_free(b.q.p), mem_free(b.k.p), mem_free(b.v.p), mem_free(b.dout.p), mem_free(space), mem_free(back_space);
}

// --- the reference: one unshared sequence in double ------------------------------------------------------------------

// Loss sum dout . o of one segment on its whole sequence (prefix and itself), straight from the formula.
static double sequence_loss(const Attn *a, int64_t s)
{
    int64_t D = a->shape.D, group = a->shape.N / a->shape.K, n = 0, token[MAX_T];
    const Segment *seg = &a->seg[s];
    if (seg->prefix >= 0)
        for (int64_t j = 0; j < a->seg[seg->prefix].len; j++) token[n++] = a->seg[seg->prefix].start + j;
    int64_t own = n;
    for (int64_t j = 0; j < seg->len; j++) token[n++] = seg->start + j;
    double loss = 0, scale = 4 / sqrt((double)D), p[MAX_T];
    for (int64_t i = own; i < n; i++)
        for (int64_t h = 0; h < a->shape.N; h++) {
            const float *q = a->q + token[i] * nd(a) + h * D, *dout = a->dout + token[i] * nd(a) + h * D;
            double sum = 0, value = 0;
            for (int64_t j = 0; j <= i; j++) {
                const float *k = a->k + token[j] * kd(a) + h / group * D;
                double x = 0;
                for (int64_t d = 0; d < D; d++) x += (double)q[d] * (double)k[d];
                x *= scale;
                if (a->shape.softcap > 0) x = (double)a->shape.softcap * tanh(x / (double)a->shape.softcap);
                p[j] = a->shape.window > 0 && j <= i - a->shape.window ? 0 : exp(x);
                sum += p[j];
            }
            for (int64_t j = 0; j <= i; j++) {
                const float *v = a->v + token[j] * kd(a) + h / group * D;
                for (int64_t d = 0; d < D; d++) value += p[j] / sum * (double)v[d] * (double)dout[d];
            }
            loss += value;
        }
    return loss;
}

static double total_loss(const Attn *a)
{
    double sum = 0;
    for (int64_t s = 0; s < a->S; s++) sum += sequence_loss(a, s);
    return sum;
}

// Every third input of the segments against the central difference of the loss.
static void check_slope(Attn *a, float *input, const float *grad, int64_t width, const char *what)
{
    for (int64_t s = 0; s < a->S; s++)
        for (int64_t i = a->seg[s].start * width; i < (a->seg[s].start + a->seg[s].len) * width; i += 3) {
            float keep = input[i];
            input[i] = keep + 1.0f / 512;
            double up = total_loss(a), step = (double)input[i];
            input[i] = keep - 1.0f / 512;
            double slope = (up - total_loss(a)) / (step - (double)input[i]);
            input[i] = keep;
            // step^2 f'''/6 with f''' up to about scale^3 = 8: 5e-6; the op's own rounding is below that
            if (!(fabs((double)grad[i] - slope) < 5e-5)) fail_msg("%s[%ld] = %g, slope %g", what, (long)i, (double)grad[i], slope);
        }
}

static const Segment small_row[] = {{1, 5, -1, 0}, {7, 3, 0, 5}, {10, 4, 0, 5}, {15, 6, -1, 0}};

static void plain_attention_matches_the_unshared_sequences(void **state)
{
    (void)state;
    static const Shape shapes[] = {{4, 2, 8, 0, 0}, {2, 2, 8, 1.5f, 0}, {2, 1, 8, 0, 3}, {2, 1, 8, 2.0f, 4}};
    Ctx plain = plain_ctx;
    for (int i = 0; i < 4; i++) {
        Attn a = attn_new(shapes[i], small_row, 4, 22);
        for (int64_t s = 0; s < 4; s++) attn_fill(&a, s, (uint64_t)s);
        attn_run(&plain, &a);
        double loss = 0;
        for (int64_t s = 0; s < 4; s++)
            for (int64_t j = a.seg[s].start * nd(&a); j < (a.seg[s].start + a.seg[s].len) * nd(&a); j++)
                loss += (double)a.dout[j] * (double)a.o[j];
        assert_true(fabs(loss - total_loss(&a)) < 1e-5);
        check_slope(&a, a.q, a.dq, nd(&a), "dq");
        check_slope(&a, a.k, a.dk, kd(&a), "dk");
        check_slope(&a, a.v, a.dv, kd(&a), "dv");
        attn_free(&a);
    }
}

// Longer than several blocks of keys and queries, a prefix that ends inside a block, padding between.
static const Segment long_row[] = {{0, 150, -1, 0}, {150, 70, 0, 150}, {223, 49, 0, 150}, {272, 130, -1, 0}, {404, 1, -1, 0}};
enum { LONG_S = 5, LONG_T = 410 };

static Attn long_case(Shape shape)
{
    Attn a = attn_new(shape, long_row, LONG_S, LONG_T);
    for (int64_t s = 0; s < LONG_S; s++) attn_fill(&a, s, (uint64_t)s);
    return a;
}

static void padding_is_zero(const float *x, int64_t width)
{
    static const int64_t padding[] = {220, 222, 402, 409};
    for (int i = 0; i < 4; i++)
        for (int64_t d = 0; d < width; d++) assert_true(x[padding[i] * width + d] == 0);
}

static void fast_attention_matches_plain_and_padding_does_not_leak(void **state)
{
    (void)state;
    static const Shape shapes[] = {{3, 1, 64, 0, 0}, {2, 1, 128, 3.0f, 40}, {1, 1, 256, 0, 100}, {2, 2, 40, 0, 0}};
    Ctx ctx[MAX_CONTEXTS], plain = plain_ctx;
    int n = contexts(ctx);
    for (int i = 0; i < 4; i++) {
        Attn want = long_case(shapes[i]), got = long_case(shapes[i]);
        attn_run(&plain, &want);
        padding_is_zero(want.o, nd(&want));
        for (int c = 0; c < n; c++) {
            if (ctx[c].gemm_dnnl) continue;  // attention does not use it
            attn_run(&ctx[c], &got);
            // 280 float terms below 1 a sum; gradients are sums of up to 270 queries
            close_to(got.o, want.o, LONG_T * nd(&want), 5e-6, "o");
            close_to(got.lse, want.lse, shapes[i].N * LONG_T, 5e-6, "lse");
            close_to(got.dq, want.dq, LONG_T * nd(&want), 3e-5, "dq");
            close_to(got.dk, want.dk, LONG_T * kd(&want), 3e-5, "dk");
            close_to(got.dv, want.dv, LONG_T * kd(&want), 3e-5, "dv");
            padding_is_zero(got.o, nd(&got)), padding_is_zero(got.dq, nd(&got));
            padding_is_zero(got.dk, kd(&got)), padding_is_zero(got.dv, kd(&got));
        }
        attn_free(&want), attn_free(&got);
    }
}

// Gradients of gradients that are rounded to 2^-9 each: on average that much, single sums of them a few times more.
static void gradients_close(const float *got, const float *want, int64_t n, const char *what)
{
    double wrong = 0, size = 0;
    close_to(got, want, n, 0x1p-5, what);
    for (int64_t i = 0; i < n; i++) wrong += fabs((double)got[i] - (double)want[i]), size += fabs((double)want[i]);
    if (!(wrong <= 0x1p-8 * size)) fail_msg("%s: off by %g of %g", what, wrong, size);
}

static void bf16_attention_matches_plain_and_padding_does_not_leak(void **state)
{
    (void)state;
    static const Shape shapes[] = {{3, 1, 64, 0, 0}, {2, 1, 128, 3.0f, 40}, {1, 1, 256, 0, 100}, {2, 2, 40, 0, 0}};
    Ctx ctx[MAX_CONTEXTS], plain = plain_ctx;
    int n = contexts(ctx);
    for (int i = 0; i < 4; i++) {
        Attn want = long_case(shapes[i]), got = long_case(shapes[i]);
        attn_run16(&plain, &want);
        for (int c = 0; c < n; c++) {
            if (ctx[c].gemm_dnnl) continue;  // attention does not use it
            attn_run16(&ctx[c], &got);
            close_to(got.o, want.o, LONG_T * nd(&want), 0x1p-8, "o");  // probabilities are rounded, then o
            close_to(got.lse, want.lse, shapes[i].N * LONG_T, 5e-6, "lse");
            gradients_close(got.dq, want.dq, LONG_T * nd(&want), "dq");
            gradients_close(got.dk, want.dk, LONG_T * kd(&want), "dk");
            gradients_close(got.dv, want.dv, LONG_T * kd(&want), "dv");
            padding_is_zero(got.o, nd(&got)), padding_is_zero(got.dq, nd(&got));
            padding_is_zero(got.dk, kd(&got)), padding_is_zero(got.dv, kd(&got));
        }
        attn_free(&want), attn_free(&got);
    }
}

static void same_segment(const Attn *a, int64_t s, const Attn *b, int64_t t)
{
    int64_t n = a->seg[s].len, i = a->seg[s].start, j = b->seg[t].start;
    same_bits(b->o + j * nd(b), a->o + i * nd(a), n * nd(a), "o");
    same_bits(b->dq + j * nd(b), a->dq + i * nd(a), n * nd(a), "dq");
    same_bits(b->dk + j * kd(b), a->dk + i * kd(a), n * kd(a), "dk");
    same_bits(b->dv + j * kd(b), a->dv + i * kd(a), n * kd(a), "dv");
    for (int64_t h = 0; h < a->shape.N; h++) same_bits(b->lse + h * b->T + j, a->lse + h * a->T + i, n, "lse");
}

// The same segments behind other ones, at other offsets, in another order, without the stranger.
static void law1_segments_may_move(void **state)
{
    (void)state;
    static const Segment moved[] = {{3, 130, -1, 0}, {136, 150, -1, 0}, {286, 70, 1, 150}, {357, 49, 1, 150}};
    static const int64_t original[] = {3, 0, 1, 2};
    static const Shape shapes[] = {{4, 2, 64, 0, 0}, {2, 1, 128, 0, 90}};
    Ctx ctx[MAX_CONTEXTS];
    int n = contexts(ctx);
    for (int i = 0; i < 2; i++)
        for (int c = 0; c < n; c++) {
            Ctx one = ctx[c];
            one.threads = 1;
            Attn a = long_case(shapes[i]), b = attn_new(shapes[i], moved, 4, 406);
            for (int64_t s = 0; s < 4; s++) attn_fill(&b, s, (uint64_t)original[s]);
            for (int half = 0; half < 2; half++) {
                (half ? attn_run16 : attn_run)(&one, &a);
                (half ? attn_run16 : attn_run)(&ctx[c], &b);
                for (int64_t s = 0; s < 4; s++) same_segment(&a, original[s], &b, s);
            }
            attn_free(&a), attn_free(&b);
        }
}

// --- decode ----------------------------------------------------------------------------------------------------------

enum { SLOTS = 4, PAGES = 24, MAX_PAGES = 4 };

typedef struct Decode {
    DecodeAttnArgs args;
    Tensor k, v;  // of the tokens
    void *pages;
    int32_t prefix_page[SLOTS][MAX_PAGES], own_page[SLOTS][MAX_PAGES], prefix_len[SLOTS], own_len[SLOTS];
} Decode;

// Token t of the sequence becomes number j of a page.
static void page_write(const Decode *d, int32_t page, int32_t j, int64_t t)
{
    Ctx plain = plain_ctx;
    KvStoreArgs a = {.k = tensor_at(d->k, t * d->k.stride), .v = tensor_at(d->v, t * d->v.stride), .pages = d->pages, .page = &page,
                     .place = &j, .n = 1, .K = d->args.K, .D = d->args.D};
    assert_int_equal(op_kv_store(&plain, &a), OK);
}

// Slots 0..3: sequences of prefix + own tokens whose keys and values are those of `a`'s segments (prefix 0).
static void decode_fill(Decode *d, const Attn *a, const int32_t *lens)
{
    int32_t next = 0;
    memset(d->pages, 0xff, (size_t)(PAGES * op_kv_page_bytes(NULL, d->k.dtype, d->args.K, d->args.D)));  // NaN
    for (int s = 0; s < SLOTS; s++) {
        d->prefix_len[s] = a->seg[0].len;
        d->own_len[s] = lens[s];
        for (int which = 0; which < 2; which++) {
            int32_t total = which ? lens[s] : a->seg[0].len;
            int64_t first = which ? a->seg[1].start : a->seg[0].start;
            for (int32_t j = 0; j < total; j++) {
                int32_t *page = which ? &d->own_page[s][j / KV_PAGE] : &d->prefix_page[s][j / KV_PAGE];
                if (j % KV_PAGE == 0) *page = which || s == 0 ? (next++ * 7) % PAGES : d->prefix_page[0][j / KV_PAGE];
                page_write(d, *page, j % KV_PAGE, first + j);
            }
        }
    }
}

// A slot with `len` own tokens sees what token len - 1 of segment 1 sees, so its output is that token's row.
static void check_decode(bool half)
{
    static const Shape shapes[] = {
        {6, 2, 64, 0, 0}, {2, 1, 128, 2.5f, 0}, {2, 1, 64, 0, 100}, {7, 1, 40, 0, 0}, {2, 2, 36, 0, 50}};
    static const int32_t lens[SLOTS] = {1, 64, 65, 70};
    static const int32_t order[SLOTS] = {2, 0, 3, 1}, group[3][SLOTS + 1] = {{0, 4}, {0, 1, 4}, {0, 1, 2, 3, 4}},
                         one[2] = {0, 1};
    static const int64_t groups[3] = {1, 2, 4};
    Ctx ctx[MAX_CONTEXTS + 1];
    int n = contexts(ctx);
    ctx[n++] = plain_ctx;
    for (int i = 0; i < 5; i++) {
        Attn a = long_case(shapes[i]);
        int64_t width = nd(&a);
        Decode d = {.args = {.N = shapes[i].N, .K = shapes[i].K, .D = shapes[i].D}};
        d.k = half ? rounded(a.k, a.T, kd(&a)) : tensor_f32(a.k, kd(&a));
        d.v = half ? rounded(a.v, a.T, kd(&a)) : tensor_f32(a.v, kd(&a));
        assert_int_equal(mem_alloc(&d.pages, PAGES * op_kv_page_bytes(NULL, d.k.dtype, shapes[i].K, shapes[i].D), 1), OK);
        decode_fill(&d, &a, lens);
        float *q = array(SLOTS * width), *o = array(SLOTS * width), *alone = array(SLOTS * width);
        for (int s = 0; s < SLOTS; s++)
            memcpy(q + s * width, a.q + (a.seg[1].start + lens[s] - 1) * width, (size_t)width * sizeof(float));
        Ctx plain = plain_ctx;
        (half ? attn_run16 : attn_run)(&plain, &a);
        Tensor q16 = rounded(q, SLOTS, width), o16 = rounded(o, SLOTS, width), alone16 = rounded(o, SLOTS, width);
        d.args = (DecodeAttnArgs){.q = half ? q16 : tensor_f32(q, width),
                                  .o = half ? o16 : tensor_f32(o, width),
                                  .pages = d.pages,
                                  .prefix_page = d.prefix_page[0],
                                  .prefix_len = d.prefix_len,
                                  .own_page = d.own_page[0],
                                  .own_len = d.own_len,
                                  .order = order,
                                  .slots = SLOTS,
                                  .N = shapes[i].N,
                                  .K = shapes[i].K,
                                  .D = shapes[i].D,
                                  .max_prefix_pages = MAX_PAGES,
                                  .max_own_pages = MAX_PAGES,
                                  .scale = 4 / sqrtf((float)shapes[i].D),
                                  .softcap = shapes[i].softcap,
                                  .window = shapes[i].window};
        for (int c = 0; c < n; c++) {
            DecodeAttnArgs last = d.args;  // law 1: the last slot alone
            last.slots = last.groups = 1, last.q = tensor_at(last.q, 3 * width), last.o.p = half ? alone16.p : alone;
            last.order = last.group = one;
            last.prefix_page += 3 * MAX_PAGES, last.own_page += 3 * MAX_PAGES, last.prefix_len += 3, last.own_len += 3;
            assert_int_equal(op_attn_decode(&ctx[c], &last), OK);
            for (int g = 0; g < 3; g++) {  // together, in part, one by one
                d.args.group = group[g], d.args.groups = groups[g];
                memset(d.args.o.p, 0, (size_t)(SLOTS * width) * (half ? 2 : 4));
                assert_int_equal(op_attn_decode(&ctx[c], &d.args), OK);
                for (int64_t e = 0; e < SLOTS * width && half; e++) {
                    o[e] = bf16_to_f32(((uint16_t *)o16.p)[e]);
                    alone[e] = bf16_to_f32(((uint16_t *)alone16.p)[e]);
                }
                for (int s = 0; s < SLOTS; s++)
                    close_to(o + s * width, a.o + (a.seg[1].start + lens[s] - 1) * width, width, half ? 0x1p-8 : 5e-6, "o");
                same_bits(alone, o + 3 * width, width, "o alone");
            }
        }
        mem_free(d.pages), mem_free(q), mem_free(o), mem_free(alone), mem_free(q16.p), mem_free(o16.p), mem_free(alone16.p);
        if (half) mem_free(d.k.p), mem_free(d.v.p);
        attn_free(&a);
    }
}

static void decode_matches_attention(void **state) { (void)state, check_decode(false); }
static void bf16_decode_matches_attention(void **state) { (void)state, check_decode(true); }

static void impossible_segments_are_refused(void **state)
{
    (void)state;
    Ctx plain = plain_ctx;
    static const Segment bad[] = {{0, 30, -1, 0}};
    Attn a = attn_new((Shape){1, 1, 8, 0, 0}, bad, 1, 22);
    AttnArgs f = {.q = tensor_f32(a.q, 8), .k = tensor_f32(a.k, 8), .v = tensor_f32(a.v, 8), .o = tensor_f32(a.o, 8),
                  .seg = a.seg, .T = 22, .S = 1, .N = 1, .K = 1, .D = 8, .scale = 1};
    assert_int_equal(op_attn_fwd(&plain, &f), ERR_INTERNAL);
    attn_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_attention_matches_the_unshared_sequences),
        cmocka_unit_test(fast_attention_matches_plain_and_padding_does_not_leak),
        cmocka_unit_test(bf16_attention_matches_plain_and_padding_does_not_leak),
        cmocka_unit_test(law1_segments_may_move),
        cmocka_unit_test(decode_matches_attention),
        cmocka_unit_test(bf16_decode_matches_attention),
        cmocka_unit_test(impossible_segments_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
