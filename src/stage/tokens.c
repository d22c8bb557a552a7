// SPDX-License-Identifier: Apache-2.0
// imf tokens: JSONL on standard input to JSONL on standard output, through the renderer and tokenizer of every other stage.
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "par/par.h"
#include "stage/stage.h"
#include "text/chat.h"
#include "text/prompt.h"
#include "text/record.h"
#include "text/tokenizer.h"

const char usage_tokens[] =
    "imf tokens MODEL [--template NAME] [--chat] [--plain] [--decode] [--skip-special] < JSONL > JSONL\n"
    "\n"
    "MODEL is a Hugging Face directory with tokenizer.json. One line out for each line in:\n"
    "  {\"text\": \"...\"}        -> {\"ids\": [...]}; text of special tokens becomes their ids, no BOS is added\n"
    "  {\"messages\": [...]}    -> {\"ids\": [...], \"mask\": [...]} when the last message is the assistant's: what SFT\n"
    "                           trains on, 1 = target; otherwise {\"ids\": [...]}: the prompt, up to where the answer begins\n"
    "  {\"ids\": [...]}         -> {\"text\": \"...\"}; bytes that are not UTF-8 become U+FFFD\n"
    "\n"
    "  --template NAME   instead of the one chosen by the model's chat_template\n"
    "  --chat            messages as apply_chat_template renders them: the whole conversation, no mask; a row's\n"
    "                    \"add_generation_prompt\": true adds the assistant's header\n"
    "  --plain           text of special tokens stays text (for {\"text\"} only)\n"
    "  --decode          add \"tokens\": the text of each id alone\n"
    "  --skip-special    leave special tokens out of \"text\" (for {\"ids\"} only)\n";

typedef struct Tokens {
    Tokenizer *t;
    const ChatTemplate *chat;  // chosen when the first messages come
    const char *model, *template_name;
    bool whole, plain, decode, skip_special;
} Tokens;

static Err parse_options(const Job *job, Tokens *k)
{
    for (int i = 0; i < job->argc; i++) {
        const char *a = job->argv[i];
        if (!strcmp(a, "--chat")) k->whole = true;
        else if (!strcmp(a, "--plain")) k->plain = true;
        else if (!strcmp(a, "--decode")) k->decode = true;
        else if (!strcmp(a, "--skip-special")) k->skip_special = true;
        else if (!strcmp(a, "--template") && i + 1 < job->argc) k->template_name = job->argv[++i];
        else if (*a != '-' && !k->model) k->model = a;
        else FAIL(ERR_USAGE, "imf tokens: '%s' is not understood\n%s", a, usage_tokens);
    }
    CHECK(k->model, ERR_USAGE, "imf tokens wants a model directory\n%s", usage_tokens);
    return OK;
}

// --- rows --------------------------------------------------------------------------------------------------------------

static Err set_array(json_t *row, const char *key, const Ids *ids)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < ids->n; i++)
        CHECK(json_array_append_new(list, json_integer(ids->id[i])) == 0, ERR_UNAVAILABLE, "out of memory for JSON");
    CHECK(json_object_set_new(row, key, list) == 0, ERR_UNAVAILABLE, "out of memory for JSON");
    return OK;
}

static Err set_tokens(const Tokens *k, json_t *row, const Ids *ids)
{
    json_t *list = json_array();
    Str text = {0};
    Err err = OK;
    for (int64_t i = 0; i < ids->n; i++) {
        str_clear(&text);
        TRY_DONE(tok_decode(k->t, ids->id + i, 1, false, &text));
        CHECK_DONE(json_array_append_new(list, json_stringn(str_text(&text), (size_t)text.len)) == 0, ERR_UNAVAILABLE,
                   "out of memory for JSON");
    }
    CHECK_DONE(json_object_set(row, "tokens", list) == 0, ERR_UNAVAILABLE, "out of memory for JSON");
done:
    json_decref(list);
    str_free(&text);
    return err;
}

static Err encode_messages(Tokens *k, const json_t *in, const char *where, Ids *ids, Ids *mask)
{
    Message *m = NULL;
    int64_t n = 0;
    Err err = OK;
    if (!k->chat) TRY(chat_template(k->t, k->template_name, &k->chat));
    TRY(prompt_messages(in, where, &m, &n));
    if (k->whole) {
        TRY_DONE(chat_conversation(k->chat, k->t, m, n, json_is_true(json_object_get(in, "add_generation_prompt")), ids));
    } else if (n > 0 && !strcmp(m[n - 1].role, "assistant")) {
        TRY_DONE(chat_masked(k->chat, k->t, m, n, ids, mask));
    } else {
        TRY_DONE(chat_prompt(k->chat, k->t, m, n, ids));
    }
done:
    mem_free(m);
    return err;
}

static Err read_ids(const json_t *in, const char *where, Ids *ids)
{
    const json_t *list = json_object_get(in, "ids"), *v;
    size_t i;
    CHECK(json_is_array(list), ERR_DATA, "%s: wants \"text\", \"messages\" or \"ids\" (an array)", where);
    json_array_foreach(list, i, v) {
        CHECK(json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) <= INT32_MAX, ERR_DATA,
              "%s: ids[%zu] is not a token id", where, i);
        TRY(ids_push(ids, (int32_t)json_integer_value(v)));
    }
    return OK;
}

static Err set_text(const Tokens *k, json_t *out, const Ids *ids)
{
    Str text = {0};
    Err err = OK;
    TRY_DONE(tok_decode(k->t, ids->id, ids->n, k->skip_special, &text));
    CHECK_DONE(json_object_set_new(out, "text", json_stringn(str_text(&text), (size_t)text.len)) == 0, ERR_UNAVAILABLE,
               "out of memory for JSON");
done:
    str_free(&text);
    return err;
}

static Err convert(Tokens *k, const json_t *in, const char *where, json_t *out)
{
    const json_t *text = json_object_get(in, "text");
    Ids ids = {0}, mask = {0};
    Err err = OK;
    if (json_is_string(text)) {
        TRY_DONE(tok_encode(k->t, json_string_value(text), (int64_t)json_string_length(text), !k->plain, &ids));
        TRY_DONE(set_array(out, "ids", &ids));
    } else if (json_object_get(in, "messages")) {
        TRY_DONE(encode_messages(k, in, where, &ids, &mask));
        TRY_DONE(set_array(out, "ids", &ids));
        if (mask.n > 0) TRY_DONE(set_array(out, "mask", &mask));
    } else {
        TRY_DONE(read_ids(in, where, &ids));
        TRY_DONE(set_text(k, out, &ids));
    }
    if (k->decode) TRY_DONE(set_tokens(k, out, &ids));
done:
    ids_free(&ids);
    ids_free(&mask);
    return err;
}

static Err row(void *user, const json_t *in, const char *where)
{
    json_t *out = json_object();
    Err err = convert(user, in, where, out);
    if (err == OK && (json_dumpf(out, stdout, JSON_COMPACT) != 0 || putchar('\n') == EOF))
        err = err_raise(ERR_IO, __func__, __FILE__, __LINE__, "cannot write to standard output");
    json_decref(out);
    return err == OK || strstr(err_message(), where) ? err : err_context(err, "%s", where);
}

Err stage_tokens(const Job *job)
{
    Tokens k = {0};
    TRY(parse_options(job, &k));
    if (par_rank() != 0) return OK;
    TRY(tok_load(k.model, &k.t));
    Err err = k.template_name ? chat_template(k.t, k.template_name, &k.chat) : OK;
    if (err == OK) err = jsonl_stdin(row, &k);
    if (tok_lost(k.t) > 0) log_warn("tokens", "%lld bytes had no token and are not in the ids", (long long)tok_lost(k.t));
    tok_free(k.t);
    return err;
}
