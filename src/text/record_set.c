// SPDX-License-Identifier: Apache-2.0
// Reading records. Rank 0 lists the directory and reads the indexes (and the lines that an index lost), sorts by id and
// broadcasts; each rank then reads only the lines it asks for. Memory: 64 bytes a record on every rank.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/profile.h"
#include "par/par.h"
#include "text/record_parts.h"

static Err read_done(const char *run_dir, const char *stage, json_t **out)
{
    char dir[IO_PATH], path[IO_PATH];
    Str text = {0};
    Err err = OK;
    *out = NULL;
    TRY(io_join(dir, run_dir, stage));
    TRY(io_join(path, dir, "done"));
    if (!io_exists(path)) return OK;
    TRY_DONE(io_read(path, &text, 1 << 20));
    TRY_DONE(json_parse(str_text(&text), text.len, path, out));
done:
    str_free(&text);
    return err;
}

bool record_done(const char *run_dir, const char *stage, Id *digest, int64_t *count)
{
    json_t *done;
    Id id;
    int64_t n;
    if (read_done(run_dir, stage, &done) != OK || !done) return false;
    bool good = json_get_id(done, "digest", "done", &id) == OK && json_get_i64(done, "count", "done", &n) == OK;
    if (good && digest) *digest = id;
    if (good && count) *count = n;
    json_decref(done);
    return good;
}

// ---- headers ---------------------------------------------------------------------------------------------------------

bool record_same_field(const json_t *a, const json_t *b, const char *key)
{
    const json_t *x = json_object_get(a, key), *y = json_object_get(b, key);
    return x && y ? json_equal(x, y) : x == y;
}

// The name of one that differs, or NULL.
static const char *other_input(const json_t *a, const json_t *b)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)a, name, value) {
        const json_t *other = json_object_get(b, name);
        if (!other || !(json_is_null(value) || json_is_null(other) || json_equal(value, other))) return name;
    }
    json_object_foreach((json_t *)b, name, value) if (!json_object_get(a, name)) return name;
    return NULL;
}

bool record_same_inputs(const json_t *a, const json_t *b) { return !other_input(a, b); }

Err record_same_header(const char *path, const json_t *theirs, const json_t *mine)
{
    const char *input = other_input(json_object_get(theirs, "inputs"), json_object_get(mine, "inputs"));
    CHECK(record_same_field(theirs, mine, "recipe"), ERR_RECIPE,
          "%s was made with another recipe; give this recipe a run_dir of its own, or remove that directory to make it anew", path);
    CHECK(!input, ERR_RECIPE,
          "%s was made with other inputs (%s); give this recipe a run_dir of its own, or remove that directory to make it anew",
          path, input);
    return OK;
}

static Err parse_header(const char *path, const char *stage, const char *text, int64_t n, json_t **out)
{
    char wanted[256];
    const char *format;
    int64_t version;
    Err err = OK;
    snprintf(wanted, sizeof wanted, "imf-%s", stage);
    TRY(json_parse(text, n, path, out));
    TRY_DONE(json_get_text(*out, "format", path, &format));
    TRY_DONE(json_get_i64(*out, "version", path, &version));
    CHECK_DONE(!strcmp(format, wanted) && version == 1, ERR_DATA,
               "%s: format is %s version %" PRId64 ", %s version 1 is wanted; give this program a run_dir of its own", path,
               format, version, wanted);
    return OK;
done:
    json_decref(*out);
    *out = NULL;
    return err;
}

// ---- one part --------------------------------------------------------------------------------------------------------

typedef struct Loading {
    RecordSet *s;
    const char *stage;
    json_t *header;  // of the first part
    int64_t cap;
    char path[IO_PATH];
    FileMap map;
} Loading;

static Err add_entry(Loading *l, RecordEntry e)
{
    RecordSet *s = l->s;
    TRY(MEM_GROW(&s->entry, s->n, &l->cap, s->n + 1));
    e.file = s->files - 1;
    s->entry[s->n++] = e;
    return OK;
}

// Takes the entries that agree with the text; gives the end of the last one.
static Err load_index(Loading *l, int64_t *at)
{
    char path[IO_PATH];
    FileMap index;
    snprintf(path, sizeof path, "%.*s.idx", (int)strlen(l->path) - 6, l->path);
    if (!io_exists(path)) return OK;
    TRY(io_map(path, &index));
    Err err = OK;
    for (int64_t i = 0; i < index.size / INDEX_BYTES; i++) {
        RecordEntry e;
        record_get_index((const unsigned char *)index.p + i * INDEX_BYTES, &e);
        bool fits = e.offset == *at && e.length > 0 && e.length <= l->map.size - e.offset;
        if (!fits || l->map.p[e.offset + e.length - 1] != '\n') break;
        TRY_DONE(add_entry(l, e));
        *at += e.length;
    }
done:
    io_unmap(&index);
    return err;
}

// Lines after the last good index entry (the process was killed between the two writes).
static Err load_tail(Loading *l, int64_t at)
{
    char where[IO_PATH + 48];
    while (at < l->map.size) {
        const char *line = l->map.p + at, *newline = memchr(line, '\n', (size_t)(l->map.size - at));
        if (!newline) {
            log_warn("records", "%s: its last line is torn (%" PRId64 " bytes) and is skipped", l->path, l->map.size - at);
            return OK;
        }
        json_t *row;
        RecordEntry e = {.offset = at, .length = newline - line + 1};
        snprintf(where, sizeof where, "%s at byte %" PRId64, l->path, at);
        TRY(json_parse(line, e.length, where, &row));
        Err err = json_get_id(row, "id", where, &e.id);
        json_decref(row);
        TRY(err);
        e.sum = record_sum(line, e.length);
        TRY(add_entry(l, e));
        at += e.length;
    }
    return OK;
}

static Err load_mapped(Loading *l)
{
    const char *newline = l->map.size ? memchr(l->map.p, '\n', (size_t)l->map.size) : NULL;
    if (!newline) {
        log_warn("records", "%s has no whole header line and is skipped", l->path);
        return OK;
    }
    json_t *header;
    int64_t at = newline - l->map.p + 1;
    TRY(parse_header(l->path, l->stage, l->map.p, at, &header));
    if (!l->header) {
        l->header = header;
        TRY(str_add(&l->s->header, l->map.p, at));
    } else {
        Err err = record_same_header(l->path, header, l->header);
        json_decref(header);
        TRY(err);
    }
    TRY(load_index(l, &at));
    return load_tail(l, at);
}

static Err load_part(Loading *l, const char *name)
{
    RecordSet *s = l->s;
    TRY(mem_strdup(&s->file[s->files++], name));
    TRY(io_join(l->path, s->dir, name));
    TRY(io_map(l->path, &l->map));
    Err err = load_mapped(l);
    io_unmap(&l->map);
    return err;
}

static int compare_entries(const void *a, const void *b)
{
    const RecordEntry *x = a, *y = b;
    int order = id_compare(x->id, y->id);
    if (order) return order;
    if (x->file != y->file) return x->file < y->file ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

// Nobody writes a record twice; if it is there twice all the same, that is said.
static void sort_and_unite(RecordSet *s)
{
    const int64_t n = s->n;
    if (n < 2) return;
    MEM_SORT(s->entry, s->n, compare_entries);
    int64_t kept = 1;
    for (int64_t i = 1; i < s->n; i++)
        if (!id_equal(s->entry[i].id, s->entry[kept - 1].id)) s->entry[kept++] = s->entry[i];
    s->n = kept;
    if (kept < n) log_warn("records", "%s: %" PRId64 " records are there twice; the first of them counts", s->dir, n - kept);
}

// Rank 0 alone.
static Err load(RecordSet *s, const char *run_dir, const char *stage)
{
    Loading l = {.s = s, .stage = stage};
    int64_t names = 0, count = 0;
    char **name = NULL;
    Err err = OK;
    if (!io_is_dir(s->dir)) return OK;
    bool done = record_done(run_dir, stage, NULL, &count);
    TRY_DONE(io_list(s->dir, &name, &names));
    TRY_DONE(MEM_ARRAY(&s->file, names));
    for (int64_t i = 0; i < names; i++)
        if (str_starts(name[i], done ? "data-" : "part-") && str_ends(name[i], ".jsonl")) TRY_DONE(load_part(&l, name[i]));
    sort_and_unite(s);
    CHECK_DONE(!done || s->n == count, ERR_DATA,
               "%s is damaged: %" PRId64 " records of %" PRId64 " are there; remove it and run its command again", s->dir, s->n,
               count);
done:
    io_list_free(name, names);
    json_decref(l.header);
    return err;
}

// ---- broadcast -------------------------------------------------------------------------------------------------------

static Err share_text(char **text, int64_t n)
{
    if (par_rank() != 0) TRY(mem_alloc(text, n + 1, 1));
    return par_bcast(*text, n, 0);
}

// All names in one piece, each with its NUL: a broadcast a name would grow with the ranks that wrote.
static Err join_names(const RecordSet *s, Str *all)
{
    for (int64_t i = 0; i < s->files; i++) TRY(str_add(all, s->file[i], (int64_t)strlen(s->file[i]) + 1));
    return OK;
}

static Err split_names(RecordSet *s, const char *p)
{
    TRY(MEM_ARRAY(&s->file, s->files));
    for (int64_t i = 0; i < s->files; i++, p += strlen(p) + 1) TRY(mem_strdup(&s->file[i], p));
    return OK;
}

static Err share_names(RecordSet *s, Str *all)
{
    char *text = all->p;
    if (s->files == 0) return par_rank() == 0 ? OK : MEM_ARRAY(&s->file, 0);
    TRY(share_text(&text, all->len));
    if (par_rank() == 0) return OK;
    Err err = split_names(s, text);
    mem_free(text);
    return err;
}

static Err make_room(RecordSet *s)
{
    TRY(MEM_ARRAY(&s->fd, s->files));
    for (int64_t i = 0; i < s->files; i++) s->fd[i] = -1;
    return OK;
}

static Err share(RecordSet *s)
{
    Str names = {0};
    Err err = par_agree(par_rank() == 0 ? join_names(s, &names) : OK);
    int64_t size[4] = {s->files, s->n, s->header.len, names.len};
    TRY_DONE(err);
    TRY_DONE(par_bcast(size, sizeof size, 0));
    s->files = size[0];
    s->n = size[1];
    s->header.len = size[2];
    names.len = size[3];
    TRY_DONE(share_names(s, &names));
    if (size[2] > 0) TRY_DONE(share_text(&s->header.p, size[2]));
    if (par_rank() != 0) TRY_DONE(MEM_ARRAY(&s->entry, s->n));
    TRY_DONE(par_bcast(s->entry, s->n * (int64_t)sizeof *s->entry, 0));
    TRY_DONE(make_room(s));
done:
    str_free(&names);
    return err;
}

static Err fill_here(RecordSet *s, const char *run_dir, const char *stage)
{
    TRY(load(s, run_dir, stage));
    return make_room(s);
}

static Err fill_all(RecordSet *s, const char *run_dir, const char *stage)
{
    TRY(par_agree(par_rank() == 0 ? load(s, run_dir, stage) : OK));
    return share(s);
}

typedef Err Fill(RecordSet *s, const char *run_dir, const char *stage);

static Err open_set(RecordSet **out, const char *run_dir, const char *stage, Fill *fill)
{
    RecordSet *s;
    *out = NULL;
    TRY(MEM_ARRAY(&s, 1));
    Err err = io_join(s->dir, run_dir, stage);
    if (err == OK) err = fill(s, run_dir, stage);
    if (err == OK) *out = s;
    else record_free(s);
    return err;
}

Err record_open_here(RecordSet **out, const char *run_dir, const char *stage)
{
    return open_set(out, run_dir, stage, fill_here);
}

Err record_open(RecordSet **out, const char *run_dir, const char *stage)
{
    return open_set(out, run_dir, stage, fill_all);
}

void record_free(RecordSet *s)
{
    if (!s) return;
    for (int64_t i = 0; s->fd && i < s->files; i++)
        if (s->fd[i] >= 0) close(s->fd[i]);
    io_list_free(s->file, s->file ? s->files : 0);
    mem_free(s->fd);
    mem_free(s->entry);
    str_free(&s->header);
    str_free(&s->line);
    mem_free(s);
}

Err record_require(RecordSet **out, const char *run_dir, const char *stage, const char *command, Id *digest)
{
    Err err = OK;
    Id id = {0};
    *out = NULL;
    if (par_rank() == 0 && !record_done(run_dir, stage, &id, NULL))
        err = err_raise(ERR_NOINPUT, __func__, __FILE__, __LINE__,
                        "%s/%s is not there or not finished; run 'imf %s' with this recipe first", run_dir, stage, command);
    TRY(par_agree(err));
    TRY(par_bcast(&id, sizeof id, 0));
    if (digest) *digest = id;
    return record_open(out, run_dir, stage);
}

// A part without a record holds nothing: it goes, so that the header of a job that failed at its start (a damaged model, say)
// binds nobody.
static Err remove_part(const char *path)
{
    Str index = {0};
    Err err = str_printf(&index, "%.*s.idx", (int)(strlen(path) - strlen(".jsonl")), path);
    if (err == OK && (unlink(path) != 0 || (unlink(str_text(&index)) != 0 && errno != ENOENT)))
        err =
            err_raise(ERR_IO, __func__, __FILE__, __LINE__, "cannot remove %s: %s%s", path, strerror(errno), io_advice(errno));
    str_free(&index);
    return err;
}

// The header of a part that holds records; *out stays NULL when it holds none.
static Err part_header(const char *path, const char *stage, json_t **out)
{
    FileMap map;
    TRY(io_map(path, &map));
    const char *newline = map.size ? memchr(map.p, '\n', (size_t)map.size) : NULL;
    const char *record = newline ? memchr(newline + 1, '\n', (size_t)(map.p + map.size - newline - 1)) : NULL;
    Err err = record ? parse_header(path, stage, map.p, newline - map.p, out) : OK;
    io_unmap(&map);
    return err;
}

// The header of the first part that has records; NULL when there is none. Parts without any are removed.
static Err first_header(const char *dir, const char *stage, json_t **out)
{
    char **name = NULL, path[IO_PATH];
    int64_t n = 0;
    Err err = OK;
    if (!io_is_dir(dir)) return OK;
    TRY_DONE(io_list(dir, &name, &n));
    for (int64_t i = 0; i < n && !*out; i++) {
        if (!str_starts(name[i], "part-") || !str_ends(name[i], ".jsonl")) continue;
        TRY_DONE(io_join(path, dir, name[i]));
        TRY_DONE(part_header(path, stage, out));
        if (!*out) TRY_DONE(remove_part(path));
    }
done:
    io_list_free(name, n);
    return err;
}

// Rank 0 alone.
static Err look_at_header(const char *run_dir, const char *stage, const json_t *mine, bool *done)
{
    json_t *theirs;
    char dir[IO_PATH];
    TRY(io_join(dir, run_dir, stage));
    TRY(read_done(run_dir, stage, &theirs));
    *done = theirs != NULL;
    if (!theirs) TRY(first_header(dir, stage, &theirs));
    Err err = theirs ? record_same_header(dir, theirs, mine) : OK;
    json_decref(theirs);
    return err;
}

Err record_begin(const char *run_dir, const char *stage, const json_t *header, bool *done)
{
    *done = false;
    TRY(par_agree(par_rank() == 0 ? look_at_header(run_dir, stage, header, done) : OK));
    return par_bcast(done, sizeof *done, 0);
}

// ---- reading ---------------------------------------------------------------------------------------------------------

int64_t record_count(const RecordSet *s) { return s->n; }
Id record_id(const RecordSet *s, int64_t i) { return s->entry[i].id; }
const char *record_header(const RecordSet *s) { return str_text(&s->header); }

int64_t record_find(const RecordSet *s, Id id)
{
    int64_t low = 0, high = s->n;
    while (low < high) {
        int64_t mid = low + (high - low) / 2;
        if (id_compare(s->entry[mid].id, id) < 0) low = mid + 1;
        else high = mid;
    }
    return low < s->n && id_equal(s->entry[low].id, id) ? low : -1;
}

static Err open_file(RecordSet *s, int64_t file, char path[IO_PATH])
{
    TRY(io_join(path, s->dir, s->file[file]));
    if (s->fd[file] >= 0) return OK;
    s->fd[file] = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(s->fd[file] >= 0, ERR_NOINPUT, "cannot open %s: %s%s", path, strerror(errno), io_advice(errno));
    return OK;
}

Err record_fetch(RecordSet *s, int64_t i, const char **line, int64_t *n)
{
    PROFILE(PHASE_IO);
    char path[IO_PATH];
    const RecordEntry *e = &s->entry[i];
    TRY(open_file(s, e->file, path));
    str_clear(&s->line);
    TRY(MEM_GROW(&s->line.p, 0, &s->line.cap, e->length + 1));
    for (int64_t got = 0; got < e->length;) {
        ssize_t r = pread(s->fd[e->file], s->line.p + got, (size_t)(e->length - got), e->offset + got);
        if (r < 0 && errno == EINTR) continue;
        CHECK(r > 0, ERR_IO, "cannot read %s: %s", path, r < 0 ? strerror(errno) : "it became shorter");
        got += r;
    }
    s->line.p[e->length] = '\0';
    s->line.len = e->length;
    CHECK(record_sum(s->line.p, e->length) == e->sum, ERR_DATA,
          "%s: the record at byte %" PRId64
          " does not match its checksum: the file was changed or is damaged; remove its directory and run the command "
          "that made it again",
          path, e->offset);
    *line = s->line.p;
    *n = e->length;
    return OK;
}

Err record_read_line(RecordSet *s, int64_t i, json_t **line)
{
    const char *text;
    int64_t n;
    char where[IO_PATH + 48];
    TRY(record_fetch(s, i, &text, &n));
    snprintf(where, sizeof where, "%s at byte %" PRId64, s->file[s->entry[i].file], s->entry[i].offset);
    return json_parse(text, n, where, line);
}

Err record_read(RecordSet *s, int64_t i, json_t **data)
{
    json_t *line;
    *data = NULL;
    TRY(record_read_line(s, i, &line));
    *data = json_incref(json_object_get(line, "data"));
    json_decref(line);
    CHECK(*data, ERR_DATA, "%s/%s: the record at byte %" PRId64 " has no \"data\"", s->dir, s->file[s->entry[i].file],
          s->entry[i].offset);
    return OK;
}

// ---- directories ------------------------------------------------------------------------------------------------------

// The first file of a record set.
static bool first_part(const char *dir, char path[IO_PATH])
{
    char **name = NULL;
    int64_t n = 0;
    bool found = false;
    if (io_list(dir, &name, &n) == OK)
        for (int64_t i = 0; i < n && !found; i++)
            if ((str_starts(name[i], "part-") || str_starts(name[i], "data-")) && str_ends(name[i], ".jsonl"))
                found = io_join(path, dir, name[i]) == OK;
    io_list_free(name, n);
    return found;
}

bool record_is_set(const char *dir)
{
    char path[IO_PATH];
    return first_part(dir, path);
}

Err record_locate(const char *dir, char run_dir[IO_PATH], char stage[256])
{
    char path[IO_PATH];
    FileMap map;
    json_t *header = NULL;
    Err err = OK;
    CHECK(first_part(dir, path), ERR_DATA, "%s holds no records", dir);
    TRY(io_map(path, &map));
    const char *newline = map.size ? memchr(map.p, '\n', (size_t)map.size) : NULL, *format;
    CHECK_DONE(newline, ERR_DATA, "%s has no whole header line", path);
    TRY_DONE(json_parse(map.p, newline - map.p, path, &header));
    TRY_DONE(json_get_text(header, "format", path, &format));
    snprintf(stage, 256, "%s", str_starts(format, "imf-") ? format + 4 : format);
    int keep = (int)strlen(dir) - (int)strlen(stage);
    CHECK_DONE(str_ends(dir, stage) && (keep == 0 || dir[keep - 1] == '/'), ERR_DATA,
               "%s holds records of '%s'; their directory must have that name", dir, stage);
    snprintf(run_dir, IO_PATH, "%.*s", keep > 1 ? keep - 1 : keep, keep > 0 ? dir : ".");
    if (keep == 0) snprintf(run_dir, IO_PATH, ".");
done:
    json_decref(header);
    io_unmap(&map);
    return err;
}
