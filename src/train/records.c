// SPDX-License-Identifier: Apache-2.0
#include "train/records.h"

#include <string.h>

Err row_source_open(RowSource *s, const char *run_dir, const char *set, bool pairs, const Tokenizer *tok)
{
    *s = (RowSource){.pairs = pairs};
    id_print(tok_fingerprint(tok), s->tokenizer);
    TRY(record_open(&s->rows, run_dir, set));
    s->n = record_count(s->rows);
    CHECK(s->n > 0, ERR_NOINPUT, "%s/%s holds no rows: run imf pair first, or give a file (%s.data)", run_dir, set,
          pairs ? "dpo" : "sft");
    return OK;
}

void row_source_close(RowSource *s)
{
    record_free(s->rows);
    *s = (RowSource){0};
}

// Stored ids belong to the tokenizer that sampled them: used when `answer` names ours, else the text is tokenised.
static Err stored_ids(const RowSource *s, const json_t *answer, Arena *a, Ids *out)
{
    const json_t *ids = json_object_get(answer, "ids"), *tok = json_object_get(answer, "tokenizer");
    *out = (Ids){0};
    if (!json_is_array(ids) || !json_is_string(tok) || strcmp(json_string_value(tok), s->tokenizer)) return OK;
    TRY(ARENA_ARRAY(a, &out->id, (int64_t)json_array_size(ids)));
    for (size_t i = 0; i < json_array_size(ids); i++)
        out->id[out->n++] = (int32_t)json_integer_value(json_array_get(ids, i));
    return OK;
}

static Err one_answer(const RowSource *s, const json_t *o, const char *key, const char *where, Arena *a, int k, Row *out)
{
    const char *text;
    char *copy;
    TRY(json_get_text(o, key, where, &text));
    TRY(arena_strndup(a, &copy, text, (int64_t)strlen(text)));
    out->answer[k] = copy;
    const char *finish = json_string_value(json_object_get(o, "finish"));
    out->unfinished[k] = finish && !strcmp(finish, "length");
    return stored_ids(s, o, a, &out->ids[k]);
}

static Err parse(RowSource *s, const json_t *o, const char *where, Arena *a, Row *out)
{
    const char *prompt;
    TRY(json_get_text(o, "prompt", where, &prompt));
    CHECK(id_parse(prompt, &out->group), ERR_DATA, "%s: prompt '%s' is not an id", where, prompt);
    TRY(rows_messages(json_object_get(o, "messages"), where, a, &out->m, &out->n));
    out->answers = s->pairs ? 2 : 1;
    if (!s->pairs) return one_answer(s, o, "answer", where, a, 0, out);
    TRY(one_answer(s, json_object_get(o, "chosen"), "answer", where, a, 0, out));
    return one_answer(s, json_object_get(o, "rejected"), "answer", where, a, 1, out);
}

Err row_source_read(RowSource *s, int64_t i, Arena *a, Row *out)
{
    char where[ID_TEXT + 16] = "record ";
    json_t *o = NULL;
    *out = (Row){.id = record_id(s->rows, i), .where = ""};
    id_print(out->id, where + strlen(where));
    TRY(record_read(s->rows, i, &o));
    Err err = parse(s, o, where, a, out);
    json_decref(o);
    return err;
}
