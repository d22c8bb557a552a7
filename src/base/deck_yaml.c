// SPDX-License-Identifier: Apache-2.0
// Reading a recipe with libyaml's events. Only plain YAML: one document; anchors, aliases and tags are refused.
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "base/deck_parts.h"
#include "base/io.h"

typedef struct Reader {
    Deck *deck;
    const char *file;
    yaml_parser_t parser;
    yaml_event_t event;  // the current one, if `held`
    bool held;
    Str text;  // of the file
} Reader;

static void drop_event(Reader *r)
{
    if (r->held) yaml_event_delete(&r->event);
    r->held = false;
}

static void place(const Reader *r, yaml_mark_t mark, char out[IO_PATH + 48])
{
    snprintf(out, IO_PATH + 48, "%s:%zu:%zu", r->file, mark.line + 1, mark.column + 1);
}

static Err refuse(const Reader *r, yaml_mark_t mark, const char *what)
{
    char where[IO_PATH + 48];
    place(r, mark, where);
    FAIL(ERR_RECIPE, "%s: %s", where, what);
}

// Where the parser stopped. For a byte that is no text it knows the offset only.
static yaml_mark_t trouble(const Reader *r)
{
    if (r->parser.error != YAML_READER_ERROR) return r->parser.problem_mark;
    yaml_mark_t at = {0};
    for (size_t i = 0; i < r->parser.problem_offset && i < (size_t)r->text.len; i++) {
        at.column++;
        if (r->text.p[i] == '\n') at.line++, at.column = 0;
    }
    return at;
}

static Err not_yaml(const Reader *r)
{
    const yaml_parser_t *p = &r->parser;
    yaml_mark_t at = trouble(r);
    bool tab = p->error == YAML_SCANNER_ERROR && at.index < (size_t)r->text.len && r->text.p[at.index] == '\t';
    const char *advice = p->error == YAML_READER_ERROR ? "save the recipe as plain UTF-8 text"
                         : tab                         ? "indent with spaces, not with tabs"
                                                       : "check quotes, brackets and indentation from there upwards";
    FAIL(ERR_RECIPE, "%s:%zu:%zu: not YAML: %s%s%s; %s", r->file, at.line + 1, at.column + 1,
         p->problem ? p->problem : "unreadable", p->context ? " " : "", p->context ? p->context : "", advice);
}

static Err next(Reader *r)
{
    drop_event(r);
    if (!yaml_parser_parse(&r->parser, &r->event)) return not_yaml(r);
    r->held = true;
    const yaml_event_t *e = &r->event;
    bool anchored = (e->type == YAML_SCALAR_EVENT && e->data.scalar.anchor) ||
                    (e->type == YAML_MAPPING_START_EVENT && e->data.mapping_start.anchor) ||
                    (e->type == YAML_SEQUENCE_START_EVENT && e->data.sequence_start.anchor);
    bool tagged = (e->type == YAML_SCALAR_EVENT && e->data.scalar.tag) ||
                  (e->type == YAML_MAPPING_START_EVENT && e->data.mapping_start.tag) ||
                  (e->type == YAML_SEQUENCE_START_EVENT && e->data.sequence_start.tag);
    if (anchored || e->type == YAML_ALIAS_EVENT)
        return refuse(r, e->start_mark,
                      "anchors and aliases (& and *) are not allowed in a recipe; write the value out or put it in quotes");
    if (tagged)
        return refuse(r, e->start_mark, "tags (!) are not allowed in a recipe; leave it out or put the value in quotes");
    return OK;
}

static Err read_value(Reader *r, const char *path, yaml_mark_t at, int depth);

static Err read_scalar(Reader *r, const char *path)
{
    char where[IO_PATH + 48];
    place(r, r->event.start_mark, where);
    const char *text = (const char *)r->event.data.scalar.value;
    bool plain = r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if (strlen(text) != r->event.data.scalar.length)
        return refuse(r, r->event.start_mark, "a NUL character in a value; remove it");
    bool null = !*text || !strcmp(text, "~") || !strcmp(text, "null") || !strcmp(text, "Null") || !strcmp(text, "NULL");
    if (plain && null) return OK;  // "key:" alone, or null: the default
    return deck_put(r->deck, path, text, where, false);
}

static Err read_mapping(Reader *r, const char *path, int depth)
{
    char child[DECK_PATH];
    for (;;) {
        TRY(next(r));
        if (r->event.type == YAML_MAPPING_END_EVENT) return OK;
        const char *key = r->event.type == YAML_SCALAR_EVENT ? (const char *)r->event.data.scalar.value : "";
        if (r->event.type != YAML_SCALAR_EVENT || !*key || strlen(key) != r->event.data.scalar.length)
            return refuse(r, r->event.start_mark, "a key must be one word, as imf help recipe lists them");
        yaml_mark_t at = r->event.start_mark;
        if (strpbrk(key, ".[]")) return refuse(r, at, "a key must not contain . [ or ]; nest the sections instead");
        int n = snprintf(child, sizeof child, "%s%s%s", path, *path ? "." : "", key);
        if (n >= DECK_PATH) return refuse(r, at, "no key is that long (imf help recipe lists all)");
        TRY(next(r));
        TRY(read_value(r, child, at, depth + 1));
    }
}

static Err read_sequence(Reader *r, const char *path, int depth)
{
    char child[DECK_PATH];
    for (int i = 0;; i++) {
        TRY(next(r));
        if (r->event.type == YAML_SEQUENCE_END_EVENT) return OK;
        int n = snprintf(child, sizeof child, "%s[%d]", path, i);
        if (n >= DECK_PATH) return refuse(r, r->event.start_mark, "no key is that long (imf help recipe lists all)");
        TRY(read_value(r, child, r->event.start_mark, depth + 1));
    }
}

// The value of the current event; `at` is where its key stands (an unknown key is reported there).
static Err read_value(Reader *r, const char *path, yaml_mark_t at, int depth)
{
    char where[IO_PATH + 48], pattern[DECK_PATH];
    if (depth > DECK_DEPTH) return refuse(r, at, "nested deeper than 32 levels; a recipe needs four");
    place(r, at, where);
    TRY(deck_pattern(path, where, pattern));
    bool list = r->event.type == YAML_SEQUENCE_START_EVENT, entry = strchr(path, '[') && str_ends(path, "]");
    if (!deck_key(pattern) || r->event.type != YAML_SCALAR_EVENT) TRY(deck_put(r->deck, path, NULL, where, false));
    if (r->event.type == YAML_SCALAR_EVENT) {
        if (deck_key(pattern)) return read_scalar(r, path);
        if (!*(const char *)r->event.data.scalar.value) return OK;  // an empty section
        return refuse(r, r->event.start_mark,
                      entry ? "a list entry holds keys of its own: write 'key: value', not one value"
                            : "a section of keys or a list is wanted here, not one value (imf help recipe lists all)");
    }
    char as_list[DECK_PATH + 2];
    snprintf(as_list, sizeof as_list, "%s[]", pattern);
    bool wants_list = deck_is_section(as_list);
    if (list != wants_list)
        return refuse(r, r->event.start_mark, wants_list ? "a list is wanted here (lines that begin with '- ')"
                                                         : "not a list: a section of keys is wanted here");
    return list ? read_sequence(r, path, depth) : read_mapping(r, path, depth);
}

static Err read_document(Reader *r)
{
    TRY(next(r));  // stream start
    TRY(next(r));
    if (r->event.type == YAML_STREAM_END_EVENT) return OK;  // an empty file: all defaults
    TRY(next(r));
    bool empty = r->event.type == YAML_SCALAR_EVENT && r->event.data.scalar.length == 0;
    if (!empty && r->event.type != YAML_MAPPING_START_EVENT)
        return refuse(r, r->event.start_mark, "a recipe is lines of 'key: value'");
    if (!empty) TRY(read_mapping(r, "", 0));
    TRY(next(r));  // document end
    TRY(next(r));
    if (r->event.type != YAML_STREAM_END_EVENT)
        return refuse(r, r->event.start_mark, "a recipe is one document: a second '---' is here");
    return OK;
}

Err deck_read_yaml(Deck *d, const char *file)
{
    Reader r = {.deck = d, .file = file};
    Err err = OK;
    if (!yaml_parser_initialize(&r.parser)) FAIL(ERR_UNAVAILABLE, "out of memory for the recipe reader");
    TRY_DONE(io_read(file, &r.text, DECK_BYTES));
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)str_text(&r.text), (size_t)r.text.len);
    TRY_DONE(read_document(&r));
done:
    drop_event(&r);
    yaml_parser_delete(&r.parser);
    str_free(&r.text);
    return err;
}
