// SPDX-License-Identifier: Apache-2.0
// Method: one pass over the lines of each file. A line is held against its index entry while both agree on where it lies;
// once they part (a line was removed, added or became longer) the index says nothing more about that file, and only the text
// is read.
#include "text/record_check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "text/record_parts.h"

typedef struct Checking {
    const RecordCheck *c;
    RecordState *out;
    const char *dir, *stage;
    json_t *header;  // of the first file
    Hash *digest;    // of (id, data) so far; ended sets
    Str canonical;
    Id last;               // id before
    int64_t faults, seen;  // seen: records of earlier files and this one, with id
    const char *file;      // being read
} Checking;

static Err fault(Checking *k, const char *file, int64_t line, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static Err fault(Checking *k, const char *file, int64_t line, const char *fmt, ...)
{
    char what[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    k->faults++;
    return k->c->fault(k->c->user, file, line, what);
}

// ---- one line --------------------------------------------------------------------------------------------------------

// Ended sets are in id order, each id once.
static Err check_order(Checking *k, int64_t line, Id id)
{
    char text[ID_TEXT];
    int order = k->seen++ ? id_compare(k->last, id) : -1;
    id_print(id, text);
    k->last = id;
    if (!k->out->ended || order < 0) return OK;
    return fault(k, k->file, line, order == 0 ? "id %s occurs twice" : "id %s is out of order", text);
}

static Err add_digest(Checking *k, Id id, const json_t *data)
{
    str_clear(&k->canonical);
    TRY(json_canonical(data, &k->canonical));
    hash_add_id(k->digest, id);
    hash_add_id(k->digest, hash_bytes(k->canonical.p, k->canonical.len));
    return OK;
}

// The line's own id and data; what is wrong with them, or NULL.
static const char *read_line(const char *p, int64_t n, json_t **row, Id *id, const json_t **data)
{
    const char *text;
    json_error_t e;
    *data = NULL;
    *row = json_loadb(p, (size_t)n, JSON_REJECT_DUPLICATES, &e);
    if (!*row) return "the line is not JSON";
    text = json_string_value(json_object_get(*row, "id"));
    if (!text || !id_parse(text, id)) return "the record has no id";
    *data = json_object_get(*row, "data");
    return json_is_object(*data) ? NULL : "the record has no \"data\"";
}

// entry: NULL when the index says nothing of this line.
static Err check_line(Checking *k, const char *p, int64_t n, int64_t line, const RecordEntry *entry)
{
    json_t *row = NULL;
    const json_t *data;
    Id id = {0};
    Err err = OK;
    const char *bad = read_line(p, n, &row, &id, &data);
    if (entry && record_sum(p, n) != entry->sum) bad = "the line does not match its checksum";
    else if (entry && !bad && !id_equal(id, entry->id)) bad = "the index names another id";
    if (bad) TRY_DONE(fault(k, k->file, line, "%s", bad));
    if (bad && entry) id = entry->id;
    if (!bad || entry) {
        k->out->records++;
        TRY_DONE(check_order(k, line, id));
        TRY_DONE(k->c->record(k->c->user, id, data, k->file, line));
    }
    if (!bad && k->digest) TRY_DONE(add_digest(k, id, data));
done:
    json_decref(row);
    return err;
}

// ---- one file --------------------------------------------------------------------------------------------------------

// Parts may come from several versions of the program.
static bool same_headers(const json_t *a, const json_t *b)
{
    return record_same_field(a, b, "format") && record_same_field(a, b, "version") && record_same_field(a, b, "recipe") &&
           record_same_inputs(json_object_get(a, "inputs"), json_object_get(b, "inputs"));
}

static Err check_header(Checking *k, const char *p, int64_t n)
{
    char wanted[256];
    json_t *header = json_loadb(p, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
    const char *format = json_string_value(json_object_get(header, "format"));
    Err err = OK;
    snprintf(wanted, sizeof wanted, "imf-%s", k->stage);
    if (!json_is_object(header)) err = fault(k, k->file, 1, "the header line is not a JSON object");
    else if (!format || strcmp(format, wanted) || json_integer_value(json_object_get(header, "version")) != 1)
        err = fault(k, k->file, 1, "the header line says format '%.40s', %s version 1 is wanted", format ? format : "", wanted);
    else if (k->header && !(k->out->ended ? json_equal(header, k->header) : same_headers(header, k->header)))
        err = fault(k, k->file, 1, "the header line is not that of the first file");
    if (!k->header && json_is_object(header)) k->header = json_incref(header);
    json_decref(header);
    return err;
}

typedef struct Index {
    FileMap map;
    int64_t n, at;  // entries; the next one
    bool lost;      // it agrees with the text no more
} Index;

static const RecordEntry *next_entry(Index *x, int64_t offset, int64_t length, RecordEntry *e)
{
    if (x->lost || x->at >= x->n) return NULL;
    record_get_index((const unsigned char *)x->map.p + x->at++ * INDEX_BYTES, e);
    x->lost = e->offset != offset || e->length != length;
    return x->lost ? NULL : e;
}

// Of a set that has not ended the index may lack the last lines, and the text may end with a torn one: the process was stopped
// between two writes.
static Err check_lines(Checking *k, const char *p, int64_t size, int64_t at, Index *x)
{
    int64_t line = 2;
    bool was_lost = x->lost, lacks = false;
    for (const char *newline; at < size && (newline = memchr(p + at, '\n', (size_t)(size - at))); line++) {
        RecordEntry e;
        const int64_t n = newline - p + 1 - at;
        const RecordEntry *entry = next_entry(x, at, n, &e);
        if (x->lost && !was_lost)
            TRY(fault(k, k->file, line,
                      "the index says that a record of %" PRId64 " bytes lies at byte %" PRId64 ", the text has one "
                      "of %" PRId64 " at byte %" PRId64 ": a line was changed, added or removed here",
                      e.length, e.offset, n, at));
        if (!entry && !x->lost && k->out->ended && !lacks) {
            lacks = true;
            TRY(fault(k, k->file, line, "the index lacks this record and those behind it"));
        }
        was_lost = x->lost;
        TRY(check_line(k, p + at, n, line, entry));
        at += n;
    }
    if (at < size && !k->out->ended) k->out->torn++;
    if (at < size && k->out->ended) TRY(fault(k, k->file, line, "the last line is cut off after %" PRId64 " bytes", size - at));
    if (k->out->ended && !x->lost && x->at < x->n)
        TRY(fault(k, k->file, line, "the file ends here, its index names %" PRId64 " records more", x->n - x->at));
    return OK;
}

static Err open_index(Checking *k, Index *x)
{
    char path[IO_PATH], name[256];
    snprintf(name, sizeof name, "%.*s.idx", (int)strlen(k->file) - 6, k->file);
    TRY(io_join(path, k->dir, name));
    if (!io_exists(path)) {
        x->lost = true;
        return k->out->ended ? fault(k, name, 0, "the index is missing") : OK;
    }
    TRY(io_map(path, &x->map));
    x->n = x->map.size / INDEX_BYTES;
    if (!k->out->ended || x->map.size % INDEX_BYTES == 0) return OK;
    return fault(k, name, 0, "the index is cut off in the middle of an entry");
}

static Err check_file(Checking *k, const char *name)
{
    char path[IO_PATH];
    FileMap map;
    Index x = {0};
    Err err = OK;
    k->file = name;
    k->out->files++;
    TRY(io_join(path, k->dir, name));
    TRY(io_map(path, &map));
    const char *newline = map.size ? memchr(map.p, '\n', (size_t)map.size) : NULL;
    if (!newline && !k->out->ended) {
        k->out->torn += map.size > 0;
    } else if (!newline) {
        TRY_DONE(fault(k, name, 1, "there is no whole header line"));
    } else {
        TRY_DONE(check_header(k, map.p, newline - map.p));
        TRY_DONE(open_index(k, &x));
        TRY_DONE(check_lines(k, map.p, map.size, newline - map.p + 1, &x));
    }
done:
    io_unmap(&x.map);
    io_unmap(&map);
    return err;
}

// ---- the set ---------------------------------------------------------------------------------------------------------

static Err check_files(Checking *k)
{
    char **name = NULL;
    int64_t n = 0;
    Err err = OK;
    TRY(io_list(k->dir, &name, &n));
    for (int64_t i = 0; i < n; i++)
        if (str_starts(name[i], k->out->ended ? "data-" : "part-") && str_ends(name[i], ".jsonl"))
            TRY_DONE(check_file(k, name[i]));
done:
    io_list_free(name, n);
    return err;
}

// `done` repeats the fields of the header.
static bool repeats(const json_t *done, const json_t *header)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)header, key, value) if (!json_equal(value, json_object_get(done, key))) return false;
    return json_object_size(done) == json_object_size(header) + 3;
}

static Err check_done(Checking *k, const json_t *done)
{
    const int64_t count = json_integer_value(json_object_get(done, "count")),
                  files = json_integer_value(json_object_get(done, "files"));
    const Id digest = hash_end(k->digest);
    char text[ID_TEXT], want[ID_TEXT];
    k->digest = NULL;
    if (!done) {  // lost, or damaged: what is there may still be what others were made from
        k->out->digest = digest;
        return OK;
    }
    if (files != k->out->files)
        TRY(fault(k, "done", 0, "%" PRId64 " files are there, %" PRId64 " were written", k->out->files, files));
    if (count != k->out->records)
        TRY(fault(k, "done", 0, "%" PRId64 " records are there, %" PRId64 " were written", k->out->records, count));
    if (k->header && !repeats(done, k->header)) TRY(fault(k, "done", 0, "it does not repeat the fields of the header lines"));
    if (k->faults || id_equal(digest, k->out->digest)) return OK;
    id_print(digest, text);
    id_print(k->out->digest, want);
    return fault(k, "done", 0, "the records have the digest %s, not %s", text, want);
}

// Compacted files alone: the set ended, and lost its `done`. (While a set is compacted its parts are there too.)
static Err check_lost(Checking *k)
{
    char **name = NULL;
    int64_t n = 0, parts = 0, data = 0;
    TRY(io_list(k->dir, &name, &n));
    for (int64_t i = 0; i < n; i++) parts += str_starts(name[i], "part-"), data += str_starts(name[i], "data-");
    io_list_free(name, n);
    if (parts || !data) return OK;
    k->out->ended = true;
    return fault(k, "done", 0, "the file is missing, so that no stage sees the records");
}

// NULL: the stage has not ended. A `done` that cannot be read is a fault.
static Err read_done(Checking *k, json_t **out)
{
    char path[IO_PATH];
    Str text = {0};
    Err err = OK;
    *out = NULL;
    TRY(io_join(path, k->dir, "done"));
    if (!io_exists(path)) return check_lost(k);
    TRY_DONE(io_read(path, &text, 1 << 20));
    k->out->ended = true;
    *out = json_loadb(str_text(&text), (size_t)text.len, JSON_REJECT_DUPLICATES, NULL);
    const char *digest = json_string_value(json_object_get(*out, "digest"));
    if (!digest || !id_parse(digest, &k->out->digest)) TRY_DONE(fault(k, "done", 0, "it is not JSON with a digest"));
done:
    str_free(&text);
    return err;
}

Err record_check(const char *run_dir, const char *stage, const RecordCheck *c, RecordState *out)
{
    Checking k = {.c = c, .out = out, .stage = stage};
    char dir[IO_PATH];
    json_t *done = NULL;
    Err err = OK;
    *out = (RecordState){0};
    TRY(io_join(dir, run_dir, stage));
    k.dir = dir;
    out->there = io_is_dir(dir);
    if (!out->there) return OK;
    TRY_DONE(read_done(&k, &done));
    if (out->ended) TRY_DONE(hash_new(&k.digest));
    TRY_DONE(check_files(&k));
    if (out->ended) TRY_DONE(check_done(&k, done));
    out->header = json_incref(done ? done : k.header);
done:
    if (k.digest) hash_end(k.digest);
    str_free(&k.canonical);
    json_decref(k.header);
    json_decref(done);
    return err;
}
