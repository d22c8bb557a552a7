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

static Err next(Reader *r)
{
    drop_event(r);
    if (!yaml_parser_parse(&r->parser, &r->event)) {
        yaml_mark_t at = r->parser.problem_mark;
        FAIL(ERR_RECIPE, "%s:%zu:%zu: not YAML: %s%s%s", r->file, at.line + 1, at.column + 1,
             r->parser.problem ? r->parser.problem : "unreadable", r->parser.context ? " " : "",
             r->parser.context ? r->parser.context : "");
    }
    r->held = true;
    const yaml_event_t *e = &r->event;
    bool anchored = (e->type == YAML_SCALAR_EVENT && e->data.scalar.anchor) ||
                    (e->type == YAML_MAPPING_START_EVENT && e->data.mapping_start.anchor) ||
                    (e->type == YAML_SEQUENCE_START_EVENT && e->data.sequence_start.anchor);
    bool tagged = (e->type == YAML_SCALAR_EVENT && e->data.scalar.tag) ||
                  (e->type == YAML_MAPPING_START_EVENT && e->data.mapping_start.tag) ||
                  (e->type == YAML_SEQUENCE_START_EVENT && e->data.sequence_start.tag);
    if (anchored || e->type == YAML_ALIAS_EVENT)
        return refuse(r, e->start_mark, "anchors and aliases (& and *) are not allowed in a recipe");
    if (tagged) return refuse(r, e->start_mark, "tags (!) are not allowed in a recipe");
    return OK;
}

static Err read_value(Reader *r, const char *path, yaml_mark_t at, int depth);

static Err read_scalar(Reader *r, const char *path)
{
    char where[IO_PATH + 48];
    place(r, r->event.start_mark, where);
    const char *text = (const char *)r->event.data.scalar.value;
    bool plain = r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if (strlen(text) != r->event.data.scalar.length) return refuse(r, r->event.start_mark, "a NUL character in a value");
    if (plain && !*text) return OK;  // "key:" alone: the default
    return deck_put(r->deck, path, text, where, false);
}

static Err read_mapping(Reader *r, const char *path, int depth)
{
    char child[DECK_PATH];
    for (;;) {
        TRY(next(r));
        if (r->event.type == YAML_MAPPING_END_EVENT) return OK;
        if (r->event.type != YAML_SCALAR_EVENT) return refuse(r, r->event.start_mark, "a key must be one word");
        const char *key = (const char *)r->event.data.scalar.value;
        yaml_mark_t at = r->event.start_mark;
        if (strpbrk(key, ".[]")) return refuse(r, at, "a key must not contain . [ or ]; nest the sections instead");
        int n = snprintf(child, sizeof child, "%s%s%s", path, *path ? "." : "", key);
        if (n >= DECK_PATH) return refuse(r, at, "key too long");
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
        if (n >= DECK_PATH) return refuse(r, r->event.start_mark, "key too long");
        TRY(read_value(r, child, r->event.start_mark, depth + 1));
    }
}

// The value of the current event; `at` is where its key stands (an unknown key is reported there).
static Err read_value(Reader *r, const char *path, yaml_mark_t at, int depth)
{
    char where[IO_PATH + 48], pattern[DECK_PATH];
    if (depth > DECK_DEPTH) return refuse(r, at, "nested deeper than 32 levels");
    place(r, at, where);
    TRY(deck_pattern(path, where, pattern));
    bool list = r->event.type == YAML_SEQUENCE_START_EVENT, entry = strchr(path, '[') && str_ends(path, "]");
    if (!deck_key(pattern) || r->event.type != YAML_SCALAR_EVENT) TRY(deck_put(r->deck, path, NULL, where, false));
    if (r->event.type == YAML_SCALAR_EVENT) {
        if (deck_key(pattern)) return read_scalar(r, path);
        if (!*(const char *)r->event.data.scalar.value) return OK;  // an empty section
        return refuse(r, r->event.start_mark, entry ? "a list entry holds keys of its own, not one value"
                                                    : "a section or list is wanted here, not one value");
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
    Str text = {0};
    Err err = OK;
    if (!yaml_parser_initialize(&r.parser)) FAIL(ERR_UNAVAILABLE, "out of memory for the recipe reader");
    TRY_DONE(io_read(file, &text, DECK_BYTES));
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)str_text(&text), (size_t)text.len);
    TRY_DONE(read_document(&r));
done:
    drop_event(&r);
    yaml_parser_delete(&r.parser);
    str_free(&text);
    return err;
}
