// SPDX-License-Identifier: Apache-2.0
// imf judge: the judges by hand. One row in, one row out, in order.
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "judge/judge.h"
#include "par/par.h"
#include "stage/stage.h"
#include "text/record.h"

const char usage_judge[] =
    "imf judge math|fuseeval|checks|code < JSONL > JSONL\n"
    "\n"
    "One row out for each row in; a row's \"id\", if it has one, is repeated. verdict: right, wrong or undecided.\n"
    "  math      {gold, answer}            -> {verdict, extracted, reason}: the judge of the verify stage\n"
    "  fuseeval  {gold, answer}            -> the same by the rules of FuseEval (eval.sets[].protocol: gsm8k)\n"
    "  checks    {checks: [...], answer}   -> {verdict, grade: share of the checks that are met, reason}\n"
    "  code      {program, tests: [...]}   -> {verdict, reason, time: CPU seconds, trust: strong | weak}\n"
    "            {answer, tests: [...]}    -> the same for the program inside an answer; \"cpu_s\": limit of a row\n";

typedef Err (*RowJudge)(const json_t *row, const char *where, Verdict *v);

static const char *const outcome_names[] = {"wrong", "right", "undecided"};

// gold may be a number in JSON too.
static Err gold_text(const json_t *row, const char *where, char *buf, size_t size, const char **out)
{
    const json_t *g = json_object_get(row, "gold");
    if (json_is_integer(g) || json_is_real(g)) {
        if (json_is_integer(g)) snprintf(buf, size, "%lld", (long long)json_integer_value(g));
        else snprintf(buf, size, "%.17g", json_real_value(g));
        *out = buf;
        return OK;
    }
    return json_get_text(row, "gold", where, out);
}

static Err judge_math(const json_t *row, const char *where, Verdict *v)
{
    const char *gold, *answer;
    char buf[64];
    TRY(gold_text(row, where, buf, sizeof buf, &gold));
    TRY(json_get_text(row, "answer", where, &answer));
    return math_judge(gold, answer, v);
}

static Err judge_fuseeval(const json_t *row, const char *where, Verdict *v)
{
    const char *gold, *answer;
    char buf[64];
    TRY(gold_text(row, where, buf, sizeof buf, &gold));
    TRY(json_get_text(row, "answer", where, &answer));
    return math_judge_fuseeval(gold, answer, v);
}

static Err judge_checks(const json_t *row, const char *where, Verdict *v)
{
    const char *answer;
    TRY(json_get_text(row, "answer", where, &answer));
    return checks_judge(json_object_get(row, "checks"), answer, where, v);
}

static Err judge_code(const json_t *row, const char *where, Verdict *v)
{
    const char *text;
    Str program = {0};
    Err err = OK;
    const json_t *tests = json_object_get(row, "tests"), *cpu = json_object_get(row, "cpu_s");
    SandboxLimits limits = {.cpu_s = json_number_value(cpu)};
    CHECK_DONE(json_is_array(tests), ERR_DATA, "%s: wants \"tests\": a list of texts", where);
    if (json_object_get(row, "program")) {
        TRY_DONE(json_get_text(row, "program", where, &text));
        TRY_DONE(str_puts(&program, text));
    } else {
        TRY_DONE(json_get_text(row, "answer", where, &text));
        TRY_DONE(code_extract(text, &program));
    }
    err = code_judge(str_text(&program), tests, &limits, v);
    if (err == ERR_DATA) err = err_context(err, "%s", where);
done:
    str_free(&program);
    return err;
}

enum { CHECKS = 2, CODE = 3 };
static const struct {
    const char *name;
    RowJudge judge;
} judges[] = {{"math", judge_math}, {"fuseeval", judge_fuseeval}, {"checks", judge_checks}, {"code", judge_code}};

static Err judge_row(void *user, const json_t *row, const char *where)
{
    int kind = *(int *)user;
    Verdict v;
    TRY(judges[kind].judge(row, where, &v));
    json_t *out = json_object();
    if (json_object_get(row, "id")) json_object_set(out, "id", json_object_get(row, "id"));
    json_object_set_new(out, "verdict", json_string(outcome_names[v.outcome]));
    if (kind == CHECKS) json_object_set_new(out, "grade", json_real(v.grade));
    else if (kind != CODE) json_object_set_new(out, "extracted", json_string(v.extracted));
    json_object_set_new(out, "reason", json_string(v.reason));
    if (kind == CODE) {
        json_object_set_new(out, "time", json_real(v.cpu_s));
        json_object_set_new(out, "trust", json_string(v.weak ? "weak" : "strong"));
    }
    json_dumpf(out, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(out);
    return OK;
}

Err stage_judge(const Job *job)
{
    int kind = -1;
    CHECK(job->argc == 1, ERR_USAGE, "imf judge wants one word\n%s", usage_judge);
    for (int i = 0; i < (int)(sizeof judges / sizeof judges[0]); i++)
        if (!strcmp(judges[i].name, job->argv[0])) kind = i;
    CHECK(kind >= 0, ERR_USAGE, "imf judge: there is no judge '%s'\n%s", job->argv[0], usage_judge);
    if (par_rank() != 0) return OK;
    return jsonl_stdin(judge_row, &kind);
}
