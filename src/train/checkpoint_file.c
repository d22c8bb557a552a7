// SPDX-License-Identifier: Apache-2.0
// Method: a status that sticks; each phase (create, define, write, close) makes its calls to the end and then ranks agree.
// After a failed phase nobody enters HDF5 again, not even to close: with a failing disk nc_close was seen to hang (3
// ranks) and to crash. A variable is written and read tile by tile with independent access, so ranks never wait for each
// other within a phase.
// Drawback: readers open the file serially on every rank; fine for a few hundred ranks.
#include "train/checkpoint_file.h"

#include <errno.h>
#include <netcdf.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/mem.h"
#include "base/stop.h"
#include "base/version.h"
#include "par/par.h"
#include "par/par_nc.h"

typedef struct Nc {
    const char *path;
    int id, status;      // first failure
    int why;             // errno then: what the library says is too little; 0: none
    const char *doing;   // what failed
    char where[TENSOR_NAME + 8];
} Nc;

static void nc_did(Nc *nc, int status, const char *doing, const char *where)
{
    int why = errno;
    errno = 0;
    if (nc->status != NC_NOERR || status == NC_NOERR) return;
    nc->status = status;
    nc->why = why;
    nc->doing = doing;
    snprintf(nc->where, sizeof nc->where, "%s", where);
}

static Err nc_result(const Nc *nc, Err code)
{
    CHECK(nc->status == NC_NOERR, code, "%s: cannot %s %s on rank %d: %s (%s); is the disk full or failing?", nc->path,
          nc->doing, nc->where, par_rank(), nc_strerror(nc->status), nc->why ? strerror(nc->why) : "no errno");
    return OK;
}

void tensor_name(const WeightSpec *s, char name[TENSOR_NAME])
{
    static const char *const kinds[] = {"embed", "norm_attn", "qkv", "qkv_bias", "o", "norm_mlp", "gate_up", "down", "norm_final", "head"};
    if (s->layer >= 0) snprintf(name, TENSOR_NAME, "layer_%02d_%s", (int)s->layer, kinds[s->kind]);
    else snprintf(name, TENSOR_NAME, "%s", kinds[s->kind]);
}

static const char *const slot_suffix[SLOTS_OF_A_TENSOR] = {"w", "m", "v"};
static const char *const slot_title[SLOTS_OF_A_TENSOR] = {"weight", "first moment of the gradient (AdamW m)",
                                                          "second moment of the gradient (AdamW v)"};

void variable_name(const WeightSpec *s, int slot, char name[TENSOR_NAME + 8])
{
    char tensor[TENSOR_NAME];
    tensor_name(s, tensor);
    snprintf(name, TENSOR_NAME + 8, "%s.%s", tensor, slot_suffix[slot]);
}

// HDF5 locks files by default, which fails on some parallel file systems; these files are ours alone.
static void no_file_locks(void) { setenv("HDF5_USE_FILE_LOCKING", "FALSE", 0); }

// --- watch --------------------------------------------------------------------------------------------------------------
//
// When one rank's disk call fails inside a collective HDF5 call, the others were seen to wait for it for ever (Open MPI
// 4.1, 3 ranks, full tmpfs). So each phase has a limit, IMF_IO_TIMEOUT seconds (default 1800), after which the rank ends
// with the code of an I/O error and the launcher ends the job.

static char at_work[4096];  // the file that handlers name

static void say(const char *text) { (void)!write(STDERR_FILENO, text, strlen(text)); }

static void stuck(int signal_number)
{
    (void)signal_number;
    say("imf: error 74: ");
    say(at_work);
    say(": writing the checkpoint made no progress for IMF_IO_TIMEOUT seconds; is the disk full or failing?\n");
    stop_farewell(ERR_IO);
    _exit(ERR_IO);
}

static void watch(const char *path)
{
    snprintf(at_work, sizeof at_work, "%s", path);
    const char *text = getenv("IMF_IO_TIMEOUT");
    int limit = text ? atoi(text) : 0;
    struct sigaction action = {.sa_handler = stuck};
    sigaction(SIGALRM, &action, NULL);
    alarm(limit > 0 ? (unsigned)limit : 1800);
}

static void watch_end(void) { alarm(0); }

// Where the disk refuses to close a file, netCDF 4.9's nc_close was seen to crash on what HDF5 has freed already. That too ends
// with the code of an I/O error.
static void crashed(int signal_number)
{
    const char *why = strerrordesc_np(errno);
    (void)signal_number;
    say("imf: error 74: ");
    say(at_work);
    say(": the NetCDF library crashed while it closed the file (");
    say(why ? why : "no errno");
    say("); is the disk full or failing?\n");
    stop_farewell(ERR_IO);
    _exit(ERR_IO);
}

static int close_file(const Nc *nc)
{
    struct sigaction guard = {.sa_handler = crashed, .sa_flags = (int)SA_RESETHAND}, segv, bus, abrt;
    snprintf(at_work, sizeof at_work, "%s", nc->path);
    sigaction(SIGSEGV, &guard, &segv);
    sigaction(SIGBUS, &guard, &bus);
    sigaction(SIGABRT, &guard, &abrt);
    int status = nc_close(nc->id);
    sigaction(SIGSEGV, &segv, NULL);
    sigaction(SIGBUS, &bus, NULL);
    sigaction(SIGABRT, &abrt, NULL);
    return status;
}

// --- definition ----------------------------------------------------------------------------------------------------------

static void put_text(Nc *nc, int var, const char *name, const char *text)
{
    nc_did(nc, nc_put_att_text(nc->id, var, name, strlen(text), text), "write the attribute", name);
}

// The dimension of this length; tensors of equal length share it (a dimension costs 4 bytes an entry in the file).
static int dimension(Nc *nc, int64_t length)
{
    char name[32];
    int id = 0;
    snprintf(name, sizeof name, "n%lld", (long long)length);
    if (nc_inq_dimid(nc->id, name, &id) != NC_NOERR) nc_did(nc, nc_def_dim(nc->id, name, (size_t)length, &id), "define the dimension", name);
    return id;
}

static void define_variable(Nc *nc, const WeightSpec *s, int64_t first_row, int64_t rows, int slot)
{
    char name[TENSOR_NAME + 8], title[TENSOR_NAME + 64], tensor[TENSOR_NAME];
    int dims[2] = {dimension(nc, rows), dimension(nc, s->cols)}, var = 0;
    const long long first = first_row;
    variable_name(s, slot, name);
    tensor_name(s, tensor);
    snprintf(title, sizeof title, "%s of %s", slot_title[slot], tensor);
    nc_did(nc, nc_def_var(nc->id, name, NC_FLOAT, 2, dims, &var), "define", name);
    if (nc->status != NC_NOERR) return;
    nc_did(nc, nc_def_var_fill(nc->id, var, NC_NOFILL, NULL), "set no fill for", name);
    nc_did(nc, nc_def_var_chunking(nc->id, var, NC_CONTIGUOUS, NULL), "set contiguous storage for", name);
    put_text(nc, var, "long_name", title);
    put_text(nc, var, "units", "1");
    nc_did(nc, nc_put_att_longlong(nc->id, var, "first_row", NC_INT64, 1, &first), "write the attribute", "first_row");
}

// Tiles of a tensor lie side by side.
static void define_variables(Nc *nc, const Model *model, const Tile *tiles, TileRange file)
{
    for (int64_t i = file.first, end; i < file.last; i = end) {
        int64_t rows = 0;
        for (end = i; end < file.last && tiles[end].spec == tiles[i].spec; end++) rows += tiles[end].rows;
        for (int slot = 0; slot < SLOTS_OF_A_TENSOR; slot++)
            define_variable(nc, &model->spec[tiles[i].spec], tiles[i].row, rows, slot);
    }
}

static void define(Nc *nc, const Model *model, const TileSource *src, const char *history)
{
    static const char *const text[][2] = {
        {"Conventions", "CF-1.8"}, {"title", "imf training checkpoint"}, {"institution", "unspecified"},
        {"references", "https://arxiv.org/abs/2503.04222"},
        {"comment", "NAME.w weight, NAME.m and NAME.v AdamW moments; valid only beside the MANIFEST.json that names it"}};
    for (size_t i = 0; i < sizeof text / sizeof text[0]; i++) put_text(nc, NC_GLOBAL, text[i][0], text[i][1]);
    char source[64];
    snprintf(source, sizeof source, "imf %s", imf_version);
    put_text(nc, NC_GLOBAL, "source", source);
    put_text(nc, NC_GLOBAL, "history", history);
    define_variables(nc, model, src->tiles, src->file);
    nc_did(nc, nc_enddef(nc->id), "end the definitions of", "the file");
}

// --- tiles ---------------------------------------------------------------------------------------------------------------

// A tile of a slot in memory: weights are the whole block, the moments begin with the share's first element.
static const float *tile_in(const TileSource *src, const Tile *t, int slot)
{
    return src->slot[slot] + t->offset - (slot ? src->share.begin : 0);
}

static int variable(Nc *nc, const Model *model, const Tile *t, int slot, char name[TENSOR_NAME + 8])
{
    int var = 0;
    variable_name(&model->spec[t->spec], slot, name);
    nc_did(nc, nc_inq_varid(nc->id, name, &var), "find", name);
    return var;
}

// Where tile i lies in its variable of the file.
static void tile_window(const Model *model, const Tile *tiles, TileRange file, int64_t i, size_t start[2], size_t count[2])
{
    int64_t top = i;
    while (top > file.first && tiles[top - 1].spec == tiles[i].spec) top--;
    start[0] = (size_t)(tiles[i].row - tiles[top].row), start[1] = 0;
    count[0] = (size_t)tiles[i].rows, count[1] = (size_t)model->spec[tiles[i].spec].cols;
}

static void write_tile(Nc *nc, const Model *model, const TileSource *src, int64_t i, int slot)
{
    char name[TENSOR_NAME + 8];
    size_t start[2], count[2];
    const Tile *t = &src->tiles[i];
    int var = variable(nc, model, t, slot, name);
    tile_window(model, src->tiles, src->file, i, start, count);
    if (nc->status == NC_NOERR) nc_did(nc, nc_put_vara_float(nc->id, var, start, count, tile_in(src, t, slot)), "write", name);
    fault_point("shard-write");
}

Err checkpoint_file_write(const char *path, const Model *model, const TileSource *src, const char *history)
{
    Nc nc = {.path = path};
    no_file_locks();
    watch(path);
    nc_did(&nc, par_nc_create(path, src->group, &nc.id), "create", "the file");
    TRY(par_agree(nc_result(&nc, ERR_CREATE)));
    define(&nc, model, src, history);
    TRY(par_agree(nc_result(&nc, ERR_IO)));
    watch(path);
    for (int64_t i = src->share.first; i < src->share.last; i++)
        for (int slot = 0; slot < SLOTS_OF_A_TENSOR; slot++) write_tile(&nc, model, src, i, slot);
    TRY(par_agree(nc_result(&nc, ERR_IO)));
    watch(path);
    nc_did(&nc, close_file(&nc), "close", "the file");
    fault_point("shard-close");
    Err err = par_agree(nc_result(&nc, ERR_IO));
    watch_end();
    return err;
}

// After a read-only file could not be closed, HDF5 still crashes at the end of MPI: that too is an I/O error, which ends the
// process without it.
static Err close_read(Nc *nc, Err err)
{
    Nc closing = {.path = nc->path};
    errno = 0;
    nc_did(&closing, close_file(nc), "close", "the file");
    if (closing.status == NC_NOERR) return err;
    return nc_result(&closing, ERR_IO);
}

void tile_sums(const TileSource *src, TileSum *sums)
{
    for (int64_t i = src->share.first; i < src->share.last; i++)
        for (int slot = 0; slot < SLOTS_OF_A_TENSOR; slot++)
            sums[i - src->share.first].slot[slot] =
                hash_bytes(tile_in(src, &src->tiles[i], slot), src->tiles[i].n * (int64_t)sizeof(float));
}

static void read_tile(Nc *nc, const Model *model, const Tile *tiles, TileRange file, int64_t i, int slot, float *to)
{
    char name[TENSOR_NAME + 8];
    size_t start[2], count[2];
    int var = variable(nc, model, &tiles[i], slot, name);
    tile_window(model, tiles, file, i, start, count);
    if (nc->status == NC_NOERR) nc_did(nc, nc_get_vara_float(nc->id, var, start, count, to), "read", name);
}

static Err check_tile(const Nc *nc, const Model *model, const Tile *t, int slot, const float *p, Id want)
{
    char name[TENSOR_NAME + 8];
    variable_name(&model->spec[t->spec], slot, name);
    TRY(nc_result(nc, ERR_DATA));
    CHECK(id_equal(hash_bytes(p, t->n * (int64_t)sizeof(float)), want), ERR_DATA,
          "%s: rows %lld to %lld of %s are not what was saved; use an older checkpoint", nc->path, (long long)t->row,
          (long long)(t->row + t->rows - 1), name);
    return OK;
}

Err checkpoint_file_verify(const char *path, const Model *model, const TileSource *src, const TileSum *sums)
{
    Nc nc = {.path = path};
    float *buf = NULL;
    int64_t most = 0;
    Err err = OK;
    if (src->share.first == src->share.last) return OK;
    for (int64_t i = src->share.first; i < src->share.last; i++)
        if (src->tiles[i].n > most) most = src->tiles[i].n;
    TRY(MEM_ARRAY(&buf, most));
    nc_did(&nc, nc_open(path, NC_NOWRITE, &nc.id), "open", "the file");
    bool opened = nc.status == NC_NOERR;
    TRY_DONE(nc_result(&nc, ERR_IO));
    for (int64_t i = src->share.first; i < src->share.last; i++)
        for (int slot = 0; slot < SLOTS_OF_A_TENSOR; slot++) {
            read_tile(&nc, model, src->tiles, src->file, i, slot, buf);
            TRY_DONE(check_tile(&nc, model, &src->tiles[i], slot, buf, sums[i - src->share.first].slot[slot]));
        }
done:
    if (opened) err = close_read(&nc, err);
    mem_free(buf);
    return err;
}

Err checkpoint_file_read(const char *path, const Model *model, const Tile *tiles, TileRange file, TileRange want, int slot,
                         float *block, int64_t base, const TileSum *sums)
{
    Nc nc = {.path = path};
    Err err = OK;
    no_file_locks();
    nc_did(&nc, nc_open(path, NC_NOWRITE, &nc.id), "open", "the file");
    TRY(nc_result(&nc, ERR_DATA));
    for (int64_t i = want.first; i < want.last; i++) {
        float *to = block + tiles[i].offset - base;
        read_tile(&nc, model, tiles, file, i, slot, to);
        TRY_DONE(check_tile(&nc, model, &tiles[i], slot, to, sums[i].slot[slot]));
    }
done:
    return close_read(&nc, err);
}
