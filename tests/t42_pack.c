// SPDX-License-Identifier: Apache-2.0
// Packing: every target of every example is there exactly once, with its position, its prefix and its token; rows never
// overflow; the layout follows from the examples alone.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "train/batch.h"

enum { EXAMPLES = 40, LONGEST = 60 };

#define ok(call) assert_ok((call), #call)
static void assert_ok(Err err, const char *what)
{
    if (err != OK) fail_msg("%s: %s\n%s", what, err_message(), err_trace());
}

typedef struct World {
    Arena arena;
    Example ex[EXAMPLES];
    const Example *list[EXAMPLES];
    int32_t ids[EXAMPLES][3 * LONGEST];
    uint8_t mask[EXAMPLES][3 * LONGEST];
} World;

static World w;

static int32_t draw(uint64_t counter, int64_t n) { return (int32_t)rng_below(rng_key(11, 3), counter, n); }

static void make(bool pairs)
{
    for (int32_t i = 0; i < EXAMPLES; i++) {
        Example *e = &w.ex[i];
        int32_t prompt = 1 + draw((uint64_t)i, LONGEST - 1), a = 1 + draw(1000 + (uint64_t)i, LONGEST - 1);
        int32_t b = pairs ? 1 + draw(2000 + (uint64_t)i, LONGEST - 1) : 0;
        *e = (Example){.id = {0, (uint64_t)i}, .id_tokens = w.ids[i], .mask = w.mask[i], .n = prompt + a + b,
                       .answers = pairs ? 2 : 1, .prompt = pairs ? prompt : 0, .chosen = pairs ? a : 0};
        for (int32_t t = 0; t < e->n; t++) {
            w.ids[i][t] = 1000 * i + t;
            w.mask[i][t] = pairs ? t >= prompt : t >= prompt && draw((uint64_t)(100000 + 1000 * i + t), 4) > 0;
        }
        if (!pairs) w.mask[i][prompt] = 1;
        w.list[i] = e;
    }
}

static int setup(void **state)
{
    (void)state;
    memset(&w, 0, sizeof w);
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    arena_free(&w.arena);
    return 0;
}

// SFT: position t of an example predicts token t + 1 exactly when the mask says so.
static void check_sft_row(const PackedRow *r, int32_t *seen)
{
    for (int32_t s = 0; s < r->S; s++) {
        const Segment *g = &r->seg[s];
        int32_t i = r->token[g->start] / 1000;
        const Example *e = &w.ex[i];
        assert_int_equal(g->prefix, -1);
        assert_int_equal(g->pos0, 0);
        for (int32_t t = 0; t < g->len; t++) {
            int32_t at = g->start + t;
            assert_int_equal(r->token[at], e->id_tokens[t]);
            assert_int_equal(r->pos[at], t);
            assert_int_equal(r->target[at], e->mask[t + 1] ? e->id_tokens[t + 1] : -1);
            assert_int_equal(r->example[at], e->mask[t + 1] ? i : -1);
        }
        for (int32_t t = g->len + 1; t < e->n; t++) assert_int_equal(e->mask[t], 0);
        seen[i]++;
    }
}

static void R_PACK1_sft_targets_are_all_there_once(void **state)
{
    (void)state;
    int32_t seen[EXAMPLES] = {0};
    PackedStep step;
    int64_t targets = 0;
    make(false);
    ok(pack_step(&w.arena, w.list, EXAMPLES, 130, 3, &step));
    for (int32_t r = 0; r < step.rows; r++) {
        assert_true(step.row[r].T <= 130);
        check_sft_row(&step.row[r], seen);
    }
    for (int32_t i = 0; i < EXAMPLES; i++) {
        assert_int_equal(seen[i], 1);
        for (int32_t t = 1; t < w.ex[i].n; t++) targets += w.mask[i][t];
    }
    assert_int_equal(step.targets, targets);
    assert_true(step.rows < EXAMPLES);
}

// Whole chains go to ranks: they hold all rows, and nearly the same number of tokens.
static void chains_are_of_one_size(void **state)
{
    (void)state;
    PackedStep step;
    make(true);
    for (int64_t chains = 1; chains <= 9; chains++) {
        int64_t least = INT64_MAX, most = 0, largest = 0;
        ok(pack_step(&w.arena, w.list, EXAMPLES, 200, chains, &step));
        for (int32_t i = 0; i < EXAMPLES; i++) largest = pack_tokens(w.list[i]) > largest ? pack_tokens(w.list[i]) : largest;
        assert_int_equal(step.chains, chains);
        assert_int_equal(step.first[0], 0);
        assert_int_equal(step.first[step.chains], step.rows);
        for (int32_t c = 0; c < step.chains; c++) {
            int64_t tokens = 0;
            assert_true(step.first[c] < step.first[c + 1]);
            for (int32_t r = step.first[c]; r < step.first[c + 1]; r++) tokens += step.row[r].T;
            if (tokens < least) least = tokens;
            if (tokens > most) most = tokens;
        }
        assert_true(most - least <= largest);  // the chain with the most was the least one before its last, which is no larger
    }
    ok(pack_step(&w.arena, w.list, 2, 200, 9, &step));
    assert_true(step.chains == step.rows && step.rows <= 2);  // no chain without a row
    static const int32_t tokens[] = {20, 100, 50, 60, 10};    // 100 + 20 against 60 + 50 + 10
    make(false);
    for (int i = 0; i < 5; i++) w.ex[i].n = tokens[i] + 1, w.mask[i][tokens[i]] = 1;
    ok(pack_step(&w.arena, w.list, 5, 120, 2, &step));
    assert_int_equal(step.rows, 2);
    assert_int_equal(step.row[0].T, 120);
    assert_int_equal(step.row[1].T, 120);
}

static void check_answer(const PackedRow *r, const Segment *g, const Example *e, int32_t i, int32_t side)
{
    const int32_t *answer = e->id_tokens + e->prompt + (side ? e->chosen : 0);
    assert_int_equal(g->len, side ? e->n - e->prompt - e->chosen : e->chosen);
    assert_int_equal(g->pos0, e->prompt - 1);
    for (int32_t t = 0; t < g->len; t++) {
        int32_t at = g->start + t;
        assert_int_equal(r->token[at], t ? answer[t - 1] : e->id_tokens[e->prompt - 1]);
        assert_int_equal(r->pos[at], e->prompt - 1 + t);
        assert_int_equal(r->target[at], answer[t]);
        assert_int_equal(r->example[at], i);
        assert_int_equal(r->side[at], side);
    }
}

static void a_pair_shares_its_prompt(void **state)
{
    (void)state;
    PackedStep step;
    int32_t pairs = 0, prompts = 0;
    make(true);
    ok(pack_step(&w.arena, w.list, EXAMPLES, 200, 3, &step));
    for (int32_t r = 0; r < step.rows; r++) {
        const PackedRow *row = &step.row[r];
        assert_true(row->T <= 200);
        for (int32_t s = 0; s < row->S; pairs++) {
            int32_t i = row->token[row->seg[s].start] / 1000, prefix = -1;
            const Example *e = &w.ex[i];
            if (e->prompt > 1) {
                prefix = s++;
                assert_int_equal(row->seg[prefix].len, e->prompt - 1);
                assert_int_equal(row->target[row->seg[prefix].start], -1);
                prompts++;
            }
            for (int32_t side = 0; side < 2; side++, s++) {
                assert_int_equal(row->seg[s].prefix, prefix);
                check_answer(row, &row->seg[s], e, i, side);
            }
        }
    }
    assert_int_equal(pairs, EXAMPLES);
    assert_true(prompts > EXAMPLES / 2);
}

static void a_batch_shifts_segments(void **state)
{
    (void)state;
    PackedStep step;
    Batch b;
    int32_t *target, index[2] = {3, 1};
    make(true);
    ok(pack_step(&w.arena, w.list, EXAMPLES, 200, 3, &step));
    assert_true(step.rows > 3);
    ok(pack_batch(&w.arena, &step, index, 2, &b, &target));
    const PackedRow *r = &step.row[1];
    int32_t T0 = step.row[3].T, S0 = step.row[3].S;
    assert_int_equal(b.row[1], T0);
    assert_int_equal(b.row[2], T0 + r->T);
    assert_int_equal(b.S, S0 + r->S);
    assert_memory_equal(b.token + T0, r->token, (size_t)r->T * sizeof *r->token);
    assert_memory_equal(target + T0, r->target, (size_t)r->T * sizeof *r->target);
    for (int32_t s = 0; s < r->S; s++) {
        assert_int_equal(b.seg[S0 + s].start, T0 + r->seg[s].start);
        assert_int_equal(b.seg[S0 + s].prefix, r->seg[s].prefix < 0 ? -1 : r->seg[s].prefix + S0);
    }
}

static void what_does_not_fit_is_named(void **state)
{
    (void)state;
    PackedStep step;
    make(false);
    assert_int_equal(pack_step(&w.arena, w.list, EXAMPLES, 20, 3, &step), ERR_RECIPE);
    assert_non_null(strstr(err_message(), "row_tokens"));
    memset(w.mask[7], 0, sizeof w.mask[7]);
    assert_int_equal(pack_step(&w.arena, w.list, EXAMPLES, 130, 3, &step), ERR_DATA);
    assert_non_null(strstr(err_message(), "no target"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(R_PACK1_sft_targets_are_all_there_once, setup, teardown),
        cmocka_unit_test_setup_teardown(chains_are_of_one_size, setup, teardown),
        cmocka_unit_test_setup_teardown(a_pair_shares_its_prompt, setup, teardown),
        cmocka_unit_test_setup_teardown(a_batch_shifts_segments, setup, teardown),
        cmocka_unit_test_setup_teardown(what_does_not_fit_is_named, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
