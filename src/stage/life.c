// SPDX-License-Identifier: Apache-2.0
// The life of a thing: what every stage made of a prompt, a sample, an SFT row or a pair, as text. A set is read once for
// each field that is asked for (seconds for a million records).
#include "stage/life.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "par/par.h"
#include "stage/stage.h"

static const char *const sets[LIFE_SETS] = {
    [LIFE_PROMPTS] = SET_PROMPTS,
    [LIFE_SAMPLES] = SET_SAMPLES,
    [LIFE_SCORES] = SET_SCORES,
    [LIFE_VERDICTS] = SET_VERDICTS,
    [LIFE_ROWS] = SET_SFT,
    [LIFE_PAIRS] = SET_PAIRS,
    [LIFE_DROPPED] = SET_DROPPED,
    [LIFE_DROPPED_BEFORE] = SET_DROPPED_PROMPTS,
    [LIFE_UNSAMPLED] = SET_DROPPED_SAMPLES,
};

// Fields by which records of a set are looked for: data[side][field], or data[field].
typedef struct Lookup {
    int set;
    const char *side, *field;
} Lookup;
enum {
    SAMPLES_OF_PROMPT,
    SCORE_OF,
    VERDICT_OF,
    ROW_OF,
    ROW_OF_PROMPT,
    CHOSEN_OF,
    REJECTED_OF,
    DROPPED_IS,
    DROPPED_BEFORE_IS,
    UNSAMPLED_OF,
    LOOKUPS
};
static const Lookup lookups[LOOKUPS] = {
    [SAMPLES_OF_PROMPT] = {LIFE_SAMPLES, NULL, "prompt"},    [SCORE_OF] = {LIFE_SCORES, NULL, "sample"},
    [VERDICT_OF] = {LIFE_VERDICTS, NULL, "sample"},          [ROW_OF] = {LIFE_ROWS, NULL, "sample"},
    [ROW_OF_PROMPT] = {LIFE_ROWS, NULL, "prompt"},           [CHOSEN_OF] = {LIFE_PAIRS, "chosen", "sample"},
    [REJECTED_OF] = {LIFE_PAIRS, "rejected", "sample"},      [DROPPED_IS] = {LIFE_DROPPED, NULL, "id"},
    [DROPPED_BEFORE_IS] = {LIFE_DROPPED_BEFORE, NULL, "id"}, [UNSAMPLED_OF] = {LIFE_UNSAMPLED, NULL, "id"},
};

struct Life {
    const char *run_dir;
    RecordSet *set[LIFE_SETS];
    Id *key[LOOKUPS];  // of every record of the set; NULL until the lookup is first used
    Str *out;
};

// Called with a record that was found; `data` is borrowed.
typedef Err (*Visit)(Life *l, Id id, const json_t *data);

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static Err read_keys(Life *l, const Lookup *by, Id **key)
{
    RecordSet *set = l->set[by->set];
    TRY(MEM_ARRAY(key, record_count(set)));
    for (int64_t i = 0; i < record_count(set); i++) {
        json_t *data;
        TRY(record_read(set, i, &data));
        if (!id_parse(text_of(by->side ? json_object_get(data, by->side) : data, by->field), &(*key)[i])) (*key)[i] = (Id){0};
        json_decref(data);
    }
    return OK;
}

// Visits every record whose field is the id.
static Err each_with(Life *l, int lookup, Id id, Visit visit)
{
    const Lookup *by = &lookups[lookup];
    if (!l->key[lookup]) TRY(read_keys(l, by, &l->key[lookup]));
    for (int64_t i = 0; i < record_count(l->set[by->set]); i++) {
        json_t *data;
        if (!id_equal(l->key[lookup][i], id)) continue;
        TRY(record_read(l->set[by->set], i, &data));
        Err err = visit(l, record_id(l->set[by->set], i), data);
        json_decref(data);
        TRY(err);
    }
    return OK;
}

// ---- printing --------------------------------------------------------------------------------------------------------

// Text with every line indented.
static Err put_text(Str *out, const char *label, const char *text)
{
    TRY(str_printf(out, "  %s: ", label));
    for (; *text; text++) {
        TRY(str_add(out, text, 1));
        if (*text == '\n') TRY(str_puts(out, "      "));
    }
    return str_puts(out, "\n");
}

static Err put_value(Str *out, const char *label, const json_t *v)
{
    if (!v || json_is_null(v)) return OK;
    if (json_is_string(v)) return put_text(out, label, json_string_value(v));
    TRY(str_printf(out, "  %s: ", label));
    if (json_is_real(v)) return str_printf(out, "%.6g\n", json_real_value(v));
    TRY(json_canonical(v, out));
    return str_puts(out, "\n");
}

static Err put_head(Str *out, const char *what, Id id)
{
    char text[ID_TEXT];
    id_print(id, text);
    return str_printf(out, "%s %s\n", what, text);
}

static Err put_messages(Str *out, const json_t *messages)
{
    size_t i;
    json_t *m;
    json_array_foreach(messages, i, m) TRY(put_text(out, text_of(m, "role"), text_of(m, "content")));
    return OK;
}

static Err put_prompt(Life *l, Id id)
{
    json_t *data;
    int64_t i = record_find(l->set[LIFE_PROMPTS], id);
    TRY(put_head(l->out, "prompt", id));
    if (i < 0) return str_puts(l->out, "  not among the prompts of this run\n");
    TRY(record_read(l->set[LIFE_PROMPTS], i, &data));
    Err err = OK;
    TRY_DONE(put_value(l->out, "kind", json_object_get(data, "kind")));
    TRY_DONE(put_value(l->out, "dataset", json_object_get(data, "dataset")));
    TRY_DONE(put_messages(l->out, json_object_get(data, "messages")));
    TRY_DONE(put_value(l->out, "gold", json_object_get(data, "gold")));
    TRY_DONE(put_value(l->out, "tests", json_object_get(data, "tests")));
    TRY_DONE(put_value(l->out, "checks", json_object_get(data, "checks")));
done:
    json_decref(data);
    return err;
}

static Err visit_score(Life *l, Id id, const json_t *data)
{
    (void)id;
    TRY(put_value(l->out, "score", json_object_get(data, "score")));
    TRY(put_value(l->out, "unscored", json_object_get(data, "unscored")));
    TRY(put_value(l->out, "objectives", json_object_get(data, "objectives")));
    return put_value(l->out, "gate", json_object_get(data, "gate"));
}

static Err visit_verdict(Life *l, Id id, const json_t *data)
{
    static const char *const fields[] = {"outcome", "reason", "extracted", "grade", "trust"};
    (void)id;
    for (int i = 0; i < 5; i++) TRY(put_value(l->out, i == 0 ? "verdict" : fields[i], json_object_get(data, fields[i])));
    return OK;
}

static Err visit_row(Life *l, Id id, const json_t *data)
{
    (void)data;
    return put_head(l->out, "  went to SFT row", id);
}

static Err visit_chosen(Life *l, Id id, const json_t *data)
{
    (void)data;
    return put_head(l->out, "  chosen answer of pair", id);
}

static Err visit_rejected(Life *l, Id id, const json_t *data)
{
    (void)data;
    return put_head(l->out, "  rejected answer of pair", id);
}

static Err visit_dropped(Life *l, Id id, const json_t *data)
{
    (void)id;
    const char *source = text_of(data, "source");
    return str_printf(l->out, "  %s%s%s left out: %s\n", text_of(data, "what"), *source ? " of " : "", source,
                      text_of(data, "reason"));
}

// Where a sample went; says so when it went nowhere.
static Err put_fate(Life *l, Id sample)
{
    TRY(each_with(l, UNSAMPLED_OF, sample, visit_dropped));
    int64_t before = l->out->len;
    TRY(each_with(l, ROW_OF, sample, visit_row));
    TRY(each_with(l, CHOSEN_OF, sample, visit_chosen));
    TRY(each_with(l, REJECTED_OF, sample, visit_rejected));
    TRY(each_with(l, DROPPED_IS, sample, visit_dropped));
    if (l->out->len > before) return OK;
    bool ran = *record_header(l->set[LIFE_PAIRS]) != '\0';
    return str_printf(l->out, "  %s\n", ran ? "not chosen" : "the pair stage has not run");
}

static Err put_sample(Life *l, Id id)
{
    static const char *const fields[] = {"source", "k", "seed", "finish", "text"};
    json_t *line;
    int64_t i = record_find(l->set[LIFE_SAMPLES], id);
    TRY(put_head(l->out, "sample", id));
    if (i < 0) return str_puts(l->out, "  not among the samples of this run\n");
    TRY(record_read_line(l->set[LIFE_SAMPLES], i, &line));
    const json_t *data = json_object_get(line, "data");
    Err err = OK;
    for (int f = 0; f < 5; f++) TRY_DONE(put_value(l->out, fields[f], json_object_get(data, fields[f])));
    TRY_DONE(str_printf(l->out, "  tokens: %zu\n", json_array_size(json_object_get(data, "ids"))));
    TRY_DONE(put_value(l->out, "made by", json_object_get(line, "run")));
    TRY_DONE(each_with(l, SCORE_OF, id, visit_score));
    TRY_DONE(each_with(l, VERDICT_OF, id, visit_verdict));
    TRY_DONE(put_fate(l, id));
done:
    json_decref(line);
    return err;
}

static Err visit_sample(Life *l, Id id, const json_t *data)
{
    (void)data;
    TRY(str_puts(l->out, "\n"));
    return put_sample(l, id);
}

// ---- the kinds of things ---------------------------------------------------------------------------------------------

static Err tell_prompt(Life *l, Id id)
{
    TRY(put_prompt(l, id));
    TRY(each_with(l, DROPPED_BEFORE_IS, id, visit_dropped));
    TRY(each_with(l, DROPPED_IS, id, visit_dropped));
    TRY(each_with(l, UNSAMPLED_OF, id, visit_dropped));
    TRY(each_with(l, ROW_OF_PROMPT, id, visit_row));
    return each_with(l, SAMPLES_OF_PROMPT, id, visit_sample);
}

static Err put_prompt_of(Life *l, const json_t *data)
{
    Id prompt;
    TRY(json_get_id(data, "prompt", "record", &prompt));
    TRY(put_prompt(l, prompt));
    return str_puts(l->out, "\n");
}

static Err tell_sample(Life *l, Id id)
{
    json_t *data;
    TRY(record_read(l->set[LIFE_SAMPLES], record_find(l->set[LIFE_SAMPLES], id), &data));
    Err err = put_prompt_of(l, data);
    if (err == OK) err = put_sample(l, id);
    json_decref(data);
    return err;
}

typedef struct Wanted {
    char id[ID_TEXT];
    Str *out;
    const char *stage;
    bool found;
} Wanted;

static Err look_for_row(void *user, const json_t *row, const char *where)
{
    Wanted *w = user;
    (void)where;
    if (strcmp(text_of(row, "id"), w->id) != 0) return OK;
    w->found = true;
    return str_printf(w->out, "  imf %s: %s\n", w->stage, text_of(row, "reason"));
}

static Err dropped_list(const Life *l, const char *stage, char path[IO_PATH])
{
    char dir[IO_PATH];
    TRY(io_join(dir, l->run_dir, stage));
    return io_join(path, dir, "dropped.jsonl");
}

// What a training stage made of a row or pair: dropped.jsonl lists those that it dropped or cut.
static Err put_training(Life *l, const char *stage, Id id)
{
    char path[IO_PATH];
    Wanted w = {.out = l->out, .stage = stage};
    id_print(id, w.id);
    TRY(dropped_list(l, stage, path));
    if (!io_exists(path)) return str_printf(l->out, "  imf %s has not run\n", stage);
    TRY(jsonl_each(path, look_for_row, &w));
    return w.found ? OK : str_printf(l->out, "  imf %s: used as it is\n", stage);
}

static const char *const training[] = {"sft", "dpo"};

// A row of a user's file is known to the run directory only when training dropped or cut it.
static Err tell_own_row(Life *l, Id id)
{
    char path[IO_PATH];
    TRY(put_head(l->out, "row of your own file", id));
    for (int i = 0; i < 2; i++) {
        Wanted w = {.out = l->out, .stage = training[i]};
        id_print(id, w.id);
        TRY(dropped_list(l, training[i], path));
        if (io_exists(path)) TRY(jsonl_each(path, look_for_row, &w));
    }
    return OK;
}

static Err tell_row(Life *l, Id id)
{
    json_t *data;
    Id sample;
    Err err = OK;
    TRY(record_read(l->set[LIFE_ROWS], record_find(l->set[LIFE_ROWS], id), &data));
    TRY_DONE(put_head(l->out, "SFT row", id));
    TRY_DONE(put_training(l, "sft", id));
    TRY_DONE(put_prompt_of(l, data));
    TRY_DONE(json_get_id(data, "sample", "record", &sample));
    TRY_DONE(put_sample(l, sample));
done:
    json_decref(data);
    return err;
}

static Err tell_pair(Life *l, Id id)
{
    static const char *const sides[] = {"chosen", "rejected"};
    json_t *data;
    Id sample;
    Err err = OK;
    TRY(record_read(l->set[LIFE_PAIRS], record_find(l->set[LIFE_PAIRS], id), &data));
    TRY_DONE(put_head(l->out, "pair", id));
    TRY_DONE(put_value(l->out, "source", json_object_get(data, "source")));
    TRY_DONE(put_value(l->out, "margin", json_object_get(data, "margin")));
    TRY_DONE(put_training(l, "dpo", id));
    TRY_DONE(put_prompt_of(l, data));
    for (int i = 0; i < 2; i++) {
        TRY_DONE(json_get_id(json_object_get(data, sides[i]), "sample", "record", &sample));
        TRY_DONE(str_printf(l->out, "%s%s: ", i ? "\n" : "", sides[i]));
        TRY_DONE(put_sample(l, sample));
    }
done:
    json_decref(data);
    return err;
}

// ---- finding ---------------------------------------------------------------------------------------------------------

static const int searched[] = {LIFE_PROMPTS, LIFE_SAMPLES, LIFE_ROWS, LIFE_PAIRS};

typedef struct Found {
    const char *prefix;
    int64_t n;
    int set;
    Id id;
    char list[6 * ID_TEXT];  // the first few
} Found;

static void look_at(Found *f, int set, Id id)
{
    char text[ID_TEXT];
    id_print(id, text);
    if (!str_starts(text, f->prefix) || (f->n && id_equal(id, f->id))) return;
    if (f->n++ == 0) f->set = set, f->id = id;
    size_t used = strlen(f->list);
    if (f->n <= 5) snprintf(f->list + used, sizeof f->list - used, " %s", text);
}

static Err look_at_dropped_row(void *user, const json_t *row, const char *where)
{
    Id id;
    TRY(json_get_id(row, "id", where, &id));
    look_at(user, LIFE_OWN_ROW, id);
    return OK;
}

static Err find(Life *l, Found *f)
{
    for (int s = 0; s < 4; s++)
        for (int64_t i = 0; i < record_count(l->set[searched[s]]); i++)
            look_at(f, searched[s], record_id(l->set[searched[s]], i));
    if (f->n == 0) {  // a prompt that the select stage dropped
        TRY(read_keys(l, &lookups[DROPPED_BEFORE_IS], &l->key[DROPPED_BEFORE_IS]));
        for (int64_t i = 0; i < record_count(l->set[LIFE_DROPPED_BEFORE]); i++)
            look_at(f, LIFE_PROMPTS, l->key[DROPPED_BEFORE_IS][i]);
    }
    for (int i = 0; i < 2 && f->n == 0; i++) {
        char path[IO_PATH];
        TRY(dropped_list(l, training[i], path));
        if (io_exists(path)) TRY(jsonl_each(path, look_at_dropped_row, f));
    }
    CHECK(f->n > 0, ERR_NOINPUT, "no prompt, sample, SFT row or pair of this run has an id that begins with %s", f->prefix);
    CHECK(f->n == 1, ERR_USAGE, "%" PRId64 " ids begin with %s:%s%s; give more digits", f->n, f->prefix, f->list,
          f->n > 5 ? " .." : "");
    return OK;
}

Err life_find(Life *l, const char *prefix, int *what, Id *id)
{
    Found f = {.prefix = prefix};
    TRY(find(l, &f));
    *what = f.set, *id = f.id;
    return OK;
}

// ---- opening ---------------------------------------------------------------------------------------------------------

Err life_open(Life **out, const char *run_dir)
{
    Err err = OK;
    TRY(mem_alloc(out, 1, sizeof **out));
    Life *l = *out;
    l->run_dir = run_dir;
    for (int s = 0; s < LIFE_SETS; s++) TRY_DONE(record_open(&l->set[s], run_dir, sets[s]));
done:
    if (err != OK) life_free(l), *out = NULL;
    return err;
}

void life_free(Life *l)
{
    if (!l) return;
    for (int s = 0; s < LIFE_SETS; s++) record_free(l->set[s]);
    for (int k = 0; k < LOOKUPS; k++) mem_free(l->key[k]);
    mem_free(l);
}

RecordSet *life_set(Life *l, int set) { return l->set[set]; }

Err life_tell(Life *l, int what, Id id, Str *out)
{
    l->out = out;
    return what == LIFE_PROMPTS   ? tell_prompt(l, id)
           : what == LIFE_SAMPLES ? tell_sample(l, id)
           : what == LIFE_ROWS    ? tell_row(l, id)
           : what == LIFE_PAIRS   ? tell_pair(l, id)
                                  : tell_own_row(l, id);
}

Err life_tell_answer(Life *l, Id sample, Str *out)
{
    l->out = out;
    return put_sample(l, sample);
}
