// SPDX-License-Identifier: Apache-2.0
// Users' rows in every shape that imf takes: what becomes prompt and answer, ids that depend on content alone, messages that
// name the line.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/io.h"
#include "text/record.h"
#include "train/dataset.h"
#include "train/rows.h"

#define ok(call) assert_ok((call), #call)
static void assert_ok(Err err, const char *what)
{
    if (err != OK) fail_msg("%s: %s\n%s", what, err_message(), err_trace());
}

static Arena arena;

static Err parse(const char *text, bool pairs, Row *out)
{
    json_t *o = NULL;
    ok(json_parse(text, (int64_t)strlen(text), "rows.jsonl:7", &o));
    Err err = rows_parse(o, "rows.jsonl:7", pairs, &arena, out);
    json_decref(o);
    return err;
}

static void assert_row(const char *text, bool pairs, int64_t n, const char *last, int answers, const char *first_answer)
{
    Row r;
    ok(parse(text, pairs, &r));
    assert_int_equal(r.n, n);
    assert_string_equal(r.m[n - 1].text, last);
    assert_int_equal(r.answers, answers);
    if (first_answer) assert_string_equal(r.answer[0], first_answer);
}

static void sft_shapes(void **state)
{
    (void)state;
    assert_row("{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"a\"}]}", false, 2, "a", 0, NULL);
    assert_row("{\"conversations\":[{\"from\":\"human\",\"value\":\"q\"},{\"from\":\"gpt\",\"value\":\"a\"}]}", false, 2, "a", 0, NULL);
    assert_row("{\"instruction\":\"do\",\"input\":\"\",\"output\":\"done\"}", false, 1, "do", 1, "done");
    assert_row("{\"instruction\":\"do\",\"input\":\"this\",\"output\":\"done\"}", false, 1, "do\nthis", 1, "done");
    assert_row("{\"instruction\":\"do\",\"system\":\"be\",\"output\":\"done\"}", false, 2, "do", 1, "done");
    assert_row("{\"prompt\":\"q\",\"completion\":\"a\"}", false, 1, "q", 1, "a");
    assert_row("{\"prompt\":\"q\",\"chosen\":\"a\",\"rejected\":\"b\"}", false, 1, "q", 1, "a");
}

static void pair_shapes(void **state)
{
    (void)state;
    assert_row("{\"prompt\":\"q\",\"chosen\":\"a\",\"rejected\":\"b\"}", true, 1, "q", 2, "a");
    assert_row("{\"prompt\":[{\"role\":\"user\",\"content\":\"q\"}],\"chosen\":[{\"role\":\"assistant\",\"content\":\"a\"}],"
               "\"rejected\":[{\"role\":\"assistant\",\"content\":\"b\"}]}", true, 1, "q", 2, "a");
    assert_row("{\"chosen\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"a\"}],"
               "\"rejected\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"b\"}]}", true, 1, "q", 2, "a");
    assert_row("{\"conversations\":[{\"from\":\"system\",\"value\":\"s\"},{\"from\":\"human\",\"value\":\"q\"}],"
               "\"chosen\":{\"from\":\"gpt\",\"value\":\"a\"},\"rejected\":{\"from\":\"gpt\",\"value\":\"b\"}}", true, 2, "q", 2, "a");
}

// The same content in two shapes is the same row; a conversation's group is its prompt.
static void ids_come_from_content(void **state)
{
    (void)state;
    Row a, b, c;
    ok(parse("{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"a\"}]}", false, &a));
    ok(parse("{\"prompt\":\"q\",\"completion\":\"a\"}", false, &b));
    ok(parse("{\"prompt\":\"q\",\"completion\":\"b\"}", false, &c));
    assert_true(id_equal(a.id, b.id) && id_equal(a.group, b.group));
    assert_true(!id_equal(a.id, c.id) && id_equal(a.group, c.group));
}

static void bad_rows_name_the_line(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "{\"text\":\"q\"}", "{\"messages\":[]}", "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]}",
        "{\"messages\":[{\"role\":\"robot\",\"content\":\"q\"}]}", "{\"messages\":[{\"role\":\"user\"}]}", "{\"prompt\":3,\"completion\":\"a\"}",
        "[1]"};
    Row r;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(parse(bad[i], false, &r), ERR_DATA);
        assert_non_null(strstr(err_message(), "rows.jsonl:7"));
    }
    assert_int_equal(parse("{\"prompt\":\"q\",\"chosen\":\"a\"}", true, &r), ERR_DATA);
    assert_int_equal(parse("{\"prompt\":\"q\",\"chosen\":[{\"role\":\"user\",\"content\":\"x\"}],\"rejected\":\"b\"}", true, &r), ERR_DATA);
}

static void write_rows(const char *path, const int *order, int n)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < n; i++) fprintf(f, "{\"prompt\":\"q%d\",\"completion\":\"a%d\"}\n", order[i], order[i]);
    fclose(f);
}

static void order_and_duplicates_of_lines_change_nothing(void **state)
{
    (void)state;
    char path[] = "/tmp/imf-t47-XXXXXX";
    Rows x, y;
    assert_true(close(mkstemp(path)) == 0);
    write_rows(path, (int[]){1, 2, 3, 4, 5}, 5);
    ok(rows_import(path, false, &arena, &x));
    write_rows(path, (int[]){4, 2, 5, 2, 1, 3, 4}, 7);
    ok(rows_import(path, false, &arena, &y));
    assert_int_equal(x.n, 5);
    assert_int_equal(y.n, 5);
    assert_int_equal(y.duplicates, 2);
    for (int i = 0; i < 5; i++) assert_true(id_equal(x.row[i].id, y.row[i].id));
    rows_free(&x);
    rows_free(&y);
    unlink(path);
}

// --- split and order -------------------------------------------------------------------------------------------------------

static void held_out_rows_are_whole_groups(void **state)
{
    (void)state;
    enum { N = 90 };
    Dataset d = {.n = N};
    Split a, b, c;
    ok(ARENA_ARRAY(&d.arena, &d.group, N));
    for (int i = 0; i < N; i++) d.group[i] = hash_bytes(&(int){i / 3}, sizeof(int));
    ok(dataset_split(&d, 0.2, 1, &a));
    ok(dataset_split(&d, 0.2, 1, &b));
    ok(dataset_split(&d, 10, 2, &c));
    assert_int_equal(a.n_val, 18);
    assert_int_equal(c.n_val, 12);  // whole groups of three
    assert_memory_equal(a.val, b.val, (size_t)a.n_val * sizeof *a.val);
    for (int64_t i = 0; i < a.n_val; i += 3) assert_true(a.val[i] % 3 == 0 && a.val[i + 2] == a.val[i] + 2);
    assert_int_equal(dataset_split(&d, 90, 2, &c), ERR_RECIPE);
    arena_free(&d.arena);
}

static void epochs_differ_and_repeat(void **state)
{
    (void)state;
    int64_t a[50], b[50], c[50], seen[50] = {0};
    dataset_order(3, 0, 50, a);
    dataset_order(3, 1, 50, b);
    dataset_order(3, 0, 50, c);
    assert_memory_equal(a, c, sizeof a);
    assert_memory_not_equal(a, b, sizeof a);
    for (int i = 0; i < 50; i++) seen[b[i]]++;
    for (int i = 0; i < 50; i++) assert_int_equal(seen[i], 1);
}

static int teardown(void **state)
{
    (void)state;
    arena_free(&arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sft_shapes),
        cmocka_unit_test(pair_shapes),
        cmocka_unit_test(ids_come_from_content),
        cmocka_unit_test(bad_rows_name_the_line),
        cmocka_unit_test(order_and_duplicates_of_lines_change_nothing),
        cmocka_unit_test(held_out_rows_are_whole_groups),
        cmocka_unit_test(epochs_differ_and_repeat),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}
