// SPDX-License-Identifier: Apache-2.0
#include "train/checkpoint_damage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

// --- where tiles lie -----------------------------------------------------------------------------------------------------

#ifdef IMF_HDF5
#include <hdf5.h>

// A variable lies in one piece: its first tile of the file, then the others.
static int64_t variable_begin(hid_t file, const char *name)
{
    hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
    if (set < 0) return -1;
    haddr_t at = H5Dget_offset(set);
    H5Dclose(set);
    return at == HADDR_UNDEF ? -1 : (int64_t)at;
}

static int64_t tile_begin(hid_t file, const Model *model, const TileSource *src, int64_t i, int slot)
{
    char name[TENSOR_NAME + 8];
    int64_t top = i;
    while (top > src->file.first && src->tiles[top - 1].spec == src->tiles[i].spec) top--;
    variable_name(&model->spec[src->tiles[i].spec], slot, name);
    int64_t begin = variable_begin(file, name);
    return begin < 0 ? -1 : begin + (src->tiles[i].offset - src->tiles[top].offset) * (int64_t)sizeof(float);
}

Err checkpoint_locate(const char *path, const Model *model, const TileSource *src, TileSum *sums)
{
    if (src->share.first == src->share.last) return OK;
    errno = 0;
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    CHECK(file >= 0, ERR_IO, "%s: cannot be opened again after it was written: %s; is the disk full or failing?", path,
          strerror(errno));
    int64_t least = 1;
    for (int64_t i = src->share.first; i < src->share.last; i++)
        for (int slot = 0; slot < SLOTS_OF_A_TENSOR; slot++) {
            int64_t at = tile_begin(file, model, src, i, slot);
            if (at < least) least = at;
            sums[i - src->share.first].at[slot] = at;
        }
    errno = 0;
    CHECK(H5Fclose(file) >= 0, ERR_IO, "%s: cannot be closed: %s; is the disk full or failing?", path, strerror(errno));
    CHECK(least > 0, ERR_IO, "%s: a variable cannot be found after it was written: %s; is the disk full or failing?", path,
          strerror(errno));
    return OK;
}
#else
Err checkpoint_locate(const char *path, const Model *model, const TileSource *src, TileSum *sums)
{
    (void)path, (void)model, (void)src, (void)sums;
    return OK;
}
#endif

// --- whose byte it is ----------------------------------------------------------------------------------------------------

typedef struct Place {  // of a tile
    int64_t tensor, row, rows, bytes;
} Place;

static Place place_of(const Manifest *m, int64_t tile)
{
    Place p = {.tensor = 0};
    for (int64_t first = 0; p.tensor < m->tensors; p.tensor++) {
        const ManifestTensor *t = &m->tensor[p.tensor];
        int64_t step = tile_rows(t->cols), tiles = (t->rows + step - 1) / step;
        if (tile < first + tiles) {
            p.row = (tile - first) * step;
            p.rows = t->rows - p.row < step ? t->rows - p.row : step;
            p.bytes = p.rows * t->cols * (int64_t)sizeof(float);
            return p;
        }
        first += tiles;
    }
    return p;
}

static bool is_whole(int fd, int64_t at, int64_t bytes, Id want)
{
    char *buf = NULL;
    bool same = mem_alloc(&buf, bytes, 1) == OK && pread(fd, buf, (size_t)bytes, (off_t)at) == bytes &&
                id_equal(hash_bytes(buf, bytes), want);
    mem_free(buf);
    return same;
}

typedef struct Search {
    const Manifest *m;
    int fd;
    int64_t from, to, known, found;
} Search;

static Err look_at_tile(Search *s, int64_t tile, Str *out)
{
    Place p = place_of(s->m, tile);
    for (int slot = 0; slot < SLOTS_OF_A_TENSOR && p.tensor < s->m->tensors; slot++) {
        int64_t at = s->m->tile[tile].at[slot];
        s->known += at > 0;
        if (at <= 0 || at >= s->to || at + p.bytes <= s->from) continue;
        if (is_whole(s->fd, at, p.bytes, s->m->tile[tile].slot[slot])) continue;
        if (s->found++ >= 4) continue;
        TRY(str_printf(out, "%srows %lld to %lld of %s.%c", s->found > 1 ? ", " : "", (long long)p.row,
                       (long long)(p.row + p.rows - 1), s->m->tensor[p.tensor].name, "wmv"[slot]));
    }
    return OK;
}

Err checkpoint_name_damage(const Manifest *m, const char *path, int64_t f, int64_t from, int64_t to, Str *out)
{
    Search s = {.m = m, .fd = open(path, O_RDONLY | O_CLOEXEC), .from = from, .to = to};
    Err err = OK;
    if (s.fd < 0) return OK;
    TRY_DONE(str_puts(out, "; damaged: "));
    for (int64_t i = m->file[f].tiles.first; i < m->file[f].tiles.last; i++) TRY_DONE(look_at_tile(&s, i, out));
    if (!s.found) TRY_DONE(str_puts(out, s.known ? "no tensor, but the file's own structure" : "unknown which tensors"));
    if (s.found > 4) TRY_DONE(str_printf(out, " and %lld more", (long long)s.found - 4));
done:
    close(s.fd);
    return err;
}
