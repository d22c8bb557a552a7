// SPDX-License-Identifier: Apache-2.0
// Log-probabilities: plain against formulas and finite differences in double, fast against plain, law 1.
#include "ops_support.h"

enum { T = 40, H = 64, V = 2500, ROWS = 3 };  // two whole chunks of the vocabulary and a part
static const int32_t row[ROWS + 1] = {0, 15, 16, T};

typedef struct Case {
    float *hidden, *head, *coef, *logp, *lse, *dhidden, *dhead, softcap;
    int32_t target[T];
} Case;

static Case case_new(float softcap)
{
    Case c = {.hidden = randoms(T * H, 1), .head = randoms(V * H, 2), .coef = randoms(T, 3), .logp = array(T), .lse = array(T),
              .dhidden = array(T * H), .dhead = array(V * H), .softcap = softcap};
    for (int t = 0; t < T; t++) c.target[t] = t * 977 % V;
    c.target[3] = V - 1, c.target[4] = -1, c.target[15] = -1;
    c.coef[7] = 0;
    for (int h = 0; h < H; h++) c.hidden[4 * H + h] = NAN;  // a skipped position may hold anything
    return c;
}

static void case_free(Case *c)
{
    float *all[] = {c->hidden, c->head, c->coef, c->logp, c->lse, c->dhidden, c->dhead};
    for (int i = 0; i < 7; i++) mem_free(all[i]);
}

// Tokens [first, first + n), rows given.
static void case_run(Ctx *ctx, Case *c, int first, int n, const int32_t *rows, int32_t n_rows)
{
    void *space = NULL;
    LogprobArgs f = {.hidden = tensor_f32(c->hidden + first * H, H), .head = tensor_f32(c->head, H), .target = c->target + first,
                     .logp = c->logp + first, .lse = c->lse + first, .T = n, .H = H, .V = V, .softcap = c->softcap};
    LogprobBwdArgs b = {.hidden = f.hidden, .head = f.head, .dhidden = tensor_f32(c->dhidden + first * H, H),
                        .dhead = tensor_f32(c->dhead, H), .target = f.target, .lse = f.lse, .coef = c->coef + first, .row = rows,
                        .rows = n_rows, .T = n, .H = H, .V = V, .softcap = c->softcap};
    int64_t fwd = op_logprob_fwd_workspace(NULL, &f), bwd = op_logprob_bwd_workspace(NULL, &b);
    assert_int_equal(mem_alloc(&space, fwd > bwd ? fwd : bwd, 1), OK);
    f.workspace = b.workspace = space;
    assert_int_equal(op_logprob_fwd(ctx, &f), OK);
    assert_int_equal(op_logprob_bwd(ctx, &b), OK);
    mem_free(space);
}

static double logit(const Case *c, int t, int v)
{
    double x = 0;
    for (int h = 0; h < H; h++) x += (double)c->hidden[t * H + h] * (double)c->head[v * H + h];
    return c->softcap > 0 ? (double)c->softcap * tanh(x / (double)c->softcap) : x;
}

static double logp(const Case *c, int t)
{
    double sum = 0;
    for (int v = 0; v < V; v++) sum += exp(logit(c, t, v));
    return logit(c, t, c->target[t]) - log(sum);
}

static void check_slopes(Case *c)
{
    for (int t = 0; t < T; t += 3)
        for (int h = 0; h < H && c->target[t] >= 0; h += 29) {
            float *x = &c->hidden[t * H + h], keep = *x;
            *x = keep + 1.0f / 256;
            double up = logp(c, t), top = (double)*x;
            *x = keep - 1.0f / 256;
            double slope = (up - logp(c, t)) / (top - (double)*x) * (double)c->coef[t];
            *x = keep;
            assert_true(fabs((double)c->dhidden[t * H + h] - slope) < 2e-5);  // step^2 f''' / 6 = 3e-6
        }
    static const int entries[] = {0, 977, 2047, V - 1};
    for (int i = 0; i < 4; i++) {
        float *w = &c->head[entries[i] * H + 5], keep = *w;
        double slope = 0, top;
        *w = keep + 1.0f / 256, top = (double)*w;
        for (int t = 0; t < T; t++) slope += c->target[t] < 0 ? 0 : logp(c, t) * (double)c->coef[t];
        *w = keep - 1.0f / 256;
        for (int t = 0; t < T; t++) slope -= c->target[t] < 0 ? 0 : logp(c, t) * (double)c->coef[t];
        slope /= top - (double)*w;
        *w = keep;
        assert_true(fabs((double)c->dhead[entries[i] * H + 5] - slope) < 2e-5);
    }
}

static void plain_logprobs_match_double(void **state)
{
    (void)state;
    Ctx plain = plain_ctx;
    for (int cap = 0; cap < 2; cap++) {
        Case c = case_new(cap ? 4.0f : 0);
        case_run(&plain, &c, 0, T, row, ROWS);
        for (int t = 0; t < T; t++)
            if (c.target[t] >= 0) assert_true(fabs((double)c.logp[t] - logp(&c, t)) < 1e-5);
        assert_true(c.logp[4] == 0 && c.lse[4] == 0);
        for (int h = 0; h < H; h++) assert_true(c.dhidden[4 * H + h] == 0 && c.dhidden[7 * H + h] == 0);
        check_slopes(&c);
        case_free(&c);
    }
}

static void fast_logprobs_match_plain(void **state)
{
    (void)state;
    Ctx ctx[MAX_CONTEXTS], plain = plain_ctx;
    int n = contexts(ctx);
    for (int cap = 0; cap < 2; cap++) {
        Case want = case_new(cap ? 4.0f : 0);
        case_run(&plain, &want, 0, T, row, ROWS);
        for (int i = 0; i < n; i++) {
            Case got = case_new(cap ? 4.0f : 0);
            case_run(&ctx[i], &got, 0, T, row, ROWS);
            // sums of 2500 probabilities and of 64 products of size 1
            close_to(got.logp, want.logp, T, 3e-6, "logp");
            close_to(got.lse, want.lse, T, 3e-6, "lse");
            close_to(got.dhidden, want.dhidden, T * H, 1e-5, "dhidden");
            close_to(got.dhead, want.dhead, V * H, 1e-5, "dhead");
            case_free(&got);
        }
        case_free(&want);
    }
}

// Positions t = 0, 2, 4 .. ask for the likeliest token, the others for the second: in the first chunk, in the last one, anywhere.
static void best_says_whether_a_likelier_token_exists(void **state)
{
    (void)state;
    Ctx ctx[MAX_CONTEXTS];
    int n = contexts(ctx), seen = 0;
    for (int i = 0; i <= n; i++) {
        Case c = case_new(i % 2 ? 4.0f : 0);
        Ctx form = i < n ? ctx[i] : plain_ctx;
        uint8_t best[T];
        for (int t = 0; t < T; t++) {
            int first = 0, second = 1;
            if (c.target[t] < 0) continue;
            for (int v = 1; v < V; v++)
                if (logit(&c, t, v) > logit(&c, t, first)) second = first, first = v;
                else if (v > 1 && logit(&c, t, v) > logit(&c, t, second)) second = v;
            c.target[t] = t % 2 ? second : first;
            seen |= first < 1024 ? 1 : first >= 2048 ? 2 : 0;
        }
        LogprobArgs a = {.hidden = tensor_f32(c.hidden, H), .head = tensor_f32(c.head, H), .target = c.target, .logp = c.logp,
                         .lse = c.lse, .best = best, .T = T, .H = H, .V = V, .softcap = c.softcap};
        assert_int_equal(mem_alloc(&a.workspace, op_logprob_fwd_workspace(NULL, &a), 1), OK);
        assert_int_equal(op_logprob_fwd(&form, &a), OK);
        for (int t = 0; t < T; t++) assert_int_equal(best[t], c.target[t] >= 0 && t % 2 == 0);
        mem_free(a.workspace);
        case_free(&c);
    }
    assert_int_equal(seen, 3);
}

// Row by row in separate calls, on one thread and on two: the same bits as in one call.
static void law1_logprobs_do_not_depend_on_the_call(void **state)
{
    (void)state;
    Ctx ctx[MAX_CONTEXTS];
    int n = contexts(ctx);
    for (int i = 0; i < n; i++) {
        Case whole = case_new(0), parts = case_new(0);
        Ctx one = ctx[i];
        one.threads = 1;
        case_run(&one, &whole, 0, T, row, ROWS);
        for (int r = 0; r < ROWS; r++) {
            int32_t own[2] = {0, row[r + 1] - row[r]};
            case_run(&ctx[i], &parts, row[r], own[1], own, 1);
        }
        same_bits(parts.logp, whole.logp, T, "logp");
        same_bits(parts.lse, whole.lse, T, "lse");
        same_bits(parts.dhidden, whole.dhidden, T * H, "dhidden");
        same_bits(parts.dhead, whole.dhead, V * H, "dhead");
        case_free(&whole), case_free(&parts);
    }
}

// R-MEM2: what the loss needs besides its operands does not grow with the vocabulary.
static void extra_memory_does_not_depend_on_the_vocabulary(void **state)
{
    (void)state;
    LogprobArgs f = {.T = 512, .H = 576, .V = 32000};
    LogprobBwdArgs b = {.T = 512, .H = 576, .V = 32000};
    const int64_t fwd = op_logprob_fwd_workspace(NULL, &f), bwd = op_logprob_bwd_workspace(NULL, &b);
    f.V = b.V = 152064;
    assert_int_equal(op_logprob_fwd_workspace(NULL, &f), fwd);
    assert_int_equal(op_logprob_bwd_workspace(NULL, &b), bwd);
    assert_true(bwd < 512 * 32000 * (int64_t)sizeof(float) / 4);  // far from T x V
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_logprobs_match_double),
        cmocka_unit_test(fast_logprobs_match_plain),
        cmocka_unit_test(best_says_whether_a_likelier_token_exists),
        cmocka_unit_test(extra_memory_does_not_depend_on_the_vocabulary),
        cmocka_unit_test(law1_logprobs_do_not_depend_on_the_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
