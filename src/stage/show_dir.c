// SPDX-License-Identifier: Apache-2.0
// What `imf show` says about directories, about metrics.jsonl and about the summary of an evaluation.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "model/model.h"
#include "model/safetensors.h"
#include "stage/show_parts.h"
#include "stage/stage.h"
#include "text/record.h"

// ---- record sets -----------------------------------------------------------------------------------------------------

static Err show_first_record(RecordSet *s, Str *out)
{
    json_t *data, *v;
    const char *key;
    char id[ID_TEXT];
    if (record_count(s) == 0) return OK;
    id_print(record_id(s, 0), id);
    TRY(str_printf(out, "  first record: %s\n", id));
    TRY(record_read(s, 0, &data));
    Err err = OK;
    json_object_foreach(data, key, v) {
        char label[64];
        snprintf(label, sizeof label, "  %s", key);
        if (err == OK) err = show_value(out, label, v);
    }
    json_decref(data);
    return err;
}

static Err check_all(RecordSet *s, Str *out)
{
    for (int64_t i = 0; i < record_count(s); i++) {
        json_t *line;
        Err err = record_read_line(s, i, &line);
        if (err != OK) return err;
        json_decref(line);
    }
    return str_puts(out, "  every checksum matches\n");
}

Err show_record_set(const char *dir, Str *out)
{
    char run_dir[IO_PATH], stage[256], text[ID_TEXT];
    RecordSet *s;
    Id digest;
    TRY(record_locate(dir, run_dir, stage));
    TRY(record_open(&s, run_dir, stage));
    Err err = OK;
    bool done = record_done(run_dir, stage, &digest, NULL);
    id_print(digest, text);
    TRY_DONE(str_printf(out, "%s: record set '%s', %" PRId64 " records, %s%s\n", dir, stage, record_count(s),
                        done ? "ended, digest " : "not ended", done ? text : ""));
    TRY_DONE(str_printf(out, "  header: %s", *record_header(s) ? record_header(s) : "none\n"));
    TRY_DONE(check_all(s, out));
    TRY_DONE(show_first_record(s, out));
done:
    record_free(s);
    return err;
}

// ---- models ----------------------------------------------------------------------------------------------------------

static Err put_weights(const StDir *d, Str *out)
{
    int64_t elements = 0, bytes = 0;
    for (int64_t i = 0; i < d->tensors; i++) elements += d->tensor[i].n, bytes += d->tensor[i].bytes;
    return str_printf(out, "  weights: %" PRId64 " parameters in %" PRId64 " tensors and %" PRId64 " files, %" PRId64 " bytes\n",
                      elements, d->tensors, d->maps, bytes);
}

static Err put_tensor(const StTensor *t, Str *out)
{
    TRY(str_printf(out, "  %-60s %s [", t->name, t->readable ? dtype_name(t->dtype) : "other"));
    for (int i = 0; i < t->dims; i++) TRY(str_printf(out, "%s%" PRId64, i ? ", " : "", t->dim[i]));
    return str_puts(out, "]\n");
}

Err show_weights(const char *path, Str *out)
{
    StDir tensors;
    TRY(st_open_file(path, &tensors));
    Err err = str_printf(out, "%s: weights in safetensors\n", path);
    if (err == OK) err = put_weights(&tensors, out);
    for (int64_t i = 0; i < tensors.tensors && err == OK; i++) err = put_tensor(&tensors.tensor[i], out);
    st_close(&tensors);
    return err;
}

Err show_model(const char *dir, Str *out)
{
    static const char *const names[] = {"architectures", "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads",
                                        "num_key_value_heads", "intermediate_size", "vocab_size", "tie_word_embeddings",
                                        "torch_dtype"};
    char path[IO_PATH];
    json_t *config;
    StDir tensors;
    TRY(io_join(path, dir, "config.json"));
    TRY(show_read_json(path, &config));
    Err err = str_printf(out, "%s: a model directory\n", dir);
    for (size_t i = 0; i < sizeof names / sizeof names[0] && err == OK; i++)
        if (json_object_get(config, names[i])) err = show_value(out, names[i], json_object_get(config, names[i]));
    json_decref(config);
    TRY(err);
    TRY(st_open(dir, &tensors));
    err = put_weights(&tensors, out);
    st_close(&tensors);
    return err;
}

// ---- metrics and evaluation ------------------------------------------------------------------------------------------

typedef struct Curve {
    char stage[32];
    int64_t lines, evals, first_step, last_step;
    double first, last, best_eval, last_eval;
} Curve;

typedef struct Curves {
    Curve c[8];
    int n;
} Curves;

static Err add_metrics(void *user, const json_t *row, const char *where)
{
    Curves *all = user;
    const char *stage;
    int64_t step;
    int i = 0;
    TRY(json_get_text(row, "stage", where, &stage));
    TRY(json_get_i64(row, "step", where, &step));
    while (i < all->n && strcmp(all->c[i].stage, stage)) i++;
    if (i == 8) return OK;
    Curve *c = &all->c[i];
    if (i == all->n) all->n++, snprintf(c->stage, sizeof c->stage, "%.31s", stage);
    const json_t *loss = json_object_get(row, "loss"), *held_out = json_object_get(row, "eval_loss");
    c->last_step = step;
    if (json_is_number(loss)) {
        c->last = json_number_value(loss);
        if (c->lines++ == 0) c->first = c->last, c->first_step = step;
    }
    if (json_is_number(held_out)) {
        c->last_eval = json_number_value(held_out);
        if (c->evals++ == 0 || c->last_eval < c->best_eval) c->best_eval = c->last_eval;
    }
    return OK;
}

Err show_metrics(const char *path, Str *out)
{
    Curves all = {0};
    TRY(jsonl_each(path, add_metrics, &all));
    TRY(str_printf(out, "%s: training metrics\n", path));
    for (int i = 0; i < all.n; i++) {
        const Curve *c = &all.c[i];
        TRY(str_printf(out, "  %s: steps %" PRId64 " to %" PRId64 ", loss %.4f to %.4f (%" PRId64 " lines)", c->stage, c->first_step,
                       c->last_step, c->first, c->last, c->lines));
        if (c->evals) TRY(str_printf(out, ", held-out loss %.4f at the end, %.4f at best", c->last_eval, c->best_eval));
        TRY(str_puts(out, "\n"));
    }
    return OK;
}

static double number(const json_t *row, const char *key) { return json_number_value(json_object_get(row, key)); }

static const char *text(const json_t *row, const char *key)
{
    const char *s = json_string_value(json_object_get(row, key));
    return s ? s : "";
}

Err show_eval(const char *path, Str *out)
{
    json_t *all, *row;
    size_t i;
    Err err = OK;
    TRY(show_read_json(path, &all));
    TRY_DONE(str_printf(out, "%s: held-out results in %% [95 %% interval]\n", path));
    json_array_foreach(json_object_get(all, "rows"), i, row)
        TRY_DONE(str_printf(out, "  %-10s %-12s %-5s n %5.0f  %5.1f [%5.1f, %5.1f]  cut %.1f  no answer %.1f\n", text(row, "model"),
                            text(row, "set"), text(row, "kind"), number(row, "n"), 100 * number(row, "mean"), 100 * number(row, "lo"),
                            100 * number(row, "hi"), 100 * number(row, "truncated"), 100 * number(row, "no_answer")));
    json_array_foreach(json_object_get(all, "paired"), i, row)
        TRY_DONE(str_printf(out, "  %s - %s, %s: %+.1f [%+.1f, %+.1f]\n", text(row, "b"), text(row, "a"), text(row, "kind"),
                            100 * number(row, "diff"), 100 * number(row, "lo"), 100 * number(row, "hi")));
done:
    json_decref(all);
    return err;
}

// ---- run directories -------------------------------------------------------------------------------------------------

static const char *const run_sets[] = {SET_PROMPTS,  SET_DROPPED_PROMPTS, SET_SAMPLES, SET_DROPPED_SAMPLES, SET_SCORES,
                                       SET_VERDICTS, SET_SFT,             SET_PAIRS,   SET_DROPPED};
enum { RUN_SETS = sizeof run_sets / sizeof run_sets[0] };

bool show_is_run(const char *dir)
{
    return io_has(dir, "recipe.yaml");
}

static Err show_set_line(const char *dir, const char *stage, Str *out)
{
    char path[IO_PATH], digest[ID_TEXT];
    RecordSet *s;
    Id id;
    int64_t n;
    TRY(io_join(path, dir, stage));
    if (!io_is_dir(path)) return OK;
    if (record_done(dir, stage, &id, &n)) {
        id_print(id, digest);
        return str_printf(out, "  %-16s %8" PRId64 " records, digest %s\n", stage, n, digest);
    }
    TRY(record_open(&s, dir, stage));
    Err err = str_printf(out, "  %-16s %8" PRId64 " records so far, not ended\n", stage, record_count(s));
    record_free(s);
    return err;
}

// Checkpoints and models under sft/ and dpo/, record sets under eval/.
static Err show_sub(const char *dir, const char *sub, Str *out)
{
    char path[IO_PATH], item[IO_PATH], stage[300], **name;
    int64_t n;
    TRY(io_join(path, dir, sub));
    if (!io_is_dir(path)) return OK;
    TRY(io_list(path, &name, &n));
    Err err = OK;
    for (int64_t i = 0; i < n; i++) {
        TRY_DONE(io_join(item, path, name[i]));
        snprintf(stage, sizeof stage, "%s/%.200s", sub, name[i]);
        if (io_is_dir(item) && record_is_set(item)) TRY_DONE(show_set_line(dir, stage, out));
        else TRY_DONE(str_printf(out, "  %s%s\n", stage, strstr(name[i], ".tmp.") ? " (not committed)" : ""));
    }
done:
    io_list_free(name, n);
    return err;
}

static const char *const run_subs[] = {"sft", "dpo", "reward", "eval", "export"};
enum { RUN_SUBS = sizeof run_subs / sizeof run_subs[0] };

// The directory above; "." for a bare name.
static void parent_of(const char *path, char out[IO_PATH])
{
    int n = (int)(io_basename(path) - path);
    snprintf(out, IO_PATH, "%.*s", n > 1 ? n - 1 : 1, n > 0 ? path : ".");
}

bool show_is_part_of_run(const char *dir)
{
    char run[IO_PATH];
    parent_of(dir, run);
    for (int i = 0; i < RUN_SUBS; i++)
        if (!strcmp(io_basename(dir), run_subs[i])) return show_is_run(run);
    return false;
}

Err show_part_of_run(const char *dir, Str *out)
{
    char run[IO_PATH];
    parent_of(dir, run);
    TRY(str_printf(out, "%s: a part of the run %s\n", dir, run));
    return show_sub(run, io_basename(dir), out);
}

static Err show_optional(const char *dir, const char *name, Err (*show)(const char *, Str *), Str *out)
{
    char path[IO_PATH];
    TRY(io_join(path, dir, name));
    return io_exists(path) ? show(path, out) : OK;
}

Err show_run(const char *dir, Str *out)
{
    TRY(str_printf(out, "%s: a run directory\n", dir));
    for (int i = 0; i < RUN_SETS; i++) TRY(show_set_line(dir, run_sets[i], out));
    for (int i = 0; i < RUN_SUBS; i++) TRY(show_sub(dir, run_subs[i], out));
    TRY(show_optional(dir, "metrics.jsonl", show_metrics, out));
    return show_optional(dir, "eval/summary.json", show_eval, out);
}
