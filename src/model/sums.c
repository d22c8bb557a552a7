// SPDX-License-Identifier: Apache-2.0
#include "model/sums.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/profile.h"
#include "base/version.h"

enum { LIMIT = 1 << 24, HEAD = 11, CHECK_END = HEAD + ID_TEXT - 1, BODY = CHECK_END + 3 };
static const char head[] = "{\"check\": \"", behind[] = "\",\n", format_name[] = "imf-model-1";

// --- writing ---------------------------------------------------------------------------------------------------------

static Err add_file(json_t *files, const char *dir, const char *name)
{
    char path[IO_PATH], sum[ID_TEXT];
    Id id;
    TRY(io_join(path, dir, name));
    TRY(hash_file(path, &id));
    id_print(id, sum);
    json_t *one = json_pack("{s:I,s:s}", "bytes", (json_int_t)io_size(path), "xxh3", sum);
    CHECK(one && json_object_set_new(files, name, one) == 0, ERR_UNAVAILABLE, "no memory for the checksums of %s", dir);
    return OK;
}

static Err add_files(json_t *files, const char *dir)
{
    char **name = NULL;
    int64_t n = 0;
    Err err = OK;
    TRY(io_list(dir, &name, &n));
    for (int64_t i = 0; i < n; i++)
        if (strcmp(name[i], SUMS_FILE)) TRY_DONE(add_file(files, dir, name[i]));
done:
    io_list_free(name, n);
    return err;
}

static int add_text(const char *bytes, size_t n, void *text) { return str_add(text, bytes, (int64_t)n) == OK ? 0 : -1; }

// All of the file but its first line, and the first line that names its sum.
static Err print(const json_t *all, Str *out)
{
    Str body = {0};
    char check[ID_TEXT];
    Err err = OK;
    CHECK_DONE(json_dump_callback(all, add_text, &body, JSON_COMPACT | JSON_SORT_KEYS) == 0 && body.len > 1, ERR_UNAVAILABLE,
               "no memory for checksums");
    TRY_DONE(str_puts(&body, "\n"));
    id_print(hash_bytes(body.p + 1, body.len - 1), check);
    TRY_DONE(str_printf(out, "%s%s%s%s", head, check, behind, body.p + 1));  // without the opening brace
done:
    str_free(&body);
    return err;
}

Err sums_write(const char *dir)
{
    PROFILE(PHASE_IO);
    char path[IO_PATH];
    Str text = {0};
    Err err = OK;
    json_t *files = json_object(),
           *all = json_pack("{s:s,s:s,s:O}", "format", format_name, "program", imf_version, "files", files);
    CHECK_DONE(all, ERR_UNAVAILABLE, "no memory for checksums");
    TRY_DONE(io_join(path, dir, SUMS_FILE));
    TRY_DONE(add_files(files, dir));
    TRY_DONE(print(all, &text));
    TRY_DONE(io_write(path, text.p, text.len));
done:
    str_free(&text);
    json_decref(files);
    json_decref(all);
    return err;
}

// --- checking --------------------------------------------------------------------------------------------------------

// NULL: not what sums_write wrote.
static json_t *parse(const Str *text)
{
    char digits[ID_TEXT] = "";
    Id want;
    if (text->len <= BODY || strncmp(text->p, head, HEAD) || strncmp(text->p + CHECK_END, behind, 3)) return NULL;
    memcpy(digits, text->p + HEAD, ID_TEXT - 1);
    if (!id_parse(digits, &want) || !id_equal(want, hash_bytes(text->p + BODY, text->len - BODY))) return NULL;
    return json_loadb(text->p, (size_t)text->len, JSON_REJECT_DUPLICATES, NULL);
}

static Err check_file(const char *dir, const char *name, const json_t *want, SumsFault fault, void *user)
{
    char path[IO_PATH], sum[ID_TEXT], what[128];
    const char *wanted = json_string_value(json_object_get(want, "xxh3"));
    const int64_t bytes = json_integer_value(json_object_get(want, "bytes"));
    Id id;
    TRY(io_join(path, dir, name));
    const int64_t size = io_size(path);
    snprintf(what, sizeof what, "it has %" PRId64 " bytes, " SUMS_FILE " says %" PRId64, size, bytes);
    if (size < 0) return fault(user, name, "the file is missing");
    if (size != bytes) return fault(user, name, what);
    TRY(hash_file(path, &id));
    id_print(id, sum);
    return wanted && !strcmp(sum, wanted) ? OK : fault(user, name, "it does not match its checksum: it was changed or damaged");
}

static Err check_more(const char *dir, const json_t *files, SumsFault fault, void *user)
{
    char **name = NULL;
    int64_t n = 0;
    Err err = OK;
    TRY(io_list(dir, &name, &n));
    for (int64_t i = 0; i < n; i++)
        if (strcmp(name[i], SUMS_FILE) && !json_object_get(files, name[i]))
            TRY_DONE(fault(user, name[i], "the file was added after the model had been written"));
done:
    io_list_free(name, n);
    return err;
}

Err sums_check(const char *dir, SumsFault fault, void *user, int64_t *files)
{
    char path[IO_PATH];
    Str text = {0};
    json_t *all = NULL, *one;
    const char *name;
    Err err = OK;
    *files = -1;
    TRY(io_join(path, dir, SUMS_FILE));
    if (!io_exists(path)) return OK;
    *files = 0;
    if (io_size(path) <= LIMIT) TRY_DONE(io_read(path, &text, LIMIT));
    all = parse(&text);
    if (!all) TRY_DONE(fault(user, SUMS_FILE, "it does not match its own checksum: it was changed or damaged"));
    json_object_foreach(json_object_get(all, "files"), name, one)
    {
        ++*files;
        TRY_DONE(check_file(dir, name, one, fault, user));
    }
    if (all) TRY_DONE(check_more(dir, json_object_get(all, "files"), fault, user));
done:
    str_free(&text);
    json_decref(all);
    return err;
}
