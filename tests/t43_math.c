// SPDX-License-Identifier: Apache-2.0
// The math judge: extraction, the cases that users of Math-Verify reported, its three values, limits, and gold answers
// against themselves and against perturbed ones.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "judge/judge.h"

static Verdict boxed(const char *gold, const char *answer)
{
    char text[8192];
    Verdict v;
    snprintf(text, sizeof text, "So the result is \\boxed{%s}.", answer);
    assert_int_equal(math_judge(gold, text, &v), OK);
    return v;
}

static const char *const equal[][2] = {
    {"42", "42"}, {"42", "42.0"}, {"1/2", "0.5"}, {"\\frac{1}{2}", "\\dfrac12"}, {"\\frac12", "1/2"}, {"1,234", "1234"},
    {"2,\\!880", "2880"}, {"20,\\!000,\\!000", "20{,}000{,}000"}, {"18", "\\$18"}, {"18", "18 \\text{ dollars}"}, {"18", "18 eggs"},
    {"-\\frac{3}{4}", "\\frac{-3}{4}"}, {"50", "50\\%"}, {"50\\%", "0.5"}, {"45^\\circ", "45"}, {"45^{\\circ}", "45\\text{ degrees}"},
    {"\\sqrt{8}", "2\\sqrt{2}"}, {"\\frac{1}{\\sqrt{2}}", "\\frac{\\sqrt2}{2}"}, {"\\sqrt{2}-1", "\\frac{1}{1+\\sqrt{2}}"},
    {"6\\sqrt3", "6\\sqrt{3}"}, {"\\sqrt[3]{16}", "2\\sqrt[3]{2}"}, {"\\sqrt{6}", "\\sqrt{2}\\sqrt{3}"},
    {"-2\\pi", "-2*pi"}, {"\\frac{\\pi}{2}", "pi/2"}, {"16\\pi", "\\pi \\cdot 16"}, {"\\tfrac{8\\pi}5", "\\frac{8}{5}\\pi"},
    {"14-i", "14.0 + -1.0i"}, {"4+6i", "6i + 4"}, {"\\sqrt{-4}", "2i"}, {"(1,2)", "\\left( 1, 2 \\right)"},
    {"[0,3)", "\\left[0, 3\\right)"}, {"(-\\infty, 2]", "(-\\infty,2]"}, {"\\{1,2,3\\}", "\\{3, 1, 2\\}"},
    {"(-\\infty,0]\\cup[4,\\infty)", "[4,\\infty)\\cup(-\\infty,0]"}, {"\\text{Sunday}", "Sunday"}, {"\\text{(C)}", "C"},
    {"(D)", "\\text{D}"}, {"x=5", "5"}, {"x \\in [2,3]", "[2,3]"}, {"2 \\pm \\sqrt{3}", "2+\\sqrt{3}, 2-\\sqrt{3}"},
    {"\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", "\\begin{bmatrix}1&2\\\\3&4\\end{bmatrix}"},
    {"x^2-1", "(x-1)(x+1)"}, {"\\frac{8-7x}{6}", "\\frac{4}{3}-\\frac{7x}{6}"}, {"64a^6", "(2a)^6"}, {"\\frac{x^2-1}{x-1}", "x+1"},
    {"12\\text{ and }13", "12, 13"}, {"x-3z=0", "2x = 6z"}, {"3\\frac{1}{2}", "3.5"}, {"2^{10}", "1024"}, {"5!", "120"}, {"5(\\sqrt{3}-1)", "5\\sqrt3 - 5"}, {"3(4)", "12"},
    {"\\text{even}", "Even"}, {"1.5\\times 10^3", "1500"}, {"\\emptyset", "\\varnothing"}, {"-1.0", "-1"}, {"10\\text{ cm}", "10\\text{cm}"},
};

static const char *const different[][2] = {
    {"42", "43"}, {"42", "-42"}, {"1/2", "1/3"}, {"0.5", "0.51"}, {"\\frac{1}{2004!}", "\\frac{1}{2006!}"}, {"1,2,3", "2,3,4"},
    {"n=1,2,3", "n=2,3,4"}, {"1-\\frac{1}{e}", "1+\\frac{1}{e}"}, {"\\sqrt{2}", "\\sqrt{3}"}, {"2\\sqrt{2}", "2\\sqrt{3}"},
    {"\\pi", "2\\pi"}, {"(1,2)", "(2,1)"}, {"(1,2)", "(1,2,3)"}, {"\\{1,2\\}", "\\{1,3\\}"}, {"[0,1]", "[0,2]"}, {"x^2", "x^3"},
    {"x+1", "x+2"}, {"\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}1\\\\3\\end{pmatrix}"}, {"\\text{Sunday}", "Monday"},
    {"A", "B"}, {"1000", "1000000"}, {"0", "0.001"}, {"3+2i", "3-2i"}, {"10^{30}", "10^{30}+1"}, {"y", "x"}, {"18", "1.8"},
    {"100", "1"}, {"1", "100"}, {"(-\\infty,2)", "(\\infty,2)"}, {"\\frac{1}{3}", "\\frac{1}{4}"}, {"2x+1", "3x+1"},
};

static const char *const not_equal[][2] = {  // wrong or undecided, but never right
    {"y=2x+1", "y=2x-1"}, {"2x+3y=5", "2x+3y=6"}, {"x=5", "y=5"}, {"[1,2]", "(1,2)"}, {"1,2", "2,1"}, {"\\frac{1}{3}", "0.333"},
    {"3.14", "\\pi"}, {"0.5", "0.5\\%"}, {"5\\text{ cm}", "5\\text{ m}"}, {"100\\text{ cm}", "1\\text{ m}"}, {"5", "5 million"},
    {"12", "1 2"}, {"25", "2 5"}, {"1010_2", "1010_3"}, {"10", "1010_2"}, {"\\sqrt{2}", "1.41421356237309504880168872420969807857"},
    {"e^{\\pi\\sqrt{163}}", "262537412640768744"}, {"1/(2x)", "1/2x"}, {"\\sin x", "\\cos x"}, {"2", "2, 3"}, {"5", "five apples"},
    {"\\log_2 8", "\\log_3 8"}, {"x > 5", "x < 5"}, {"x \\le 5", "x \\ge 5"}, {"2:30", "3:30"}, {"9^{9^9}", "9^{9^8}"}, {"1", "9^9^9"},
    {"10!!", "10!"}, {"3", "3, 3"}, {"0.56=56\\%", "0.56=57\\%"}, {"1=2", "3=4"}, {"3(1/2)", "3/2"}, {"3(1/2)", "7/2"}, {"0.\\overline{3}", "0.3"}, {"\\frac{a}{b}", "\\frac{b}{a}"}, {"45^\\circ", "\\frac{\\pi}{4}"}, {"3 1/2", "3/2"},
    {"3\\frac{3}{2}", "9/2"}, {"2\\frac{1}{2}", "1"}, {"10", "10 hundred"}, {"\\text{east}", "\\text{southeast}"}, {"1", ""}, {"2", "."},
    {"|x|", "x"}, {"f(x)=x", "g(x)=x"}, {"2^{1000000000}", "2^{1000000001}"}, {"\\ldots", "1"}, {"1,000", "(1,000)"}, {"0", "\\infty"},
};

static void test_r_math1_equal(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof equal / sizeof equal[0]; i++)
        for (int turn = 0; turn < 2; turn++) {
            Verdict v = boxed(equal[i][turn], equal[i][!turn]);
            if (v.outcome != VERDICT_RIGHT) print_error("gold %s answer %s: %d %s\n", equal[i][turn], equal[i][!turn], v.outcome, v.reason);
            assert_int_equal(v.outcome, VERDICT_RIGHT);
        }
}

static void test_r_math1_different(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof different / sizeof different[0]; i++)
        for (int turn = 0; turn < 2; turn++) {
            Verdict v = boxed(different[i][turn], different[i][!turn]);
            if (v.outcome != VERDICT_WRONG) fail_msg("gold %s answer %s: %d %s", different[i][turn], different[i][!turn], v.outcome, v.reason);
        }
}

static void test_r_math1_never_a_false_equal(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof not_equal / sizeof not_equal[0]; i++) {
        Verdict v = boxed(not_equal[i][0], not_equal[i][1]);
        if (v.outcome == VERDICT_RIGHT) fail_msg("gold %s answer %s: right", not_equal[i][0], not_equal[i][1]);
        if (v.outcome == VERDICT_UNDECIDED) assert_true(v.reason[0]);
    }
}

static void test_extraction_of_spec_6_6(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"The final answer is $5$. I hope it is correct.", "5"}, {"\\boxed{1} then \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"},
        {"$\\boxed 7$ ok", "7"}, {"The answer is: 42.", "42"}, {"the answer is 3. The answer is 4", "4"}, {"\xE7\xAD\x94\xE6\xA1\x88\xE6\x98\xAF 9\n\nx", "9"},
        {"we get 1,234 apples and -5.5", "-5.5"}, {"costs $1,234.", "1234"}, {"no digits", ""}, {"\\boxed{}", ""}, {"", ""},
        {"range 3-4", "-4"}, {"x = .5", ".5"}};
    Str out = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(math_extract(cases[i][0], &out), OK);
        assert_string_equal(str_text(&out), cases[i][1]);
    }
    str_free(&out);
}

static void test_whole_responses(void **state)
{
    (void)state;
    Verdict v;
    assert_int_equal(math_judge("Natalia sold 48/2 = 24.\n#### 72", "She sold 72.", &v), OK);
    assert_int_equal(v.outcome, VERDICT_RIGHT);
    assert_string_equal(v.extracted, "72");
    assert_int_equal(math_judge("72", "The answer is 72. So she is happy.", &v), OK);
    assert_int_equal(v.outcome, VERDICT_RIGHT);
    assert_int_equal(math_judge("so \\boxed{3}", "\\boxed{3}", &v), OK);
    assert_int_equal(v.outcome, VERDICT_RIGHT);
    assert_int_equal(math_judge("72", "I do not know", &v), OK);
    assert_int_equal(v.outcome, VERDICT_WRONG);
    assert_string_equal(v.reason, "no answer found");
    assert_int_equal(math_judge("72", "\\boxed{7", &v), OK);
    assert_int_equal(v.outcome, VERDICT_UNDECIDED);
    assert_int_equal(math_judge("", "1", &v), ERR_DATA);
}

static void test_prs4_hostile_answers_end_soon(void **state)
{
    (void)state;
    char big[6000];
    static const char *const bad[] = {"9^{9^{9^9}}", "9^9^9^9", "99999999999!", "5000!^{99999}", "(x+y+z+w+1)^{64}", "((a+b)(c+d)(e+f)(g+h)(i+j)(k+l)(m+n)(o+p)(q+r)(s+t))^9",
                                      "\\frac{\\frac{\\frac", "2^{-999999999999}", "\\sqrt[1000000]{2}", "\\sqrt{(10^{5000}+1)}", "1e999999999", "\\begin{pmatrix}", "\"\"\"\"", "1/0", "0^0", "\\1\\2\\{"};
    clock_t start = clock();
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_int_not_equal(boxed("7", bad[i]).outcome, VERDICT_RIGHT);
    for (int kind = 0; kind < 4; kind++) {
        memset(big, "({[-"[kind], 4000);
        big[4000] = '\0';
        assert_int_not_equal(boxed("7", big).outcome, VERDICT_RIGHT);
    }
    memset(big, '9', 5000);
    big[5000] = '\0';
    assert_int_equal(boxed("7", big).outcome, VERDICT_UNDECIDED);
    assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 4);  // PRS-4: 100 ms an item, with room for a loaded machine
}

static void test_fuseeval_protocol_has_its_quirks(void **state)
{
    (void)state;
    static const struct {
        const char *gold, *answer;
        Outcome outcome;
    } cases[] = {{"50", "\\boxed{0.5}", VERDICT_RIGHT}, {"0.5", "\\boxed{50}", VERDICT_RIGHT}, {"10000", "\\boxed{10000.5}", VERDICT_RIGHT},
                 {"100", "\\boxed{101}", VERDICT_WRONG}, {"[1,2]", "\\boxed{(1,2)}", VERDICT_RIGHT}, {"1,2", "\\boxed{[1,2]}", VERDICT_RIGHT},
                 {"B", "\\boxed{(B)}", VERDICT_RIGHT}, {"5", "\\boxed{5 \\text{ cm}}", VERDICT_RIGHT}, {"27.0", "the answer is 27", VERDICT_RIGHT},
                 {"\\frac{1}{2}", "\\boxed{1/2}", VERDICT_RIGHT}, {"12", "\\boxed{twelve}", VERDICT_RIGHT}, {"x=5", "\\boxed{5}", VERDICT_RIGHT},
                 {"18", "18 dollars", VERDICT_RIGHT}, {"3", "nothing", VERDICT_WRONG}, {"2\\sqrt{2}", "\\boxed{\\sqrt{8}}", VERDICT_RIGHT}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Verdict v;
        assert_int_equal(math_judge_fuseeval(cases[i].gold, cases[i].answer, &v), OK);
        if (v.outcome != cases[i].outcome) fail_msg("gold %s answer %s: %d %s", cases[i].gold, cases[i].answer, v.outcome, v.reason);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_r_math1_equal),
        cmocka_unit_test(test_r_math1_different),
        cmocka_unit_test(test_r_math1_never_a_false_equal),
        cmocka_unit_test(test_extraction_of_spec_6_6),
        cmocka_unit_test(test_whole_responses),
        cmocka_unit_test(test_prs4_hostile_answers_end_soon),
        cmocka_unit_test(test_fuseeval_protocol_has_its_quirks),
    };
    return cmocka_run_group_tests_name("math", tests, NULL, NULL);
}
