// SPDX-License-Identifier: Apache-2.0
// Benchmark protocols: a table, and what it does to a prompt's messages.
#include "judge/protocol.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "base/str.h"
#include "judge/checks.h"
#include "text/prompt.h"

static const Protocol protocols[] = {
    {"", NULL, false, 0, false},
    {"gsm8k", "Please reason step by step, and put your final answer within \\boxed{}.", true, 2048, true},
};
enum { PROTOCOLS = sizeof protocols / sizeof protocols[0] };

Err protocol_find(const char *name, const Protocol **out)
{
    for (int i = 0; i < PROTOCOLS; i++)
        if (!strcmp(protocols[i].name, name)) {
            *out = &protocols[i];
            return OK;
        }
    FAIL(ERR_RECIPE, "no evaluation protocol is called '%s'; eval.sets[].protocol is gsm8k or empty", name);
}

// What is put behind a question whose gold answer is a truth value.
static const char *answer_hint(const char *gold)
{
    if (!strcasecmp(gold, "true") || !strcasecmp(gold, "false")) return " (True or False)";
    if (!strcasecmp(gold, "yes") || !strcasecmp(gold, "no")) return " (Yes or No)";
    return "";
}

static Err put_question(json_t *message, const char *gold)
{
    Str text = {0};
    Err err = OK;
    const char *q = json_string_value(json_object_get(message, "content"));
    int64_t n = (int64_t)strlen(q);
    while (n && isspace((unsigned char)*q)) q++, n--;
    while (n && isspace((unsigned char)q[n - 1])) n--;
    TRY_DONE(str_add(&text, q, n));
    TRY_DONE(str_puts(&text, answer_hint(gold)));
    CHECK_DONE(!json_object_set_new(message, "content", json_string(str_text(&text))), ERR_UNAVAILABLE,
               "out of memory for JSON");
done:
    str_free(&text);
    return err;
}

static Err apply(const Protocol *p, json_t *data)
{
    json_t *messages = json_object_get(data, "messages");
    const char *gold = json_string_value(json_object_get(data, "gold"));
    TRY(put_question(json_array_get(messages, json_array_size(messages) - 1), gold ? gold : ""));
    json_t *system = json_pack("{s:s, s:s}", "role", "system", "content", p->system);
    CHECK(system && !json_array_insert_new(messages, 0, system), ERR_UNAVAILABLE, "out of memory for JSON");
    return OK;
}

Err protocol_import(const Protocol *p, const json_t *row, const char *kind, const char *dataset, const char *where,
                    json_t **data, Id *id, const char **unfit)
{
    TRY(prompt_import(row, kind, dataset, where, data, id, unfit));
    const json_t *checks = json_object_get(*data, "checks");
    Err valid = checks ? checks_validate(checks, where) : OK;
    if (valid != OK) json_decref(*data);
    if (valid != OK || !p->system || *unfit) return valid;
    json_t *own = json_deep_copy(*data);
    json_decref(*data);
    *data = own;
    CHECK(own, ERR_UNAVAILABLE, "out of memory for JSON");
    Err err = apply(p, own);
    if (err != OK) json_decref(own);
    return err;
}
