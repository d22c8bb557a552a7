// SPDX-License-Identifier: Apache-2.0
// The bf16 gemm: packing against its plain form, products against sums in double at every level, odd shapes, and law 1: the
// same bits for every number of rows and threads. The AMX tile runs here on plain memory, on machines with AMX also for real.
#include "ops_support.h"

#include "kernels/cpu/bf16.h"

#define AMX_ON_C
static Tile16Form tile16_amx_on_c;
#define tile16_amx tile16_amx_on_c
#include "kernels/cpu/tile16_amx.c"
#undef tile16_amx

// Sums of products in (-1, 1): after k of them about sqrt(k) / 3, each of K steps rounds by half an ulp of that: random signs give
// sqrt(K) * sqrt(K) / 3 * 2^-24, with 6 standard deviations: 2 K 2^-24. Rounding to bf16: half an ulp is 2^-9.
static double sum_tolerance(int64_t K) { return 2 * (double)(K + 8) * 0x1p-24; }
static const double BF16_TOLERANCE = 0x1p-8;

static uint16_t *halves(int64_t n, uint64_t seed)
{
    float *x = randoms(n, seed);
    uint16_t *h = NULL;
    assert_int_equal(MEM_ARRAY(&h, n + 64), OK);
    for (int64_t i = 0; i < n; i++) h[i] = bf16_from_f32(x[i]);
    mem_free(x);
    return h;
}

static uint32_t *packing(int64_t rows, int64_t cols)
{
    uint32_t *p = NULL;
    assert_int_equal(MEM_ARRAY(&p, pack16_elements(rows, cols) / 2), OK);
    memset(p, 0xff, (size_t)pack16_elements(rows, cols) * 2);
    return p;
}

static uint32_t *packed(const Ctx *ctx, const void *w, DType dtype, int64_t rows, int64_t cols, bool transposed)
{
    int64_t n = transposed ? cols : rows, k = transposed ? rows : cols;
    Pack16 a = {.w = {(void *)w, dtype, cols}, .rows = rows, .cols = cols, .packed = packing(n, k)};
    pieces(ctx, transposed ? form_of(ctx)->pack16_t : form_of(ctx)->pack16, &a, bf16_panels(n), 1);
    return a.packed;
}

static void rounding_is_to_nearest_even(void **state)
{
    (void)state;
    static const struct { uint32_t f; uint16_t h; } cases[] = {
        {0x3f800000, 0x3f80}, {0x3f808000, 0x3f80}, {0x3f818000, 0x3f82}, {0x3f808001, 0x3f81}, {0x7f800000, 0x7f80},
        {0xff800000, 0xff80}, {0x7f7fffff, 0x7f80}, {0x7f800001, 0x7fc0}, {0xffffffff, 0xffff}, {0x00000001, 0x0000},
        {0x00018000, 0x0002}, {0x80000000, 0x8000}};
    Ctx ctx[MAX_CONTEXTS];
    int n = contexts(ctx);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        float f, line[21];
        uint16_t out[21];
        memcpy(&f, &cases[i].f, sizeof f);
        assert_int_equal(bf16_from_f32(f), cases[i].h);
        for (int k = 0; k < 21; k++) line[k] = f;
        Round16 a = {.x = line, .y = out, .n = 21};
        for (int c = 0; c < n; c++) {
            memset(out, 0, sizeof out);
            form_of(&ctx[c])->round16(&a, 0, 1);
            for (int k = 0; k < 21; k++) assert_int_equal(out[k], cases[i].h);
        }
    }
}

static void check_packing(const Ctx *ctx, int64_t rows, int64_t cols)
{
    static const Ctx plain = {.threads = 1, .plain = true};
    float *w = randoms(rows * cols, 1);
    uint16_t *h = halves(rows * cols, 1);
    size_t bytes = (size_t)pack16_elements(rows, cols) * 2, turned = (size_t)pack16_elements(cols, rows) * 2;
    uint32_t *want = packed(&plain, w, DT_F32, rows, cols, false), *want_t = packed(&plain, h, DT_BF16, rows, cols, true);
    uint32_t *a = packed(ctx, w, DT_F32, rows, cols, false), *b = packed(ctx, h, DT_BF16, rows, cols, false);
    uint32_t *c = packed(ctx, h, DT_BF16, rows, cols, true);
    assert_memory_equal(a, want, bytes);
    assert_memory_equal(b, want, bytes);
    assert_memory_equal(c, want_t, turned);
    mem_free(w), mem_free(h), mem_free(want), mem_free(want_t), mem_free(a), mem_free(b), mem_free(c);
}

static void packing_matches_its_plain_form(void **state)
{
    (void)state;
    Ctx ctx[MAX_CONTEXTS];
    int n = contexts(ctx);
    for (int i = 0; i < n; i++)
        check_packing(&ctx[i], 16, 32), check_packing(&ctx[i], 37, 70), check_packing(&ctx[i], 1, 5), check_packing(&ctx[i], 130, 576);
}

// One product in every form of its arguments against a sum in double.
typedef struct Product {
    int64_t M, N, K;
    bool turned, a_packed, round, extras;
} Product;

static double wanted(const Product *p, const uint16_t *a, const uint16_t *b, int64_t i, int64_t j)
{
    double sum = 0;
    for (int64_t k = 0; k < p->K; k++)
        sum += (double)bf16_to_f32(p->a_packed ? a[k * p->M + i] : a[i * (p->K + 2) + k]) *
               (double)bf16_to_f32(p->turned ? b[k * p->N + j] : b[j * p->K + k]);
    return sum;
}

static void check_product(const Ctx *ctx, const Product *p)
{
    static const Ctx plain = {.threads = 1, .plain = true};
    uint16_t *a = halves(p->M * (p->K + 2), 3), *b = halves(p->N * p->K, 4);
    float *bias = randoms(p->N, 5), *add = randoms(p->M * p->N, 6), *c = array(p->M * p->N);
    uint32_t *pa = packed(&plain, a, DT_BF16, p->a_packed ? p->K : 0, p->M, true);
    uint32_t *pb = p->turned ? packed(&plain, b, DT_BF16, p->K, p->N, false) : packed(&plain, b, DT_BF16, p->N, p->K, false);
    Gemm16 g = {.M = p->M, .N = p->N, .K = p->K, .b = pb, .turned = p->turned,
                .c = {c, p->round ? DT_BF16 : DT_F32, p->N}, .bias = p->extras ? bias : NULL,
                .add = p->extras ? add : NULL, .ld_add = p->N};
    if (p->a_packed) gemm16_a_packed(&g, pa, p->K);
    else gemm16_a(&g, a, p->K + 2);
    assert_int_equal(gemm16(ctx, &g), OK);
    for (int64_t i = 0; i < p->M; i++)
        for (int64_t j = 0; j < p->N; j++) {
            double want = wanted(p, a, b, i, j) + (p->extras ? (double)bias[j] + (double)add[i * p->N + j] : 0);
            double got = (double)(p->round ? bf16_to_f32(((uint16_t *)c)[i * p->N + j]) : c[i * p->N + j]);
            double tolerance = sum_tolerance(p->K) + (p->round ? BF16_TOLERANCE * fabs(want) : 0);
            if (!(fabs(got - want) <= tolerance))
                fail_msg("%s: %ldx%ldx%ld turned %d packed %d: c[%ld][%ld] = %.9g, want %.9g", isa_name(ctx->isa), (long)p->M,
                         (long)p->N, (long)p->K, p->turned, p->a_packed, (long)i, (long)j, got, want);
        }
    mem_free(a), mem_free(b), mem_free(bias), mem_free(add), mem_free(c), mem_free(pa), mem_free(pb);
}

static void products_match_double_sums(void **state)
{
    (void)state;
    static const int64_t shapes[][3] = {{1, 16, 32}, {7, 40, 34}, {33, 130, 576}, {100, 72, 1030}, {3, 8, 6}};
    Ctx ctx[MAX_CONTEXTS];
    int n = contexts(ctx);
    ctx[n++] = plain_ctx;
    for (int i = 0; i < n; i++)
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
            for (int bits = 0; bits < 16; bits++) {
                Product p = {shapes[s][0], shapes[s][1], shapes[s][2], bits & 1, bits & 2, bits & 4, bits & 8};
                check_product(&ctx[i], &p);
            }
}

// R: every M in 1 .. 300, threads 1 and 2, against the whole product on one thread; also turned.
static void bits_do_not_depend_on_rows_or_threads(void **state)
{
    (void)state;
    enum { M = 300, N = 72, K = 600 };
    Ctx ctx[MAX_CONTEXTS];
    int n = contexts(ctx);
    uint16_t *a = halves(M * K, 7), *b = halves(N * K, 8);
    float *whole = array(M * N), *part = array(M * N);
    for (int i = 0; i < n; i++)
        for (int turned = 0; turned < 2; turned++) {
            Ctx one = ctx[i];
            one.threads = 1;
            uint32_t *pb = turned ? packed(&one, b, DT_BF16, K, N, false) : packed(&one, b, DT_BF16, N, K, false);
            Gemm16 g = {.M = M, .N = N, .K = K, .b = pb, .turned = turned, .c = tensor_f32(whole, N)};
            gemm16_a(&g, a, K);
            assert_int_equal(gemm16(&one, &g), OK);
            g.c.p = part;
            for (g.M = 1; g.M <= M; g.M += g.M < 40 ? 1 : 13) {
                assert_int_equal(gemm16(&ctx[i], &g), OK);
                assert_memory_equal(part, whole, (size_t)(g.M * N) * sizeof *part);
            }
            mem_free(pb);
        }
    mem_free(a), mem_free(b), mem_free(whole), mem_free(part);
}

// rows and pairs that are no multiple of a tile's; one panel and several; a by rows and packed.
static void amx_tile_matches_double_sums(void **state)
{
    (void)state;
    enum { ROWS_A = 75, COLUMNS = 48, K = 90 };
    static const Ctx plain = {.threads = 1, .plain = true};
    uint16_t *a = halves(ROWS_A * K, 9), *b = halves(COLUMNS * K, 10);
    uint32_t *pa = packed(&plain, a, DT_BF16, ROWS_A, K, false), *pb = packed(&plain, b, DT_BF16, COLUMNS, K, false);
    float *c = array(96 * TILE16_COLUMNS);
    for (int by = 0; by < 2; by++) {
        Gemm16 g = {0};
        if (by) gemm16_a_packed(&g, pa, K);
        else gemm16_a(&g, a, K);
        Tile16 t = {.rows = ROWS_A, .panels = COLUMNS / BF16_PANEL, .pairs = K / 2, .a = g.a, .a_panel = g.a_panel, .a_row = g.a_row,
                    .a_pair = g.a_pair, .b = pb, .b_panel = bf16_pairs(K) * BF16_PANEL, .c = c};
        memset(c, 0, 96 * TILE16_COLUMNS * sizeof *c);
        tile16_amx_on_c(&t);
        for (int i = 0; i < ROWS_A; i++)
            for (int j = 0; j < COLUMNS; j++) {
                double want = 0;
                for (int k = 0; k < K; k++) want += (double)bf16_to_f32(a[i * K + k]) * (double)bf16_to_f32(b[j * K + k]);
                if (!(fabs((double)c[i * TILE16_COLUMNS + j] - want) <= sum_tolerance(K))) fail_msg("c[%d][%d]", i, j);
            }
    }
    mem_free(a), mem_free(b), mem_free(pa), mem_free(pb), mem_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounding_is_to_nearest_even),        cmocka_unit_test(packing_matches_its_plain_form),
        cmocka_unit_test(products_match_double_sums),         cmocka_unit_test(bits_do_not_depend_on_rows_or_threads),
        cmocka_unit_test(amx_tile_matches_double_sums),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
