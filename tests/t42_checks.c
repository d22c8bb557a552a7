// SPDX-License-Identifier: Apache-2.0
// Graded instruction checks: every kind met and not met, the grade, and messages for wrong specs.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "judge/checks.h"
#include "judge/judge.h"

static double grade_of(const char *checks, const char *answer)
{
    json_t *spec = json_loads(checks, 0, NULL);
    Verdict v;
    assert_non_null(spec);
    assert_int_equal(checks_judge(spec, answer, "test", &v), OK);
    json_decref(spec);
    return v.grade;
}

static const struct {
    const char *check, *met, *unmet;
} cases[] = {
    {"[{\"kind\":\"starts_with\",\"text\":\"Sure\"}]", " Sure, 1", "1 Sure"},
    {"[{\"kind\":\"starts_with\",\"text\":\"sure\",\"ignore_case\":true}]", "SURE", "Su re"},
    {"[{\"kind\":\"ends_with\",\"text\":\"done.\"}]", "x done.\n", "done"},
    {"[{\"kind\":\"contains\",\"text\":\"ab\",\"min\":2,\"max\":2}]", "abab", "ababab"},
    {"[{\"kind\":\"contains\",\"text\":\"aa\",\"min\":2}]", "aaaa", "aaa"},
    {"[{\"kind\":\"not_contains\",\"text\":\"I\"}]", "you", "I"},
    {"[{\"kind\":\"not_contains\",\"texts\":[\"a\",\"b\"]}]", "c", "cb"},
    {"[{\"kind\":\"contains_any\",\"texts\":[\"a\",\"b\"]}]", "b", "c"},
    {"[{\"kind\":\"contains_all\",\"texts\":[\"a\",\"b\"]}]", "ba", "b"},
    {"[{\"kind\":\"equals\",\"text\":\"x y\"}]", "x y\n", "x  y"},
    {"[{\"kind\":\"equals_content\",\"text\":\"12\"}]", "it is 12!", "it is 120 or a12"},
    {"[{\"kind\":\"equals_content\",\"text\":\"a b\"}]", "(a b)", "ca b"},
    {"[{\"kind\":\"no_char\",\"chars\":\",\xC3\xA9\"}]", "a \xC3\xA8", "caf\xC3\xA9"},
    {"[{\"kind\":\"only_char\",\"chars\":\"ab \"}]", "a b ab", "a b c"},
    {"[{\"kind\":\"word_count\",\"min\":2,\"max\":3}]", "a b\nc", "a"},
    {"[{\"kind\":\"word_count_max\",\"n\":2}]", "a  b", "a b c"},
    {"[{\"kind\":\"word_count_min\",\"n\":2}]", "a b", "a"},
    {"[{\"kind\":\"line_count\",\"min\":2,\"max\":2}]", "a\n\nb", "a b"},
    {"[{\"kind\":\"char_count\",\"max\":3}]", "\xC3\xA9\xC3\xA9\xC3\xA9", "abcd"},
    {"[{\"kind\":\"order\",\"items\":[\"a\",\"b\",\"a\"]}]", "a b a", "a a b"},
    {"[{\"kind\":\"case\",\"value\":\"upper\"}]", "ABC 1", "ABc"},
    {"[{\"kind\":\"case\",\"value\":\"lower\"}]", "abc 1", "abC"},
};

static void test_every_kind_is_met_and_not_met(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (grade_of(cases[i].check, cases[i].met) != 1.0) fail_msg("%s not met by: %s", cases[i].check, cases[i].met);
        if (grade_of(cases[i].check, cases[i].unmet) != 0.0) fail_msg("%s met by: %s", cases[i].check, cases[i].unmet);
    }
}

static void test_grade_is_the_weighted_share(void **state)
{
    (void)state;
    const char *spec = "[{\"kind\":\"contains\",\"text\":\"a\"},{\"kind\":\"contains\",\"text\":\"b\",\"weight\":3},"
                       "{\"kind\":\"case\",\"value\":\"lower\"}]";
    assert_true(grade_of(spec, "a") == 2.0 / 5);
    assert_true(grade_of(spec, "ab") == 1.0);
    assert_true(grade_of(spec, "bX") == 3.0 / 5);
    assert_true(grade_of(spec, "X") == 0.0);
}

static void test_wrong_specs_are_named(void **state)
{
    (void)state;
    const char *wrong[][2] = {{"[{\"kind\":\"start_with\",\"text\":\"a\"}]", "starts_with"},
                              {"[{\"kind\":\"contains\"}]", "check 1 (contains)"},
                              {"[]", "not empty"},
                              {"[{\"kind\":\"case\",\"value\":\"Upper\"}]", "upper"},
                              {"[{\"kind\":\"word_count\"}]", "min"},
                              {"[{\"kind\":\"order\",\"items\":[1]}]", "items"},
                              {"[{\"kind\":\"equals\",\"text\":\"a\",\"weight\":0}]", "weight"},
                              {"[3]", "object"}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        json_t *spec = json_loads(wrong[i][0], JSON_DECODE_ANY, NULL);
        assert_int_equal(checks_validate(spec, "file:7"), ERR_DATA);
        if (!strstr(err_message(), wrong[i][1]) || !strstr(err_message(), "file:7")) fail_msg("message: %s", err_message());
        json_decref(spec);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind_is_met_and_not_met),
        cmocka_unit_test(test_grade_is_the_weighted_share),
        cmocka_unit_test(test_wrong_specs_are_named),
    };
    return cmocka_run_group_tests_name("checks", tests, NULL, NULL);
}
