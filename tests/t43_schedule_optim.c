// SPDX-License-Identifier: Apache-2.0
// Schedules against transformers, clipping and AdamW against torch (tests/data/train/optim.txt, tools/reference/optim.py),
// the share-out of chains and tiles, the fixed tree, and lines of metrics.jsonl.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/rng.h"
#include "par/par.h"
#include "train/chains.h"
#include "train/metrics.h"
#include "train/optim.h"
#include "train/schedule.h"

#define ok(call) assert_ok((call), #call)
static void assert_ok(Err err, const char *what)
{
    if (err != OK) fail_msg("%s: %s\n%s", what, err_message(), err_trace());
}

static FILE *reference(void)
{
    char path[512];
    const char *root = getenv("IMF_TEST_DATA");
    snprintf(path, sizeof path, "%s/train/optim.txt", root ? root : "tests/data");
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    return f;
}

// Both sides evaluate the same formula in double: at most a few roundings apart.
static void learning_rates_are_those_of_transformers(void **state)
{
    (void)state;
    char kind[32];
    double lr, ratio, value;
    long long total, step;
    int lines = 0;
    FILE *f = reference();
    while (fscanf(f, " schedule %31s %lf %lf %lld %lld %lf", kind, &lr, &ratio, &total, &step, &value) == 6) {
        Schedule s;
        ok(schedule_make(&s, kind, lr, ratio, total));
        assert_true(fabs(schedule_lr(&s, step) - value) <= 1e-14 * lr);
        lines++;
    }
    fclose(f);
    assert_true(lines > 150);
    Schedule s;
    assert_int_equal(schedule_make(&s, "polynomial", 1, 0, 10), ERR_RECIPE);
}

// --- AdamW -----------------------------------------------------------------------------------------------------------------

typedef struct Reference {  // one run of torch.optim.AdamW
    int n, steps;
    double lr, b1, b2, eps, decay, clip;
    float w[64];
} Reference;

static void read_floats(FILE *f, float *x, int n)
{
    for (int i = 0; i < n; i++) {
        uint32_t bits;
        assert_int_equal(fscanf(f, "%x", &bits), 1);
        memcpy(&x[i], &bits, sizeof bits);
    }
}

static bool next_run(FILE *f, Reference *r)
{
    char line[8192];
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "adamw %d %d %lf %lf %lf %lf %lf %lf", &r->n, &r->steps, &r->lr, &r->b1, &r->b2, &r->eps, &r->decay,
                   &r->clip) == 8) {
            read_floats(f, r->w, r->n);
            return true;
        }
    return false;
}

// One matrix of n weights as a model without anything else.
static void toy_model(Model *m, WeightSpec *spec, float *w, int n)
{
    *spec = (WeightSpec){.kind = W_O, .rows = 1, .cols = n};
    *m = (Model){.spec = spec, .specs = 1, .elements = n, .w = w};
}

// Tolerance: torch rounds m, v and the update to float at every operation, we once: about 8 roundings of 2^-24 of the
// update a step, plus two of the weight (after the decay, after the update).
static void follow(FILE *f, Reference *r)
{
    Model m;
    WeightSpec spec;
    Ctx ctx;
    ok(ctx_init(&ctx, 1));
    toy_model(&m, &spec, r->w, r->n);
    Optim o;
    OptimSpec s = {r->b1, r->b2, r->eps, r->decay, r->clip};
    Compute on;
    ok(compute_open(&on, &ctx, &m));
    ok(optim_open(&o, &on, &s));
    ChainSum sum = {.elements = r->n, .room = r->n};
    for (int step = 1; step <= r->steps; step++) {
        float *g, want[64], want_norm;
        double norm;
        chain_reset(&sum);
        ok(chain_begin(&sum, &g));
        read_floats(f, g, r->n);
        ok(chain_end(&sum, 0));
        ok(optim_step(&o, &sum, 1, r->lr, step, &norm));
        read_floats(f, &want_norm, 1);
        read_floats(f, want, r->n);
        assert_true(fabs(norm - want_norm) <= 1e-6 * norm);
        for (int i = 0; i < r->n; i++)
            assert_true(fabs(r->w[i] - want[i]) <= step * (8 * r->lr + 2 * fabs(want[i])) * 0x1p-24 + 1e-9);
    }
    chain_free(&sum);
    optim_free(&o);
}

static void steps_are_those_of_torch(void **state)
{
    (void)state;
    FILE *f = reference();
    Reference r;
    int runs = 0;
    while (next_run(f, &r)) follow(f, &r), runs++;
    fclose(f);
    assert_int_equal(runs, 2);
}

static void a_gradient_that_is_not_finite_changes_nothing(void **state)
{
    (void)state;
    float w[8] = {1, 2, 3, 4, 5, 6, 7, 8}, *g;
    Model m;
    WeightSpec spec;
    Ctx ctx;
    Optim o;
    OptimSpec s = {0.9, 0.999, 1e-8, 0, 1};
    double norm;
    ChainSum sum = {.elements = 8, .room = 8};
    ok(ctx_init(&ctx, 1));
    toy_model(&m, &spec, w, 8);
    Compute on;
    ok(compute_open(&on, &ctx, &m));
    ok(optim_open(&o, &on, &s));
    ok(chain_begin(&sum, &g));
    g[3] = NAN;
    ok(chain_end(&sum, 0));
    ok(optim_step(&o, &sum, 1, 0.1, 1, &norm));
    assert_true(isnan(norm));
    for (int i = 0; i < 8; i++) assert_true(w[i] == (float)(i + 1));
    chain_free(&sum);
    optim_free(&o);
}

// --- chains and tiles --------------------------------------------------------------------------------------------------------

static float tree(const float *x, int32_t level, int32_t index, int32_t active)
{
    if (level == 0) return x[index];
    float left = tree(x, level - 1, 2 * index, active);
    if ((2 * index + 1) << (level - 1) >= active) return left;
    return left + tree(x, level - 1, 2 * index + 1, active);
}

static void chains_are_summed_by_the_fixed_tree(void **state)
{
    (void)state;
    WeightSpec spec = {.kind = W_O, .rows = 1, .cols = 1};
    Model m = {.spec = &spec, .specs = 1, .elements = 1};
    Tile *tiles;
    int64_t n;
    ok(tiles_make(&m, &tiles, &n));
    for (int32_t active = 1; active <= 40; active++) {
        float x[40], out, *g;
        int32_t top = 0;
        ChainSum sum = {.elements = 1, .room = 1};
        while (1 << top < active) top++;
        for (int32_t c = 0; c < active; c++) {
            x[c] = (float)(rng_uniform(rng_key(3, (uint64_t)active), (uint64_t)c) - 0.5);
            ok(chain_begin(&sum, &g));
            *g = x[c];
            ok(chain_end(&sum, c));
        }
        ok(chain_reduce(&sum, active, tiles, n, &out));
        assert_true(out == tree(x, top, 0, active));
        chain_free(&sum);
    }
    mem_free(tiles);
}

// Whatever the number of ranks: their subtrees cover all chains once, in order.
static void subtrees_of_ranks_cover_the_chains(void **state)
{
    (void)state;
    for (int32_t active = 1; active <= 33; active++)
        for (int ranks = 1; ranks <= 9; ranks++) {
            int32_t next = 0;
            for (int r = 0; r < ranks; r++) {
                ChainNode node[CHAIN_NODES];
                int32_t first, last;
                chain_share(active, r, ranks, &first, &last);
                int32_t n = chain_plan(first, last, node);
                for (int32_t i = 0; i < n; i++) {
                    assert_int_equal(node[i].index << node[i].level, next);
                    next += 1 << node[i].level;
                }
            }
            assert_int_equal(next, active);
        }
}

static void tiles_cover_the_model(void **state)
{
    (void)state;
    WeightSpec spec[3] = {{.kind = W_EMBED, .layer = -1, .rows = 3000, .cols = 700},
                          {.kind = W_NORM_ATTN, .rows = 1, .cols = 700, .offset = 2100000},
                          {.kind = W_O, .rows = 5, .cols = 2000000, .offset = 2100704}};
    Model m = {.spec = spec, .specs = 3, .elements = 12100704};
    Tile *tile;
    int64_t n, covered = 0;
    ok(tiles_make(&m, &tile, &n));
    assert_int_equal(n, 3 + 1 + 5);
    for (int64_t i = 0; i < n; i++) covered += tile[i].n;
    assert_int_equal(covered, 2100000 + 700 + 10000000);
    for (int ranks = 1; ranks <= 12; ranks++) {
        int64_t next = 0;
        for (int r = 0; r < ranks; r++) {
            TileShare s = tile_share(tile, n, r, ranks);
            assert_int_equal(s.first, next);
            assert_true(s.last - s.first >= n / ranks && s.last - s.first <= (n + ranks - 1) / ranks);
            for (int64_t i = s.first; i < s.last; i++) assert_true(tile[i].offset >= s.begin && tile[i].offset + tile[i].n <= s.end);
            next = s.last;
        }
        assert_int_equal(next, n);
    }
    mem_free(tile);
}

// --- metrics ---------------------------------------------------------------------------------------------------------------

static void what_is_not_finite_is_null_in_metrics(void **state)
{
    (void)state;
    char dir[] = "/tmp/imf-t43-XXXXXX", path[64];
    Metrics m;
    MetricsState kept = {0};
    assert_non_null(mkdtemp(dir));
    const TrainSpec spec = {.stage = "sft", .run_dir = dir};
    const StepMetrics s = {.loss = NAN, .accuracy = 0.5};
    ok(metrics_open(&m, &spec, &kept, -1, 4, 4));
    ok(metrics_eval(&m, 1, &s));
    metrics_close(&m);
    snprintf(path, sizeof path, "%s/metrics.jsonl", dir);
    json_t *line = json_load_file(path, 0, NULL);
    assert_non_null(line);
    assert_true(json_is_null(json_object_get(line, "eval_loss")));
    assert_true(json_real_value(json_object_get(line, "eval_mean_token_accuracy")) == 0.5);
    json_decref(line);
    ok(io_remove_tree(dir));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(learning_rates_are_those_of_transformers),
        cmocka_unit_test(steps_are_those_of_torch),
        cmocka_unit_test(a_gradient_that_is_not_finite_changes_nothing),
        cmocka_unit_test(chains_are_summed_by_the_fixed_tree),
        cmocka_unit_test(subtrees_of_ranks_cover_the_chains),
        cmocka_unit_test(tiles_cover_the_model),
        cmocka_unit_test(what_is_not_finite_is_null_in_metrics),
    };
    if (par_init(&argc, &argv) != OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    par_finish();
    return failed;
}
