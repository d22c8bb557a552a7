// imf trace RECIPE ID: the life of a prompt, a sample, an SFT row or a pair; of a row of a user's own file why training dropped or
// cut it. The beginning of an id is enough if it is the only one. Rank 0 reads and prints; a set is read once for each field that
// is asked for (seconds for a million records); nothing is written.
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "par/par.h"
#include "stage/stage.h"
#include "text/record.h"

enum { PROMPTS, SAMPLES, SCORES, VERDICTS, ROWS, PAIRS, DROPPED, DROPPED_BEFORE, UNSAMPLED, SETS };
static const char *const sets[SETS] = {SET_PROMPTS, SET_SAMPLES, SET_SCORES,  SET_VERDICTS,
                                       SET_SFT,     SET_PAIRS,   SET_DROPPED, SET_DROPPED_PROMPTS,
                                       SET_DROPPED_SAMPLES};

// Fields by which records of a set are looked for: data[side][field], or data[field].
typedef struct Lookup {
    int set;
    const char *side, *field;
} Lookup;
enum {
    SAMPLES_OF_PROMPT, SCORE_OF, VERDICT_OF, ROW_OF, ROW_OF_PROMPT, CHOSEN_OF, REJECTED_OF, DROPPED_IS, DROPPED_BEFORE_IS, UNSAMPLED_OF,
    LOOKUPS
};
static const Lookup lookups[LOOKUPS] = {
    [SAMPLES_OF_PROMPT] = {SAMPLES, NULL, "prompt"}, [SCORE_OF] = {SCORES, NULL, "sample"},
    [VERDICT_OF] = {VERDICTS, NULL, "sample"},       [ROW_OF] = {ROWS, NULL, "sample"},
    [ROW_OF_PROMPT] = {ROWS, NULL, "prompt"},        [CHOSEN_OF] = {PAIRS, "chosen", "sample"},
    [REJECTED_OF] = {PAIRS, "rejected", "sample"},   [DROPPED_IS] = {DROPPED, NULL, "id"},
    [DROPPED_BEFORE_IS] = {DROPPED_BEFORE, NULL, "id"}, [UNSAMPLED_OF] = {UNSAMPLED, NULL, "id"},
};

typedef struct Trace {
    const char *run_dir;
    RecordSet *set[SETS];
    Id *key[LOOKUPS];  // of every record of the set; NULL until the lookup is first used
    Str out;
} Trace;

// Called with a record that was found; `data` is borrowed.
typedef Err (*Visit)(Trace *t, Id id, const json_t *data);

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static Err read_keys(Trace *t, const Lookup *l, Id **key)
{
    RecordSet *set = t->set[l->set];
    TRY(MEM_ARRAY(key, record_count(set)));
    for (int64_t i = 0; i < record_count(set); i++) {
        json_t *data;
        TRY(record_read(set, i, &data));
        if (!id_parse(text_of(l->side ? json_object_get(data, l->side) : data, l->field), &(*key)[i])) (*key)[i] = (Id){0};
        json_decref(data);
    }
    return OK;
}

// Visits every record whose field is the id.
static Err each_with(Trace *t, int lookup, Id id, Visit visit)
{
    const Lookup *l = &lookups[lookup];
    if (!t->key[lookup]) TRY(read_keys(t, l, &t->key[lookup]));
    for (int64_t i = 0; i < record_count(t->set[l->set]); i++) {
        json_t *data;
        if (!id_equal(t->key[lookup][i], id)) continue;
        TRY(record_read(t->set[l->set], i, &data));
        Err err = visit(t, record_id(t->set[l->set], i), data);
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

static Err put_prompt(Trace *t, Id id)
{
    json_t *data;
    int64_t i = record_find(t->set[PROMPTS], id);
    TRY(put_head(&t->out, "prompt", id));
    if (i < 0) return str_puts(&t->out, "  not among the prompts of this run\n");
    TRY(record_read(t->set[PROMPTS], i, &data));
    Err err = OK;
    TRY_DONE(put_value(&t->out, "kind", json_object_get(data, "kind")));
    TRY_DONE(put_value(&t->out, "dataset", json_object_get(data, "dataset")));
    TRY_DONE(put_messages(&t->out, json_object_get(data, "messages")));
    TRY_DONE(put_value(&t->out, "gold", json_object_get(data, "gold")));
    TRY_DONE(put_value(&t->out, "tests", json_object_get(data, "tests")));
    TRY_DONE(put_value(&t->out, "checks", json_object_get(data, "checks")));
done:
    json_decref(data);
    return err;
}

static Err visit_score(Trace *t, Id id, const json_t *data)
{
    (void)id;
    TRY(put_value(&t->out, "score", json_object_get(data, "score")));
    TRY(put_value(&t->out, "unscored", json_object_get(data, "unscored")));
    TRY(put_value(&t->out, "objectives", json_object_get(data, "objectives")));
    return put_value(&t->out, "gate", json_object_get(data, "gate"));
}

static Err visit_verdict(Trace *t, Id id, const json_t *data)
{
    static const char *const fields[] = {"outcome", "reason", "extracted", "grade", "trust"};
    (void)id;
    for (int i = 0; i < 5; i++) TRY(put_value(&t->out, i == 0 ? "verdict" : fields[i], json_object_get(data, fields[i])));
    return OK;
}

static Err visit_row(Trace *t, Id id, const json_t *data)
{
    (void)data;
    return put_head(&t->out, "  went to SFT row", id);
}

static Err visit_chosen(Trace *t, Id id, const json_t *data)
{
    (void)data;
    return put_head(&t->out, "  chosen answer of pair", id);
}

static Err visit_rejected(Trace *t, Id id, const json_t *data)
{
    (void)data;
    return put_head(&t->out, "  rejected answer of pair", id);
}

static Err visit_dropped(Trace *t, Id id, const json_t *data)
{
    (void)id;
    const char *source = text_of(data, "source");
    return str_printf(&t->out, "  %s%s%s left out: %s\n", text_of(data, "what"), *source ? " of " : "", source, text_of(data, "reason"));
}

// Where a sample went; says so when it went nowhere.
static Err put_fate(Trace *t, Id sample)
{
    TRY(each_with(t, UNSAMPLED_OF, sample, visit_dropped));
    int64_t before = t->out.len;
    TRY(each_with(t, ROW_OF, sample, visit_row));
    TRY(each_with(t, CHOSEN_OF, sample, visit_chosen));
    TRY(each_with(t, REJECTED_OF, sample, visit_rejected));
    TRY(each_with(t, DROPPED_IS, sample, visit_dropped));
    if (t->out.len > before) return OK;
    bool ran = *record_header(t->set[PAIRS]) != '\0';
    return str_printf(&t->out, "  %s\n", ran ? "not chosen" : "the pair stage has not run");
}

static Err put_sample(Trace *t, Id id)
{
    static const char *const fields[] = {"source", "k", "seed", "finish", "text"};
    json_t *line;
    int64_t i = record_find(t->set[SAMPLES], id);
    TRY(put_head(&t->out, "sample", id));
    if (i < 0) return str_puts(&t->out, "  not among the samples of this run\n");
    TRY(record_read_line(t->set[SAMPLES], i, &line));
    const json_t *data = json_object_get(line, "data");
    Err err = OK;
    for (int f = 0; f < 5; f++) TRY_DONE(put_value(&t->out, fields[f], json_object_get(data, fields[f])));
    TRY_DONE(str_printf(&t->out, "  tokens: %zu\n", json_array_size(json_object_get(data, "ids"))));
    TRY_DONE(put_value(&t->out, "made by", json_object_get(line, "run")));
    TRY_DONE(each_with(t, SCORE_OF, id, visit_score));
    TRY_DONE(each_with(t, VERDICT_OF, id, visit_verdict));
    TRY_DONE(put_fate(t, id));
done:
    json_decref(line);
    return err;
}

static Err visit_sample(Trace *t, Id id, const json_t *data)
{
    (void)data;
    TRY(str_puts(&t->out, "\n"));
    return put_sample(t, id);
}

// ---- the kinds of things ---------------------------------------------------------------------------------------------

static Err trace_prompt(Trace *t, Id id)
{
    TRY(put_prompt(t, id));
    TRY(each_with(t, DROPPED_BEFORE_IS, id, visit_dropped));
    TRY(each_with(t, DROPPED_IS, id, visit_dropped));
    TRY(each_with(t, UNSAMPLED_OF, id, visit_dropped));
    TRY(each_with(t, ROW_OF_PROMPT, id, visit_row));
    return each_with(t, SAMPLES_OF_PROMPT, id, visit_sample);
}

static Err put_prompt_of(Trace *t, const json_t *data)
{
    Id prompt;
    TRY(json_get_id(data, "prompt", "record", &prompt));
    TRY(put_prompt(t, prompt));
    return str_puts(&t->out, "\n");
}

static Err trace_sample(Trace *t, Id id)
{
    json_t *data;
    TRY(record_read(t->set[SAMPLES], record_find(t->set[SAMPLES], id), &data));
    Err err = put_prompt_of(t, data);
    if (err == OK) err = put_sample(t, id);
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

static Err dropped_list(const Trace *t, const char *stage, char path[IO_PATH])
{
    char dir[IO_PATH];
    TRY(io_join(dir, t->run_dir, stage));
    return io_join(path, dir, "dropped.jsonl");
}

// What a training stage made of a row or pair: dropped.jsonl lists those that it dropped or cut.
static Err put_training(Trace *t, const char *stage, Id id)
{
    char path[IO_PATH];
    Wanted w = {.out = &t->out, .stage = stage};
    id_print(id, w.id);
    TRY(dropped_list(t, stage, path));
    if (!io_exists(path)) return str_printf(&t->out, "  imf %s has not run\n", stage);
    TRY(jsonl_each(path, look_for_row, &w));
    return w.found ? OK : str_printf(&t->out, "  imf %s: used as it is\n", stage);
}

static const char *const training[] = {"sft", "dpo"};

// A row of a user's file is known to the run directory only when training dropped or cut it.
static Err trace_own_row(Trace *t, Id id)
{
    char path[IO_PATH];
    TRY(put_head(&t->out, "row of your own file", id));
    for (int i = 0; i < 2; i++) {
        Wanted w = {.out = &t->out, .stage = training[i]};
        id_print(id, w.id);
        TRY(dropped_list(t, training[i], path));
        if (io_exists(path)) TRY(jsonl_each(path, look_for_row, &w));
    }
    return OK;
}

static Err trace_row(Trace *t, Id id)
{
    json_t *data;
    Id sample;
    Err err = OK;
    TRY(record_read(t->set[ROWS], record_find(t->set[ROWS], id), &data));
    TRY_DONE(put_head(&t->out, "SFT row", id));
    TRY_DONE(put_training(t, "sft", id));
    TRY_DONE(put_prompt_of(t, data));
    TRY_DONE(json_get_id(data, "sample", "record", &sample));
    TRY_DONE(put_sample(t, sample));
done:
    json_decref(data);
    return err;
}

static Err trace_pair(Trace *t, Id id)
{
    static const char *const sides[] = {"chosen", "rejected"};
    json_t *data;
    Id sample;
    Err err = OK;
    TRY(record_read(t->set[PAIRS], record_find(t->set[PAIRS], id), &data));
    TRY_DONE(put_head(&t->out, "pair", id));
    TRY_DONE(put_value(&t->out, "source", json_object_get(data, "source")));
    TRY_DONE(put_value(&t->out, "margin", json_object_get(data, "margin")));
    TRY_DONE(put_training(t, "dpo", id));
    TRY_DONE(put_prompt_of(t, data));
    for (int i = 0; i < 2; i++) {
        TRY_DONE(json_get_id(json_object_get(data, sides[i]), "sample", "record", &sample));
        TRY_DONE(str_printf(&t->out, "%s%s: ", i ? "\n" : "", sides[i]));
        TRY_DONE(put_sample(t, sample));
    }
done:
    json_decref(data);
    return err;
}

// ---- finding ---------------------------------------------------------------------------------------------------------

static const int searched[] = {PROMPTS, SAMPLES, ROWS, PAIRS};
enum { OWN_ROWS = SETS };

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
    look_at(user, OWN_ROWS, id);
    return OK;
}

static Err find(Trace *t, Found *f)
{
    for (int s = 0; s < 4; s++)
        for (int64_t i = 0; i < record_count(t->set[searched[s]]); i++) look_at(f, searched[s], record_id(t->set[searched[s]], i));
    if (f->n == 0) {  // a prompt that the select stage dropped
        TRY(read_keys(t, &lookups[DROPPED_BEFORE_IS], &t->key[DROPPED_BEFORE_IS]));
        for (int64_t i = 0; i < record_count(t->set[DROPPED_BEFORE]); i++) look_at(f, PROMPTS, t->key[DROPPED_BEFORE_IS][i]);
    }
    for (int i = 0; i < 2 && f->n == 0; i++) {
        char path[IO_PATH];
        TRY(dropped_list(t, training[i], path));
        if (io_exists(path)) TRY(jsonl_each(path, look_at_dropped_row, f));
    }
    CHECK(f->n > 0, ERR_NOINPUT, "no prompt, sample, SFT row or pair of this run has an id that begins with %s", f->prefix);
    CHECK(f->n == 1, ERR_USAGE, "%" PRId64 " ids begin with %s:%s%s; give more digits", f->n, f->prefix, f->list,
          f->n > 5 ? " .." : "");
    return OK;
}

static Err print_trace(Trace *t, const char *prefix)
{
    Found f = {.prefix = prefix};
    TRY(find(t, &f));
    TRY(f.set == PROMPTS   ? trace_prompt(t, f.id)
        : f.set == SAMPLES ? trace_sample(t, f.id)
        : f.set == ROWS    ? trace_row(t, f.id)
        : f.set == PAIRS   ? trace_pair(t, f.id)
                           : trace_own_row(t, f.id));
    fputs(str_text(&t->out), stdout);
    return OK;
}

Err stage_trace(const Job *job)
{
    Trace t = {.run_dir = job->run_dir};
    char prefix[ID_TEXT] = "";
    Err err = OK;
    CHECK(job->argc == 1 && *job->argv[0] && strlen(job->argv[0]) < ID_TEXT, ERR_USAGE,
          "imf trace wants one id (or its beginning): imf trace RECIPE.yaml ID");
    for (int i = 0; job->argv[0][i]; i++) prefix[i] = (char)tolower((unsigned char)job->argv[0][i]);
    for (int s = 0; s < SETS; s++) TRY_DONE(record_open(&t.set[s], job->run_dir, sets[s]));
    if (par_rank() == 0) TRY_DONE(print_trace(&t, prefix));
done:
    for (int s = 0; s < SETS; s++) record_free(t.set[s]);
    for (int l = 0; l < LOOKUPS; l++) mem_free(t.key[l]);
    str_free(&t.out);
    return err;
}
