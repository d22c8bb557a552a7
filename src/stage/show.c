// SPDX-License-Identifier: Apache-2.0
// imf show PATH: says what a file or directory is and what is in it, for every kind that imf writes. Kinds are told apart
// by their contents (first bytes, header line, the files of a directory) and, where these say nothing, by the name's end.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/deck.h"
#include "par/par.h"
#include "stage/show_parts.h"
#include "stage/stage.h"
#include "text/record.h"
#include "train/checkpoint.h"
#include "train/refs.h"

Err show_value(Str *out, const char *label, const json_t *v)
{
    enum { LONGEST = 400 };  // bytes of a list or object: token ids would fill the screen
    TRY(str_printf(out, "  %s: ", label));
    int64_t start = out->len;
    if (json_is_string(v)) TRY(str_puts(out, json_string_value(v)));
    else if (json_is_real(v)) TRY(str_printf(out, "%.6g", json_real_value(v)));
    else if (v) TRY(json_canonical(v, out));
    if ((json_is_array(v) || json_is_object(v)) && out->len > start + LONGEST) {
        out->len = start + LONGEST;
        TRY(str_puts(out, " ..."));
    }
    return str_puts(out, "\n");
}

Err show_read_json(const char *path, json_t **out)
{
    Str text = {0};
    *out = NULL;
    Err err = io_read(path, &text, 64 << 20);
    if (err == OK) err = json_parse(str_text(&text), text.len, path, out);
    str_free(&text);
    return err;
}

// ---- files -----------------------------------------------------------------------------------------------------------

// First line as a JSON object; NULL when it is none.
static json_t *first_line(const FileMap *map)
{
    const char *newline = map->size ? memchr(map->p, '\n', (size_t)map->size) : NULL;
    int64_t n = newline ? newline - map->p : map->size;
    json_t *v = NULL;
    if (n == 0 || json_parse(map->p, n, "first line", &v) != OK) return NULL;
    if (json_is_object(v)) return v;
    json_decref(v);
    return NULL;
}

static Err show_part(const char *path, const FileMap *map, const json_t *header, Str *out)
{
    static const char *const fields[] = {"format", "version", "recipe", "inputs", "program"};
    int64_t lines = 0, whole = 0;
    const char *p = map->p, *end = p + map->size, *newline;
    for (; p < end && (newline = memchr(p, '\n', (size_t)(end - p))); p = newline + 1) lines++, whole = newline + 1 - map->p;
    TRY(str_printf(out, "%s: a part of a record set, %" PRId64 " records\n", path, lines > 0 ? lines - 1 : 0));
    for (int i = 0; i < 5; i++) TRY(show_value(out, fields[i], json_object_get(header, fields[i])));
    if (whole < map->size) TRY(str_printf(out, "  torn last line: %" PRId64 " bytes, skipped by readers\n", map->size - whole));
    return OK;
}

typedef struct Lines {
    int64_t rows, warnings;
    char first[32], last[32];
} Lines;

static Err count_line(void *user, const json_t *row, const char *where)
{
    Lines *l = user;
    const char *time = json_string_value(json_object_get(row, "time")), *level = json_string_value(json_object_get(row, "level"));
    (void)where;
    if (time && l->rows == 0) snprintf(l->first, sizeof l->first, "%s", time);
    if (time) snprintf(l->last, sizeof l->last, "%s", time);
    l->warnings += level && !strcmp(level, "warn");
    l->rows++;
    return OK;
}

// log.jsonl, exports, lists of what was dropped, a user's rows.
static Err show_rows(const char *path, const json_t *first, Str *out)
{
    Lines l = {0};
    const char *key;
    json_t *v;
    TRY(jsonl_each(path, count_line, &l));
    if (json_object_get(first, "level") && json_object_get(first, "component"))
        return str_printf(out, "%s: a log, %" PRId64 " lines from %s to %s, %" PRId64 " warnings\n", path, l.rows, l.first, l.last,
                          l.warnings);
    TRY(str_printf(out, "%s: %" PRId64 " rows of JSON; the first one:\n", path, l.rows));
    json_object_foreach((json_t *)first, key, v) TRY(show_value(out, key, v));
    return OK;
}

static Err show_jsonl(const char *path, const FileMap *map, const json_t *first, Str *out)
{
    const char *format = json_string_value(json_object_get(first, "format"));
    if (format && str_starts(format, "imf-") && !json_object_get(first, "digest")) return show_part(path, map, first, out);
    if (json_object_get(first, "step") && json_object_get(first, "stage") && !json_object_get(first, "seconds"))
        return show_metrics(path, out);
    return show_rows(path, first, out);
}

static Err show_json(const char *path, const json_t *v, Str *out)
{
    const char *key;
    json_t *field;
    if (json_object_get(v, "rows") && json_object_get(v, "paired")) return show_eval(path, out);
    TRY(str_printf(out, "%s: one JSON object\n", path));
    json_object_foreach((json_t *)v, key, field) TRY(show_value(out, key, field));
    return OK;
}

static Err show_recipe(const char *path, Str *out)
{
    Deck *deck;
    char hash[ID_TEXT];
    TRY(deck_load(&deck, path, NULL, 0));
    id_print(deck_hash(deck), hash);
    Err err = str_printf(out, "%s: a recipe, hash %s\n", path, hash);
    if (err == OK) err = deck_print(deck, out);
    deck_free(deck);
    return err;
}

static Err show_index(const char *path, int64_t bytes, Str *out)
{
    return str_printf(out, "%s: index of a part, %" PRId64 " records of 40 bytes%s\n", path, bytes / 40,
                      bytes % 40 ? ", and a torn one" : "");
}

// A shard of a checkpoint: what the whole checkpoint is.
static Err show_shard(const char *path, Str *out)
{
    char dir[IO_PATH];
    snprintf(dir, sizeof dir, "%.*s", (int)(io_basename(path) - path), path);
    return checkpoint_show(*dir ? dir : ".", out);
}

// A page or a model card: the lines that are titles.
static Err show_titles(const char *path, const FileMap *map, const char *kind, const char *mark, Str *out)
{
    int64_t n = (int64_t)strlen(mark);
    TRY(str_printf(out, "%s: %s\n", path, kind));
    for (const char *p = map->p, *end = p + map->size, *stop; p < end; p = stop + 1) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        stop = newline ? newline : end;
        if (stop - p < n || memcmp(p, mark, (size_t)n)) continue;
        const char *close = memchr(p + n, '<', (size_t)(stop - p - n));
        TRY(str_printf(out, "  %.*s\n", (int)((close ? close : stop) - p - n), p + n));
    }
    return OK;
}

static Err show_mapped(const char *path, const FileMap *map, Str *out)
{
    if (str_ends(path, ".nc")) return show_shard(path, out);
    if (str_ends(path, ".safetensors")) return show_weights(path, out);
    if (map->size >= 8 && !memcmp(map->p, "IMFREF", 6)) return refs_show(path, out);
    if (str_ends(path, ".idx")) return show_index(path, map->size, out);
    if (str_ends(path, ".yaml") || str_ends(path, ".yml")) return show_recipe(path, out);
    if (str_ends(path, ".html")) return show_titles(path, map, "the page of a run; its parts:", "<h2>", out);
    if (!strcmp(io_basename(path), "README.md")) return show_titles(path, map, "a model card", "# ", out);
    if (map->size == 0 && str_ends(path, ".jsonl")) return str_printf(out, "%s: 0 rows of JSON\n", path);
    json_t *first = first_line(map);
    Err err;
    if (first) {
        bool one = str_ends(path, ".json") || !strcmp(io_basename(path), "done");
        err = one ? show_json(path, first, out) : show_jsonl(path, map, first, out);
        json_decref(first);
        return err;
    }
    json_t *whole = NULL;
    if (show_read_json(path, &whole) == OK) {
        err = show_json(path, whole, out);
        json_decref(whole);
        return err;
    }
    if (!strcmp(io_basename(path), "lease"))
        return str_printf(out, "%s: owner (job, host, process, start): %.*s", path, (int)map->size, map->p);
    FAIL(ERR_DATA, "%s is no file that imf writes (%" PRId64 " bytes)", path, map->size);
}

static Err show_file(const char *path, Str *out)
{
    FileMap map;
    TRY(io_map(path, &map));
    Err err = show_mapped(path, &map, out);
    io_unmap(&map);
    return err;
}

// ---- directories -----------------------------------------------------------------------------------------------------

static Err show_dir(const char *path, Str *out)
{
    if (io_has(path, "MANIFEST.json")) return checkpoint_show(path, out);
    if (io_has(path, "config.json")) return show_model(path, out);
    if (record_is_set(path)) return show_record_set(path, out);
    if (show_is_run(path)) return show_run(path, out);
    if (show_is_part_of_run(path)) return show_part_of_run(path, out);
    FAIL(ERR_DATA, "%s is no directory that imf writes: no run, record set, checkpoint or model", path);
}

Err stage_show(const Job *job)
{
    Str out = {0};
    char path[IO_PATH];
    Err err = OK;
    CHECK(job->argc == 1, ERR_USAGE, "imf show wants one path: imf show PATH");
    CHECK(par_size() == 1, ERR_USAGE, "imf show wants one rank");
    snprintf(path, sizeof path, "%s", job->argv[0]);
    for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--) path[n - 1] = '\0';
    CHECK(io_exists(path), ERR_NOINPUT, "%s does not exist", path);
    TRY_DONE(io_is_dir(path) ? show_dir(path, &out) : show_file(path, &out));
    fputs(str_text(&out), stdout);
done:
    str_free(&out);
    return err;
}
