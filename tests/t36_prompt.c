// SPDX-License-Identifier: Apache-2.0
// Prompts as users have them: every layout to one form, ids by content alone, bad rows named.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "text/prompt.h"
#include "text/record.h"

typedef struct Imported {
    Err err;
    json_t *data;
    Id id;
    const char *unfit;
} Imported;

static Imported import(const char *text, const char *kind)
{
    Imported i = {0};
    json_t *row;
    assert_int_equal(json_parse(text, (int64_t)strlen(text), "row", &row), OK);
    i.err = prompt_import(row, kind, "", "row", &i.data, &i.id, &i.unfit);
    json_decref(row);
    return i;
}

// A row gives this user text, kind and field (gold, or NULL for none).
static void expect(const char *row, const char *kind, const char *user, const char *gold)
{
    Imported i = import(row, "auto");
    Message *m;
    int64_t n;
    assert_int_equal(i.err, OK);
    assert_int_equal(prompt_messages(i.data, "row", &m, &n), OK);
    assert_int_equal(n, 1);
    assert_string_equal(m[0].role, "user");
    assert_string_equal(m[0].text, user);
    assert_string_equal(json_string_value(json_object_get(i.data, "kind")), kind);
    const char *found = json_string_value(json_object_get(i.data, "gold"));
    if (gold) assert_string_equal(found, gold);
    else assert_null(found);
    mem_free(m);
    json_decref(i.data);
}

static void layouts(void **state)
{
    (void)state;
    expect("{\"question\":\"Q\",\"answer\":\"words #### 1,234 \"}", "math", "Q", "1,234");
    expect("{\"problem\":\"P\",\"answer\":\"\\\\frac{1}{2}\"}", "math", "P", "\\frac{1}{2}");
    expect("{\"problem\":\"P\",\"expected_answer\":\"7\"}", "math", "P", "7");
    expect("{\"instruction\":\"I\",\"input\":\"\",\"output\":\"O\"}", "if", "I", NULL);
    expect("{\"instruction\":\"I\",\"input\":\"x\"}", "if", "I\nx", NULL);
    expect("{\"prompt\":\"T\"}", "if", "T", NULL);
    expect("{\"prompt\":[{\"role\":\"user\",\"content\":\"T\"}],\"gold\":\"3\"}", "math", "T", "3");
    expect("{\"text\":\"W\",\"test_list\":[\"assert f()\"]}", "code", "W\nYour code should pass these tests:\nassert f()\n", NULL);
    expect("{\"messages\":[{\"role\":\"user\",\"content\":\"T\"},{\"role\":\"assistant\",\"content\":\"A\"}]}", "if", "T", NULL);
}

// The id is that of the messages: other fields and the layout do not enter, a letter more does.
static void id_is_the_content(void **state)
{
    (void)state;
    Imported a = import("{\"prompt\":\"T\"}", "if"), b = import("{\"question\":\"T\",\"answer\":\"#### 2\"}", "auto"),
             c = import("{\"prompt\":\"T \"}", "if");
    assert_true(id_equal(a.id, b.id));
    assert_false(id_equal(a.id, c.id));
    json_decref(a.data);
    json_decref(b.data);
    json_decref(c.data);
}

static void unfit_rows_say_why(void **state)
{
    (void)state;
    Imported i = import("{\"prompt\":\"T\"}", "math");
    assert_int_equal(i.err, OK);
    assert_string_equal(i.unfit, "no gold answer");
    json_decref(i.data);
    i = import("{\"prompt\":\"T\",\"tests\":[]}", "auto");
    assert_string_equal(i.unfit, "no tests");
    json_decref(i.data);
}

static void bad_rows_are_refused(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "{\"x\":1}", "{\"prompt\":3}", "{\"prompt\":\"T\",\"gold\":3}", "{\"prompt\":\"T\",\"kind\":\"poem\"}", "{\"messages\":[]}",
        "{\"messages\":[{\"role\":\"user\"}]}", "{\"text\":\"W\",\"test_list\":[1]}"};
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        Imported i = import(rows[r], "auto");
        assert_int_equal(i.err, ERR_DATA);
        assert_null(i.data);
        assert_non_null(strstr(err_message(), "row"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layouts), cmocka_unit_test(id_is_the_content), cmocka_unit_test(unfit_rows_say_why),
        cmocka_unit_test(bad_rows_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
