// SPDX-License-Identifier: Apache-2.0
// The code judge: takes the program out of a response and asks the sandbox. A verdict is weak when some test could only run in
// the candidate's own process (see referee.py for the tests that are strong).
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "judge/judge.h"
#include "judge/math_internal.h"
#include "judge/sandbox.h"
#include "text/utf8.h"

// The next fence at or after s: "```" at the beginning of a line (blanks before it allowed); NULL when there is none.
static const char *next_fence(const char *s, const char *begin)
{
    for (const char *p = s; (p = strstr(p, "```")); p += 3) {
        const char *line = p;
        while (line > begin && (line[-1] == ' ' || line[-1] == '\t')) line--;
        if (line == begin || line[-1] == '\n') return p;
    }
    return NULL;
}

static bool is_python(const char *fence)
{
    const char *tag = fence + 3;
    while (*tag == ' ') tag++;
    size_t n = strcspn(tag, " \t\r\n{");
    return (n == 2 && !strncasecmp(tag, "py", 2)) || (n >= 6 && !strncasecmp(tag, "python", 6));
}

Err code_extract(const char *answer, Str *out)
{
    const char *chosen = NULL, *first = NULL;
    str_clear(out);
    for (const char *f = next_fence(answer, answer); f && !chosen;) {
        if (!first) first = f;
        if (is_python(f)) chosen = f;
        const char *close = next_fence(f + 3, answer);
        f = close ? next_fence(close + 3, answer) : NULL;
    }
    if (!chosen) chosen = first;
    if (!chosen) return str_puts(out, answer);
    const char *body = chosen + strcspn(chosen, "\n"), *end = next_fence(body, answer);
    if (*body) body++;
    if (!end) end = answer + strlen(answer);
    return str_add(out, body, end > body ? end - body : 0);
}

static json_t *make_request(const char *program, const json_t *tests, const SandboxLimits *limits)
{
    double cpu = limits && limits->cpu_s > 0 ? limits->cpu_s : 2;
    int64_t memory = limits && limits->memory > 0 ? limits->memory : (int64_t)1 << 30;
    int64_t output = limits && limits->output > 0 ? limits->output : 64 << 10;
    return json_pack("{s:s,s:s,s:O,s:f,s:I,s:I}", "op", "run", "program", program, "tests", tests, "cpu", cpu, "memory",
                     (json_int_t)memory, "output", (json_int_t)output);
}

Err code_judge(const char *program, const json_t *tests, const SandboxLimits *limits, Verdict *out)
{
    json_t *request = NULL, *reply = NULL;
    Err err = OK;
    *out = (Verdict){.outcome = VERDICT_WRONG};
    math_keep(out, program);
    CHECK_DONE(json_array_size(tests), ERR_DATA, "a code prompt has no tests");
    for (size_t i = 0; i < json_array_size(tests); i++)
        CHECK_DONE(json_is_string(json_array_get(tests, i)), ERR_DATA, "test %zu is no text", i + 1);
    if (!program[strspn(program, " \t\r\n")]) {
        snprintf(out->reason, sizeof out->reason, "no program found");
        goto done;
    }
    request = make_request(program, tests, limits);
    if (!request) {
        snprintf(out->reason, sizeof out->reason, "the program is no UTF-8 text");
        goto done;
    }
    TRY_DONE(sandbox_request(request, &reply));
    out->outcome = (Outcome)json_integer_value(json_object_get(reply, "outcome"));
    out->weak = json_is_true(json_object_get(reply, "weak"));
    out->cpu_s = json_number_value(json_object_get(reply, "cpu"));
    utf8_copy(out->reason, sizeof out->reason, json_string_value(json_object_get(reply, "reason")));
    out->grade = out->outcome == VERDICT_RIGHT;
done:
    json_decref(request);
    json_decref(reply);
    return err;
}
