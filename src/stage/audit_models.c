// SPDX-License-Identifier: Apache-2.0
// Trained models: checkpoints against their manifests (an HDF5 file is never opened), exported files against checksums.json,
// and the chain of hashes that done.json, checkpoints, reference log-probs and record sets share.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model/model.h"
#include "model/safetensors.h"
#include "model/sums.h"
#include "stage/audit_parts.h"
#include "train/checkpoint_manifest.h"
#include "train/refs.h"
#include "train/spec.h"

enum { CHUNK = 1 << 16 };

typedef struct Stage {
    Audit *a;
    const char *name;   // "sft", "dpo", "reward"
    const char *set;    // what it is trained on
    int which;          // AUDIT_SFT, AUDIT_PAIRS; -1: none
    json_t *done;       // done.json; NULL when the stage has not ended
    char model[32];     // "sft/model"
    char dtype[16];     // of the exported weights
    TrainState newest;  // of the last checkpoint
    bool has_checkpoint;
} Stage;

static Err say(const Stage *s, const char *what, char advice[256])
{
    snprintf(advice, 256, "take it from a copy, or remove %s/%s and run imf %s again", s->name, what, s->name);
    audit_begin(s->a, advice);
    return OK;
}

// ---- checkpoints -----------------------------------------------------------------------------------------------------

static Err check_more_files(Stage *s, const char *step, const char *dir, int64_t files)
{
    char **name = NULL;
    int64_t n = 0, shards = 0;
    Err err = OK;
    TRY(io_list(dir, &name, &n));
    for (int64_t i = 0; i < n; i++) shards += str_ends(name[i], ".nc");
    if (shards > files)
        TRY_DONE(audit_fault(s->a, "%s/%s: %" PRId64 " files, its manifest names %" PRId64, s->name, step, shards, files));
done:
    io_list_free(name, n);
    return err;
}

static Err verify_step(Stage *s, const char *step, const char *dir, Manifest *m)
{
    TRY(manifest_load(dir, m));
    s->newest = m->state;
    s->has_checkpoint = true;
    long long number = -1;
    if (sscanf(step, "step_%9lld", &number) != 1 || number != m->state.step)
        TRY(audit_fault(s->a, "%s/%s: its manifest is that of step %" PRId64, s->name, step, m->state.step));
    TRY(check_more_files(s, step, dir, m->files));
    return manifest_verify(m, dir, 0, 1);
}

static Err audit_step(Stage *s, const char *step)
{
    char advice[256], sub[300], dir[IO_PATH];
    Manifest m = {0};
    snprintf(sub, sizeof sub, "%s/%.200s", s->name, step);
    if (!audit_path(s->a, sub, dir) || !io_is_dir(dir)) return OK;
    TRY(say(s, step, advice));
    Err err = audit_caught(s->a, verify_step(s, step, dir, &m));
    int64_t bytes = manifest_bytes(&m);
    if (err == OK)
        err = audit_end(s->a, "%s: checkpoint, %" PRId64 " bytes in %" PRId64 " file%s,", sub, bytes, m.files,
                        m.files == 1 ? "" : "s");
    manifest_free(&m);
    return err;
}

static Err audit_steps(Stage *s)
{
    char dir[IO_PATH], **name = NULL;
    int64_t n = 0;
    Err err = OK;
    if (!audit_path(s->a, s->name, dir)) return OK;
    TRY(io_list(dir, &name, &n));
    for (int64_t i = 0; i < n; i++)
        if (str_starts(name[i], "step_") && !strstr(name[i], ".tmp")) TRY_DONE(audit_step(s, name[i]));
done:
    io_list_free(name, n);
    return err;
}

// ---- the exported model ----------------------------------------------------------------------------------------------

static Err file_fault(void *user, const char *file, const char *what)
{
    const Stage *s = user;
    return audit_fault(s->a, "%s/%s: %s", s->model, file, what);
}

// Every number of every tensor is finite; *elements: how many.
static Err read_tensors(const StDir *d, int64_t *elements)
{
    float *buffer;
    Err err = OK;
    TRY(MEM_ARRAY(&buffer, CHUNK));
    for (int64_t i = 0; i < d->tensors; i++) {
        const StTensor *t = &d->tensor[i];
        for (int64_t at = 0; t->readable && at < t->n; at += CHUNK)
            TRY_DONE(st_read(t, at, t->n - at < CHUNK ? t->n - at : CHUNK, buffer));
        *elements += t->n;
    }
done:
    mem_free(buffer);
    return err;
}

static Err check_weights(Stage *s, const char *dir, int64_t *elements)
{
    StDir d;
    ModelConfig cfg;
    TRY(model_config_load(dir, &cfg));
    TRY(st_open(dir, &d));
    if (d.tensors) snprintf(s->dtype, sizeof s->dtype, "%s", d.tensor[0].readable ? dtype_name(d.tensor[0].dtype) : "other");
    Err err = read_tensors(&d, elements);
    st_close(&d);
    return err;
}

static Err audit_model(Stage *s)
{
    char advice[256], dir[IO_PATH];
    int64_t files = 0, elements = 0;
    snprintf(s->model, sizeof s->model, "%s/model", s->name);
    if (!audit_path(s->a, s->model, dir)) return OK;
    snprintf(advice, sizeof advice,
             "take it from a copy, or remove %s/done.json and run imf %s again: it writes the last checkpoint's model", s->name,
             s->name);
    audit_begin(s->a, strcmp(s->name, "reward") ? advice : "take it from a copy, or run imf reward again");
    TRY(audit_caught(s->a, sums_check(dir, file_fault, s, &files)));
    TRY(audit_caught(s->a, check_weights(s, dir, &elements)));
    if (files < 0)
        return audit_end(s->a,
                         "%s: %" PRId64 " parameters in %s, no " SUMS_FILE
                         " (an earlier imf wrote it): only form and values are checked,",
                         s->model, elements, s->dtype);
    return audit_end(s->a, "%s: %" PRId64 " files, %" PRId64 " parameters in %s,", s->model, files, elements, s->dtype);
}

Err audit_fingerprint(Audit *a, const char *stage, Id *out, bool *known)
{
    char dir[IO_PATH], sub[64];
    DType dtype;
    *known = false;
    snprintf(sub, sizeof sub, "%s/model", stage);
    if (!a->deck || !audit_path(a, sub, dir)) return OK;
    TRY(model_dtype(deck_str(a->deck, "dtype"), &dtype));
    *known = model_fingerprint(dir, dtype, out) == OK;  // what is wrong with it is said where it is audited
    return OK;
}

// ---- done.json -------------------------------------------------------------------------------------------------------

static Err read_done(Stage *s)
{
    char path[IO_PATH], name[64];
    Str text = {0};
    Err err = OK;
    snprintf(name, sizeof name, "%s/done.json", s->name);
    if (!audit_path(s->a, name, path)) return OK;
    TRY_DONE(io_read(path, &text, 1 << 16));
    TRY_DONE(json_parse(str_text(&text), text.len, path, &s->done));
done:
    str_free(&text);
    return err;
}

// The field must be this id. A field that an earlier imf did not write is not checked.
static Err field_is(Stage *s, const char *key, Id want, const char *of)
{
    char text[ID_TEXT];
    const json_t *field = json_object_get(s->done, key);
    Id id;
    if (!field) return OK;
    id_print(want, text);
    if (json_is_string(field) && id_parse(json_string_value(field), &id) && id_equal(id, want)) return OK;
    return audit_fault(s->a, "%s/done.json: \"%s\" is not that of %s, %s", s->name, key, of, text);
}

static Err file_is(Stage *s, const char *key, const char *file)
{
    char path[IO_PATH], name[96];
    Id id;
    snprintf(name, sizeof name, "%s/%s", s->name, file);
    if (!json_object_get(s->done, key)) return OK;
    if (!audit_path(s->a, name, path)) return audit_fault(s->a, "%s: the file is missing", name);
    TRY(audit_caught(s->a, hash_file(path, &id)));
    return field_is(s, key, id, name);
}

static const char *own_file(const Stage *s)
{
    char key[32];
    snprintf(key, sizeof key, "%s.data", s->name);
    return s->a->deck ? deck_str(s->a->deck, key) : "";
}

// What it was trained on: the pair stage's set, or a user's file as far as it is there.
static Err check_rows(Stage *s)
{
    const char *own = own_file(s);
    const RecordState *set = &s->a->set[s->which].state;
    Id id;
    if (!s->a->deck) return OK;
    if (*own) return io_exists(own) && hash_file(own, &id) == OK ? field_is(s, "rows", id, own) : OK;
    if (!set->there || !set->ended)
        return audit_fault(s->a, "%s/done.json: %s, which it was trained on, are not there or not ended", s->name, s->set);
    return field_is(s, "rows", set->digest, s->set);
}

// The base model: dpo's is the run's SFT model unless the recipe names another, sft's is target.path as far as it is there.
static Err check_base(Stage *s)
{
    const Deck *d = s->a->deck;
    Id id;
    bool known = false;
    DType dtype;
    if (!d) return OK;
    const bool dpo = !strcmp(s->name, "dpo"), random = !strcmp(deck_str(d, "target.init"), "random");
    const char *base = dpo ? deck_str(d, "dpo.base") : "", *of = "sft/model";
    if (dpo && !*base) TRY(audit_fingerprint(s->a, "sft", &id, &known));
    if (!known && !*base && !random) base = deck_str(d, "target.path");
    if (!known && *base) {
        of = base;
        TRY(model_dtype(deck_str(d, "dtype"), &dtype));
        known = model_fingerprint(base, dtype, &id) == OK;
    }
    return known ? field_is(s, "base", id, of) : OK;
}

static Err check_recipe(Stage *s)
{
    TrainSpec spec;
    Id id;
    if (!s->a->deck) return OK;
    TRY(train_spec(&spec, s->a->deck, s->name, s->a->dir, s->which == AUDIT_PAIRS));
    TRY(train_spec_hash(&spec, &id));
    return field_is(s, "recipe", id, "recipe.yaml");
}

static Err check_checkpoint(Stage *s)
{
    if (!s->has_checkpoint) return OK;
    TRY(field_is(s, "recipe", s->newest.recipe, "its last checkpoint"));
    TRY(field_is(s, "data", s->newest.data, "its last checkpoint"));
    return field_is(s, "base", s->newest.base_model, "its last checkpoint");
}

static Err check_done(Stage *s)
{
    const char *dtype = json_string_value(json_object_get(s->done, "dtype"));
    TRY(check_recipe(s));
    TRY(check_rows(s));
    TRY(check_base(s));
    TRY(check_checkpoint(s));
    TRY(file_is(s, "dropped", "dropped.jsonl"));
    if (!*s->dtype) TRY(audit_fault(s->a, "%s: the stage has ended, but its weights cannot be read", s->model));
    else if (!dtype || strcmp(dtype, s->dtype))
        TRY(audit_fault(s->a, "%s/done.json: \"dtype\" is not that of the model, %s", s->name, s->dtype));
    return file_is(s, "model", "model/" SUMS_FILE);
}

static Err audit_done(Stage *s)
{
    char advice[256], dir[IO_PATH];
    if (!audit_path(s->a, s->name, dir)) return OK;
    snprintf(advice, sizeof advice, "take it from a copy, or remove %s/ and run imf %s again", s->name, s->name);
    audit_begin(s->a, advice);
    TRY(audit_caught(s->a, read_done(s)));
    if (!s->done && s->a->n_faults == s->a->before) return str_printf(&s->a->lines, "%s: not ended\n", s->name);
    if (s->done) TRY(check_done(s));
    return audit_end(s->a, "%s/done.json:", s->name);
}

// ---- reference log-probs and what was dropped ------------------------------------------------------------------------

static Err take_ref(void *user, Id pair, const PairLogp *ref)
{
    Stage *s = user;
    char text[ID_TEXT];
    (void)ref;
    id_print(pair, text);
    if (*own_file(s) || audit_has(&s->a->set[AUDIT_PAIRS], pair)) return OK;
    return audit_fault(s->a, "dpo/ref_logps.bin: pair %s is not among the pairs", text);
}

// The model and the data that they belong to are named by done.json, or by the last checkpoint.
static Err known_origin(const Stage *s, Id *base, Id *data, bool *known)
{
    const char *b = json_string_value(json_object_get(s->done, "base")),
               *d = json_string_value(json_object_get(s->done, "data"));
    *known = b && d && id_parse(b, base) && id_parse(d, data);
    if (*known || !s->has_checkpoint) return OK;
    *base = s->newest.base_model, *data = s->newest.data, *known = true;
    return OK;
}

static Err audit_refs(Stage *s)
{
    char path[IO_PATH];
    Id print, base, data, want;
    bool known;
    if (!audit_path(s->a, "dpo/ref_logps.bin", path)) {
        audit_begin(s->a, "remove dpo/ and run imf dpo again");
        return s->done ? audit_fault(s->a, "dpo/ref_logps.bin: the file is missing") : OK;
    }
    audit_begin(s->a, "remove the file, dpo/done.json and dpo/step_*, and run imf dpo again");
    Err err = refs_each(path, &print, take_ref, s);
    TRY(audit_caught(s->a, err));
    TRY(known_origin(s, &base, &data, &known));
    if (err == OK && known) {
        TRY(refs_fingerprint(base, data, &want));
        if (!id_equal(print, want)) TRY(audit_fault(s->a, "dpo/ref_logps.bin: it belongs to another model or to other pairs"));
    }
    return audit_end(s->a, "dpo/ref_logps.bin:");
}

static Err take_dropped(void *user, const json_t *row, const char *where)
{
    Stage *s = user;
    Id id;
    if (s->which < 0) return OK;
    TRY(json_get_id(row, "id", where, &id));
    if (*own_file(s) || audit_has(&s->a->set[s->which], id)) return OK;
    return audit_fault(s->a, "%s/%s: the row that was dropped is not among the %s", s->name, io_basename(where), s->set);
}

static Err audit_dropped(Stage *s)
{
    char path[IO_PATH], name[64], advice[256];
    snprintf(name, sizeof name, "%s/dropped.jsonl", s->name);
    if (!audit_path(s->a, name, path)) return OK;
    snprintf(advice, sizeof advice, "imf %s writes it anew at its start", s->name);
    audit_begin(s->a, advice);
    TRY(audit_caught(s->a, jsonl_each(path, take_dropped, s)));
    return audit_end(s->a, "%s:", name);
}

// ---- stages ----------------------------------------------------------------------------------------------------------

static Err audit_stage(Stage *s)
{
    TRY(audit_steps(s));
    TRY(audit_model(s));
    if (s->which >= 0) TRY(audit_done(s));
    if (s->which == AUDIT_PAIRS && (s->done || s->has_checkpoint)) TRY(audit_refs(s));
    return audit_dropped(s);
}

Err audit_training(Audit *a)
{
    static const struct {
        const char *name, *set;
        int which;
    } stages[] = {{"sft", "sft_rows", AUDIT_SFT}, {"dpo", "pairs", AUDIT_PAIRS}, {"reward", "", -1}};
    for (int i = 0; i < 3; i++) {
        Stage s = {.a = a, .name = stages[i].name, .set = stages[i].set, .which = stages[i].which};
        Err err = audit_stage(&s);
        json_decref(s.done);
        TRY(err);
    }
    Stage eval = {.a = a, .name = "eval", .which = -1};
    return audit_dropped(&eval);
}
