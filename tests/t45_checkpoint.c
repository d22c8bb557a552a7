// SPDX-License-Identifier: Apache-2.0
// Checkpoints on one rank: what is loaded is what was saved; damage of every kind is found before HDF5 sees the file
// (CKP-6, CKP-7). With arguments it is the driver of tests/t45_checkpoint.sh, which runs it on several ranks:
//   t45_checkpoint save DIR STEP [RANKS_PER_FILE] | load DIR STEP | find DIR
//   t45_checkpoint check DIR                  finds the newest one, loads it, prints its step
//   t45_checkpoint damage DIR STEP OLDER N    for tests/t45_damage.sh: N bit flips and many cuts of STEP; prints what it did
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "par/par.h"
#include "train/checkpoint.h"
#include "train/checkpoint_file.h"

typedef struct World {
    Model model;
    Tile *tiles;
    int64_t n;
    TileShare share;
    float *m, *v;
    TrainState state;
} World;

// The embedding is cut into two tiles.
static const ModelConfig config = {.family = FAMILY_QWEN2, .layers = 2, .H = 64, .N = 2, .K = 1, .D = 32, .F = 96, .V = 20000,
                                   .tied = true, .qkv_bias = true, .max_positions = 128};

static float value(int64_t element, int64_t step, int slot)
{
    uint64_t x = ((uint64_t)element * 3 + (uint64_t)slot) * 0x9E3779B97F4A7C15u + (uint64_t)step;
    x ^= x >> 31, x *= 0xBF58476D1CE4E5B9u;
    return (float)(x >> 40) / 16777216.0f - 0.5f;
}

static Err world_open(World *w)
{
    *w = (World){.model = {.cfg = config}};
    TRY(model_layout(&w->model));
    TRY(MEM_ARRAY(&w->model.w, w->model.elements));
    TRY(tiles_make(&w->model, &w->tiles, &w->n));
    w->share = tile_share(w->tiles, w->n, par_rank(), par_size());
    TRY(MEM_ARRAY(&w->m, w->share.end - w->share.begin));
    TRY(MEM_ARRAY(&w->v, w->share.end - w->share.begin));
    w->state = (TrainState){.epoch = 2, .examples_seen = 77, .seed = 0xFFFFFFFFFFFFFFFFu, .recipe = hash_text("recipe"),
                            .data = hash_text("data"), .base_model = hash_text("base")};
    return OK;
}

static void world_close(World *w)
{
    mem_free(w->tiles), mem_free(w->m), mem_free(w->v), mem_free(w->model.w);
    w->model.w = NULL;
    mem_free(w->model.spec);
}

static void world_fill(World *w, int64_t step)
{
    w->state.step = step;
    for (int64_t i = 0; i < w->model.elements; i++) w->model.w[i] = value(i, step, 0);
    for (int64_t i = w->share.begin; i < w->share.end; i++) {
        w->m[i - w->share.begin] = value(i, step, 1);
        w->v[i - w->share.begin] = value(i, step, 2);
    }
}

static Err world_check(const World *w, int64_t step)
{
    for (int64_t t = 0; t < w->n; t++)
        for (int64_t i = w->tiles[t].offset; i < w->tiles[t].offset + w->tiles[t].n; i++)
            CHECK(w->model.w[i] == value(i, step, 0), ERR_DATA, "weight %lld is wrong", (long long)i);
    for (int64_t t = w->share.first; t < w->share.last; t++)
        for (int64_t i = w->tiles[t].offset; i < w->tiles[t].offset + w->tiles[t].n; i++)
            CHECK(w->m[i - w->share.begin] == value(i, step, 1) && w->v[i - w->share.begin] == value(i, step, 2), ERR_DATA,
                  "moment %lld is wrong", (long long)i);
    CHECK(w->state.step == step && w->state.epoch == 2 && w->state.examples_seen == 77 && w->state.seed == 0xFFFFFFFFFFFFFFFFu,
          ERR_DATA, "the state is wrong");
    return OK;
}

static int ranks_per_file;

static Err save(const char *dir, int64_t step)
{
    World w;
    TRY(world_open(&w));
    world_fill(&w, step);
    Err err = checkpoint_save(dir, &w.model, w.m, w.v, &w.state, ranks_per_file);
    world_close(&w);
    return err;
}

static Err load(const char *dir, int64_t step)
{
    World w;
    TRY(world_open(&w));
    Err err = checkpoint_load(dir, step, &w.model, w.m, w.v, &w.state);
    if (err == OK) err = world_check(&w, step);
    world_close(&w);
    return err;
}

// --- damage: what the sweep of tests/t45_damage.sh does to a checkpoint on one rank ---------------------------------------

enum { FILES = 16, CUTS = 52 };

typedef struct Copy {  // of a file, whole
    char path[IO_PATH];
    Str text;
} Copy;

typedef struct Damage {
    const char *dir;
    int64_t step, older;
    Copy file[FILES];  // shards, then the manifest
    int files;
    World w;
    TrainState whole;  // as loaded from the undamaged one
    int64_t flips, harmless, named, structure, cuts;
} Damage;

static Err open_damage(Damage *d)
{
    char name[64];
    for (d->files = 0; d->files < FILES; d->files++) {
        Copy *c = &d->file[d->files];
        snprintf(name, sizeof name, "step_%09lld/shard-%03d.nc", (long long)d->step, d->files);
        TRY(io_join(c->path, d->dir, name));
        if (!io_exists(c->path)) break;
        TRY(io_read(c->path, &c->text, INT64_MAX));
    }
    snprintf(name, sizeof name, "step_%09lld/MANIFEST.json", (long long)d->step);
    TRY(io_join(d->file[d->files].path, d->dir, name));
    TRY(io_read(d->file[d->files].path, &d->file[d->files].text, INT64_MAX));
    d->files++;
    TRY(world_open(&d->w));
    TRY(checkpoint_load(d->dir, d->step, &d->w.model, d->w.m, d->w.v, &d->w.state));
    d->whole = d->w.state;
    return OK;
}

static void close_damage(Damage *d)
{
    for (int i = 0; i < d->files; i++) str_free(&d->file[i].text);
    world_close(&d->w);
}

static Err put_bytes(const char *path, int64_t at, const char *p, int64_t n)
{
    FILE *f = fopen(path, "r+b");
    CHECK(f && fseek(f, (long)at, SEEK_SET) == 0 && fwrite(p, 1, (size_t)n, f) == (size_t)n && fclose(f) == 0, ERR_INTERNAL,
          "%s", path);
    return OK;
}

// The tensor that byte `at` of a shard belongs to, found by looking for the saved values in the file: "" for none.
static void whose_byte(const Damage *d, const Str *file, int64_t at, char out[160])
{
    static const char *const slots = "wmv";
    char name[TENSOR_NAME];
    *out = '\0';
    for (int64_t i = 0; i < d->w.n; i++)
        for (int slot = 0; slot < 3; slot++) {
            const Tile *t = &d->w.tiles[i];
            float first[16];
            for (int k = 0; k < 16; k++) first[k] = value(t->offset + k, d->step, slot);
            const char *found = memmem(file->p, (size_t)file->len, first, sizeof first);
            if (!found || at < found - file->p || at >= found - file->p + t->n * 4) continue;
            tensor_name(&d->w.model.spec[t->spec], name);
            snprintf(out, 160, "rows %lld to %lld of %s.%c", (long long)t->row, (long long)(t->row + t->rows - 1), name,
                     slots[slot]);
        }
}

// The damage must be found and named, or change nothing of what is loaded.
static Err judge_flip(Damage *d, const Copy *c, int64_t at, bool shard)
{
    char whose[160];
    d->w.state = d->whole;
    Err err = checkpoint_load(d->dir, d->step, &d->w.model, d->w.m, d->w.v, &d->w.state);
    d->flips++;
    if (err == OK) {
        d->harmless++;
        TRY(world_check(&d->w, d->step));
        CHECK(!memcmp(&d->w.state, &d->whole, sizeof d->whole), ERR_DATA, "%s: a flip at %lld changed the state", c->path,
              (long long)at);
        return OK;
    }
    CHECK(err == ERR_DATA && strstr(err_message(), c->path), ERR_INTERNAL, "flip at %lld of %s: error %d, '%s'", (long long)at,
          c->path, (int)err, err_message());
    if (!shard) return OK;
    whose_byte(d, &c->text, at, whose);
    d->named += *whose != '\0', d->structure += !*whose;
    CHECK(strstr(err_message(), *whose ? whose : "the file's own structure"), ERR_INTERNAL, "flip at %lld is in '%s', but: %s",
          (long long)at, whose, err_message());
    return OK;
}

// Half of the flips in any byte, a quarter in the manifest, a quarter in the 4 KiB at a shard's begin, where its structure is.
static Err flip_bits(Damage *d, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        bool manifest_only = i % 4 == 1, head = i % 4 == 3;
        int which = manifest_only ? d->files - 1 : (int)((uint64_t)i / 4 % (uint64_t)(d->files - 1));
        const Copy *c = &d->file[which];
        double u = (double)value(i, 31, 0) + 0.5, size = head && c->text.len > 4096 ? 4096 : (double)c->text.len;
        int64_t at = (int64_t)(u * (size - 1));
        char bad = (char)(c->text.p[at] ^ 1 << i / 4 % 8);
        TRY(put_bytes(c->path, at, &bad, 1));
        TRY(judge_flip(d, c, at, which < d->files - 1));
        TRY(put_bytes(c->path, at, &c->text.p[at], 1));
    }
    return OK;
}

static Err must_be_refused(Damage *d, const char *what, bool search)
{
    int64_t step = -1;
    d->cuts++;
    d->w.state = d->whole;
    Err err = checkpoint_load(d->dir, d->step, &d->w.model, d->w.m, d->w.v, &d->w.state);
    CHECK(err == ERR_DATA || err == ERR_NOINPUT, ERR_INTERNAL, "%s: error %d instead of %d", what, (int)err, (int)ERR_DATA);
    if (!search) return OK;
    TRY(checkpoint_find(d->dir, &step));
    CHECK(step == d->older, ERR_INTERNAL, "%s: step %lld is taken, not %lld", what, (long long)step, (long long)d->older);
    return OK;
}

static Err cut_file(Damage *d, const Copy *c)
{
    for (int k = 0; k < CUTS; k++) {
        int64_t left = k < 2 ? c->text.len - 1 - k : c->text.len * (k - 2) / (CUTS - 2);
        CHECK(truncate(c->path, (off_t)left) == 0, ERR_INTERNAL, "%s", c->path);
        TRY(must_be_refused(d, "a file cut short", k % 16 == 0));
        TRY(put_bytes(c->path, left, c->text.p + left, c->text.len - left));
    }
    CHECK(unlink(c->path) == 0, ERR_INTERNAL, "%s", c->path);
    TRY(must_be_refused(d, "a missing file", true));
    return io_write(c->path, c->text.p, c->text.len);
}

// The file of another step or of another group takes a file's place.
static Err mix_files(Damage *d)
{
    char from[IO_PATH], name[64], step[IO_PATH], older[IO_PATH];
    for (int i = 0; i < d->files; i++) {
        snprintf(name, sizeof name, "step_%09lld/%s", (long long)d->older, io_basename(d->file[i].path));
        TRY(io_join(from, d->dir, name));
        TRY(io_copy(from, d->file[i].path));
        TRY(must_be_refused(d, "a file of another step", true));
        if (i + 2 < d->files) {
            TRY(io_write(d->file[i].path, d->file[i + 1].text.p, d->file[i + 1].text.len));
            TRY(io_write(d->file[i + 1].path, d->file[i].text.p, d->file[i].text.len));
            TRY(must_be_refused(d, "two files swapped", true));
            TRY(io_write(d->file[i + 1].path, d->file[i + 1].text.p, d->file[i + 1].text.len));
        }
        TRY(io_write(d->file[i].path, d->file[i].text.p, d->file[i].text.len));
    }
    snprintf(name, sizeof name, "step_%09lld", (long long)d->step);
    TRY(io_join(step, d->dir, name));
    snprintf(name, sizeof name, "step_%09lld", (long long)d->older);
    TRY(io_join(older, d->dir, name));
    snprintf(from, sizeof from, "%.4000s.away", step);
    CHECK(rename(step, from) == 0 && rename(older, step) == 0, ERR_INTERNAL, "%s", step);
    TRY(must_be_refused(d, "a step under another's name", false));
    CHECK(rename(step, older) == 0 && rename(from, step) == 0, ERR_INTERNAL, "%s", step);
    return OK;
}

static Err damage(const char *dir, int64_t step, int64_t older, int64_t flips)
{
    Damage d = {.dir = dir, .step = step, .older = older};
    Err err = OK;
    TRY_DONE(open_damage(&d));
    TRY_DONE(flip_bits(&d, flips));
    for (int i = 0; i < d.files; i++) TRY_DONE(cut_file(&d, &d.file[i]));
    TRY_DONE(mix_files(&d));
    TRY_DONE(checkpoint_load(dir, step, &d.w.model, d.w.m, d.w.v, &d.w.state));  // all is as it was
    TRY_DONE(world_check(&d.w, step));
    printf("%lld bit flips: %lld change nothing, the others are found (%lld in tensors, all named; %lld in a file's structure); "
           "%lld cut, missing, swapped or mixed files are refused\n", (long long)d.flips, (long long)d.harmless, (long long)d.named,
           (long long)d.structure, (long long)d.cuts);
done:
    close_damage(&d);
    return err;
}

// --- driver --------------------------------------------------------------------------------------------------------------

static Err drive(int argc, char **argv)
{
    CHECK(argc >= 3, ERR_USAGE, "save DIR STEP [RANKS_PER_FILE], load DIR STEP, find DIR");
    ranks_per_file = argc > 4 ? atoi(argv[4]) : 0;
    int64_t step = argc > 3 ? atoll(argv[3]) : -1;
    if (!strcmp(argv[1], "save")) return save(argv[2], step);
    if (!strcmp(argv[1], "load")) return par_agree(load(argv[2], step));
    if (!strcmp(argv[1], "damage") && argc > 5) return damage(argv[2], step, atoll(argv[4]), atoll(argv[5]));
    TRY(checkpoint_find(argv[2], &step));
    if (!strcmp(argv[1], "check") && step >= 0) TRY(par_agree(load(argv[2], step)));
    if (par_rank() == 0) printf("%lld\n", (long long)step);
    return OK;
}

static int driver(int argc, char **argv)
{
    Err err = par_init(&argc, &argv);
    if (err == OK) {
        log_open(par_rank(), par_host());
        log_quiet(true);
        err = drive(argc, argv);
    }
    if (err != OK && (par_rank() == 0 || !par_agreed())) fprintf(stderr, "error %d: %s\n", (int)err, err_message());
    fflush(stdout);
    // As main does: another rank's abort would end rank 0 before it has spoken.
    if (err != OK && par_agreed() && par_barrier() != OK) par_abort((int)err);
    if (err != OK) par_abort((int)err);
    par_finish();
    return 0;
}

// --- one rank --------------------------------------------------------------------------------------------------------------

static char dir[] = "/tmp/imf-t45-XXXXXX";
static char shard[IO_PATH], manifest[IO_PATH];

static int setup(void **state)
{
    (void)state;
    log_quiet(true);
    if (!mkdtemp(dir)) return 1;
    if (io_join(shard, dir, "step_000000005/shard-000.nc") != OK || io_join(manifest, dir, "step_000000005/MANIFEST.json") != OK) return 1;
    return save(dir, 4) == OK && save(dir, 5) == OK ? 0 : 1;
}

static int teardown(void **state)
{
    (void)state;
    return io_remove_tree(dir) == OK ? 0 : 1;
}

static int64_t found(void)
{
    int64_t step = -2;
    assert_int_equal(checkpoint_find(dir, &step), OK);
    return step;
}

static void what_is_loaded_is_what_was_saved(void **state)
{
    (void)state;
    Str text = {0};
    char path[IO_PATH];
    assert_int_equal(found(), 5);
    assert_int_equal(load(dir, 5), OK);
    assert_int_equal(load(dir, 4), OK);
    assert_int_equal(io_join(path, dir, "step_000000005"), OK);
    assert_int_equal(checkpoint_show(path, &text), OK);
    assert_non_null(strstr(str_text(&text), "step 5"));
    str_free(&text);
}

static void CKP_11_file_is_hardly_larger_than_its_payload(void **state)
{
    (void)state;
    World w;
    assert_int_equal(world_open(&w), OK);
    double payload = (double)w.model.elements * 3 * sizeof(float);
    assert_true((double)io_size(shard) < 1.02 * payload);
    world_close(&w);
}

static void another_recipe_or_model_is_refused(void **state)
{
    (void)state;
    World w;
    assert_int_equal(world_open(&w), OK);
    w.state.data = hash_text("other");
    assert_int_equal(checkpoint_load(dir, 5, &w.model, w.m, w.v, &w.state), ERR_RECIPE);
    w.state.data = hash_text("data");
    w.model.spec[1].cols++;
    assert_int_equal(checkpoint_load(dir, 5, &w.model, w.m, w.v, &w.state), ERR_RECIPE);
    w.model.spec[1].cols--;
    world_close(&w);
}

static void flip(const char *path, int64_t at, int bit)
{
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, (long)at, SEEK_SET), 0);
    int c = fgetc(f);
    assert_int_equal(fseek(f, (long)at, SEEK_SET), 0);
    assert_int_not_equal(fputc(c ^ 1 << bit, f), EOF);
    assert_int_equal(fclose(f), 0);
}

static void CKP_6_every_bit_flip_is_found(void **state)
{
    (void)state;
    int64_t size[2] = {io_size(shard), io_size(manifest)};
    for (int i = 0; i < 60; i++) {
        const char *path = i % 2 ? manifest : shard;
        int64_t at = (int64_t)(value(i, 9, 0) * 0.999f * (float)size[i % 2] + 0.5f * (float)size[i % 2]);
        flip(path, at, i % 8);
        assert_int_equal(load(dir, 5), ERR_DATA);
        flip(path, at, i % 8);
    }
    flip(shard, size[0] - 1, 3);
    assert_int_equal(found(), 4);  // falls back to the older one
    flip(shard, size[0] - 1, 3);
    assert_int_equal(load(dir, 5), OK);
}

static void copy_of(const char *from, const char *to) { assert_int_equal(io_copy(from, to), OK); }

static void CKP_7_truncated_missing_and_mixed_files_are_refused(void **state)
{
    (void)state;
    char keep[IO_PATH], other[IO_PATH];
    assert_int_equal(io_join(keep, dir, "keep"), OK);
    const char *paths[] = {shard, manifest};
    for (int i = 0; i < 2; i++) {
        copy_of(paths[i], keep);
        int64_t size = io_size(paths[i]);
        for (int k = 0; k < 6; k++) {
            assert_int_equal(truncate(paths[i], (off_t)(size * k / 6)), 0);
            assert_int_equal(load(dir, 5), ERR_DATA);
            copy_of(keep, paths[i]);
        }
        assert_int_equal(unlink(paths[i]), 0);
        assert_int_not_equal(load(dir, 5), OK);
        assert_int_equal(found(), 4);
        copy_of(keep, paths[i]);
    }
    assert_int_equal(io_join(other, dir, "step_000000004/shard-000.nc"), OK);
    copy_of(shard, keep);
    copy_of(other, shard);
    assert_int_equal(load(dir, 5), ERR_DATA);
    copy_of(keep, shard);
    assert_int_equal(load(dir, 5), OK);
}

static void leftovers_go_and_old_steps_are_pruned(void **state)
{
    (void)state;
    char stale[IO_PATH];
    assert_int_equal(io_join(stale, dir, "step_000000006.tmp.local-1"), OK);
    assert_int_equal(io_mkdirs(stale), OK);
    assert_int_equal(found(), 5);
    assert_false(io_exists(stale));
    assert_int_equal(save(dir, 5), OK);  // again over itself
    assert_int_equal(checkpoint_prune(dir, 4, 1, 0), OK);  // 5 was skipped and is none of the run's checkpoints: 4 stays
    assert_int_equal(load(dir, 4), OK);
    assert_int_equal(load(dir, 5), OK);
    assert_int_equal(checkpoint_prune(dir, 5, 1, 2), OK);  // 4 is a multiple of 2
    assert_int_equal(load(dir, 4), OK);
    assert_int_equal(checkpoint_prune(dir, 5, 1, 0), OK);
    assert_int_equal(found(), 5);
    assert_int_not_equal(load(dir, 4), OK);
    assert_int_equal(load(dir, 5), OK);
}

int main(int argc, char **argv)
{
    if (argc > 1) return driver(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_loaded_is_what_was_saved),
        cmocka_unit_test(CKP_11_file_is_hardly_larger_than_its_payload),
        cmocka_unit_test(another_recipe_or_model_is_refused),
        cmocka_unit_test(CKP_6_every_bit_flip_is_found),
        cmocka_unit_test(CKP_7_truncated_missing_and_mixed_files_are_refused),
        cmocka_unit_test(leftovers_go_and_old_steps_are_pruned),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
