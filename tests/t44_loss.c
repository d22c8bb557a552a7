// SPDX-License-Identifier: Apache-2.0
// DPO and LN-DPO: values and derivatives against the formulas of spec 5.1 written out in long double, and the exact start.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "train/loss.h"

static double uniform(uint64_t i, double low, double high) { return low + (high - low) * rng_uniform(rng_key(5, 1), i); }

static PairLogp pair(uint64_t i)
{
    return (PairLogp){.logp = {uniform(8 * i, -90, -1), uniform(8 * i + 1, -90, -1)},
                      .n = {1 + (int32_t)rng_below(rng_key(5, 2), 2 * i, 80),
                            1 + (int32_t)rng_below(rng_key(5, 2), 2 * i + 1, 80)}};
}

// The loss as a function of the two sums, in long double.
static long double formula(const DpoSpec *s, const PairLogp *p, const PairLogp *r, long double dw, long double dl)
{
    long double nw = s->length_norm ? p->n[0] : 1, nl = s->length_norm ? p->n[1] : 1;
    long double u = s->beta * (((p->logp[0] + dw) - r->logp[0]) / nw - ((p->logp[1] + dl) - r->logp[1]) / nl);
    return (1 - s->smoothing) * log1pl(expl(-u)) + s->smoothing * log1pl(expl(u));
}

static const DpoSpec specs[] = {{0.1, 0, false}, {10, 0, true}, {0.5, 0.1, false}, {2.5, 0.05, true}};

// Tolerance: the loss is rounded to float once (2^-24); u carries a few double roundings of sums below 200.
static void values_follow_the_formula(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 400; i++) {
        const DpoSpec *s = &specs[i % 4];
        PairLogp p = pair(2 * i), r = pair(2 * i + 1);
        memcpy(r.n, p.n, sizeof r.n);
        long double want = formula(s, &p, &r, 0, 0);
        PairLoss got = dpo_pair(s, &p, &r);
        assert_true(fabsl(got.loss - want) <= 0x1p-23L * fabsl(want) + 1e-11L);
        double n = s->length_norm ? p.n[1] : 1;
        assert_true(fabs(got.reward[1] - s->beta * (p.logp[1] - r.logp[1]) / n) < 1e-12 * (1 + fabs(got.reward[1])) + 1e-13);
    }
}

// Central difference, h = 1e-5: error h^2/6 |f'''| + rounding of long double / h, below 1e-9 for beta <= 10.
static void derivatives_follow_the_formula(void **state)
{
    (void)state;
    const long double h = 1e-5L;
    for (uint64_t i = 0; i < 400; i++) {
        const DpoSpec *s = &specs[i % 4];
        PairLogp p = pair(2 * i), r = pair(2 * i + 1);
        memcpy(r.n, p.n, sizeof r.n);
        PairLoss got = dpo_pair(s, &p, &r);
        long double dw = (formula(s, &p, &r, h, 0) - formula(s, &p, &r, -h, 0)) / (2 * h);
        long double dl = (formula(s, &p, &r, 0, h) - formula(s, &p, &r, 0, -h)) / (2 * h);
        assert_true(fabsl(got.coef[0] - dw) < 1e-8L);
        assert_true(fabsl(got.coef[1] - dl) < 1e-8L);
    }
}

static void margin_is_zero_and_loss_is_ln2_while_policy_is_reference(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 1000; i++) {
        PairLogp p = pair(i);
        for (int k = 0; k < 2; k++) {  // without smoothing
            PairLoss got = dpo_pair(&specs[k], &p, &p);
            uint32_t bits;
            memcpy(&bits, &got.loss, sizeof bits);
            assert_int_equal(bits, 0x3F317218);
            assert_true(got.reward[0] == 0.0 && got.reward[1] == 0.0);
        }
    }
}

static void extreme_margins_stay_finite(void **state)
{
    (void)state;
    PairLogp good = {.logp = {-1, -9000}, .n = {3, 3}}, bad = {.logp = {-9000, -1}, .n = {3, 3}},
             ref = {.logp = {-10, -10}, .n = {3, 3}};
    DpoSpec s = {10, 0, false};
    PairLoss a = dpo_pair(&s, &good, &ref), b = dpo_pair(&s, &bad, &ref);
    assert_true(a.loss == 0.0f && a.coef[0] == 0.0);
    assert_true(fabs(b.loss - 89990.0) < 0.01 && b.coef[0] == -10.0 && b.coef[1] == 10.0);
}

static void impossible_numbers_are_refused(void **state)
{
    (void)state;
    DpoSpec s;
    assert_int_equal(dpo_spec(&s, "sigmoid_norm", 10, 0), 0);
    assert_true(s.length_norm);
    assert_int_equal(dpo_spec(&s, "hinge", 0.1, 0), ERR_RECIPE);
    assert_int_equal(dpo_spec(&s, "sigmoid", 0, 0), ERR_RECIPE);
    assert_int_equal(dpo_spec(&s, "sigmoid", 0.1, 0.5), ERR_RECIPE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_follow_the_formula),
        cmocka_unit_test(derivatives_follow_the_formula),
        cmocka_unit_test(margin_is_zero_and_loss_is_ln2_while_policy_is_reference),
        cmocka_unit_test(extreme_margins_stay_finite),
        cmocka_unit_test(impossible_numbers_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
