#include "train/checkpoint_manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "par/par.h"

static const char format_name[] = "imf-checkpoint-1";
enum { MANIFEST_LIMIT = 1 << 30, CHECK_DIGITS = ID_TEXT - 1 };

void manifest_free(Manifest *m)
{
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

static Err print_state(const TrainState *s, Str *out)
{
    char recipe[ID_TEXT], data[ID_TEXT], base[ID_TEXT];
    id_print(s->recipe, recipe);
    id_print(s->data, data);
    id_print(s->base_model, base);
    return str_printf(out,
                      " \"format\": \"%s\", \"program\": \"imf %s\",\n \"step\": %lld, \"epoch\": %lld, \"examples_seen\": %lld, "
                      "\"seed\": \"%llu\",\n \"recipe\": \"%s\", \"data\": \"%s\", \"base_model\": \"%s\",\n",
                      format_name, IMF_VERSION, (long long)s->step, (long long)s->epoch, (long long)s->examples_seen,
                      (unsigned long long)s->seed, recipe, data, base);
}

Err manifest_print(const Manifest *m, Str *out)
{
    Str body = {0};
    char check[ID_TEXT];
    Err err = OK;
    TRY_DONE(print_state(&m->state, &body));
    TRY_DONE(str_printf(&body, " \"ranks\": %d, \"bytes\": %lld, \"piece_bytes\": %d,\n \"tensors\": [", m->ranks,
                        (long long)m->bytes, FILE_PIECE));
    for (int64_t i = 0; i < m->tensors; i++)
        TRY_DONE(str_printf(&body, "%s\n  [\"%s\", %lld, %lld]", i ? "," : "", m->tensor[i].name, (long long)m->tensor[i].rows,
                            (long long)m->tensor[i].cols));
    TRY_DONE(str_puts(&body, "],\n \"pieces\": ["));
    TRY_DONE(print_ids(&body, m->piece, m->pieces));
    TRY_DONE(str_puts(&body, "],\n \"tiles\": ["));
    TRY_DONE(print_ids(&body, m->tile ? m->tile[0].slot : NULL, m->tiles * SLOTS_OF_A_TENSOR));
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

static Err get_sums(const json_t *pieces, const json_t *tiles, Manifest *m, const char *path)
{
    m->pieces = (int64_t)json_array_size(pieces);
    m->tiles = (int64_t)json_array_size(tiles) / SLOTS_OF_A_TENSOR;
    CHECK(m->pieces == (m->bytes + FILE_PIECE - 1) / FILE_PIECE, ERR_DATA, "%s: sums for another size of the file", path);
    TRY(MEM_ARRAY(&m->piece, m->pieces));
    TRY(MEM_ARRAY(&m->tile, m->tiles));
    for (int64_t i = 0; i < m->pieces; i++) TRY(get_id(json_array_get(pieces, (size_t)i), &m->piece[i], path));
    for (int64_t i = 0; i < m->tiles * SLOTS_OF_A_TENSOR; i++)
        TRY(get_id(json_array_get(tiles, (size_t)i), &m->tile[i / SLOTS_OF_A_TENSOR].slot[i % SLOTS_OF_A_TENSOR], path));
    return OK;
}

static Err parse(const Str *text, Manifest *m, const char *path)
{
    json_error_t error;
    Err err = OK;
    TRY(check_text(text, path));
    json_t *root = json_loadb(text->p, (size_t)text->len, 0, &error);
    CHECK(root, ERR_DATA, "%s: line %d: %s", path, error.line, error.text);
    m->ranks = (int)json_integer_value(json_object_get(root, "ranks"));
    m->bytes = json_integer_value(json_object_get(root, "bytes"));
    TRY_DONE(get_state(root, &m->state, path));
    TRY_DONE(get_tensors(json_object_get(root, "tensors"), m, path));
    TRY_DONE(get_sums(json_object_get(root, "pieces"), json_object_get(root, "tiles"), m, path));
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

// --- the file ------------------------------------------------------------------------------------------------------------

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

Err manifest_piece(const char *path, int64_t bytes, int64_t i, Id *out)
{
    int64_t offset = i * FILE_PIECE, n = bytes - offset < FILE_PIECE ? bytes - offset : FILE_PIECE;
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

Err manifest_verify(const Manifest *m, const char *path, int rank, int ranks)
{
    int64_t size = io_size(path);
    CHECK(size == m->bytes, ERR_DATA, "%s has %lld bytes, its manifest says %lld", path, (long long)size, (long long)m->bytes);
    for (int64_t i = rank; i < m->pieces; i += ranks) {
        Id sum;
        TRY(manifest_piece(path, m->bytes, i, &sum));
        CHECK(id_equal(sum, m->piece[i]), ERR_DATA, "%s: bytes %lld to %lld do not match their checksum", path,
              (long long)(i * FILE_PIECE), (long long)(i * FILE_PIECE + FILE_PIECE - 1 < m->bytes ? i * FILE_PIECE + FILE_PIECE - 1 : m->bytes - 1));
    }
    return OK;
}
