// SPDX-License-Identifier: Apache-2.0
// Chat templates as data: what stands around roles and texts. Jinja is not interpreted; a template that is not in the table
// is refused. tests/t34_chat.c compares with apply_chat_template.
#include "text/chat.h"

#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "text/utf8.h"

enum { TEMPLATE_TOKENS = 5 };

struct ChatTemplate {
    const char *name;
    const char *bos;         // before everything
    const char *open, *close;  // around a role's name
    const char *end;         // after a text that is not the assistant's
    const char *stop;        // after the assistant's: one special token
    const char *after;       // after every turn
    const char *no_system;   // system text when the messages begin with none; NULL: no system turn then
    const char *preamble;    // put before every system text at the beginning
    bool strip;              // texts are stripped
    bool role_tokens;        // open role close is one special token, which must be there
    const char *tokens[TEMPLATE_TOKENS];  // special tokens that it needs
};

#define CHATML .bos = "", .open = "<|im_start|>", .close = "\n", .end = "<|im_end|>", .stop = "<|im_end|>", .after = "\n", \
               .preamble = "", .tokens = {"<|im_start|>", "<|im_end|>"}
#define LLAMA3 .bos = "<|begin_of_text|>", .open = "<|start_header_id|>", .close = "<|end_header_id|>\n\n",              \
               .end = "<|eot_id|>", .stop = "<|eot_id|>", .after = "", .strip = true,                                    \
               .tokens = {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}

static const ChatTemplate templates[] = {
    {.name = "smollm2", CHATML, .no_system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"},
    {.name = "qwen2.5", CHATML, .no_system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."},
    {.name = "llama3", LLAMA3, .preamble = ""},
    {.name = "llama3.1", LLAMA3, .no_system = "",
     .preamble = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"},
    // <|bos|><|user|>TEXT<|assistant|>ANSWER<|end|>; the same as Jinja: tests/data/text/imf_demo_template.jinja
    {.name = "imf-demo", .bos = "<|bos|>", .open = "<|", .close = "|>", .end = "", .stop = "<|end|>", .after = "",
     .preamble = "", .role_tokens = true, .tokens = {"<|bos|>", "<|user|>", "<|assistant|>", "<|end|>"}},
};
enum { SMOLLM2, QWEN25, LLAMA_3, LLAMA_31, IMF_DEMO, TEMPLATES };

// XXH3-128 of a chat_template's text without a last line break (which Jinja drops) -> the template that renders the same for
// messages without tools.
static const struct {
    const char *hash;
    int index;
} known[] = {
    {"98f63cc3d421d28f99ab995e9629dacd", SMOLLM2},   // SmolLM2-*-Instruct
    {"e392aa06018503fd2469c9508f79506e", QWEN25},    // Qwen2.5-*-Instruct
    {"5fdb9fce4071098def2b96adf9b87224", QWEN25},    // Qwen2.5-Coder-*-Instruct
    {"09facc0e4aa943189799ad6e2dea0594", LLAMA_3},   // Llama-3-*-Instruct
    {"9ddcd6cd71f96dd76ca7779b7730196a", LLAMA_31},  // Llama-3.1-*-Instruct
    {"573e1bcc8c56f178c3d57e38f5ff0756", LLAMA_31},  // Llama-3.2-1B/3B-Instruct, at its preset date
    {"2982d6353dd4293f784b028f85ae34ba", IMF_DEMO},
};

// --- choosing ----------------------------------------------------------------------------------------------------------

static Err fail_unknown(const Tokenizer *t, const char *name)
{
    Str choices = {0};
    Err err = OK;
    for (int i = 0; i < TEMPLATES; i++) TRY_DONE(str_printf(&choices, "%s%s", i ? ", " : "", templates[i].name));
    err = name ? err_raise(ERR_DATA, __func__, __FILE__, __LINE__, "template: '%.60s' is not known; choices: auto, %s", name,
                           choices.p)
               : err_raise(ERR_DATA, __func__, __FILE__, __LINE__,
                           "the model's chat_template is %s; say which one to use with the key template: (choices: %s)",
                           tok_chat_template(t) ? "not one that imf knows" : "missing", choices.p);
done:
    str_free(&choices);
    return err;
}

static const ChatTemplate *find_by_name(const char *name)
{
    for (int i = 0; i < TEMPLATES; i++)
        if (!strcmp(name, templates[i].name)) return &templates[i];
    return NULL;
}

static const ChatTemplate *find_by_hash(const char *text)
{
    if (!text) return NULL;
    int64_t n = (int64_t)strlen(text);
    char hash[ID_TEXT];
    id_print(hash_bytes(text, n > 0 && text[n - 1] == '\n' ? n - 1 : n), hash);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (!strcmp(hash, known[i].hash)) return &templates[known[i].index];
    return NULL;
}

Err chat_template(const Tokenizer *t, const char *name, const ChatTemplate **out)
{
    bool by_hash = !name || !*name || !strcmp(name, "auto");
    const ChatTemplate *c = by_hash ? find_by_hash(tok_chat_template(t)) : find_by_name(name);
    if (!c) return fail_unknown(t, by_hash ? NULL : name);
    for (int i = 0; i < TEMPLATE_TOKENS && c->tokens[i]; i++)
        CHECK(tok_id(t, c->tokens[i]) >= 0, ERR_DATA,
              "template %s needs the token %s, which the tokenizer has not: wrong template: or wrong tokenizer.json", c->name,
              c->tokens[i]);
    *out = c;
    return OK;
}

const char *chat_template_name(const ChatTemplate *c) { return c->name; }
int32_t chat_stop(const ChatTemplate *c, const Tokenizer *t) { return tok_id(t, c->stop); }

// --- rendering ---------------------------------------------------------------------------------------------------------

static Err add_text(const ChatTemplate *c, Str *out, const char *text)
{
    int64_t n = (int64_t)strlen(text);
    if (c->strip) utf8_trim(&text, &n);
    return str_add(out, text, n);
}

static bool is_role(const char *role, const char *name) { return strcmp(role, name) == 0; }

static Err add_header(const ChatTemplate *c, Str *out, const char *role)
{
    return str_printf(out, "%s%s%s", c->open, role, c->close);
}

// A turn that is not the assistant's.
static Err add_turn(const ChatTemplate *c, Str *out, const char *role, const char *preamble, const char *text)
{
    TRY(add_header(c, out, role));
    TRY(str_puts(out, preamble));
    TRY(add_text(c, out, text));
    return str_printf(out, "%s%s", c->end, c->after);
}

// BOS and the system turn; *next is the first message that is left.
static Err add_beginning(const ChatTemplate *c, Str *out, const Message *m, int64_t *next)
{
    TRY(str_puts(out, c->bos));
    *next = is_role(m[0].role, "system");
    if (*next) return add_turn(c, out, "system", c->preamble, m[0].text);
    return c->no_system ? add_turn(c, out, "system", c->preamble, c->no_system) : OK;
}

static bool has_role(const ChatTemplate *c, const Tokenizer *t, const char *role)
{
    char token[64];
    if (!c->role_tokens) return true;
    snprintf(token, sizeof token, "%s%s%s", c->open, role, c->close);
    return tok_id(t, token) >= 0;
}

static Err check_messages(const ChatTemplate *c, const Tokenizer *t, const Message *m, int64_t n)
{
    CHECK(n >= 1, ERR_DATA, "a conversation without messages");
    for (int64_t i = 0; i < n; i++) {
        const char *r = m[i].role;
        CHECK(is_role(r, "system") || is_role(r, "user") || is_role(r, "assistant"), ERR_DATA,
              "message %lld has the role '%.40s'; known are system, user, assistant", (long long)i, r);
        CHECK(
            has_role(c, t, r), ERR_DATA,
            "message %lld: template %s has no token for the role %s in this tokenizer; use rows without it or another template",
            (long long)i, c->name, r);
    }
    return OK;
}

static Err encode(const Tokenizer *t, const Str *text, Ids *out)
{
    return tok_encode(t, str_text(text), text->len, true, out);
}

Err chat_conversation(const ChatTemplate *c, const Tokenizer *t, const Message *m, int64_t n, bool generation_prompt, Ids *out)
{
    Str text = {0};
    int64_t i = 0;
    Err err = OK;
    TRY(check_messages(c, t, m, n));
    TRY_DONE(add_beginning(c, &text, m, &i));
    for (; i < n; i++) {
        if (is_role(m[i].role, "assistant")) {
            TRY_DONE(add_header(c, &text, m[i].role));
            TRY_DONE(add_text(c, &text, m[i].text));
            TRY_DONE(str_printf(&text, "%s%s", c->stop, c->after));
        } else {
            TRY_DONE(add_turn(c, &text, m[i].role, "", m[i].text));
        }
    }
    if (generation_prompt) TRY_DONE(add_header(c, &text, "assistant"));
    TRY_DONE(encode(t, &text, out));
done:
    str_free(&text);
    return err;
}

Err chat_prompt(const ChatTemplate *c, const Tokenizer *t, const Message *m, int64_t n, Ids *out)
{
    return chat_conversation(c, t, m, n, true, out);
}

// The answer's ids, then the stop token.
static Err add_answer(const ChatTemplate *c, const Tokenizer *t, const char *text, Ids *out)
{
    Str answer = {0};
    Err err = OK;
    TRY_DONE(add_text(c, &answer, text));
    TRY_DONE(encode(t, &answer, out));
    TRY_DONE(ids_push(out, chat_stop(c, t)));
done:
    str_free(&answer);
    return err;
}

static Err add_known_answer(const ChatTemplate *c, const Tokenizer *t, const Ids *answer, Ids *out)
{
    int32_t stop = chat_stop(c, t);
    for (int64_t i = 0; i < answer->n; i++) TRY(ids_push(out, answer->id[i]));
    return answer->n > 0 && answer->id[answer->n - 1] == stop ? OK : ids_push(out, stop);
}

Err chat_example(const ChatTemplate *c, const Tokenizer *t, const Message *m, int64_t n, const char *answer_text,
                 const Ids *answer_ids, Ids *out, int64_t *answer)
{
    TRY(chat_prompt(c, t, m, n, out));
    *answer = out->n;
    return answer_ids ? add_known_answer(c, t, answer_ids, out) : add_answer(c, t, answer_text, out);
}

static Err fill_mask(Ids *mask, int64_t n, int32_t value)
{
    while (mask->n < n) TRY(ids_push(mask, value));
    return OK;
}

Err chat_masked(const ChatTemplate *c, const Tokenizer *t, const Message *m, int64_t n, Ids *out, Ids *mask)
{
    Str text = {0};  // what stands between the last stop token and the next answer
    int64_t i = 0, start = out->n, base = mask->n;
    Err err = OK;
    TRY(check_messages(c, t, m, n));
    TRY_DONE(add_beginning(c, &text, m, &i));
    for (; i < n; i++) {
        if (!is_role(m[i].role, "assistant")) {
            TRY_DONE(add_turn(c, &text, m[i].role, "", m[i].text));
            continue;
        }
        TRY_DONE(add_header(c, &text, m[i].role));
        TRY_DONE(encode(t, &text, out));
        TRY_DONE(fill_mask(mask, base + out->n - start, 0));
        TRY_DONE(add_answer(c, t, m[i].text, out));
        TRY_DONE(fill_mask(mask, base + out->n - start, 1));
        str_clear(&text);
        TRY_DONE(str_puts(&text, c->after));
    }
    if (!is_role(m[n - 1].role, "assistant")) TRY_DONE(encode(t, &text, out));
    TRY_DONE(fill_mask(mask, base + out->n - start, 0));
done:
    str_free(&text);
    return err;
}

// --- contract ----------------------------------------------------------------------------------------------------------

static int64_t count_id(const Ids *ids, int32_t id)
{
    int64_t n = 0;
    for (int64_t i = 0; i < ids->n; i++) n += ids->id[i] == id;
    return n;
}

// A family with BOS has one, first; one without has none, unless its BOS is the token that opens a turn (SmolLM2).
static Err check_bos(const ChatTemplate *c, const Tokenizer *t, const Ids *ids)
{
    int32_t bos = *c->bos ? tok_id(t, c->bos) : tok_bos(t);
    int64_t n = bos >= 0 ? count_id(ids, bos) : 0;
    if (*c->bos)
        CHECK(n == 1 && ids->id[0] == bos, ERR_DATA, "template %s: %lld BOS tokens (%s), first id %d; wanted one, at the start",
              c->name, (long long)n, c->bos, ids->id[0]);
    else if (bos >= 0 && strcmp(tok_text(t, bos), c->open) != 0)
        CHECK(n == 0, ERR_DATA, "template %s: %lld BOS tokens, wanted none", c->name, (long long)n);
    return OK;
}

Err chat_check(const ChatTemplate *c, const Tokenizer *t, const Ids *prompt, const Ids *example, const Ids *mask, bool cut)
{
    int64_t first = 0, last = mask->n - 1;
    CHECK(example->n > 0 && mask->n == example->n, ERR_DATA, "template %s: %lld ids, %lld of them masked or not", c->name,
          (long long)example->n, (long long)mask->n);
    TRY(check_bos(c, t, example));
    CHECK(prompt->n > 0 && prompt->n <= example->n &&
              memcmp(prompt->id, example->id, (size_t)prompt->n * sizeof *prompt->id) == 0,
          ERR_DATA, "template %s: the prompt's ids are not the beginning of the example's", c->name);
    while (first < mask->n && !mask->id[first]) first++;
    while (last >= 0 && !mask->id[last]) last--;
    CHECK(last >= 0, ERR_DATA, "template %s: no token is a target (the mask is empty)", c->name);
    CHECK(first >= prompt->n, ERR_DATA, "template %s: token %lld of the prompt is a target", c->name, (long long)first);
    if (cut) return OK;
    CHECK(example->id[last] == chat_stop(c, t), ERR_DATA, "template %s: the last target is %d, not the stop token %s", c->name,
          example->id[last], c->stop);
    CHECK(last == example->n - 1, ERR_DATA, "template %s: %lld tokens follow the stop token", c->name,
          (long long)(example->n - 1 - last));
    return OK;
}

// n messages of which the first `turns` are the prompt of the first assistant turn.
static Err check_conversation(const ChatTemplate *c, const Tokenizer *t, const Message *m, int64_t n, int64_t turns)
{
    Ids prompt = {0}, example = {0}, mask = {0}, again = {0};
    int64_t answer = 0;
    Err err = OK;
    TRY_DONE(chat_prompt(c, t, m, turns, &prompt));
    TRY_DONE(chat_masked(c, t, m, n, &example, &mask));
    TRY_DONE(chat_check(c, t, &prompt, &example, &mask, false));
    TRY_DONE(chat_example(c, t, m, turns, m[turns].text, NULL, &again, &answer));
    CHECK_DONE(answer == prompt.n && again.n <= example.n &&
                   memcmp(again.id, example.id, (size_t)again.n * sizeof *again.id) == 0,
               ERR_DATA, "template %s: one turn and a conversation are rendered differently", c->name);
done:
    ids_free(&prompt), ids_free(&example), ids_free(&mask), ids_free(&again);
    return err;
}

Err chat_contract(const ChatTemplate *c, const Tokenizer *t)
{
    const Message m[] = {{"system", "Answer in one word."}, {"user", "What is 2 + 3?"}, {"assistant", "Five."},
                         {"user", "And 4 + 4?\n"},          {"assistant", "Eight"}};
    CHECK(chat_stop(c, t) >= 0, ERR_DATA, "template %s: the tokenizer has no stop token %s", c->name, c->stop);
    TRY(check_conversation(c, t, m + 1, 2, 1));
    TRY(check_conversation(c, t, m + 1, 4, 1));
    return has_role(c, t, "system") ? check_conversation(c, t, m, 5, 2) : OK;
}
