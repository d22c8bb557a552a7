// SPDX-License-Identifier: Apache-2.0
// Phases exclude each other, their sum is the wall time, and a mark that is left out of order is seen. Every bound here is a
// reading of the same clock just inside or just outside of what is measured: exact, on a busy machine too.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/profile.h"

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void spin(int64_t ns)
{
    for (int64_t end = now() + ns; now() < end;) continue;
}

typedef struct Span {  // inside <= what the timer says <= outside
    int64_t inside, outside;
} Span;

static Span attention(int64_t ns)
{
    int64_t before = now();
    Span s = {0};
    {
        PROFILE(PHASE_ATTENTION);
        int64_t began = now();
        spin(ns);
        s.inside = now() - began;
    }
    s.outside = now() - before;
    return s;
}

static void test_nested_phases_exclude_each_other(void **state)
{
    (void)state;
    ProfileTimes t;
    Span gemm = {0}, inner[3];
    profile_start();
    int64_t before = now();
    {
        PROFILE(PHASE_GEMM);
        int64_t began = now();
        for (int i = 0; i < 3; i++) inner[i] = attention(3000000), spin(1000000);
        gemm.inside = now() - began;
    }
    gemm.outside = now() - before;
    profile_take(&t);
    int64_t least = 0, most = 0;
    for (int i = 0; i < 3; i++) least += inner[i].inside, most += inner[i].outside;
    assert_true(least >= 9000000);
    assert_in_range(t.ns[PHASE_ATTENTION], least, most);
    assert_in_range(t.ns[PHASE_GEMM], gemm.inside - most, gemm.outside - least);
    assert_true(t.ns[PHASE_GEMM] >= 3000000);
    assert_int_equal(t.misnested, 0);
}

static void descend(int depth)
{
    PROFILE((ProfilePhase)(depth % PHASES));
    spin(1000 * depth);
    if (depth > 0) descend(depth - 1);
    if (depth % 3 == 1) return;
    spin(500);
}

static void test_sum_is_wall_time(void **state)
{
    (void)state;
    ProfileTimes t;
    int64_t outside = now();
    profile_start();
    int64_t inside = now();
    for (int i = 0; i < 20; i++) descend(i);
    inside = now() - inside;
    profile_take(&t);
    outside = now() - outside;
    int64_t sum = 0;
    for (int p = 0; p < PHASES; p++) {
        assert_true(t.ns[p] > 0);
        sum += t.ns[p];
    }
    assert_in_range(sum, inside, outside);
    assert_int_equal(t.misnested, 0);
    profile_take(&t);  // a new stage begins with nothing
    for (int p = 1; p < PHASES; p++) assert_int_equal(t.ns[p], 0);
}

static Err fails(void)
{
    PROFILE(PHASE_IO);
    FAIL(ERR_DATA, "on purpose");
}

static Err passes_on(void)
{
    PROFILE(PHASE_OPTIM);
    TRY(fails());
    return OK;
}

static void test_errors_leave_their_phases(void **state)
{
    (void)state;
    ProfileTimes t;
    profile_start();
    assert_int_equal(passes_on(), ERR_DATA);
    profile_take(&t);
    spin(1000000);
    profile_take(&t);
    assert_true(t.ns[PHASE_OTHER] >= 1000000);
    for (int p = 1; p < PHASES; p++) assert_int_equal(t.ns[p], 0);
    assert_int_equal(t.misnested, 0);
}

static void test_wrong_nesting_is_seen(void **state)
{
    (void)state;
    ProfileTimes t;
    profile_start();
    ProfileMark first = profile_enter(PHASE_IO), second = profile_enter(PHASE_COMM);
    profile_leave(&first);
    profile_leave(&second);
    profile_take(&t);
    assert_true(t.misnested > 0);
    profile_start();
    {
        PROFILE(PHASE_IO);
        profile_enter(PHASE_COMM);  // never left
    }
    profile_take(&t);
    assert_int_equal(t.misnested, 1);
    profile_start();
    first = profile_enter(PHASE_IO);
    profile_leave(&first);
    profile_leave(&first);  // left twice
    profile_take(&t);
    assert_int_equal(t.misnested, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nested_phases_exclude_each_other),
        cmocka_unit_test(test_sum_is_wall_time),
        cmocka_unit_test(test_errors_leave_their_phases),
        cmocka_unit_test(test_wrong_nesting_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
