// SPDX-License-Identifier: Apache-2.0
#include "train/rows.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/record.h"

static Err copy_text(Arena *a, const json_t *v, const char **out)
{
    char *text;
    TRY(arena_strndup(a, &text, json_string_value(v), (int64_t)json_string_length(v)));
    *out = text;
    return OK;
}

static const char *role_name(const char *name)
{
    static const char *const names[][2] = {{"human", "user"}, {"user", "user"}, {"gpt", "assistant"},
                                           {"assistant", "assistant"}, {"system", "system"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (!strcmp(name, names[i][0])) return names[i][1];
    return NULL;
}

static Err parse_message(const json_t *v, const char *where, Arena *a, Message *out)
{
    const json_t *role = json_object_get(v, "role"), *text = json_object_get(v, "content");
    if (!role) role = json_object_get(v, "from"), text = json_object_get(v, "value");
    CHECK(json_is_string(role) && json_is_string(text), ERR_DATA,
          "%s: a message wants the texts \"role\" and \"content\" (or \"from\" and \"value\")", where);
    out->role = role_name(json_string_value(role));
    CHECK(out->role, ERR_DATA, "%s: role '%s' is unknown; use system, user or assistant", where, json_string_value(role));
    return copy_text(a, text, &out->text);
}

Err rows_messages(const json_t *v, const char *where, Arena *a, Message **m, int64_t *n)
{
    bool list = json_is_array(v);
    *n = list ? (int64_t)json_array_size(v) : 1;
    CHECK(*n > 0 && (list || json_is_string(v) || json_is_object(v)), ERR_DATA,
          "%s: messages must be a text or a list of messages that is not empty", where);
    TRY(ARENA_ARRAY(a, m, *n));
    for (int64_t i = 0; i < *n; i++) {
        const json_t *one = list ? json_array_get(v, (size_t)i) : v;
        if (!list && json_is_string(v)) {
            (*m)[i].role = "user";
            TRY(copy_text(a, v, &(*m)[i].text));
        } else {
            TRY(parse_message(one, where, a, &(*m)[i]));
        }
    }
    return OK;
}

// An answer: a text, a message, or a list whose last message it is.
static Err parse_answer(const json_t *v, const char *where, Arena *a, const char **out)
{
    if (json_is_string(v)) return copy_text(a, v, out);
    Message *m;
    int64_t n;
    CHECK(v, ERR_DATA, "%s: an answer is missing", where);
    TRY(rows_messages(v, where, a, &m, &n));
    CHECK(!strcmp(m[n - 1].role, "assistant"), ERR_DATA, "%s: an answer must end with an assistant message", where);
    *out = m[n - 1].text;
    return OK;
}

static Err parse_alpaca(const json_t *o, const char *where, Arena *a, Row *out)
{
    const char *instruction, *output;
    const json_t *input = json_object_get(o, "input"), *system = json_object_get(o, "system");
    bool has_system = json_is_string(system) && json_string_length(system) > 0;
    TRY(json_get_text(o, "instruction", where, &instruction));
    TRY(json_get_text(o, "output", where, &output));
    TRY(ARENA_ARRAY(a, &out->m, 2));
    if (has_system) {
        out->m[out->n].role = "system";
        TRY(copy_text(a, system, &out->m[out->n++].text));
    }
    const char *more = json_is_string(input) ? json_string_value(input) : "";
    size_t head = strlen(instruction), tail = strlen(more);
    char *text;
    TRY(ARENA_ARRAY(a, &text, (int64_t)(head + tail + 2)));
    memcpy(text, instruction, head);
    if (tail) text[head++] = '\n';
    memcpy(text + head, more, tail + 1);
    out->m[out->n].role = "user";
    out->m[out->n++].text = text;
    TRY(arena_strndup(a, &text, output, (int64_t)strlen(output)));
    out->answer[0] = text;
    out->answers = 1;
    return OK;
}

// The prompt of a row that has answers apart: "prompt", "conversations" or "messages"; none: the conversation `whole`
// without its last message.
static Err parse_prompt(const json_t *o, const json_t *whole, const char *where, Arena *a, Row *out)
{
    const json_t *p = json_object_get(o, "prompt");
    if (!p) p = json_object_get(o, "conversations");
    if (!p) p = json_object_get(o, "messages");
    if (p) return rows_messages(p, where, a, &out->m, &out->n);
    CHECK(json_is_array(whole) && json_array_size(whole) > 1, ERR_DATA, "%s: the row has no \"prompt\"", where);
    TRY(rows_messages(whole, where, a, &out->m, &out->n));
    out->n--;
    return OK;
}

static Err parse_pair(const json_t *o, const char *where, Arena *a, Row *out)
{
    const json_t *chosen = json_object_get(o, "chosen"), *rejected = json_object_get(o, "rejected");
    CHECK(chosen && rejected, ERR_DATA, "%s: a preference row must have \"chosen\" and \"rejected\"", where);
    TRY(parse_prompt(o, chosen, where, a, out));
    TRY(parse_answer(chosen, where, a, &out->answer[0]));
    TRY(parse_answer(rejected, where, a, &out->answer[1]));
    out->answers = 2;
    return OK;
}

static Err parse_sft(const json_t *o, const char *where, Arena *a, Row *out)
{
    const json_t *answer = json_object_get(o, "completion");
    if (!answer) answer = json_object_get(o, "chosen");
    if (!answer) answer = json_object_get(o, "answer");
    if (answer) {
        TRY(parse_prompt(o, answer, where, a, out));
        TRY(parse_answer(answer, where, a, &out->answer[0]));
        out->answers = 1;
        return OK;
    }
    if (json_object_get(o, "instruction")) return parse_alpaca(o, where, a, out);
    const json_t *m = json_object_get(o, "messages");
    if (!m) m = json_object_get(o, "conversations");
    CHECK(m, ERR_DATA,
          "%s: the row must have \"messages\", \"conversations\", \"instruction\", or \"prompt\" with \"completion\"", where);
    TRY(rows_messages(m, where, a, &out->m, &out->n));
    for (int64_t i = 0; i < out->n; i++)
        if (!strcmp(out->m[i].role, "assistant")) return OK;
    FAIL(ERR_DATA, "%s: the conversation has no assistant message to learn from", where);
}

static void hash_messages(Hash *h, const Message *m, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        hash_add_text(h, m[i].role);
        hash_add_text(h, m[i].text);
    }
}

Err rows_identify(Row *r)
{
    Hash *h;
    int64_t prompt = r->answers ? r->n : r->n - 1;  // a conversation's group: all but its last message
    TRY(hash_new(&h));
    hash_messages(h, r->m, prompt);
    r->group = hash_end(h);
    TRY(hash_new(&h));
    hash_messages(h, r->m, r->n);
    if (r->answers == 1) hash_add_text(h, "assistant");
    for (int k = 0; k < r->answers; k++) hash_add_text(h, r->answer[k]);
    r->id = hash_end(h);
    return OK;
}

Err rows_parse(const json_t *o, const char *where, bool pairs, Arena *a, Row *out)
{
    char *copy;
    TRY(arena_strndup(a, &copy, where, (int64_t)strlen(where)));
    *out = (Row){.where = copy};
    CHECK(json_is_object(o), ERR_DATA, "%s: a row must be a JSON object", where);
    TRY((pairs ? parse_pair : parse_sft)(o, where, a, out));
    return rows_identify(out);
}

// --- files ---------------------------------------------------------------------------------------------------------

typedef struct Import {
    Rows *rows;
    Arena *arena;
    bool pairs;
} Import;

static Err import_row(void *user, const json_t *o, const char *where)
{
    Import *im = user;
    Rows *r = im->rows;
    TRY(MEM_GROW(&r->row, r->n, &r->cap, r->n + 1));
    TRY(rows_parse(o, where, im->pairs, im->arena, &r->row[r->n]));
    r->n++;
    return OK;
}

static int by_id(const void *a, const void *b)
{
    return id_compare(((const Row *)a)->id, ((const Row *)b)->id);
}

Err rows_import(const char *path, bool pairs, Arena *a, Rows *out)
{
    *out = (Rows){0};
    Import im = {out, a, pairs};
    TRY(jsonl_each(path, import_row, &im));
    CHECK(out->n > 0, ERR_DATA, "%s has no rows", path);
    out->read = out->n;
    MEM_SORT(out->row, out->n, by_id);
    TRY(ARENA_ARRAY(a, &out->duplicate, out->n));
    int64_t kept = 1;
    for (int64_t i = 1; i < out->n; i++) {
        if (id_equal(out->row[i].id, out->row[kept - 1].id)) out->duplicate[out->duplicates++] = out->row[i];
        else out->row[kept++] = out->row[i];
    }
    out->n = kept;
    return OK;
}

void rows_free(Rows *r)
{
    mem_free(r->row);
    *r = (Rows){0};
}
