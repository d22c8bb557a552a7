// SPDX-License-Identifier: Apache-2.0
// Law 1 for training: micro-batches, packing neighbours and order of input change no bit of weights or curve. Also a
// program for t45_train.sh, which does the same over ranks and over interruptions:
//   t45_train run FIXTURE MODEL RUN_DIR MICRO_ROWS SAVE_STEPS DTYPE   trains 8 steps and prints a digest of the weights and the curve
#include <math.h>
#include <unistd.h>

#include "base/log.h"
#include "par/par.h"
#include "tests/lib/train_fixture.h"
#include "train/step.h"

typedef struct Setup {
    const char *fixture, *model, *run_dir;
    int64_t micro_rows, save_steps;
    DType dtype;
} Setup;

enum { STEPS = 8 };

static Err digest(const Model *m, const char *run_dir, char text[2 * ID_TEXT])
{
    char path[IO_PATH];
    Id curve;
    TRY(io_join(path, run_dir, "metrics.jsonl"));
    TRY(hash_file(path, &curve));
    id_print(hash_bytes(m->w, m->elements * (int64_t)sizeof(float)), text);
    text[ID_TEXT - 1] = ' ';
    id_print(curve, text + ID_TEXT);
    return OK;
}

static Err train_once(const Setup *s, char text[2 * ID_TEXT])
{
    Fixture x;
    Model m;
    Ctx ctx;
    Compute on;
    char dir[IO_PATH], name[64];
    PairLogp *ref = NULL;
    TRY(ctx_init(&ctx, 1));
    fixture_open(&x, s->fixture);
    snprintf(name, sizeof name, "model/%s", s->model);
    data_path(dir, name);
    TRY(model_load(&m, dir, par_size() > 1));
    ctx.dtype = s->dtype;
    TRY(compute_open(&on, &ctx, &m));
    TrainSpec spec = fixture_spec(&x, s->run_dir);
    spec.max_steps = STEPS, spec.micro_rows = s->micro_rows, spec.save_steps = s->save_steps, spec.global_batch = 12;
    spec.row_tokens = 64, spec.val_size = 4, spec.eval_steps = 3, spec.save_total_limit = 9;
    TRY(io_join(dir, s->run_dir, spec.stage));
    if (par_rank() == 0) TRY(io_mkdirs(dir));
    TRY(par_barrier());
    if (spec.pairs) TRY(refs_get(&on, &spec, &x.data, 64, &ref));
    TRY(train_run(&spec, &on, &x.data, ref));
    if (par_rank() == 0) TRY(digest(&m, s->run_dir, text));
    mem_free(ref);
    dataset_free(&x.data);
    TRY(par_barrier());
    model_free(&m);
    return OK;
}

static void same_for_micro_rows(const char *fixture, const char *model, DType dtype)
{
    char first[2 * ID_TEXT], text[2 * ID_TEXT];
    for (int64_t micro = 1; micro <= 4; micro *= 2) {
        char dir[] = "/tmp/imf-t45-XXXXXX";
        assert_non_null(mkdtemp(dir));
        Setup s = {fixture, model, dir, micro, 0, dtype};
        ok(train_once(&s, micro == 1 ? first : text));
        if (micro > 1) assert_string_equal(text, first);
        ok(io_remove_tree(dir));
    }
}

static void R_GEO1_micro_rows_change_no_bit(void **state)
{
    (void)state;
    for (DType dtype = DT_F32; dtype <= DT_BF16; dtype++) {
        same_for_micro_rows("train/tiny-sft.txt", "qwen2", dtype);
        same_for_micro_rows("train/tiny-sft.txt", "llama-tied", dtype);
        same_for_micro_rows("train/tiny-dpo.txt", "llama-tied", dtype);
        same_for_micro_rows("train/tiny-ln.txt", "qwen2", dtype);
    }
}

// The log-probabilities of an example do not depend on what shares its row.
static void neighbours_change_no_bit(DType dtype)
{
    Fixture x;
    Model m;
    Ctx ctx;
    Compute on;
    Arena arena = {0}, acts = {0};
    char dir[IO_PATH];
    PairLogp packed[40], alone;
    PackedStep step;
    const Example *ex[40];
    int32_t active;
    ok(ctx_init(&ctx, 1));
    fixture_open(&x, "train/tiny-dpo.txt");
    data_path(dir, "model/qwen2");
    ok(model_load(&m, dir, false));
    ctx.dtype = dtype;
    ok(compute_open(&on, &ctx, &m));
    for (int i = 0; i < 40; i++) ex[i] = &x.data.ex[i];
    ok(pack_step(&arena, ex, 40, 90, 4, &step));
    StepJob job = {.on = &on, .step = &step, .micro_rows = 3, .acts = &acts};
    ok(step_run(&job, packed, &active));
    for (int i = 0; i < 40; i++) {
        ok(pack_step(&arena, ex + i, 1, 90, 4, &step));
        ok(step_run(&job, &alone, &active));
        assert_memory_equal(&alone, &packed[i], sizeof alone);
    }
    arena_free(&arena);
    arena_free(&acts);
    model_free(&m);
    dataset_free(&x.data);
}

static void R_PACK1_neighbours_change_no_bit(void **state)
{
    (void)state;
    neighbours_change_no_bit(DT_F32);
    neighbours_change_no_bit(DT_BF16);
}

// A weight that is not a number: the step's number and its examples are named, nothing goes on.
static void a_loss_that_is_not_finite_stops(void **state)
{
    (void)state;
    Fixture x;
    Model m;
    Ctx ctx;
    Compute on;
    char dir[IO_PATH], work[] = "/tmp/imf-t45-XXXXXX";
    assert_non_null(mkdtemp(work));
    ok(ctx_init(&ctx, 1));
    fixture_open(&x, "train/tiny-sft.txt");
    data_path(dir, "model/qwen2");
    ok(model_load(&m, dir, false));
    model_weight(&m, W_NORM_FINAL, -1)[3] = NAN;
    ok(compute_open(&on, &ctx, &m));
    TrainSpec spec = fixture_spec(&x, work);
    assert_int_equal(train_run(&spec, &on, &x.data, NULL), ERR_INTERNAL);
    assert_non_null(strstr(err_message(), "step 1"));
    assert_non_null(strstr(err_message(), "examples: 0000"));
    model_free(&m);
    dataset_free(&x.data);
    ok(io_remove_tree(work));
}

static int run(char **argv)
{
    char text[2 * ID_TEXT];
    Setup s = {argv[2], argv[3], argv[4], atoll(argv[5]), atoll(argv[6]), DT_F32};
    Err err = model_dtype(argv[7], &s.dtype);
    if (err == OK) err = train_once(&s, text);
    if (err != OK) fprintf(stderr, "%s\n", err_message());
    if (err != OK) par_abort(err);
    if (par_rank() == 0) puts(text);
    par_finish();
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(R_GEO1_micro_rows_change_no_bit),
        cmocka_unit_test(R_PACK1_neighbours_change_no_bit),
        cmocka_unit_test(a_loss_that_is_not_finite_stops),
    };
    if (par_init(&argc, &argv) != OK) return 1;
    log_open(par_rank(), par_host());
    log_quiet(true);
    if (argc == 8) return run(argv);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    par_finish();
    return failed;
}
