// SPDX-License-Identifier: Apache-2.0
// Compaction of an ended stage: the parts of all ranks and jobs become at most 64 files in id order. The files are dealt
// to ranks in contiguous blocks; each is written aside, synced and renamed; the file `done` commits them all. Before it is
// there readers look at the parts alone, after it at the compacted files alone, so a crash anywhere loses nothing.
//
// Digest: hash of (id, hash of the canonical text of `data`) in id order: no rank, part or file boundary enters.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/mem.h"
#include "base/profile.h"
#include "par/par.h"
#include "text/record_parts.h"

enum { FILES_MAX = 64, FILE_BYTES = 64 << 20, BUFFER = 1 << 20 };

typedef struct Output {
    char name[IO_PATH], tmp[IO_PATH];
    int fd;
    int64_t offset;
    Str buffer;
} Output;

static Err output_open(Output *o, const char *dir, int64_t file, const char *suffix)
{
    char name[64];
    snprintf(name, sizeof name, "data-%05" PRId64 ".%s", file, suffix);
    TRY(io_join(o->name, dir, name));
    snprintf(name, sizeof name, "data-%05" PRId64 ".%s.tmp", file, suffix);
    TRY(io_join(o->tmp, dir, name));
    o->fd = open(o->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    CHECK(o->fd >= 0, ERR_CREATE, "cannot create %s: %s%s", o->tmp, strerror(errno), io_advice(errno));
    return OK;
}

static Err output_flush(Output *o)
{
    TRY(io_write_all(o->fd, o->tmp, str_text(&o->buffer), o->buffer.len));
    str_clear(&o->buffer);
    return OK;
}

static Err output_add(Output *o, const void *bytes, int64_t n)
{
    TRY(str_add(&o->buffer, bytes, n));
    o->offset += n;
    return o->buffer.len >= BUFFER ? output_flush(o) : OK;
}

static Err output_commit(Output *o)
{
    PROFILE(PHASE_IO);
    TRY(output_flush(o));
    int synced = fsync(o->fd), closed = close(o->fd);
    o->fd = -1;
    CHECK(synced == 0 && closed == 0, ERR_IO, "cannot write %s: %s%s", o->tmp, strerror(errno), io_advice(errno));
    CHECK(rename(o->tmp, o->name) == 0, ERR_IO, "cannot rename %s to %s: %s%s", o->tmp, o->name, strerror(errno),
          io_advice(errno));
    return OK;
}

static void output_free(Output *o)
{
    if (o->fd >= 0) {
        close(o->fd);
        unlink(o->tmp);
    }
    str_free(&o->buffer);
}

static Err hash_data(const char *line, int64_t n, const char *where, Str *text, Id *out)
{
    json_t *row;
    Err err = OK;
    TRY(json_parse(line, n, where, &row));
    str_clear(text);
    CHECK_DONE(json_object_get(row, "data"), ERR_DATA, "%s: a record without \"data\"", where);
    TRY_DONE(json_canonical(json_object_get(row, "data"), text));
    *out = hash_bytes(text->p, text->len);
done:
    json_decref(row);
    return err;
}

static Err copy_records(RecordSet *s, int64_t from, int64_t to, Output *text, Output *index, Id *hash)
{
    Str scratch = {0};
    Err err = OK;
    for (int64_t i = from; i < to; i++) {
        const char *line;
        int64_t n;
        unsigned char entry[INDEX_BYTES];
        TRY_DONE(record_fetch(s, i, &line, &n));
        TRY_DONE(hash_data(line, n, s->dir, &scratch, &hash[i - from]));
        RecordEntry e = s->entry[i];
        e.offset = text->offset;
        record_put_index(&e, entry);
        TRY_DONE(output_add(text, line, n));
        TRY_DONE(output_add(index, entry, INDEX_BYTES));
    }
done:
    str_free(&scratch);
    return err;
}

static Err write_file(RecordSet *s, int64_t file, int64_t from, int64_t to, Id *hash)
{
    Output text = {.fd = -1}, index = {.fd = -1};
    Err err = OK;
    TRY_DONE(output_open(&text, s->dir, file, "jsonl"));
    TRY_DONE(output_open(&index, s->dir, file, "idx"));
    TRY_DONE(output_add(&text, s->header.p, s->header.len));
    TRY_DONE(copy_records(s, from, to, &text, &index, hash));
    TRY_DONE(output_commit(&text));
    fault_point("compact-text");
    TRY_DONE(output_commit(&index));
    fault_point("compact-file");
done:
    output_free(&text);
    output_free(&index);
    return err;
}

static int64_t file_count(const RecordSet *s)
{
    int64_t bytes = 0;
    for (int64_t i = 0; i < s->n; i++) bytes += s->entry[i].length;
    int64_t files = bytes / FILE_BYTES + 1;
    return files < FILES_MAX ? files : FILES_MAX;
}

// This rank's files; *hash: one Id a record of them (owned by the caller).
static Err write_own(RecordSet *s, int64_t files, Id **hash, int64_t *n)
{
    int64_t first = files * par_rank() / par_size(), last = files * (par_rank() + 1) / par_size();
    int64_t base = s->n * first / files;
    *n = s->n * last / files - base;
    TRY(MEM_ARRAY(hash, *n));
    for (int64_t f = first; f < last; f++) {
        int64_t from = s->n * f / files, to = s->n * (f + 1) / files;
        TRY(write_file(s, f, from, to, *hash + (from - base)));
    }
    return OK;
}

static Err digest_of(const RecordSet *s, const Id *hash, Id *out)
{
    Hash *h;
    TRY(hash_new(&h));
    for (int64_t i = 0; i < s->n; i++) {
        hash_add_id(h, s->entry[i].id);
        hash_add_id(h, hash[i]);
    }
    *out = hash_end(h);
    return OK;
}

// Rank 0: the file `done`, which repeats the header's fields.
static Err write_done(const RecordSet *s, int64_t files, Id digest)
{
    char path[IO_PATH];
    json_t *done;
    Str text = {0};
    Err err = OK;
    TRY(io_sync_dir(s->dir));
    TRY(io_join(path, s->dir, "done"));
    TRY(json_parse(s->header.p, s->header.len, path, &done));
    json_object_set_new(done, "count", json_integer(s->n));
    json_object_set_new(done, "files", json_integer(files));
    json_object_set_new(done, "digest", json_id(digest));
    TRY_DONE(json_canonical(done, &text));
    TRY_DONE(str_puts(&text, "\n"));
    TRY_DONE(io_write(path, str_text(&text), text.len));
done:
    str_free(&text);
    json_decref(done);
    return err;
}

// The parts, and what a broken compaction left (files: how many are merged); other files of the directory stay.
static Err remove_rest(const char *dir, int64_t files)
{
    char **name = NULL, path[IO_PATH];
    int64_t n = 0;
    Err err = OK;
    TRY_DONE(io_list(dir, &name, &n));
    for (int64_t i = 0; i < n; i++) {
        int64_t number = files;
        bool stale = sscanf(name[i], "data-%" SCNd64, &number) == 1 && (number >= files || str_ends(name[i], ".tmp"));
        if (!stale && !str_starts(name[i], "part-")) continue;
        TRY_DONE(io_join(path, dir, name[i]));
        CHECK_DONE(unlink(path) == 0, ERR_IO, "cannot remove %s: %s%s", path, strerror(errno), io_advice(errno));
        fault_point("compact-remove");
    }
done:
    io_list_free(name, n);
    return err;
}

static Err compact(RecordSet *s, Id *digest)
{
    Id *own = NULL, *all = NULL;
    int64_t n = 0, total = 0, files = file_count(s);
    Err err = OK;
    TRY_DONE(par_agree(write_own(s, files, &own, &n)));
    TRY_DONE(par_allgather(own, n * (int64_t)sizeof *own, &all, &total, NULL));
    CHECK_DONE(total == s->n * (int64_t)sizeof *all, ERR_INTERNAL, "compaction of %s: records are missing", s->dir);
    TRY_DONE(digest_of(s, all, digest));
    fault_point("compact-files");
    TRY_DONE(par_agree(par_rank() == 0 ? write_done(s, files, *digest) : OK));
    fault_point("compact-done");
    TRY_DONE(par_agree(par_rank() == 0 ? remove_rest(s->dir, files) : OK));
done:
    mem_free(own);
    mem_free(all);
    return err;
}

Err record_finish(const char *run_dir, const char *stage, Id *digest)
{
    char dir[IO_PATH];
    RecordSet *s;
    Err err = OK;
    struct {
        Id digest;
        bool done;
    } old = {0};
    TRY(io_join(dir, run_dir, stage));
    if (par_rank() == 0) old.done = record_done(run_dir, stage, &old.digest, NULL);
    TRY(par_bcast(&old, sizeof old, 0));
    *digest = old.digest;
    // A job may have been killed between `done` and the removal.
    if (old.done) return par_agree(par_rank() == 0 ? remove_rest(dir, FILES_MAX) : OK);
    TRY(par_agree(par_rank() == 0 ? io_mkdirs(dir) : OK));
    TRY(record_open(&s, run_dir, stage));
    if (s->header.len == 0) TRY_DONE(record_header_text(stage, NULL, &s->header));
    fault_point("compact-begin");
    TRY_DONE(compact(s, digest));
done:
    record_free(s);
    return err;
}
