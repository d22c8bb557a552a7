// SPDX-License-Identifier: Apache-2.0
#include "text/published.h"

#include <string.h>

static void copy_field(json_t *to, const char *key, const json_t *from, const char *from_key)
{
    json_t *v = json_object_get(from, from_key);
    json_object_set_new(to, key, v ? json_incref(v) : json_null());
}

static json_t *one_turn(const char *role_key, const char *role, const char *text_key, json_t *text)
{
    json_t *turn = json_object();
    json_object_set_new(turn, role_key, json_string(role));
    json_object_set(turn, text_key, text);
    return turn;
}

static json_t *conversation(const json_t *row)
{
    json_t *turns = json_array(), *m;
    size_t i;
    json_array_foreach(json_object_get(row, "messages"), i, m)
    {
        const char *role = json_string_value(json_object_get(m, "role"));
        const char *from = role && !strcmp(role, "user") ? "human" : role && !strcmp(role, "assistant") ? "gpt" : "system";
        json_array_append_new(turns, one_turn("from", from, "value", json_object_get(m, "content")));
    }
    json_array_append_new(turns, one_turn("from", "gpt", "value", json_object_get(row, "answer")));
    return turns;
}

static json_t *reply(const json_t *row, const char *side)
{
    json_t *list = json_array();
    json_array_append_new(list,
                          one_turn("role", "assistant", "content", json_object_get(json_object_get(row, side), "answer")));
    return list;
}

json_t *published_row(const json_t *row, bool pairs)
{
    json_t *out = json_object();
    copy_field(out, "dataset", row, "dataset");
    copy_field(out, "source_model", row, "source");
    if (!pairs) {
        json_object_set_new(out, "conversations", conversation(row));
        return out;
    }
    copy_field(out, "prompt", row, "messages");
    json_object_set_new(out, "chosen", reply(row, "chosen"));
    json_object_set_new(out, "rejected", reply(row, "rejected"));
    return out;
}
