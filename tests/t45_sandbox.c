// SPDX-License-Identifier: Apache-2.0
// The code sandbox: correct programs pass and their mutants fail, hostile programs (SBX-1) do no harm and get the class that
// is expected, forging programs (SBX-8) never pass; at tier T0 where this machine has it, at T1, and with namespaces alone.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/io.h"
#include "judge/judge.h"
#include "text/record.h"

static char canary[64];
static struct stat canary_before;
static int tcp = -1, udp = -1, port;
static bool slow_too;  // the rows that wait for the wall limit: at one tier only
static int servers;    // processes below the supervisor when no candidate runs

static const SandboxLimits limits = {.cpu_s = 0.1};

static void skip_without_sandbox(void)
{
    Str text = {0};
    if (sandbox_describe(&text) != OK) {
        printf("%s\n", err_message());
        exit(77);
    }
    str_free(&text);
}

// Processes below pid, itself not counted.
static int descendants(pid_t pid)
{
    char path[64], text[4096] = "";
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid, (int)pid);
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    int count = 0;
    for (char *p = text, *next; (n = (size_t)strtol(p, &next, 10)), next != p; p = next) count += 1 + descendants((pid_t)n);
    return count;
}

static void replace(char *out, size_t size, const char *text, const char *from, const char *to)
{
    size_t n = 0;
    while (*text && n + 1 < size) {
        if (!strncmp(text, from, strlen(from))) {
            n += (size_t)snprintf(out + n, size - n, "%s", to);
            text += strlen(from);
        } else {
            out[n++] = *text++;
        }
    }
    out[n < size ? n : size - 1] = '\0';
}

static const char *text_of(const json_t *row, const char *key) { return json_string_value(json_object_get(row, key)); }

static bool expected(const char *list, const char *reason)
{
    for (const char *p = list; *p;) {
        size_t n = strcspn(p, "|");
        if (!strncmp(p, reason, n)) return true;
        p += n + (p[n] == '|');
    }
    return false;
}

static Err hostile_row(void *user, const json_t *row, const char *where)
{
    char a[8192], b[8192], number[16];
    const char *expect = text_of(row, "expect");
    json_t *tests = json_pack("[s]", "assert f() == 'denied'");
    Verdict v;
    (void)user, (void)where;
    if (json_is_true(json_object_get(row, "slow")) && !slow_too) return json_decref(tests), OK;
    replace(a, sizeof a, text_of(row, "program"), "@CANARY@", canary);
    snprintf(number, sizeof number, "%d", (int)getpid());
    replace(b, sizeof b, a, "@PPID@", number);
    snprintf(number, sizeof number, "%d", port);
    replace(a, sizeof a, b, "@PORT@", number);
    assert_int_equal(code_judge(a, tests, &limits, &v), OK);
    if (!expected(expect, v.reason)) fail_msg("%s: reason '%s', expected %s", text_of(row, "name"), v.reason, expect);
    assert_false(v.weak);
    int left = descendants(getpid()) - servers;
    if (left > 0) fail_msg("%s: %d processes are left", text_of(row, "name"), left);
    json_decref(tests);
    return OK;
}

static void assert_no_harm(void)
{
    struct stat now;
    char byte;
    Str text = {0};
    assert_int_equal(stat(canary, &now), 0);
    assert_true(now.st_mode == canary_before.st_mode && now.st_uid == canary_before.st_uid && now.st_ino == canary_before.st_ino);
    assert_true(now.st_size == canary_before.st_size && now.st_nlink == 1);
    assert_true(now.st_mtim.tv_sec == canary_before.st_mtim.tv_sec && now.st_mtim.tv_nsec == canary_before.st_mtim.tv_nsec);
    assert_int_equal(io_read(canary, &text, 100), OK);
    assert_string_equal(str_text(&text), "canary");
    str_free(&text);
    assert_false(io_exists("/tmp/imf-harm") || io_exists("/dev/shm/imf-harm") || io_exists("/tmp/imf-x0"));
    assert_int_equal(accept4(tcp, NULL, NULL, SOCK_NONBLOCK), -1);          // nobody connected
    assert_int_equal(recv(udp, &byte, 1, MSG_DONTWAIT), -1);               // no packet came
}

static void judge_simple(Outcome outcome)
{
    json_t *tests = json_pack("[s]", outcome == VERDICT_RIGHT ? "assert f(1) == 2" : "assert f(1) == 3");
    Verdict v;
    assert_int_equal(code_judge("def f(x):\n    return x + 1", tests, NULL, &v), OK);
    assert_int_equal(v.outcome, outcome);
    json_decref(tests);
}

// Started as root, the candidate is somebody else. (That it cannot go back is among the hostile programs.)
static void assert_unprivileged(void)
{
    json_t *tests = geteuid() ? json_pack("[s]", "assert not 0 in who()") : json_pack("[s]", "assert who() == {65534}");
    Verdict v;
    assert_int_equal(code_judge("import os\ndef who():\n    return {os.getuid(), os.geteuid(), os.getgid(), os.getegid()}", tests, NULL,
                                &v), OK);
    if (v.outcome != VERDICT_RIGHT) fail_msg("%s", v.reason);
    json_decref(tests);
}

static void run_hostile(const char *tier)
{
    setenv("IMF_SANDBOX", tier, 1);
    setenv("IMF_SECRET_CANARY", "imf-secret", 1);
    assert_int_equal(sandbox_stop(), OK);
    assert_int_equal(sandbox_start(), OK);
    judge_simple(VERDICT_RIGHT);
    assert_unprivileged();
    servers = descendants(getpid());
    assert_true(servers >= 3);  // supervisor, referee, warm parent
    assert_int_equal(jsonl_each("tests/data/judge/hostile.jsonl", hostile_row, NULL), OK);
    assert_no_harm();
    judge_simple(VERDICT_RIGHT);  // the supervisor and both servers are alive
    judge_simple(VERDICT_WRONG);
}

static void test_sbx1_hostile_programs_at_t0(void **state)
{
    (void)state;
    slow_too = true;
    run_hostile("t0");
}

static void test_sbx1_hostile_programs_at_t1(void **state)
{
    (void)state;
    slow_too = false;
    run_hostile("t1");
}

// Without Landlock: a machine that lacks namespaces too has nothing to test here.
static void test_sbx1_hostile_programs_without_landlock(void **state)
{
    Str text = {0};
    (void)state;
    slow_too = false;
    setenv("IMF_SANDBOX", "userns", 1);
    assert_int_equal(sandbox_stop(), OK);
    assert_int_equal(sandbox_start(), OK);
    Err err = sandbox_describe(&text);
    if (err == OK) assert_non_null(strstr(str_text(&text), "small root"));
    str_free(&text);
    if (err == OK) run_hostile("userns");
}

static Err forging_row(void *user, const json_t *row, const char *where)
{
    Verdict v;
    (void)where;
    assert_int_equal(code_judge(text_of(row, "program"), json_object_get(row, "tests"), &limits, &v), OK);
    if (v.outcome == VERDICT_RIGHT) fail_msg("%s passes", text_of(row, "name"));
    assert_false(v.weak);
    ++*(int *)user;
    return OK;
}

static void test_sbx8_no_forged_verdict(void **state)
{
    int n = 0;
    (void)state;
    assert_int_equal(jsonl_each("tests/data/judge/forging.jsonl", forging_row, &n), OK);
    assert_true(n >= 25);
}

static Err program_row(void *user, const json_t *row, const char *where)
{
    Verdict v;
    const json_t *tests = json_object_get(row, "tests");
    const SandboxLimits *generous = user;
    assert_int_equal(code_judge(text_of(row, "program"), tests, generous, &v), OK);
    if (v.outcome != VERDICT_RIGHT) fail_msg("%s: %s", where, v.reason);
    if (v.weak != !strcmp(text_of(row, "trust"), "weak")) fail_msg("%s: weak is %d", where, v.weak);
    assert_int_equal(code_judge(text_of(row, "mutant"), tests, generous, &v), OK);
    if (v.outcome != VERDICT_WRONG) fail_msg("%s: the mutant: %s", where, v.reason);
    return OK;
}

static void test_programs_pass_and_mutants_fail(void **state)
{
    SandboxLimits generous = {.cpu_s = 4};
    (void)state;
    for (int repeat = 0; repeat < 3; repeat++) assert_int_equal(jsonl_each("tests/data/judge/programs.jsonl", program_row, &generous), OK);
}

// Time is not an input: a program that computes but gets little of the processor (this one by itself, elsewhere because others
// want it too) runs into the CPU limit as it would alone, not into the wall limit; one that only waits does not go on for ever.
static void test_little_of_the_processor_is_not_idle(void **state)
{
    const SandboxLimits half = {.cpu_s = 0.5};
    json_t *tests = json_pack("[s]", "assert f() == 1");
    Verdict v;
    (void)state;
    assert_int_equal(code_judge("import time\n"
                                "def f():\n"
                                "    while True:\n"
                                "        t = time.process_time() + 0.02\n"
                                "        while time.process_time() < t: pass\n"
                                "        time.sleep(0.08)\n", tests, &half, &v), OK);
    assert_int_equal(v.outcome, VERDICT_WRONG);
    assert_string_equal(v.reason, "cpu");
    assert_int_equal(code_judge("import time\ndef f():\n    time.sleep(1000)\n", tests, &half, &v), OK);
    assert_int_equal(v.outcome, VERDICT_UNDECIDED);
    assert_string_equal(v.reason, "time");
    json_decref(tests);
}

static void test_bad_requests(void **state)
{
    (void)state;
    Verdict v;
    json_t *none = json_array(), *wrong = json_pack("[s]", "assert f(1) =="), *number = json_pack("[i]", 3), *plain = json_pack("[s]", "x = 1");
    assert_int_equal(code_judge("x = 1", none, NULL, &v), ERR_DATA);
    assert_int_equal(code_judge("x = 1", number, NULL, &v), ERR_DATA);
    assert_int_equal(code_judge("x = 1", wrong, NULL, &v), OK);
    assert_int_equal(v.outcome, VERDICT_UNDECIDED);
    assert_non_null(strstr(v.reason, "SyntaxError"));
    assert_int_equal(code_judge("x = 1", plain, NULL, &v), OK);
    assert_int_equal(v.outcome, VERDICT_UNDECIDED);
    assert_int_equal(code_judge(" \n", wrong, NULL, &v), OK);
    assert_string_equal(v.reason, "no program found");
    assert_int_equal(code_judge("\xff = 1", wrong, NULL, &v), OK);
    assert_int_equal(v.outcome, VERDICT_WRONG);
    json_decref(none), json_decref(wrong), json_decref(number), json_decref(plain);
    judge_simple(VERDICT_RIGHT);
}

// Reasons quote values and tests, records hold the program's beginning: both are cut at a whole character.
static void test_long_texts_in_any_script_are_kept_as_utf8(void **state)
{
    (void)state;
    for (int shift = 0; shift < 3; shift++) {
        Str program = {0}, test = {0};
        Verdict v;
        assert_int_equal(str_printf(&program, "def f(s):\n    return s\n%.*s# ", shift, "   "), OK);
        assert_int_equal(str_printf(&test, "assert f('%.*s", shift, "aaa"), OK);
        for (int i = 0; i < 300; i++) assert_int_equal(str_puts(&program, "\xe4\xb8\xad"), OK);
        for (int i = 0; i < 60; i++) assert_int_equal(str_puts(&test, "\xe4\xb8\xad"), OK);
        assert_int_equal(str_puts(&test, "') == 1"), OK);
        json_t *tests = json_pack("[s]", str_text(&test));
        if (code_judge(str_text(&program), tests, NULL, &v) != OK) fail_msg("%s", err_message());
        assert_int_equal(v.outcome, VERDICT_WRONG);
        json_t *kept = json_pack("[s, s]", v.reason, v.extracted);  // NULL when one is no UTF-8
        assert_non_null(kept);
        assert_in_range(strlen(v.reason), 253, 255);
        assert_in_range(strlen(v.extracted), 509, 511);
        json_decref(kept), json_decref(tests);
        str_free(&program), str_free(&test);
    }
}

static void test_extraction_of_programs(void **state)
{
    static const char *const cases[][2] = {
        {"Sure:\n```python\nx = 1\n```\nDone", "x = 1\n"}, {"```\nraw\n```\n```py\nx = 2\n```", "x = 2\n"}, {"```\nonly\n```", "only\n"},
        {"x = 3", "x = 3"}, {"```python\nx = 4", "x = 4"}, {"```json\n{}\n```\ntext", "{}\n"}, {"", ""}, {"```python", ""},
        {"```Python3\ns = 'a```b'\n```", "s = 'a```b'\n"}, {"a `x` b\n  ```python\n  y\n  ```", "  y\n  "}};
    Str out = {0};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(code_extract(cases[i][0], &out), OK);
        assert_string_equal(str_text(&out), cases[i][1]);
    }
    str_free(&out);
}

static void test_refusal_names_what_is_missing(void **state)
{
    Verdict v;
    json_t *tests = json_pack("[s]", "assert f(1) == 2");
    (void)state;
    unsetenv("IMF_SANDBOX");
    static const char *const missing[][3] = {{"IMF_SANDBOX", "none", "Landlock"}, {"IMF_PYTHON", "/nowhere/python3", "python3"}};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(sandbox_stop(), OK);
        setenv(missing[i][0], missing[i][1], 1);
        assert_int_equal(sandbox_start(), OK);  // only the first use refuses
        assert_int_equal(code_judge("x = 1", tests, NULL, &v), ERR_UNAVAILABLE);
        assert_non_null(strstr(err_message(), missing[i][2]));
        unsetenv(missing[i][0]);
    }
    json_decref(tests);
    assert_int_equal(sandbox_stop(), OK);
    assert_int_equal(sandbox_start(), OK);
    judge_simple(VERDICT_RIGHT);
}

static void listen_on_a_port(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    tcp = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), udp = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(tcp, (struct sockaddr *)&at, n), 0);
    assert_int_equal(listen(tcp, 5), 0);
    assert_int_equal(getsockname(tcp, (struct sockaddr *)&at, &n), 0);
    assert_int_equal(bind(udp, (struct sockaddr *)&at, n), 0);
    port = ntohs(at.sin_port);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(canary, sizeof canary, "/tmp/imf-canary-%d", (int)getpid());
    assert_int_equal(io_write(canary, "canary", 6), OK);
    assert_int_equal(chmod(canary, 0666), 0);  // the user id alone does not protect it
    assert_int_equal(stat(canary, &canary_before), 0);
    listen_on_a_port();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(canary);
    return sandbox_stop() == OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_programs_pass_and_mutants_fail), cmocka_unit_test(test_sbx8_no_forged_verdict),
        cmocka_unit_test(test_sbx1_hostile_programs_at_t0),    cmocka_unit_test(test_sbx1_hostile_programs_at_t1),
        cmocka_unit_test(test_sbx1_hostile_programs_without_landlock),
        cmocka_unit_test(test_little_of_the_processor_is_not_idle),
        cmocka_unit_test(test_bad_requests),                   cmocka_unit_test(test_extraction_of_programs),
        cmocka_unit_test(test_long_texts_in_any_script_are_kept_as_utf8),
        cmocka_unit_test(test_refusal_names_what_is_missing),
    };
    if (sandbox_start() != OK) return 1;
    skip_without_sandbox();
    return cmocka_run_group_tests_name("sandbox", tests, set_up, tear_down);
}
