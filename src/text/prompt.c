// SPDX-License-Identifier: Apache-2.0
#include "text/prompt.h"

#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "text/record.h"

static Err set_new(json_t *object, const char *key, json_t *value)
{
    CHECK(value && json_object_set_new(object, key, value) == 0, ERR_UNAVAILABLE, "out of memory for JSON");
    return OK;
}

static Err set_text(json_t *object, const char *key, const char *bytes, int64_t n)
{
    return set_new(object, key, json_stringn(bytes, (size_t)n));
}

static Err add_message(json_t *data, const char *role, const char *text, int64_t n)
{
    json_t *message = json_object();
    CHECK(message && json_array_append_new(json_object_get(data, "messages"), message) == 0, ERR_UNAVAILABLE,
          "out of memory for JSON");
    TRY(set_text(message, "role", role, (int64_t)strlen(role)));
    return set_text(message, "content", text, n);
}

static Err add_user(json_t *data, const char *text) { return add_message(data, "user", text, (int64_t)strlen(text)); }

static bool has(const json_t *row, const char *key) { return json_object_get(row, key) != NULL; }

// --- layouts ---------------------------------------------------------------------------------------------------------

static Err from_messages(const json_t *list, json_t *data, const char *where)
{
    size_t n = json_array_size(list);
    CHECK(json_is_array(list) && n > 0, ERR_DATA, "%s: messages wants a list of {role, content}", where);
    for (size_t i = 0; i < n; i++) {
        const char *role, *text;
        TRY(json_get_text(json_array_get(list, i), "role", where, &role));
        TRY(json_get_text(json_array_get(list, i), "content", where, &text));
        if (i + 1 == n && i > 0 && !strcmp(role, "assistant")) break;
        TRY(add_message(data, role, text, (int64_t)strlen(text)));
    }
    return OK;
}

static Err import_messages(const json_t *row, json_t *data, const char *where)
{
    return from_messages(json_object_get(row, "messages"), data, where);
}

static Err import_prompt(const json_t *row, json_t *data, const char *where)
{
    const char *text;
    const json_t *prompt = json_object_get(row, "prompt");
    if (json_is_array(prompt)) return from_messages(prompt, data, where);
    TRY(json_get_text(row, "prompt", where, &text));
    return add_user(data, text);
}

static Err import_gsm8k(const json_t *row, json_t *data, const char *where)
{
    const char *question, *answer;
    TRY(json_get_text(row, "question", where, &question));
    TRY(json_get_text(row, "answer", where, &answer));
    TRY(add_user(data, question));
    const char *mark = strstr(answer, "####"), *gold = mark ? mark + 4 : answer;
    while (*gold == ' ') gold++;
    int64_t n = (int64_t)strlen(gold);
    while (n > 0 && (gold[n - 1] == ' ' || gold[n - 1] == '\n')) n--;
    return set_text(data, "gold", gold, n);
}

static Err import_problem(const json_t *row, json_t *data, const char *where)
{
    const char *problem, *answer;
    TRY(json_get_text(row, "problem", where, &problem));
    TRY(add_user(data, problem));
    if (!has(row, "answer") && !has(row, "expected_answer")) return OK;
    TRY(json_get_text(row, has(row, "answer") ? "answer" : "expected_answer", where, &answer));
    return set_text(data, "gold", answer, (int64_t)strlen(answer));
}

static Err import_mbpp(const json_t *row, json_t *data, const char *where)
{
    Str text = {0};
    Err err = OK;
    const char *task;
    size_t i;
    json_t *tests = json_object_get(row, "test_list"), *test;
    TRY_DONE(json_get_text(row, "text", where, &task));
    TRY_DONE(str_printf(&text, "%s\nYour code should pass these tests:\n", task));
    json_array_foreach(tests, i, test) {
        CHECK_DONE(json_is_string(test), ERR_DATA, "%s: test_list wants a list of strings", where);
        TRY_DONE(str_printf(&text, "%s\n", json_string_value(test)));
    }
    TRY_DONE(add_user(data, str_text(&text)));
    TRY_DONE(set_new(data, "tests", json_incref(tests)));
done:
    str_free(&text);
    return err;
}

static Err import_alpaca(const json_t *row, json_t *data, const char *where)
{
    const char *instruction, *input = "";
    TRY(json_get_text(row, "instruction", where, &instruction));
    if (has(row, "input")) TRY(json_get_text(row, "input", where, &input));
    Str text = {0};
    Err err = str_printf(&text, "%s%s%s", instruction, *input ? "\n" : "", input);
    if (err == OK) err = add_user(data, str_text(&text));
    str_free(&text);
    return err;
}

static const struct {
    const char *key, *key2;  // both must be there
    const char *kind;
    Err (*import)(const json_t *row, json_t *data, const char *where);
} layouts[] = {
    {"messages", "messages", "if", import_messages},   {"question", "answer", "math", import_gsm8k},
    {"problem", "problem", "math", import_problem},    {"text", "test_list", "code", import_mbpp},
    {"instruction", "instruction", "if", import_alpaca}, {"prompt", "prompt", "if", import_prompt},
};
enum { LAYOUTS = sizeof layouts / sizeof layouts[0] };

// --- kind, data set, what the answer is judged by ----------------------------------------------------------------------

static Err copy_field(const json_t *row, const char *key, bool right_type, json_t *data, const char *where)
{
    if (!has(row, key)) return OK;
    CHECK(right_type, ERR_DATA, "%s: '%s' has the wrong type (gold: string; tests, checks: list)", where, key);
    return set_new(data, key, json_incref(json_object_get(row, key)));
}

static const char *guess_kind(const json_t *row, const json_t *data, const char *of_layout)
{
    if (json_is_string(json_object_get(row, "kind"))) return json_string_value(json_object_get(row, "kind"));
    if (has(data, "tests")) return "code";
    if (has(data, "gold")) return "math";
    return of_layout;
}

static Err finish(const json_t *row, const char *kind, const char *dataset, const char *where, json_t *data,
                  const char **unfit)
{
    CHECK(!strcmp(kind, "math") || !strcmp(kind, "code") || !strcmp(kind, "if"), ERR_DATA,
          "%s: kind '%s' is none of math, code, if", where, kind);
    const char *own = json_string_value(json_object_get(row, "dataset"));
    if (!dataset || !*dataset) dataset = own ? own : "";
    TRY(set_text(data, "dataset", dataset, (int64_t)strlen(dataset)));
    TRY(set_text(data, "kind", kind, (int64_t)strlen(kind)));
    const char *gold = json_string_value(json_object_get(data, "gold"));
    if (!strcmp(kind, "math") && (!gold || !*gold)) *unfit = "no gold answer";
    if (!strcmp(kind, "code") && json_array_size(json_object_get(data, "tests")) == 0) *unfit = "no tests";
    return OK;
}

static Err hash_messages(const json_t *data, Id *id)
{
    Str text = {0};
    Err err = json_canonical(json_object_get(data, "messages"), &text);
    if (err == OK) *id = hash_bytes(str_text(&text), text.len);
    str_free(&text);
    return err;
}

static Err fill(const json_t *row, const char *kind, const char *dataset, const char *where, json_t *data, Id *id,
                const char **unfit)
{
    int l = 0;
    while (l < LAYOUTS && !(has(row, layouts[l].key) && has(row, layouts[l].key2))) l++;
    CHECK(l < LAYOUTS, ERR_DATA,
          "%s: not a prompt: a row must have messages, prompt, question + answer, problem, text + test_list or instruction",
          where);
    TRY(set_new(data, "messages", json_array()));
    TRY(layouts[l].import(row, data, where));
    TRY(copy_field(row, "gold", json_is_string(json_object_get(row, "gold")), data, where));
    TRY(copy_field(row, "tests", json_is_array(json_object_get(row, "tests")), data, where));
    TRY(copy_field(row, "checks", json_is_array(json_object_get(row, "checks")), data, where));
    if (!kind || !*kind || !strcmp(kind, "auto")) kind = guess_kind(row, data, layouts[l].kind);
    TRY(finish(row, kind, dataset, where, data, unfit));
    return hash_messages(data, id);
}

Err prompt_import(const json_t *row, const char *kind, const char *dataset, const char *where, json_t **data, Id *id,
                  const char **unfit)
{
    *unfit = NULL;
    *data = json_object();
    CHECK(*data, ERR_UNAVAILABLE, "out of memory for JSON");
    Err err = fill(row, kind, dataset, where, *data, id, unfit);
    if (err == OK) return OK;
    json_decref(*data);
    *data = NULL;
    return err;
}

Err prompt_messages(const json_t *data, const char *where, Message **out, int64_t *n)
{
    const json_t *list = json_object_get(data, "messages");
    *n = (int64_t)json_array_size(list);
    *out = NULL;
    CHECK(*n > 0, ERR_DATA, "%s: no messages", where);
    TRY(MEM_ARRAY(out, *n));
    Err err = OK;
    for (int64_t i = 0; i < *n && err == OK; i++) {
        const json_t *message = json_array_get(list, (size_t)i);
        err = json_get_text(message, "role", where, &(*out)[i].role);
        if (err == OK) err = json_get_text(message, "content", where, &(*out)[i].text);
    }
    if (err == OK) return OK;
    mem_free(*out);
    *out = NULL;
    return err;
}
