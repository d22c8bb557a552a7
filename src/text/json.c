// SPDX-License-Identifier: Apache-2.0
// JSON through jansson, with messages that name file, line and key.
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "text/record.h"

static Err not_json(const char *place, const json_error_t *e)
{
    CHECK(!strstr(e->text, "JSON_ALLOW_NUL"), ERR_DATA, "%s: a text holds \\u0000; remove it", place);  // not for programmers
    const char *advice = strstr(e->text, "unable to decode")  ? "save it as UTF-8"
                         : strstr(e->text, "maximum parsing") ? "is it the right file?"
                         : strstr(e->text, "duplicate")       ? "keep one of them"
                                                              : "correct it there, or copy it again";
    FAIL(ERR_DATA, "%s: not JSON: %s; %s", place, e->text, advice);
}

Err json_parse(const char *text, int64_t n, const char *where, json_t **out)
{
    json_error_t e;
    char place[IO_PATH + 64];
    *out = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
    if (*out) return OK;
    if (e.line > 1) snprintf(place, sizeof place, "%s, line %d, column %d", where, e.line, e.column);
    else snprintf(place, sizeof place, "%s, column %d", where, e.column);
    return not_json(place, &e);
}

Err json_parse_file(const Str *text, const char *path, json_t **out)
{
    json_error_t e;
    char place[IO_PATH + 64];
    *out = json_loadb(str_text(text), (size_t)text->len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
    if (*out) return OK;
    snprintf(place, sizeof place, "%s:%d:%d", path, e.line, e.column);
    return not_json(place, &e);
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
