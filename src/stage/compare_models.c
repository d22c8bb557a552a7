// SPDX-License-Identifier: Apache-2.0
// Two model directories tensor by tensor, and two files of reference log-probs pair by pair. Weights are compared as bits: -0
// and 0 differ, and so do two NaNs of other bits.
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model/safetensors.h"
#include "model/sums.h"
#include "stage/compare_parts.h"
#include "text/record.h"
#include "train/refs.h"

enum { CHUNK = 1 << 14 };

// ---- weights ---------------------------------------------------------------------------------------------------------

typedef struct Weights {
    int64_t tensors, elements, different_tensors, different, only_a, only_b;
    double largest;
    char first[512];  // the first difference in words
} Weights;

static void note(Weights *w, const char *text)
{
    if (!*w->first) snprintf(w->first, sizeof w->first, "%s", text);
}

static void note_element(Weights *w, const StTensor *t, int64_t i, float a, float b)
{
    char text[512];
    snprintf(text, sizeof text, "tensor %s, element %" PRId64 ": %.9g | %.9g", t->name, i, (double)a, (double)b);
    note(w, text);
}

static void compare_chunk(Weights *w, const StTensor *a, const StTensor *b, int64_t at, int64_t n)
{
    float x[CHUNK], y[CHUNK];
    const int64_t size = dtype_size(a->dtype);
    const char *p = a->data + at * size, *q = b->data + at * size;
    if (!memcmp(p, q, (size_t)(n * size))) return;
    st_decode(p, n, a->dtype, x);
    st_decode(q, n, a->dtype, y);
    for (int64_t i = 0; i < n; i++) {
        if (!memcmp(p + i * size, q + i * size, (size_t)size)) continue;
        const double d = fabs((double)x[i] - (double)y[i]);
        note_element(w, a, at + i, x[i], y[i]);
        w->different++;
        if (d > w->largest || isnan(d)) w->largest = d;
    }
}

static bool same_shape(const StTensor *a, const StTensor *b)
{
    return a->dims == b->dims && a->bytes == b->bytes && a->readable == b->readable && a->dtype == b->dtype &&
           !memcmp(a->dim, b->dim, (size_t)a->dims * sizeof *a->dim);
}

static void compare_tensor(Weights *w, const StTensor *a, const StTensor *b)
{
    char text[512];
    const int64_t before = w->different;
    w->tensors++;
    if (!same_shape(a, b)) {
        w->different_tensors++;
        snprintf(text, sizeof text, "tensor %s: another type or shape (%s, %" PRId64 " bytes | %s, %" PRId64 " bytes)", a->name,
                 a->readable ? dtype_name(a->dtype) : "other", a->bytes, b->readable ? dtype_name(b->dtype) : "other",
                 b->bytes);
        note(w, text);
        return;
    }
    w->elements += a->n;
    for (int64_t at = 0; a->readable && at < a->n; at += CHUNK)
        compare_chunk(w, a, b, at, a->n - at < CHUNK ? a->n - at : CHUNK);
    const bool bytes = !a->readable && memcmp(a->data, b->data, (size_t)a->bytes);
    snprintf(text, sizeof text, "tensor %s: other bytes", a->name);
    if (bytes) note(w, text);
    w->different_tensors += bytes || w->different > before;
}

static void one_sided(Weights *w, const StTensor *t, bool in_a)
{
    char text[512];
    snprintf(text, sizeof text, "tensor %s is only in %s", t->name, in_a ? "A" : "B");
    note(w, text);
    ++*(in_a ? &w->only_a : &w->only_b);
}

// Both are sorted by name.
static void compare_tensors(Weights *w, const StDir *a, const StDir *b)
{
    for (int64_t i = 0, k = 0; i < a->tensors || k < b->tensors;) {
        const int order = i == a->tensors ? 1 : k == b->tensors ? -1 : strcmp(a->tensor[i].name, b->tensor[k].name);
        if (order == 0) compare_tensor(w, &a->tensor[i++], &b->tensor[k++]);
        else if (order < 0) one_sided(w, &a->tensor[i++], true);
        else one_sided(w, &b->tensor[k++], false);
    }
}

static Err tell_weights(Compare *c, const char *part, const Weights *w)
{
    if (!*w->first) return compare_same(c, part, "%" PRId64 " parameters in %" PRId64 " tensors", w->elements, w->tensors);
    return compare_differs(c, part,
                           "%s; %" PRId64 " of %" PRId64 " elements differ, in %" PRId64 " of %" PRId64
                           " common tensors, by %.9g at most; %" PRId64 " tensors are only in A, %" PRId64 " only in B",
                           w->first, w->different, w->elements, w->different_tensors, w->tensors, w->largest, w->only_a,
                           w->only_b);
}

static Err compare_weights(Compare *c, const char *part, const char *a, const char *b)
{
    StDir x, y;
    Weights w = {0};
    TRY(st_open(a, &x));
    Err err = st_open(b, &y);
    if (err == OK) {
        compare_tensors(&w, &x, &y);
        err = tell_weights(c, part, &w);
        st_close(&y);
    }
    st_close(&x);
    return err;
}

// ---- the other files -------------------------------------------------------------------------------------------------

static json_t *read_json(const char *path)
{
    Str text = {0};
    json_t *out = NULL;
    if (io_read(path, &text, 64 << 20) == OK) out = json_loadb(str_text(&text), (size_t)text.len, 0, NULL);
    str_free(&text);
    return out;
}

static Err tell_file(Compare *c, const char *part, const char *a, const char *b)
{
    json_t *x = read_json(a), *y = read_json(b);
    Field f;
    Err err = OK;
    if (!x || !y) err = compare_differs(c, part, "other bytes");
    else if (compare_json(x, y, &f)) err = compare_differs(c, part, "%s: %s | %s", f.path, f.a, f.b);
    json_decref(x);
    json_decref(y);
    return err;
}

static Err compare_file(Compare *c, const char *model, const char *name, const char *dir_a, const char *dir_b)
{
    char a[IO_PATH], b[IO_PATH], part[512];
    Id x, y;
    snprintf(part, sizeof part, "%s/%s", model, name);
    TRY(io_join(a, dir_a, name));
    TRY(io_join(b, dir_b, name));
    if (!io_exists(a) && !io_exists(b)) return OK;
    if (!io_exists(a) || !io_exists(b)) return compare_differs(c, part, "only in %s", io_exists(a) ? "A" : "B");
    TRY(hash_file(a, &x));
    TRY(hash_file(b, &y));
    return id_equal(x, y) ? OK : tell_file(c, part, a, b);
}

// README.md and checksums.json name programs and places, not what the model computes.
Err compare_models(Compare *c, const char *part, const char *a, const char *b)
{
    static const char *const files[] = {"config.json",
                                        "generation_config.json",
                                        "tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "chat_template.jinja"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) TRY(compare_file(c, part, files[i], a, b));
    return compare_weights(c, part, a, b);
}

// ---- reference log-probs ---------------------------------------------------------------------------------------------

typedef struct Ref {
    Id pair;
    PairLogp logp;
} Ref;
typedef struct Refs {
    Ref *ref;  // [n] in the file's order, that of ids; owned
    int64_t n, cap;
} Refs;

static Err take_ref(void *user, Id pair, const PairLogp *logp)
{
    Refs *r = user;
    TRY(MEM_GROW(&r->ref, r->n, &r->cap, r->n + 1));
    r->ref[r->n++] = (Ref){pair, *logp};
    return OK;
}

static bool same_ref(const Ref *a, const Ref *b)
{
    return id_equal(a->pair, b->pair) && !memcmp(a->logp.logp, b->logp.logp, sizeof a->logp.logp) &&
           !memcmp(a->logp.n, b->logp.n, sizeof a->logp.n);
}

static Err tell_refs(Compare *c, const Refs *a, const Refs *b)
{
    const char *const part = "dpo/ref_logps.bin";
    char id[ID_TEXT];
    int64_t i = 0;
    while (i < a->n && i < b->n && same_ref(&a->ref[i], &b->ref[i])) i++;
    if (i == a->n && i == b->n) return compare_same(c, part, "%" PRId64 " pairs", a->n);
    if (i == a->n || i == b->n) return compare_differs(c, part, "%" PRId64 " pairs in A, %" PRId64 " in B", a->n, b->n);
    id_print(a->ref[i].pair, id);
    if (!id_equal(a->ref[i].pair, b->ref[i].pair)) return compare_differs(c, part, "other pairs, from %s in A on", id);
    return compare_differs(c, part, "pair %s: chosen %.17g | %.17g, rejected %.17g | %.17g", id, a->ref[i].logp.logp[0],
                           b->ref[i].logp.logp[0], a->ref[i].logp.logp[1], b->ref[i].logp.logp[1]);
}

Err compare_refs(Compare *c)
{
    char a[IO_PATH], b[IO_PATH];
    bool both;
    Id print;
    Refs x = {0}, y = {0};
    Err err = OK;
    TRY(compare_paths(c, "dpo/ref_logps.bin", a, b, &both));
    if (!both) return OK;
    TRY_DONE(refs_each(a, &print, take_ref, &x));
    TRY_DONE(refs_each(b, &print, take_ref, &y));
    TRY_DONE(tell_refs(c, &x, &y));
done:
    mem_free(x.ref);
    mem_free(y.ref);
    return err;
}
