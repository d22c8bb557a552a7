// SPDX-License-Identifier: Apache-2.0
// Method: everything is written to a temporary directory, a file a node or as the recipe says; every rank closes, syncs and re-reads its tiles; ranks agree;
// rank 0 writes the manifest, whose rename makes the checkpoint exist. Loading trusts nothing that the manifest does not
// confirm: HDF5 sees a file only after its bytes matched, and each tile is checked again after reading.
// Drawback: a save costs a second reading of the files (from the page cache).
// Invariants: a directory step_%09d is complete or does not exist; names with ".tmp." are never read.
#include "train/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/profile.h"
#include "base/version.h"
#include "par/par.h"
#include "train/checkpoint_damage.h"
#include "train/checkpoint_file.h"
#include "train/checkpoint_manifest.h"

static const char temporary[] = ".tmp.";

static Err step_path(char buf[IO_PATH], const char *dir, int64_t step, const char *suffix)
{
    char name[128];
    snprintf(name, sizeof name, "step_%09lld%s", (long long)step, suffix);
    return io_join(buf, dir, name);
}

// -1 unless the name is that of a committed step.
static int64_t step_of(const char *name)
{
    long long step = -1;
    int used = 0;
    if (sscanf(name, "step_%9lld%n", &step, &used) != 1 || name[used] || used != 14) return -1;
    return step;
}

// --- directory (rank 0) -----------------------------------------------------------------------------------------------------

static Err remove_stale(const char *dir)
{
    char **names = NULL, path[IO_PATH];
    int64_t n = 0;
    Err err = OK;
    if (!io_is_dir(dir)) return OK;
    TRY(io_list(dir, &names, &n));
    for (int64_t i = 0; i < n; i++) {
        if (!str_starts(names[i], "step_") || !strstr(names[i], temporary)) continue;
        TRY_DONE(io_join(path, dir, names[i]));
        TRY_DONE(io_remove_tree(path));
    }
done:
    io_list_free(names, n);
    return err;
}

// Committed steps, ascending; *steps is owned by the caller.
static Err list_steps(const char *dir, int64_t **steps, int64_t *n)
{
    char **names = NULL;
    int64_t count = 0;
    Err err = OK;
    *n = 0;
    *steps = NULL;
    if (!io_is_dir(dir)) return OK;
    TRY(io_list(dir, &names, &count));
    TRY_DONE(MEM_ARRAY(steps, count));
    for (int64_t i = 0; i < count; i++)
        if (step_of(names[i]) >= 0) (*steps)[(*n)++] = step_of(names[i]);
done:
    io_list_free(names, count);
    return err;
}

// With 5 % for what the file format adds.
int64_t checkpoint_bytes(const Model *model)
{
    int64_t payload = model->elements * SLOTS_OF_A_TENSOR * (int64_t)sizeof(float);
    return payload + payload / 20 + (1 << 20);
}

static Err check_space(const char *dir, int64_t need)
{
    int64_t free_bytes;
    TRY(io_free_bytes(dir, &free_bytes));
    CHECK(free_bytes >= need, ERR_IO, "%s: a checkpoint needs %lld bytes and %lld are free; make room and run again", dir,
          (long long)need, (long long)free_bytes);
    return OK;
}

Err checkpoint_check_space(const char *dir, const Model *model) { return check_space(dir, checkpoint_bytes(model)); }

// Quotas and file size limits show only when a file grows, and a parallel write that meets one can hang inside the MPI
// library (seen with Open MPI 4.1). So rank 0 grows an ordinary file to that size first and removes it.
static Err probe_space(const char *dir, int64_t need)
{
    char path[IO_PATH];
    TRY(io_join(path, dir, "space"));
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    CHECK(fd >= 0, ERR_CREATE, "cannot create %s: %s", path, strerror(errno));
    int rc = fallocate(fd, 0, 0, (off_t)need), why = errno;
    if (rc != 0 && why == EOPNOTSUPP) rc = ftruncate(fd, (off_t)need), why = errno;
    close(fd);
    unlink(path);
    CHECK(rc == 0, ERR_IO, "%s: a checkpoint needs a file of %lld MB: %s; a quota or file size limit (ulimit -f) may be too low",
          dir, (long long)(need >> 20), strerror(why));
    return OK;
}

static Err prepare(const char *dir, const Model *model, const char *tmp)
{
    TRY(io_mkdirs(dir));
    TRY(remove_stale(dir));
    TRY(check_space(dir, checkpoint_bytes(model)));
    TRY(io_mkdirs(tmp));
    return probe_space(tmp, checkpoint_bytes(model));
}

// Every rank names the same directory: the job's number, or rank 0's process.
static Err temporary_path(char tmp[IO_PATH], const char *dir, int64_t step)
{
    int64_t pid = getpid();
    char suffix[96];
    const char *job = getenv("SLURM_JOB_ID");
    TRY(par_bcast(&pid, sizeof pid, 0));
    snprintf(suffix, sizeof suffix, "%s%.40s-%lld", temporary, job ? job : "local", (long long)pid);
    return step_path(tmp, dir, step, suffix);
}

// --- saving -------------------------------------------------------------------------------------------------------------------

static Err sync_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0, ERR_IO, "cannot open %s: %s", path, strerror(errno));
    int rc = fsync(fd), why = errno;
    close(fd);
    CHECK(rc == 0, ERR_IO, "cannot sync %s: %s", path, strerror(why));
    return OK;
}

typedef struct Save {
    const char *dir;
    int ranks_per_file;
    char tmp[IO_PATH], file[IO_PATH];  // where all files go; the one that this rank writes to
    const Model *model;
    Tile *tiles;
    int64_t n_tiles;
    TileSource src;
    TileSum *own;       // of this rank's tiles
    Manifest manifest;  // complete on rank 0
} Save;

static Err write_and_verify(Save *s)
{
    char now[32], history[96];
    time_text(now);
    snprintf(history, sizeof history, "%s imf %s: created", now, imf_version);
    TRY(checkpoint_file_write(s->file, s->model, &s->src, history));
    TRY(par_agree(sync_file(s->file)));
    TRY(par_agree(checkpoint_file_verify(s->file, s->model, &s->src, s->own)));
    return par_agree(checkpoint_locate(s->file, s->model, &s->src, s->own));
}

// The tiles that a group of consecutive ranks owns, and so those of its file.
static TileRange group_tiles(const Save *s, int group)
{
    const int first = group * s->ranks_per_file, next = first + s->ranks_per_file;
    const int last = next < par_size() ? next - 1 : par_size() - 1;
    return (TileRange){tile_share(s->tiles, s->n_tiles, first, par_size()).first,
                       tile_share(s->tiles, s->n_tiles, last, par_size()).last};
}

static Err list_files(Save *s)
{
    Manifest *m = &s->manifest;
    char path[IO_PATH];
    m->files = (par_size() + s->ranks_per_file - 1) / s->ranks_per_file;
    TRY(MEM_ARRAY(&m->file, m->files));
    for (int g = 0; g < m->files && par_rank() == 0; g++) {
        TRY(manifest_path(path, s->tmp, g));
        m->file[g] = (ManifestFile){.tiles = group_tiles(s, g), .bytes = io_size(path)};
    }
    return OK;
}

// Piece i is summed by rank i mod ranks.
static Err sum_pieces(Save *s)
{
    Manifest *m = &s->manifest;
    int64_t count = 0, total = 0;
    Id *mine = NULL, *all = NULL;
    Err err = OK;
    TRY(par_agree(list_files(s)));
    TRY(par_bcast(m->file, m->files * (int64_t)sizeof *m->file, 0));
    TRY(par_agree(manifest_cut(m)));
    err = MEM_ARRAY(&mine, m->pieces);
    for (int64_t i = par_rank(); i < m->pieces && err == OK; i += par_size()) err = manifest_sum(m, s->tmp, i, &mine[count++]);
    TRY_DONE(par_agree(err));
    TRY_DONE(par_allgather(mine, count * (int64_t)sizeof *mine, &all, &total, NULL));
    CHECK_DONE(total == m->pieces * (int64_t)sizeof *all, ERR_INTERNAL, "%s: a piece was not summed", s->tmp);
    for (int64_t rank = 0, k = 0; rank < par_size(); rank++)
        for (int64_t i = rank; i < m->pieces; i += par_size()) m->piece[i] = all[k++];
done:
    mem_free(mine);
    mem_free(all);
    return err;
}

static Err fill_tensors(Save *s)
{
    Manifest *m = &s->manifest;
    m->tensors = s->model->specs;
    TRY(MEM_ARRAY(&m->tensor, m->tensors));
    for (int64_t i = 0; i < m->tensors; i++) {
        tensor_name(&s->model->spec[i], m->tensor[i].name);
        m->tensor[i].rows = s->model->spec[i].rows;
        m->tensor[i].cols = s->model->spec[i].cols;
    }
    return OK;
}

static Err gather_manifest(Save *s)
{
    int64_t total = 0, own = s->src.share.last - s->src.share.first;
    TRY(par_allgather(s->own, own * (int64_t)sizeof *s->own, &s->manifest.tile, &total, NULL));
    s->manifest.tiles = total / (int64_t)sizeof(TileSum);
    ASSERT(s->manifest.tiles == s->n_tiles);
    s->manifest.ranks = par_size();
    TRY(par_agree(fill_tensors(s)));
    return sum_pieces(s);
}

// What stepped aside comes back when the new one cannot take its place.
static Err take_name(const Save *s, const char *final, const char *old)
{
    if (rename(s->tmp, final) == 0) return OK;
    int why = errno;
    if (io_exists(old)) (void)!rename(old, final);
    FAIL(ERR_IO, "cannot rename %s to %s: %s", s->tmp, final, strerror(why));
}

// Rank 0. A directory of the same name is a damaged or equal one: it steps aside and is removed after the commit.
static Err commit(Save *s)
{
    char path[IO_PATH], final[IO_PATH], old[IO_PATH];
    Str text = {0};
    Err err = OK;
    fault_point("manifest");
    TRY_DONE(manifest_print(&s->manifest, &text));
    TRY_DONE(io_join(path, s->tmp, "MANIFEST.json"));
    TRY_DONE(io_write(path, str_text(&text), text.len));
    TRY_DONE(io_sync_dir(s->tmp));
    TRY_DONE(step_path(final, s->dir, s->manifest.state.step, ""));
    TRY_DONE(step_path(old, s->dir, s->manifest.state.step, ".tmp.replaced"));
    fault_point("checkpoint-rename");
    CHECK_DONE(!io_exists(final) || rename(final, old) == 0, ERR_IO, "cannot move %s aside: %s", final, strerror(errno));
    TRY_DONE(take_name(s, final, old));
    TRY_DONE(io_sync_dir(s->dir));
    fault_point("checkpoint-renamed");
    TRY_DONE(io_remove_tree(old));
done:
    str_free(&text);
    return err;
}

// Who writes what. A node's ranks write one file unless the recipe says otherwise; a file has one tile at least.
static Err deal_files(Save *s)
{
    const int64_t least = (par_size() + s->n_tiles - 1) / s->n_tiles;
    int64_t k = s->ranks_per_file > 0 ? s->ranks_per_file : par_node_size();
    TRY(par_bcast(&k, sizeof k, 0));
    s->ranks_per_file = (int)(k > least ? k : least);
    s->src.tiles = s->tiles;
    s->src.share = tile_share(s->tiles, s->n_tiles, par_rank(), par_size());
    s->src.group = par_rank() / s->ranks_per_file;
    s->src.file = group_tiles(s, s->src.group);
    TRY(temporary_path(s->tmp, s->dir, s->manifest.state.step));
    return manifest_path(s->file, s->tmp, s->src.group);
}

static Err save_body(Save *s)
{
    TRY(par_agree(tiles_make(s->model, &s->tiles, &s->n_tiles)));
    TRY(deal_files(s));
    TRY(par_agree(par_rank() == 0 ? prepare(s->dir, s->model, s->tmp) : OK));
    TRY(par_agree(MEM_ARRAY(&s->own, s->src.share.last - s->src.share.first)));
    tile_sums(&s->src, s->own);
    TRY(write_and_verify(s));
    TRY(gather_manifest(s));
    return par_agree(par_rank() == 0 ? commit(s) : OK);
}

Err checkpoint_save(const char *dir, const Model *model, const float *m, const float *v, const TrainState *state, int ranks_per_file)
{
    PROFILE(PHASE_IO);
    Save s = {.dir = dir, .model = model, .src = {.slot = {model->w, m, v}}, .manifest = {.state = *state},
              .ranks_per_file = ranks_per_file};
    double start = time_now();
    Err err = save_body(&s);
    // The run directory took files before, and what was just written cannot be an old damage: the disk is full or failing.
    if (err == ERR_CREATE || err == ERR_DATA || err == ERR_NOINPUT) err = ERR_IO;
    double seconds = time_now() - start, bytes = (double)manifest_bytes(&s.manifest);
    if (err == OK)
        log_info("checkpoint", "step %lld saved: %.1f MB in %.2f s (%.2f GB/s)", (long long)state->step, bytes / 1e6, seconds,
                 bytes / 1e9 / (seconds > 0 ? seconds : 1));
    manifest_free(&s.manifest);
    mem_free(s.own);
    mem_free(s.tiles);
    return err;
}

// --- finding and loading --------------------------------------------------------------------------------------------------------

static Err check_step(const Manifest *m, int64_t step, const char *path)
{
    CHECK(m->state.step == step, ERR_DATA, "%s holds the manifest of step %lld: the directory was renamed or mixed", path,
          (long long)m->state.step);
    return OK;
}

// Collective: the manifest of a step, and its files' bytes checked by all ranks together.
static Err open_step(const char *dir, int64_t step, Manifest *m, char path[IO_PATH])
{
    TRY(step_path(path, dir, step, ""));
    TRY(par_agree(manifest_load(path, m)));
    TRY(par_agree(check_step(m, step, path)));
    return par_agree(manifest_verify(m, path, par_rank(), par_size()));
}

// Rank 0 looks, all ranks hear: steps ascending.
static Err agree_on_steps(const char *dir, int64_t **steps, int64_t *n)
{
    Err err = OK;
    *n = 0;
    *steps = NULL;
    if (par_rank() == 0) {
        err = remove_stale(dir);
        if (err == OK) err = list_steps(dir, steps, n);
    }
    TRY(par_agree(err));
    TRY(par_bcast(n, sizeof *n, 0));
    TRY(par_agree(par_rank() == 0 ? OK : MEM_ARRAY(steps, *n)));
    return *n ? par_bcast(*steps, *n * (int64_t)sizeof **steps, 0) : OK;
}

Err checkpoint_find(const char *dir, int64_t *step)
{
    PROFILE(PHASE_IO);
    int64_t *steps = NULL, n = 0;
    Err err = OK;
    *step = -1;
    TRY_DONE(agree_on_steps(dir, &steps, &n));
    for (int64_t i = n - 1; i >= 0 && *step < 0; i--) {
        Manifest m = {0};
        char path[IO_PATH];
        err = open_step(dir, steps[i], &m, path);
        manifest_free(&m);
        if (err == OK) *step = steps[i];
        else if (err != ERR_DATA && err != ERR_NOINPUT) goto done;
        else log_warn("checkpoint", "step %lld is skipped: %s", (long long)steps[i], err_message());
    }
    err = OK;
    if (n && *step < 0) log_warn("checkpoint", "%s holds no whole checkpoint: training starts from the beginning", dir);
done:
    mem_free(steps);
    return err;
}

static Err check_model(const Manifest *m, const Model *model, int64_t n_tiles, const char *file)
{
    CHECK(m->tensors == model->specs && m->tiles == n_tiles, ERR_RECIPE,
          "%s holds %lld tensors, the model has %d: it is a checkpoint of another model", file, (long long)m->tensors, (int)model->specs);
    for (int64_t i = 0; i < m->tensors; i++) {
        char name[TENSOR_NAME];
        tensor_name(&model->spec[i], name);
        CHECK(!strcmp(name, m->tensor[i].name) && m->tensor[i].rows == model->spec[i].rows && m->tensor[i].cols == model->spec[i].cols,
              ERR_RECIPE, "%s: tensor %s is [%lld][%lld], the model wants %s [%lld][%lld]", file, m->tensor[i].name,
              (long long)m->tensor[i].rows, (long long)m->tensor[i].cols, name, (long long)model->spec[i].rows, (long long)model->spec[i].cols);
    }
    return OK;
}

static Err check_state(const TrainState *have, const TrainState *want, const char *file)
{
    static const char hint[] = "start in another run directory, or put back what was changed";
    CHECK(id_equal(have->recipe, want->recipe), ERR_RECIPE, "%s was saved under other training settings; %s", file, hint);
    CHECK(id_equal(have->data, want->data), ERR_RECIPE, "%s was saved with other training data; %s", file, hint);
    CHECK(id_equal(have->base_model, want->base_model), ERR_RECIPE, "%s was saved from another base model; %s", file, hint);
    return OK;
}

// Tiles of one slot from the files that hold them, to block + tile.offset - base.
static Err read_slot(const char *step_dir, const Manifest *m, const Model *model, const Tile *tiles, TileShare want, int slot,
                     float *block, int64_t base)
{
    for (int64_t f = 0; f < m->files; f++) {
        const TileRange held = m->file[f].tiles;
        const TileRange both = {held.first > want.first ? held.first : want.first, held.last < want.last ? held.last : want.last};
        char path[IO_PATH];
        if (both.first >= both.last) continue;
        TRY(manifest_path(path, step_dir, f));
        TRY(checkpoint_file_read(path, model, tiles, held, both, slot, block, base, m->tile));
    }
    return OK;
}

// Weights: ranks of a node share the reading when the block is shared. m, v: own tiles.
static Err read_slots(const char *step_dir, const Manifest *manifest, Model *model, const Tile *tiles, int64_t n, float *m, float *v)
{
    TileShare own = tile_share(tiles, n, par_rank(), par_size()), w = {0, n, 0, 0};
    if (model->shared) w = tile_share(tiles, n, par_node_rank(), par_node_size());
    TRY(read_slot(step_dir, manifest, model, tiles, w, 0, model->w, 0));
    TRY(read_slot(step_dir, manifest, model, tiles, own, 1, m, own.begin));
    return read_slot(step_dir, manifest, model, tiles, own, 2, v, own.begin);
}

Err checkpoint_load(const char *dir, int64_t step, Model *model, float *m, float *v, TrainState *state)
{
    PROFILE(PHASE_IO);
    Manifest manifest = {0};
    Tile *tiles = NULL;
    int64_t n = 0;
    char path[IO_PATH];
    Err err = OK;
    TRY_DONE(open_step(dir, step, &manifest, path));
    TRY_DONE(par_agree(tiles_make(model, &tiles, &n)));
    TRY_DONE(par_agree(check_state(&manifest.state, state, path)));
    TRY_DONE(par_agree(check_model(&manifest, model, n, path)));
    TRY_DONE(par_agree(read_slots(path, &manifest, model, tiles, n, m, v)));
    *state = manifest.state;
done:
    mem_free(tiles);
    manifest_free(&manifest);
    return err;
}

// --- housekeeping ---------------------------------------------------------------------------------------------------------------

Err checkpoint_show(const char *path, Str *out)
{
    PROFILE(PHASE_IO);
    Manifest m = {0};
    char recipe[ID_TEXT];
    Err err = OK;
    TRY_DONE(manifest_load(path, &m));
    TRY_DONE(manifest_verify(&m, path, 0, 1));
    int64_t elements = 0;
    for (int64_t i = 0; i < m.tensors; i++) elements += m.tensor[i].rows * m.tensor[i].cols;
    id_print(m.state.recipe, recipe);
    TRY_DONE(str_printf(out,
                        "checkpoint of step %lld (epoch %lld, %lld examples seen), written by %d rank%s\n"
                        "%lld tensors, %lld parameters with their AdamW moments, %lld bytes in %lld file%s; every checksum matches\n"
                        "recipe %s, seed %llu\n",
                        (long long)m.state.step, (long long)m.state.epoch, (long long)m.state.examples_seen, m.ranks,
                        m.ranks == 1 ? "" : "s", (long long)m.tensors, (long long)elements, (long long)manifest_bytes(&m), (long long)m.files,
                        m.files == 1 ? "" : "s", recipe, (unsigned long long)m.state.seed));
done:
    manifest_free(&m);
    return err;
}

// A step is renamed before it is removed, so that half of one is never taken for a checkpoint.
static Err remove_step(const char *dir, int64_t step)
{
    char path[IO_PATH], gone[IO_PATH];
    TRY(step_path(path, dir, step, ""));
    TRY(step_path(gone, dir, step, ".tmp.pruned"));
    CHECK(rename(path, gone) == 0, ERR_IO, "cannot rename %s: %s", path, strerror(errno));
    fault_point("prune");
    return io_remove_tree(gone);
}

Err checkpoint_prune(const char *dir, int64_t newest, int keep, int64_t every)
{
    PROFILE(PHASE_IO);
    int64_t *steps = NULL, n = 0;
    Err err = OK;
    if (keep <= 0) return OK;
    TRY_DONE(list_steps(dir, &steps, &n));
    while (n > 0 && steps[n - 1] > newest) n--;
    for (int64_t i = 0; i + keep < n; i++)
        if (!every || steps[i] % every) TRY_DONE(remove_step(dir, steps[i]));
done:
    mem_free(steps);
    return err;
}
