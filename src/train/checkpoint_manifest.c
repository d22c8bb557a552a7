// SPDX-License-Identifier: Apache-2.0
#include "train/checkpoint_manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/version.h"
#include "train/checkpoint_damage.h"

static const char format_name[] = "imf-checkpoint-2";
enum { MANIFEST_LIMIT = 1 << 30, CHECK_DIGITS = ID_TEXT - 1 };

void manifest_free(Manifest *m)
{
    mem_free(m->file);
    mem_free(m->piece);
    mem_free(m->tensor);
    mem_free(m->tile);
    *m = (Manifest){0};
}

// --- text ----------------------------------------------------------------------------------------------------------------

static Err print_ids(Str *out, const Id *id, int64_t n)
{
    char text[ID_TEXT];
    for (int64_t i = 0; i < n; i++) {
        id_print(id[i], text);
        TRY(str_printf(out, "%s\"%s\"", i ? "," : "", text));
    }
    return OK;
}

// Three sums a tile, then three places a tile.
static Err print_tiles(const Manifest *m, Str *out)
{
    for (int64_t i = 0; i < m->tiles; i++) {
        TRY(str_puts(out, i ? "," : ""));
        TRY(print_ids(out, m->tile[i].slot, SLOTS_OF_A_TENSOR));
    }
    TRY(str_puts(out, "],\n \"offsets\": ["));
    for (int64_t i = 0; i < m->tiles * SLOTS_OF_A_TENSOR; i++)
        TRY(str_printf(out, "%s%lld", i ? "," : "", (long long)m->tile[i / SLOTS_OF_A_TENSOR].at[i % SLOTS_OF_A_TENSOR]));
    return OK;
}

static Err print_state(const TrainState *s, Str *out)
{
    char recipe[ID_TEXT], data[ID_TEXT], base[ID_TEXT];
    id_print(s->recipe, recipe);
    id_print(s->data, data);
    id_print(s->base_model, base);
    return str_printf(out,
                      " \"format\": \"%s\", \"program\": \"imf %s\",\n \"step\": %lld, \"epoch\": %lld, \"examples_seen\": %lld, "
                      "\"seed\": \"%llu\",\n \"recipe\": \"%s\", \"data\": \"%s\", \"base_model\": \"%s\",\n",
                      format_name, imf_version, (long long)s->step, (long long)s->epoch, (long long)s->examples_seen,
                      (unsigned long long)s->seed, recipe, data, base);
}

// Doubles with all their digits: a resumed run's means are those of an undisturbed one to the last bit.
static Err print_metrics(const MetricsState *s, Str *out)
{
    const double *sum = (const double *)&s->sum;
    TRY(str_puts(out, " \"metrics\": {\"sum\": ["));
    for (size_t i = 0; i < sizeof s->sum / sizeof *sum; i++) TRY(str_printf(out, "%s%.17g", i ? ", " : "", sum[i]));
    return str_printf(out, "], \"count\": %lld, \"accuracy_sum\": %.17g, \"accuracy_count\": %lld, \"warned_logps\": %s, "
                      "\"warned_accuracy\": %s},\n", (long long)s->count, s->accuracy_sum, (long long)s->accuracy_count,
                      s->warned_logps ? "true" : "false", s->warned_accuracy ? "true" : "false");
}

Err manifest_print(const Manifest *m, Str *out)
{
    Str body = {0};
    char check[ID_TEXT];
    Err err = OK;
    TRY_DONE(print_state(&m->state, &body));
    TRY_DONE(print_metrics(&m->state.metrics, &body));
    TRY_DONE(str_printf(&body, " \"ranks\": %d, \"piece_bytes\": %d,\n \"files\": [", m->ranks, FILE_PIECE));
    for (int64_t i = 0; i < m->files; i++)
        TRY_DONE(str_printf(&body, "%s\n  [%lld, %lld, %lld]", i ? "," : "", (long long)m->file[i].tiles.first,
                            (long long)m->file[i].tiles.last, (long long)m->file[i].bytes));
    TRY_DONE(str_puts(&body, "],\n \"tensors\": ["));
    for (int64_t i = 0; i < m->tensors; i++)
        TRY_DONE(str_printf(&body, "%s\n  [\"%s\", %lld, %lld]", i ? "," : "", m->tensor[i].name, (long long)m->tensor[i].rows,
                            (long long)m->tensor[i].cols));
    TRY_DONE(str_puts(&body, "],\n \"pieces\": ["));
    TRY_DONE(print_ids(&body, m->piece, m->pieces));
    TRY_DONE(str_puts(&body, "],\n \"tiles\": ["));
    TRY_DONE(print_tiles(m, &body));
    TRY_DONE(str_puts(&body, "]\n}\n"));
    id_print(hash_bytes(body.p, body.len), check);
    TRY_DONE(str_printf(out, "{\"check\": \"%s\",\n%s", check, str_text(&body)));
done:
    str_free(&body);
    return err;
}

// --- parsing -------------------------------------------------------------------------------------------------------------

// The first line holds the sum of everything behind it.
static Err check_text(const Str *text, const char *path)
{
    static const char head[] = "{\"check\": \"";
    enum { HEAD = sizeof head - 1, BODY = HEAD + CHECK_DIGITS + 3 };
    char digits[ID_TEXT] = "";
    Id want;
    CHECK(text->len > BODY && !strncmp(text->p, head, HEAD) && !strncmp(text->p + HEAD + CHECK_DIGITS, "\",\n", 3), ERR_DATA,
          "%s is not a checkpoint's manifest, or it is torn", path);
    memcpy(digits, text->p + HEAD, CHECK_DIGITS);
    CHECK(id_parse(digits, &want) && id_equal(hash_bytes(text->p + BODY, text->len - BODY), want), ERR_DATA,
          "%s does not match its own checksum: it was damaged or edited", path);
    return OK;
}

static Err get_id(const json_t *value, Id *out, const char *path)
{
    const char *text = json_string_value(value);
    CHECK(text && id_parse(text, out), ERR_DATA, "%s: a checksum is missing", path);
    return OK;
}

static void get_metrics(const json_t *o, MetricsState *s)
{
    double *sum = (double *)&s->sum;
    const json_t *list = json_object_get(o, "sum");
    for (size_t i = 0; i < sizeof s->sum / sizeof *sum; i++) sum[i] = json_number_value(json_array_get(list, i));
    s->count = json_integer_value(json_object_get(o, "count"));
    s->accuracy_sum = json_number_value(json_object_get(o, "accuracy_sum"));
    s->accuracy_count = json_integer_value(json_object_get(o, "accuracy_count"));
    s->warned_logps = json_is_true(json_object_get(o, "warned_logps"));
    s->warned_accuracy = json_is_true(json_object_get(o, "warned_accuracy"));
}

static Err get_state(const json_t *root, TrainState *s, const char *path)
{
    const char *seed = json_string_value(json_object_get(root, "seed")), *format = json_string_value(json_object_get(root, "format"));
    unsigned long long value = 0;
    CHECK(format && !strcmp(format, format_name), ERR_DATA, "%s: format '%s' is not %s", path, format ? format : "?", format_name);
    CHECK(seed && sscanf(seed, "%llu", &value) == 1, ERR_DATA, "%s: no seed", path);
    s->seed = value;
    s->step = json_integer_value(json_object_get(root, "step"));
    s->epoch = json_integer_value(json_object_get(root, "epoch"));
    s->examples_seen = json_integer_value(json_object_get(root, "examples_seen"));
    get_metrics(json_object_get(root, "metrics"), &s->metrics);
    TRY(get_id(json_object_get(root, "recipe"), &s->recipe, path));
    TRY(get_id(json_object_get(root, "data"), &s->data, path));
    return get_id(json_object_get(root, "base_model"), &s->base_model, path);
}

static Err get_tensors(const json_t *list, Manifest *m, const char *path)
{
    m->tensors = (int64_t)json_array_size(list);
    TRY(MEM_ARRAY(&m->tensor, m->tensors));
    for (int64_t i = 0; i < m->tensors; i++) {
        const json_t *one = json_array_get(list, (size_t)i);
        const char *name = json_string_value(json_array_get(one, 0));
        CHECK(name && strlen(name) < TENSOR_NAME, ERR_DATA, "%s: tensor %lld has no name", path, (long long)i);
        snprintf(m->tensor[i].name, TENSOR_NAME, "%s", name);
        m->tensor[i].rows = json_integer_value(json_array_get(one, 1));
        m->tensor[i].cols = json_integer_value(json_array_get(one, 2));
    }
    return OK;
}

static int64_t get_whole(const json_t *list, size_t i) { return json_integer_value(json_array_get(list, i)); }

// Every tile is in one file.
static Err get_files(const json_t *list, Manifest *m, const char *path)
{
    int64_t tile = 0;
    m->files = (int64_t)json_array_size(list);
    TRY(MEM_ARRAY(&m->file, m->files));
    for (int64_t i = 0; i < m->files; i++) {
        const json_t *one = json_array_get(list, (size_t)i);
        ManifestFile *f = &m->file[i];
        *f = (ManifestFile){.tiles = {get_whole(one, 0), get_whole(one, 1)}, .bytes = get_whole(one, 2)};
        CHECK(f->tiles.first == tile && f->tiles.last > tile && f->bytes > 0, ERR_DATA, "%s: file %lld holds impossible tiles", path,
              (long long)i);
        tile = f->tiles.last;
    }
    return manifest_cut(m);
}

static Err get_sums(const json_t *pieces, const json_t *tiles, Manifest *m, const char *path)
{
    m->tiles = (int64_t)json_array_size(tiles) / SLOTS_OF_A_TENSOR;
    CHECK(m->pieces == (int64_t)json_array_size(pieces), ERR_DATA, "%s: sums for other sizes of the files", path);
    CHECK(m->files > 0 && m->tiles == m->file[m->files - 1].tiles.last, ERR_DATA, "%s: sums for other tiles", path);
    TRY(MEM_ARRAY(&m->tile, m->tiles));
    for (int64_t i = 0; i < m->pieces; i++) TRY(get_id(json_array_get(pieces, (size_t)i), &m->piece[i], path));
    for (int64_t i = 0; i < m->tiles * SLOTS_OF_A_TENSOR; i++)
        TRY(get_id(json_array_get(tiles, (size_t)i), &m->tile[i / SLOTS_OF_A_TENSOR].slot[i % SLOTS_OF_A_TENSOR], path));
    return OK;
}

static void get_offsets(const json_t *list, Manifest *m)
{
    for (int64_t i = 0; i < m->tiles * SLOTS_OF_A_TENSOR; i++)
        m->tile[i / SLOTS_OF_A_TENSOR].at[i % SLOTS_OF_A_TENSOR] = get_whole(list, (size_t)i);
}

static Err parse(const Str *text, Manifest *m, const char *path)
{
    json_error_t error;
    Err err = OK;
    TRY(check_text(text, path));
    json_t *root = json_loadb(text->p, (size_t)text->len, 0, &error);
    CHECK(root, ERR_DATA, "%s: line %d: %s", path, error.line, error.text);
    m->ranks = (int)json_integer_value(json_object_get(root, "ranks"));
    TRY_DONE(get_state(root, &m->state, path));
    TRY_DONE(get_files(json_object_get(root, "files"), m, path));
    TRY_DONE(get_tensors(json_object_get(root, "tensors"), m, path));
    TRY_DONE(get_sums(json_object_get(root, "pieces"), json_object_get(root, "tiles"), m, path));
    get_offsets(json_object_get(root, "offsets"), m);
done:
    json_decref(root);
    return err;
}

Err manifest_load(const char *step_dir, Manifest *m)
{
    char path[IO_PATH];
    Str text = {0};
    Err err = OK;
    *m = (Manifest){0};
    TRY(io_join(path, step_dir, "MANIFEST.json"));
    TRY_DONE(io_read(path, &text, MANIFEST_LIMIT));
    TRY_DONE(parse(&text, m, path));
done:
    str_free(&text);
    if (err != OK) manifest_free(m);
    return err;
}

// --- files ---------------------------------------------------------------------------------------------------------------

Err manifest_path(char out[IO_PATH], const char *step_dir, int64_t f)
{
    char name[64];
    snprintf(name, sizeof name, "shard-%03lld.nc", (long long)f);
    return io_join(out, step_dir, name);
}

Err manifest_cut(Manifest *m)
{
    m->pieces = 0;
    for (int64_t f = 0; f < m->files; f++) {
        m->file[f].piece = m->pieces;
        m->pieces += (m->file[f].bytes + FILE_PIECE - 1) / FILE_PIECE;
    }
    return MEM_ARRAY(&m->piece, m->pieces);
}

static Err read_piece(int fd, const char *path, char *buf, int64_t offset, int64_t n)
{
    for (int64_t done = 0; done < n;) {
        ssize_t got = pread(fd, buf + done, (size_t)(n - done), (off_t)(offset + done));
        if (got < 0 && errno == EINTR) continue;
        CHECK(got > 0, ERR_DATA, "%s: cannot read byte %lld: %s", path, (long long)(offset + done),
              got < 0 ? strerror(errno) : "the file is too short");
        done += got;
    }
    return OK;
}

int64_t manifest_bytes(const Manifest *m)
{
    int64_t bytes = 0;
    for (int64_t f = 0; f < m->files; f++) bytes += m->file[f].bytes;
    return bytes;
}

static Err sum_bytes(const char *path, int64_t offset, int64_t n, Id *out)
{
    char *buf = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    Err err = OK;
    CHECK(fd >= 0, ERR_NOINPUT, "cannot open %s: %s", path, strerror(errno));
    TRY_DONE(mem_alloc(&buf, n, 1));
    TRY_DONE(read_piece(fd, path, buf, offset, n));
    *out = hash_bytes(buf, n);
done:
    mem_free(buf);
    close(fd);
    return err;
}

static int64_t file_of(const Manifest *m, int64_t i)
{
    int64_t f = 0;
    while (f + 1 < m->files && m->file[f + 1].piece <= i) f++;
    return f;
}

// The file of piece i, its path, and the bytes [*from, *to) of the piece.
static Err locate(const Manifest *m, const char *step_dir, int64_t i, char path[IO_PATH], int64_t *from, int64_t *to)
{
    const int64_t f = file_of(m, i);
    *from = (i - m->file[f].piece) * FILE_PIECE;
    *to = *from + FILE_PIECE < m->file[f].bytes ? *from + FILE_PIECE : m->file[f].bytes;
    return manifest_path(path, step_dir, f);
}

Err manifest_sum(const Manifest *m, const char *step_dir, int64_t i, Id *out)
{
    char path[IO_PATH];
    int64_t from, to;
    TRY(locate(m, step_dir, i, path, &from, &to));
    return sum_bytes(path, from, to - from, out);
}

static Err verify_size(const Manifest *m, const char *step_dir, int64_t f)
{
    char path[IO_PATH];
    TRY(manifest_path(path, step_dir, f));
    const int64_t size = io_size(path);
    CHECK(size >= 0, ERR_NOINPUT, "%s is missing", path);
    if (size == m->file[f].bytes) return OK;
    Str whose = {0};
    Err err = size < m->file[f].bytes ? checkpoint_name_damage(m, path, f, size, m->file[f].bytes, &whose) : OK;
    if (err == OK)
        err = err_raise(ERR_DATA, __func__, __FILE__, __LINE__, "%s has %lld bytes, its manifest says %lld%s", path,
                        (long long)size, (long long)m->file[f].bytes, str_text(&whose));
    str_free(&whose);
    return err;
}

static Err verify_piece(const Manifest *m, const char *step_dir, int64_t i)
{
    char path[IO_PATH];
    int64_t from, to;
    Id sum;
    TRY(locate(m, step_dir, i, path, &from, &to));
    TRY(sum_bytes(path, from, to - from, &sum));
    if (id_equal(sum, m->piece[i])) return OK;
    Str whose = {0};
    Err err = checkpoint_name_damage(m, path, file_of(m, i), from, to, &whose);
    if (err == OK)
        err = err_raise(ERR_DATA, __func__, __FILE__, __LINE__, "%s: bytes %lld to %lld do not match their checksum%s", path,
                        (long long)from, (long long)to - 1, str_text(&whose));
    str_free(&whose);
    return err;
}

Err manifest_verify(const Manifest *m, const char *step_dir, int rank, int ranks)
{
    for (int64_t f = rank; f < m->files; f += ranks) TRY(verify_size(m, step_dir, f));
    for (int64_t i = rank; i < m->pieces; i += ranks) TRY(verify_piece(m, step_dir, i));
    return OK;
}
