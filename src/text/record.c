// SPDX-License-Identifier: Apache-2.0
// Writing records: one part a process. A record is one write() of its line, then one of its index entry, so a killed
// process loses at most the line it was writing; a lost power supply at most what came after the last fsync.
#include "text/record.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/profile.h"
#include "base/version.h"
#include "par/par.h"
#include "text/record_parts.h"

#define SYNC_SECONDS 30.0

struct RecordWriter {
    char path[IO_PATH], index_path[IO_PATH];
    int fd, index_fd;
    int64_t offset, index_offset;
    double synced;
    bool failed;
    const RecordSet *had;  // not written again; NULL: nothing
    Str line;
};

uint64_t record_sum(const char *line, int64_t n) { return XXH3_64bits(line, (size_t)n); }

void record_put_index(const RecordEntry *e, unsigned char out[INDEX_BYTES])
{
    uint64_t word[5] = {htole64(e->id.hi), htole64(e->id.lo), htole64((uint64_t)e->offset), htole64((uint64_t)e->length),
                        htole64(e->sum)};
    memcpy(out, word, INDEX_BYTES);
}

void record_get_index(const unsigned char in[INDEX_BYTES], RecordEntry *e)
{
    uint64_t word[5];
    memcpy(word, in, INDEX_BYTES);
    *e = (RecordEntry){.id = {le64toh(word[0]), le64toh(word[1])}, .offset = (int64_t)le64toh(word[2]),
                       .length = (int64_t)le64toh(word[3]), .sum = le64toh(word[4])};
}

Err record_header_text(const char *stage, const json_t *header, Str *out)
{
    char format[256];
    snprintf(format, sizeof format, "imf-%s", stage);
    json_t *h = json_object();
    Err err = OK;
    CHECK_DONE(h && (!header || json_object_update(h, (json_t *)header) == 0), ERR_INTERNAL, "a record header must be a JSON object");
    json_object_set_new(h, "format", json_string(format));
    json_object_set_new(h, "version", json_integer(1));
    json_object_set_new(h, "program", json_string(imf_version));
    TRY_DONE(json_canonical(h, out));
    TRY_DONE(str_puts(out, "\n"));
done:
    json_decref(h);
    return err;
}

// Letters, digits and '_' of the batch system's job name; "local" without one.
static void job_name(char out[64])
{
    const char *job = getenv("SLURM_JOB_ID");
    snprintf(out, 64, "%.60s", job && *job ? job : "local");
    for (char *p = out; *p; p++)
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_", *p)) *p = '_';
}

static Err open_part(RecordWriter *w, const char *dir)
{
    char job[64], name[160];
    job_name(job);
    for (int attempt = 0; attempt < 100; attempt++) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        uint64_t start = (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
        snprintf(name, sizeof name, "part-%014" PRIx64 "-%s-%06d.jsonl", start, job, par_rank());
        TRY(io_join(w->path, dir, name));
        w->fd = open(w->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (w->fd >= 0 || errno != EEXIST) break;
    }
    CHECK(w->fd >= 0, ERR_CREATE, "cannot create %s: %s%s", w->path, strerror(errno), io_advice(errno));
    int stem = (int)strlen(w->path) - 6;
    snprintf(w->index_path, sizeof w->index_path, "%.*s.idx", stem, w->path);
    w->index_fd = open(w->index_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    CHECK(w->index_fd >= 0, ERR_CREATE, "cannot create %s: %s%s", w->index_path, strerror(errno), io_advice(errno));
    return OK;
}

static void free_writer(RecordWriter *w)
{
    if (w->fd >= 0) close(w->fd);
    if (w->index_fd >= 0) close(w->index_fd);
    str_free(&w->line);
    mem_free(w);
}

Err record_create(RecordWriter **out, const char *run_dir, const char *stage, const json_t *header)
{
    char dir[IO_PATH];
    RecordWriter *w;
    *out = NULL;
    TRY(io_join(dir, run_dir, stage));
    TRY(io_mkdirs(dir));
    CHECK(!record_done(run_dir, stage, NULL, NULL), ERR_CREATE, "%s has ended; remove the directory to do it again", dir);
    TRY(MEM_ARRAY(&w, 1));
    w->fd = w->index_fd = -1;
    Err err = OK;
    TRY_DONE(open_part(w, dir));
    TRY_DONE(record_header_text(stage, header, &w->line));
    TRY_DONE(io_write_all(w->fd, w->path, str_text(&w->line), w->line.len));
    w->offset = w->line.len;
    w->synced = time_now();
    *out = w;
    return OK;
done:
    free_writer(w);
    return err;
}

static Err sync_part(RecordWriter *w)
{
    PROFILE(PHASE_IO);
    w->synced = time_now();
    CHECK(fsync(w->fd) == 0, ERR_IO, "cannot write %s: %s%s", w->path, strerror(errno), io_advice(errno));
    CHECK(fsync(w->index_fd) == 0, ERR_IO, "cannot write %s: %s%s", w->index_path, strerror(errno), io_advice(errno));
    return OK;
}

// After a failed write (disk full): nothing of the torn record stays.
static void cut_back(RecordWriter *w)
{
    w->failed = true;
    if (ftruncate(w->fd, w->offset) != 0 || ftruncate(w->index_fd, w->index_offset) != 0)
        log_warn("records", "cannot cut %s back to its last whole record: %s", w->path, strerror(errno));
}

static Err make_line(RecordWriter *w, Id id, const json_t *data, const json_t *run)
{
    char text[ID_TEXT];
    id_print(id, text);
    str_clear(&w->line);
    TRY(str_printf(&w->line, "{\"id\":\"%s\",\"data\":", text));
    TRY(json_canonical(data, &w->line));
    if (run) {
        TRY(str_puts(&w->line, ",\"run\":"));
        TRY(json_canonical(run, &w->line));
    }
    return str_puts(&w->line, "}\n");
}

static Err write_line(RecordWriter *w, const RecordEntry *e)
{
    PROFILE(PHASE_IO);
    unsigned char index[INDEX_BYTES];
    record_put_index(e, index);
    fault_point("item-finished");
    if (fault_due("journal-write")) {
        (void)!io_write_all(w->fd, w->path, w->line.p, w->line.len / 2);
        fault_kill("journal-write");
    }
    TRY(io_write_all(w->fd, w->path, w->line.p, w->line.len));
    fault_point("journal-line");
    TRY(io_write_all(w->index_fd, w->index_path, index, INDEX_BYTES));
    fault_point("journal-index");
    return OK;
}

void record_skip(RecordWriter *w, const RecordSet *had) { w->had = had; }

Err record_write(RecordWriter *w, Id id, const json_t *data, const json_t *run)
{
    if (w->had && record_find(w->had, id) >= 0) return OK;
    CHECK(!w->failed, ERR_IO, "%s: an earlier write failed", w->path);
    TRY(make_line(w, id, data, run));
    RecordEntry e = {.id = id, .offset = w->offset, .length = w->line.len, .sum = record_sum(w->line.p, w->line.len)};
    Err err = write_line(w, &e);
    if (err != OK) {
        cut_back(w);
        TRY(err);
    }
    w->offset += w->line.len;
    w->index_offset += INDEX_BYTES;
    if (time_now() - w->synced > SYNC_SECONDS) TRY(sync_part(w));
    return OK;
}

Err record_close(RecordWriter *w)
{
    if (!w) return OK;
    Err err = sync_part(w);
    int a = close(w->fd), b = close(w->index_fd);
    w->fd = w->index_fd = -1;
    if (err == OK && (a != 0 || b != 0))
        err = err_raise(ERR_IO, __func__, __FILE__, __LINE__, "cannot write %s: %s%s", w->path, strerror(errno),
                        io_advice(errno));
    free_writer(w);
    return err;
}
