// SPDX-License-Identifier: Apache-2.0
// Record sets joined by id, metrics joined by step, JSON values field by field.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "stage/compare_parts.h"
#include "text/record.h"

// ---- JSON ------------------------------------------------------------------------------------------------------------

// Shortened to what fits, never in the middle of a UTF-8 character.
static void put_short(const json_t *v, char out[COMPARE_VALUE])
{
    Str text = {0};
    snprintf(out, COMPARE_VALUE, "%s", v ? "?" : "(not there)");
    if (v && json_canonical(v, &text) == OK) {
        int64_t n = text.len;
        const bool whole = n < COMPARE_VALUE;
        if (!whole) n = COMPARE_VALUE - 3;
        while (!whole && n > 0 && ((unsigned char)text.p[n] & 0xc0) == 0x80) n--;
        snprintf(out, COMPARE_VALUE, "%.*s%s", (int)n, text.p, whole ? "" : "..");
    }
    str_free(&text);
}

static void put_field(const json_t *a, const json_t *b, const char *path, Field *out)
{
    snprintf(out->path, sizeof out->path, "%s", path);
    put_short(a, out->a);
    put_short(b, out->b);
}

static bool differ_at(const json_t *a, const json_t *b, const char *path, Field *out);

// Keys of a in their order, then those that only b has.
static bool differ_objects(const json_t *a, const json_t *b, const char *path, Field *out)
{
    const char *key;
    json_t *value;
    char at[256];
    for (int side = 0; side < 2; side++) json_object_foreach((json_t *)(side ? b : a), key, value)
        {
            snprintf(at, sizeof at, "%.150s%s%.80s", path, *path ? "." : "", key);
            if (side && json_object_get(a, key)) continue;
            if (differ_at(side ? NULL : value, side ? value : json_object_get(b, key), at, out)) return true;
        }
    return false;
}

static bool differ_arrays(const json_t *a, const json_t *b, const char *path, Field *out)
{
    char at[256];
    for (size_t i = 0; i < json_array_size(a) || i < json_array_size(b); i++) {
        snprintf(at, sizeof at, "%.200s[%zu]", path, i);
        if (differ_at(json_array_get(a, i), json_array_get(b, i), at, out)) return true;
    }
    return false;
}

// Recursion is as deep as the parser lets values be.
static bool differ_at(const json_t *a, const json_t *b, const char *path, Field *out)
{
    if (a && b && json_equal(a, b)) return false;
    if (json_is_object(a) && json_is_object(b)) return differ_objects(a, b, path, out);
    if (json_is_array(a) && json_is_array(b)) return differ_arrays(a, b, path, out);
    put_field(a, b, path, out);
    return true;
}

bool compare_json(const json_t *a, const json_t *b, Field *out)
{
    *out = (Field){0};
    return differ_at(a, b, "", out);
}

// ---- record sets -----------------------------------------------------------------------------------------------------

typedef struct Join {
    RecordSet *a, *b;
    int64_t both, different, only_a, only_b;
    bool found;
    Id id;     // the first that differs or is on one side only
    int side;  // of it: 0 both, 1 only A, 2 only B
    Field field;
} Join;

static void found(Join *j, Id id, int side)
{
    if (j->found) return;
    j->found = true;
    j->id = id;
    j->side = side;
}

static Err join_record(Join *j, int64_t i, int64_t k)
{
    json_t *a = NULL, *b = NULL;
    Field field;
    Err err = OK;
    TRY_DONE(record_read(j->a, i, &a));
    TRY_DONE(record_read(j->b, k, &b));
    j->both++;
    if (!json_equal(a, b) && compare_json(a, b, &field)) {
        j->different++;
        if (!j->found) j->field = field;
        found(j, record_id(j->a, i), 0);
    }
done:
    json_decref(a);
    json_decref(b);
    return err;
}

static Err join(Join *j)
{
    const int64_t n = record_count(j->a), m = record_count(j->b);
    for (int64_t i = 0, k = 0; i < n || k < m;) {
        const int order = i == n ? 1 : k == m ? -1 : id_compare(record_id(j->a, i), record_id(j->b, k));
        if (order == 0) TRY(join_record(j, i++, k++));
        else if (order < 0) j->only_a++, found(j, record_id(j->a, i++), 1);
        else j->only_b++, found(j, record_id(j->b, k++), 2);
    }
    return OK;
}

static Err tell_join(Compare *c, const char *part, const Join *j, bool ended)
{
    char id[ID_TEXT];
    id_print(j->id, id);
    if (!j->found) return compare_same(c, part, "%" PRId64 " records%s", j->both, ended ? "" : ", not ended");
    if (j->side)
        return compare_differs(c, part,
                               "record %s is only in %s; %" PRId64 " of %" PRId64 " common records differ, %" PRId64
                               " are only in A, %" PRId64 " only in B",
                               id, j->side == 1 ? "A" : "B", j->different, j->both, j->only_a, j->only_b);
    return compare_differs(c, part,
                           "record %s, %s: %s | %s; %" PRId64 " of %" PRId64 " common records differ, %" PRId64
                           " are only in A, %" PRId64 " only in B",
                           id, j->field.path, j->field.a, j->field.b, j->different, j->both, j->only_a, j->only_b);
}

static Err join_sets(Compare *c, const char *part, const char *run_a, const char *run_b, const char *set_a, const char *set_b,
                     bool ended)
{
    Join j = {0};
    Err err = OK;
    TRY_DONE(record_open_here(&j.a, run_a, set_a));
    TRY_DONE(record_open_here(&j.b, run_b, set_b));
    TRY_DONE(join(&j));
    TRY_DONE(tell_join(c, part, &j, ended));
done:
    record_free(j.a);
    record_free(j.b);
    return err;
}

Err compare_set(Compare *c, const char *run_a, const char *run_b, const char *set_a, const char *set_b)
{
    char a[IO_PATH], b[IO_PATH];
    Id digest_a, digest_b;
    int64_t n = 0;
    TRY(io_join(a, run_a, set_a));
    TRY(io_join(b, run_b, set_b));
    if (!io_is_dir(a) && !io_is_dir(b)) return OK;
    if (!io_is_dir(a) || !io_is_dir(b)) return compare_differs(c, set_a, "only in %s", io_is_dir(a) ? c->a : c->b);
    const bool ended = record_done(run_a, set_a, &digest_a, &n) && record_done(run_b, set_b, &digest_b, &n);
    if (ended && id_equal(digest_a, digest_b)) return compare_same(c, set_a, "%" PRId64 " records", n);
    return join_sets(c, set_a, run_a, run_b, set_a, set_b, ended);
}

// ---- metrics ---------------------------------------------------------------------------------------------------------

typedef struct Curve {
    const char *stage;
    json_t *rows;  // of the stage, in the file's order
} Curve;

static Err take_metrics(void *user, const json_t *row, const char *where)
{
    Curve *m = user;
    const char *stage;
    TRY(json_get_text(row, "stage", where, &stage));
    if (!strcmp(stage, m->stage)) json_array_append(m->rows, (json_t *)row);
    return OK;
}

static Err read_curve(const char *path, Curve *m) { return io_exists(path) ? jsonl_each(path, take_metrics, m) : OK; }

static Err tell_curves(Compare *c, const char *part, const Curve *a, const Curve *b)
{
    const size_t n = json_array_size(a->rows), m = json_array_size(b->rows);
    const json_t *first = NULL;
    int64_t different = 0;
    Field field = {0}, one;
    for (size_t i = 0; i < n && i < m; i++) {
        if (!compare_json(json_array_get(a->rows, i), json_array_get(b->rows, i), &one)) continue;
        if (different++ == 0) first = json_array_get(a->rows, i), field = one;
    }
    if (!n && !m) return OK;
    if (!different && n == m) return compare_same(c, part, "%zu lines", n);
    if (!different) return compare_differs(c, part, "%zu lines in A, %zu in B, the common ones are the same", n, m);
    return compare_differs(c, part,
                           "step %" JSON_INTEGER_FORMAT ", %s: %s | %s; %" PRId64 " of %zu lines in A and %zu in B differ",
                           json_integer_value(json_object_get(first, "step")), field.path, field.a, field.b, different, n, m);
}

Err compare_metrics(Compare *c, const char *stage)
{
    char a[IO_PATH], b[IO_PATH], part[64];
    Curve x = {stage, json_array()}, y = {stage, json_array()};
    Err err = OK;
    snprintf(part, sizeof part, "%s metrics", stage);
    TRY_DONE(io_join(a, c->a, "metrics.jsonl"));
    TRY_DONE(io_join(b, c->b, "metrics.jsonl"));
    TRY_DONE(read_curve(a, &x));
    TRY_DONE(read_curve(b, &y));
    TRY_DONE(tell_curves(c, part, &x, &y));
done:
    json_decref(x.rows);
    json_decref(y.rows);
    return err;
}
