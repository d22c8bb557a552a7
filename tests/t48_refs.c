// SPDX-License-Identifier: Apache-2.0
// R-REF2: the file of reference log-probabilities is taken bit for bit or refused: another model (one weight), every single byte
// changed, cut, lengthened, a NaN. Another data file and what the program says on all ranks: t56_train.sh.
#include <fcntl.h>
#include <math.h>
#include <unistd.h>

#include "base/log.h"
#include "par/par.h"
#include "tests/lib/train_fixture.h"

typedef struct World {
    Fixture x;
    Model model;
    Ctx ctx;
    Compute on;
    TrainSpec spec;
    char run[IO_PATH], file[IO_PATH];
} World;

static World w;

static void load_model(const char *dir)
{
    ok(model_load(&w.model, dir, false));
    ok(compute_open(&w.on, &w.ctx, &w.model));
}

static int open_world(void **state)
{
    (void)state;
    char dir[IO_PATH];
    strcpy(w.run, "/tmp/imf-t48-XXXXXX");
    assert_non_null(mkdtemp(w.run));
    ok(ctx_init(&w.ctx, 1));
    fixture_open(&w.x, "train/tiny-dpo.txt");
    w.spec = fixture_spec(&w.x, w.run);
    data_path(dir, "model/llama-tied");
    load_model(dir);
    ok(io_join(dir, w.run, "dpo"));
    ok(io_mkdirs(dir));
    ok(io_join(w.file, dir, "ref_logps.bin"));
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    model_free(&w.model);
    dataset_free(&w.x.data);
    ok(io_remove_tree(w.run));
    return 0;
}

static Err get(PairLogp out[64])
{
    PairLogp *ref = NULL;
    Err err = refs_get(&w.on, &w.spec, &w.x.data, 90, &ref);
    if (err == OK) memcpy(out, ref, (size_t)w.x.data.n * sizeof *ref);
    mem_free(ref);
    return err;
}

static void refused(Err code, const char *words)
{
    PairLogp ref[64];
    Err err = get(ref);
    if (err != code || !strstr(err_message(), words)) fail_msg("error %d (%s), wanted %d with '%s'", err, err_message(), code, words);
}

static void R_REF2_read_again_bit_for_bit(void **state)
{
    (void)state;
    PairLogp computed[64], read[64];
    ok(get(computed));
    assert_true(io_exists(w.file));
    ok(get(read));
    assert_memory_equal(computed, read, (size_t)w.x.data.n * sizeof *read);
}

static void R_REF2_every_changed_byte_is_refused(void **state)
{
    (void)state;
    Str good = {0};
    ok(io_read(w.file, &good, 1 << 20));
    int fd = open(w.file, O_RDWR);
    for (int64_t i = 0; i < good.len; i++) {
        char bad = (char)(good.p[i] ^ 0x10);
        assert_int_equal(pwrite(fd, &bad, 1, i), 1);
        refused(ERR_DATA, "remove it, and it is computed again");
        assert_int_equal(pwrite(fd, &good.p[i], 1, i), 1);
    }
    close(fd);
    ok(io_write(w.file, good.p, good.len - 1));
    refused(ERR_DATA, "is torn");
    ok(io_write(w.file, good.p, 20));
    refused(ERR_DATA, "shorter than its header");
    ok(str_puts(&good, "x"));
    ok(io_write(w.file, good.p, good.len));
    refused(ERR_DATA, "is torn");
    ok(io_write(w.file, good.p, good.len - 1));
    str_free(&good);
    PairLogp ref[64];
    ok(get(ref));
}

// A NaN that is there with a sum that fits: the layout of refs.h.
static void R_REF2_a_stored_nan_is_refused(void **state)
{
    (void)state;
    enum { SUM = 24, BODY = 40, FIRST_LOGP = 48 + 16 };
    Str good = {0}, bad = {0};
    const double nan = NAN;
    ok(io_read(w.file, &good, 1 << 20));
    ok(str_add(&bad, good.p, good.len));
    memcpy(bad.p + FIRST_LOGP, &nan, sizeof nan);
    Id sum = hash_bytes(bad.p + BODY, bad.len - BODY);
    memcpy(bad.p + SUM, &sum, sizeof sum);
    ok(io_write(w.file, bad.p, bad.len));
    refused(ERR_DATA, "00000000000000000000000000000000 are nan and");
    ok(io_write(w.file, good.p, good.len));
    str_free(&good);
    str_free(&bad);
}

static void R_REF2_a_computed_nan_stops_and_is_not_kept(void **state)
{
    (void)state;
    float *gain = model_weight(&w.model, W_NORM_FINAL, -1), kept = gain[0];
    ok(io_remove_tree(w.file));
    gain[0] = NAN;
    refused(ERR_INTERNAL, "of pair 00000000000000000000000000000000 are nan and nan");
    assert_false(io_exists(w.file));
    gain[0] = kept;
    PairLogp ref[64];
    ok(get(ref));
}

static void copy(const char *from, const char *to, const char *name, int64_t flip)
{
    char path[IO_PATH];
    Str s = {0};
    ok(io_join(path, from, name));
    ok(io_read(path, &s, 1 << 26));
    if (flip) s.p[s.len - flip] ^= 1;
    ok(io_join(path, to, name));
    ok(io_write(path, s.p, s.len));
    str_free(&s);
}

static void R_REF2_one_changed_weight_is_refused(void **state)
{
    (void)state;
    char from[IO_PATH], to[IO_PATH];
    data_path(from, "model/llama-tied");
    ok(io_join(to, w.run, "other"));
    ok(io_mkdirs(to));
    copy(from, to, "config.json", 0);
    copy(from, to, "model.safetensors", 0);
    model_free(&w.model);
    load_model(to);  // the same weights elsewhere are the same model
    PairLogp ref[64];
    ok(get(ref));
    model_free(&w.model);
    copy(from, to, "model.safetensors", 64);
    load_model(to);
    refused(ERR_DATA, "belongs to another model or to other pairs; choose another run_dir");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(R_REF2_read_again_bit_for_bit),
        cmocka_unit_test(R_REF2_every_changed_byte_is_refused),
        cmocka_unit_test(R_REF2_a_stored_nan_is_refused),
        cmocka_unit_test(R_REF2_a_computed_nan_stops_and_is_not_kept),
        cmocka_unit_test(R_REF2_one_changed_weight_is_refused),
    };
    if (par_init(&argc, &argv) != OK) return 1;
    log_open(par_rank(), par_host());
    log_quiet(true);
    int failed = cmocka_run_group_tests(tests, open_world, close_world);
    par_finish();
    return failed;
}
