// SPDX-License-Identifier: Apache-2.0
// What the stages left out, counted by stage, data set or source, and reason, with the first few ids of each: the record sets
// and lists (dropped.jsonl) that hold every id, the samples that got no score, and the verdicts that are undecided.
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "stage/report_parts.h"

enum { REASONS = 200 };  // that are told apart; the last one stands for all others

typedef struct Drops {
    json_t *list, *place;  // place: number in the list by key
    const char *stage, *what;
} Drops;

static json_t *new_reason(Drops *d, const char *key, const char *of, const char *what, const char *reason)
{
    bool last = json_array_size(d->list) >= REASONS - 1;
    json_t *drop = json_pack("{s:s,s:s,s:s,s:s,s:i,s:[]}", "stage", d->stage, "of", last ? "" : of, "what", what, "reason",
                             last ? "any other reason" : reason, "n", 0, "ids");
    json_array_append_new(d->list, drop);
    json_object_set(d->place, key, drop);
    return drop;
}

// "731 tokens, more than .." and "902 tokens, more than .." are one reason.
static void general(const char *reason, char out[256])
{
    size_t digits = strspn(reason, "0123456789");
    snprintf(out, 256, "%s%s", digits ? "N" : "", reason + digits);
}

static Err add(Drops *d, const char *of, const char *what, const char *why, const char *id)
{
    Str key = {0};
    char reason[256];
    general(why, reason);
    TRY(str_printf(&key, "%s\n%s\n%s\n%s", d->stage, of, what, reason));
    json_t *drop = json_object_get(d->place, str_text(&key));
    if (!drop && json_array_size(d->list) >= REASONS) drop = json_array_get(d->list, REASONS - 1);
    if (!drop) drop = new_reason(d, str_text(&key), of, what, reason);
    str_free(&key);
    json_object_set_new(drop, "n", json_integer(json_integer_value(json_object_get(drop, "n")) + 1));
    json_t *ids = json_object_get(drop, "ids");
    if (json_array_size(ids) < REPORT_IDS) json_array_append_new(ids, json_string(id));
    return OK;
}

static const char *first_text(const json_t *o, const char *a, const char *b, const char *c)
{
    const char *s = report_text(o, a);
    if (!*s) s = report_text(o, b);
    return *s ? s : report_text(o, c);
}

static Err add_row(void *user, const json_t *row, const char *where)
{
    Drops *d = user;
    const char *what = report_text(row, "what");
    (void)where;
    return add(d, first_text(row, "dataset", "source", "set"), *what ? what : d->what, report_text(row, "reason"),
               first_text(row, "id", "prompt", ""));
}

static Err add_set(Drops *d, RecordSet *s, const char *stage)
{
    d->stage = stage, d->what = "";
    for (int64_t i = 0; i < record_count(s); i++) {
        json_t *data;
        TRY(record_read(s, i, &data));
        Err err = add_row(d, data, stage);
        json_decref(data);
        TRY(err);
    }
    return OK;
}

static Err add_list(Drops *d, const char *run_dir, const char *name, const char *stage, const char *what)
{
    char path[IO_PATH];
    d->stage = stage, d->what = what;
    TRY(io_join(path, run_dir, name));
    return io_exists(path) ? jsonl_each(path, add_row, d) : OK;
}

// Samples without a score, or with an undecided verdict, of a set.
static Err add_unsure(Drops *d, RecordSet *s, const char *stage)
{
    d->stage = stage;
    for (int64_t i = 0; i < record_count(s); i++) {
        json_t *data;
        Err err = OK;
        TRY(record_read(s, i, &data));
        const char *unscored = report_text(data, "unscored");
        if (*unscored) err = add(d, "", "sample without a score", unscored, report_text(data, "sample"));
        else if (!strcmp(report_text(data, "outcome"), "undecided"))
            err = add(d, report_text(data, "kind"), "sample, undecided", report_text(data, "reason"),
                      report_text(data, "sample"));
        json_decref(data);
        TRY(err);
    }
    return OK;
}

static Err add_all(Drops *d, const Report *r)
{
    TRY(add_set(d, life_set(r->life, LIFE_DROPPED_BEFORE), "select"));
    TRY(add_set(d, life_set(r->life, LIFE_UNSAMPLED), "sample"));
    TRY(add_unsure(d, life_set(r->life, LIFE_SCORES), "score"));
    TRY(add_unsure(d, life_set(r->life, LIFE_VERDICTS), "verify"));
    TRY(add_set(d, life_set(r->life, LIFE_DROPPED), "pair"));
    TRY(add_list(d, r->run_dir, "sft/dropped.jsonl", "sft", "row"));
    TRY(add_list(d, r->run_dir, "dpo/dropped.jsonl", "dpo", "pair"));
    return add_list(d, r->run_dir, "eval/dropped.jsonl", "eval", "held-out prompt");
}

Err report_drops(Report *r)
{
    Drops d = {.list = r->drops, .place = json_object()};
    Err err = add_all(&d, r);
    json_decref(d.place);
    return err;
}
