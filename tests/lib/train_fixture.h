// SPDX-License-Identifier: Apache-2.0
// What the training tests share: the reference runs of tests/data/train (format: tools/reference/train.py) as data sets.
#ifndef IMF_TESTS_TRAIN_FIXTURE_H
#define IMF_TESTS_TRAIN_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/io.h"
#include "base/mem.h"
#include "text/record.h"
#include "train/loop.h"
#include "train/refs.h"

#define ok(call) assert_ok((call), #call)
static void assert_ok(Err err, const char *what)
{
    if (err != OK) fail_msg("%s: %s\n%s", what, err_message(), err_trace());
}

enum { FIXTURE_STEPS = 64 };

typedef struct Fixture {
    char kind[8];
    int steps, batch, examples;
    long long seed;
    double lr, ratio, beta;
    double loss[FIXTURE_STEPS], norm[FIXTURE_STEPS];
    Dataset data;
} Fixture;

static void data_path(char path[IO_PATH], const char *name)
{
    const char *root = getenv("IMF_TEST_DATA");
    snprintf(path, IO_PATH, "%s/%s", root ? root : "tests/data", name);
}

static void read_example(FILE *f, Fixture *x, int i)
{
    Example *e = &x->data.ex[i];
    int32_t prompt, chosen, n, *ids;
    uint8_t *mask;
    assert_int_equal(fscanf(f, "%d %d %d", &prompt, &chosen, &n), 3);
    ok(ARENA_ARRAY(&x->data.arena, &ids, n));
    ok(ARENA_ARRAY(&x->data.arena, &mask, n));
    for (int32_t t = 0; t < n; t++) {
        assert_int_equal(fscanf(f, "%d", &ids[t]), 1);
        mask[t] = t >= prompt;
    }
    bool pairs = strcmp(x->kind, "sft") != 0;
    *e = (Example){.id = {0, (uint64_t)i}, .id_tokens = ids, .mask = mask, .n = n, .answers = pairs ? 2 : 1,
                   .prompt = pairs ? prompt : 0, .chosen = pairs ? chosen : 0};
    x->data.group[i] = e->id;
    x->data.tokens += pack_tokens(e);
    if (pack_tokens(e) > x->data.longest) x->data.longest = pack_tokens(e);
}

static void fixture_open(Fixture *x, const char *name)
{
    char path[IO_PATH];
    data_path(path, name);
    FILE *f = fopen(path, "r");
    if (!f) fail_msg("%s is missing", path);
    *x = (Fixture){0};
    assert_int_equal(fscanf(f, "run %7s %d %d %lld %lf %lf %lf %d", x->kind, &x->steps, &x->batch, &x->seed, &x->lr, &x->ratio,
                            &x->beta, &x->examples), 8);
    assert_true(x->steps <= FIXTURE_STEPS);
    ok(ARENA_ARRAY(&x->data.arena, &x->data.ex, x->examples));
    ok(ARENA_ARRAY(&x->data.arena, &x->data.group, x->examples));
    x->data.n = x->examples;
    for (int i = 0; i < x->examples; i++) read_example(f, x, i);
    for (int i = 0; i < x->steps; i++) assert_int_equal(fscanf(f, "%lf %lf", &x->loss[i], &x->norm[i]), 2);
    fclose(f);
}

static inline TrainSpec fixture_spec(const Fixture *x, const char *run_dir)
{
    bool pairs = strcmp(x->kind, "sft") != 0;
    return (TrainSpec){.stage = pairs ? "dpo" : "sft", .run_dir = run_dir, .pairs = pairs,
                       .dpo = {x->beta, 0, !strcmp(x->kind, "ln")}, .optim = {0.9, 0.999, 1e-8, 0, 1.0},
                       .learning_rate = x->lr, .epochs = 1, .warmup_ratio = x->ratio, .scheduler = "cosine",
                       .max_steps = x->steps, .global_batch = x->batch, .max_length = 4096, .micro_rows = 2,
                       .grad_chains = 4, .logging_steps = 1, .save_total_limit = 2, .seed = (uint64_t)x->seed};
}

#endif
