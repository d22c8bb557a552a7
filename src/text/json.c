// JSON through jansson, with messages that name file, line and key.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "text/record.h"

Err json_parse(const char *text, int64_t n, const char *where, json_t **out)
{
    json_error_t e;
    *out = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
    CHECK(*out, ERR_DATA, "%s: not JSON: %s (line %d, column %d)", where, e.text, e.line, e.column);
    return OK;
}

static const char *type_name(const json_t *v)
{
    static const char *const names[] = {"an object", "an array", "text", "a whole number", "a number", "true", "false", "null"};
    return v ? names[json_typeof(v)] : "missing";
}

Err json_get_text(const json_t *o, const char *key, const char *where, const char **out)
{
    const json_t *v = json_object_get(o, key);
    CHECK(json_is_string(v), ERR_DATA, "%s: \"%s\" must be text; it is %s", where, key, type_name(v));
    *out = json_string_value(v);
    return OK;
}

Err json_get_i64(const json_t *o, const char *key, const char *where, int64_t *out)
{
    const json_t *v = json_object_get(o, key);
    CHECK(json_is_integer(v), ERR_DATA, "%s: \"%s\" must be a whole number; it is %s", where, key, type_name(v));
    *out = json_integer_value(v);
    return OK;
}

Err json_get_f64(const json_t *o, const char *key, const char *where, double *out)
{
    const json_t *v = json_object_get(o, key);
    CHECK(json_is_number(v), ERR_DATA, "%s: \"%s\" must be a number; it is %s", where, key, type_name(v));
    *out = json_number_value(v);
    return OK;
}

Err json_get_id(const json_t *o, const char *key, const char *where, Id *out)
{
    const char *text;
    TRY(json_get_text(o, key, where, &text));
    CHECK(id_parse(text, out), ERR_DATA, "%s: \"%s\" must be an id of 32 hex digits; it is '%.40s'", where, key, text);
    return OK;
}

json_t *json_id(Id id)
{
    char text[ID_TEXT];
    id_print(id, text);
    return json_string(text);
}

static int append(const char *bytes, size_t n, void *user) { return str_add(user, bytes, (int64_t)n) == OK ? 0 : -1; }

Err json_canonical(const json_t *v, Str *out)
{
    int rc = json_dump_callback(v, append, out, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    CHECK(rc == 0, ERR_INTERNAL, "cannot write a value as JSON: not finite, not UTF-8, or no memory");
    return OK;
}

static Err array_each(const char *path, const char *text, int64_t n, JsonlFn f, void *user)
{
    json_t *rows, *row;
    size_t i;
    char where[IO_PATH + 32];
    Err err = OK;
    TRY(json_parse(text, n, path, &rows));
    json_array_foreach(rows, i, row) {
        snprintf(where, sizeof where, "%s: entry %zu", path, i + 1);
        TRY_DONE(f(user, row, where));
    }
done:
    json_decref(rows);
    return err;
}

static Err line_each(const char *path, const char *text, int64_t n, JsonlFn f, void *user)
{
    char where[IO_PATH + 32];
    const char *end = text + n;
    for (int64_t number = 1; text < end; number++) {
        const char *newline = memchr(text, '\n', (size_t)(end - text)), *stop = newline ? newline : end;
        const char *first = text + strspn(text, " \t\r");  // stops at '\n' or the map's end at the latest
        if (first < stop) {
            json_t *row;
            snprintf(where, sizeof where, "%s:%" PRId64, path, number);
            TRY(json_parse(text, stop - text, where, &row));
            Err err = f(user, row, where);
            json_decref(row);
            TRY(err);
        }
        text = stop + 1;
    }
    return OK;
}

static Err text_each(const char *path, const Str *text, JsonlFn f, void *user)
{
    const char *p = str_text(text), *end = p + text->len;
    if (str_starts(p, "\xef\xbb\xbf")) p += 3;
    bool array = p[strspn(p, " \t\r\n")] == '[';
    return array ? array_each(path, p, end - p, f, user) : line_each(path, p, end - p, f, user);
}

Err jsonl_each(const char *path, JsonlFn f, void *user)
{
    Str text = {0};
    FileMap map;
    Err err = OK;
    TRY(io_map(path, &map));
    TRY_DONE(str_add(&text, map.p, map.size));  // a copy: NUL-terminated, and safe from a file that is cut meanwhile
    io_unmap(&map);
    TRY_DONE(text_each(path, &text, f, user));
done:
    io_unmap(&map);
    str_free(&text);
    return err;
}

Err jsonl_stdin(JsonlFn f, void *user)
{
    Str text = {0};
    char block[65536];
    Err err = OK;
    for (ssize_t n = 1; n != 0;) {
        n = read(STDIN_FILENO, block, sizeof block);
        if (n < 0 && errno == EINTR) continue;
        CHECK_DONE(n >= 0, ERR_IO, "cannot read standard input: %s", strerror(errno));
        TRY_DONE(str_add(&text, block, n));
    }
    TRY_DONE(text_each("standard input", &text, f, user));
done:
    str_free(&text);
    return err;
}
