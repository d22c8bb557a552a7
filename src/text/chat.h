// The one renderer: messages to token ids with the loss mask, for sampling, scoring, SFT, DPO and evaluation.
//
// Templates are a table here, chosen by the hash of the model's chat_template (or by the recipe's `template:`).
// `render: clean`: the assistant header belongs to the prompt, one BOS (or none, where the family has none), one stop
// token after each assistant text, nothing after it.
#ifndef IMF_TEXT_CHAT_H
#define IMF_TEXT_CHAT_H

#include <stdbool.h>

#include "text/tokenizer.h"

typedef struct Message {
    const char *role;  // "system", "user", "assistant"
    const char *text;  // NUL-terminated UTF-8
} Message;

typedef struct ChatTemplate ChatTemplate;

// name: NULL or "auto" chooses by hash; unknown: ERR_DATA naming the key `template:` and its choices.
Err chat_template(const Tokenizer *t, const char *name, const ChatTemplate **out) ERR_MUST_CHECK;
const char *chat_template_name(const ChatTemplate *c);
int32_t chat_stop(const ChatTemplate *c, const Tokenizer *t);  // the token that ends an assistant turn

// The prompt: messages, then the assistant header. Ends where the answer begins.
Err chat_prompt(const ChatTemplate *c, const Tokenizer *t, const Message *m, int64_t n, Ids *out) ERR_MUST_CHECK;

// Prompt followed by the answer and its stop token; *answer is the index of the answer's first token. When the answer's
// ids are known (sampled by this tokenizer) they are used as they are: answer_ids != NULL.
Err chat_example(const ChatTemplate *c, const Tokenizer *t, const Message *m, int64_t n, const char *answer_text,
                 const Ids *answer_ids, Ids *out, int64_t *answer) ERR_MUST_CHECK;

// As apply_chat_template does it (whole conversation, no generation header unless asked): reward models and tests.
Err chat_conversation(const ChatTemplate *c, const Tokenizer *t, const Message *m, int64_t n, bool generation_prompt,
                      Ids *out) ERR_MUST_CHECK;

// Multi-turn SFT: mask[i] = 1 where token i is a target (every assistant text and its stop token).
Err chat_masked(const ChatTemplate *c, const Tokenizer *t, const Message *m, int64_t n, Ids *out, Ids *mask) ERR_MUST_CHECK;

// Start-up contract, on a real example: one BOS or none, the prompt's ids are a prefix of the example's, the last target is
// a stop token, the mask is not empty. ERR_DATA says which part is violated.
Err chat_contract(const ChatTemplate *c, const Tokenizer *t) ERR_MUST_CHECK;

#endif
