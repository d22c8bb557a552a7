// SPDX-License-Identifier: Apache-2.0
// The one renderer: messages to token ids with the loss mask, for sampling, scoring, SFT, DPO and evaluation.
//
// Templates are a table here, chosen by the hash of the model's chat_template (or by the recipe's `template:`).
// `render: clean`: the assistant header belongs to the prompt, one BOS (or none, where the family has none), one stop
// token after each assistant text, nothing after it.
//
// Rules that hold everywhere:
// - A prompt is rendered as text and encoded at once, as apply_chat_template does it. An answer is encoded by itself and put
//   behind the prompt's ids, because that is where a model that samples it stands. Where the two differ at all, the answer
//   begins with white space that the tokenizer would have joined with the header's line break.
// - Text of special tokens inside of a message becomes their ids, as apply_chat_template does it. A message can so contain
//   a turn's end; who imports text of strangers must remove it before.
// - Llama's templates strip white space (Python's str.strip) from both ends of every message; answers given as text too.
// - Llama-3.1 and 3.2 put a date into the prompt. Time is not an input here: it is always their preset, 26 Jul 2024.
#ifndef IMF_TEXT_CHAT_H
#define IMF_TEXT_CHAT_H

#include <stdbool.h>

#include "text/tokenizer.h"

typedef struct Message {
    const char *role;  // "system", "user", "assistant"
    const char *text;  // NUL-terminated UTF-8
} Message;

typedef struct ChatTemplate ChatTemplate;

// name: NULL, "" or "auto" chooses by hash; unknown: ERR_DATA naming the key `template:` and its choices. ERR_DATA too when
// the tokenizer lacks a token that the template is made of.
Err chat_template(const Tokenizer *t, const char *name, const ChatTemplate **out) ERR_MUST_CHECK;
const char *chat_template_name(const ChatTemplate *c);
int32_t chat_stop(const ChatTemplate *c, const Tokenizer *t);  // the token that ends an assistant turn

// The prompt: messages (n >= 1), then the assistant header. Ends where the answer begins. Appends to *out.
Err chat_prompt(const ChatTemplate *c, const Tokenizer *t, const Message *m, int64_t n, Ids *out) ERR_MUST_CHECK;

// Prompt followed by the answer and its stop token; *answer is the index of the answer's first token in *out (appended to).
// When the answer's ids are known (sampled by this tokenizer) they are used as they are: answer_ids != NULL. A stop token at
// their end is not doubled.
Err chat_example(const ChatTemplate *c, const Tokenizer *t, const Message *m, int64_t n, const char *answer_text,
                 const Ids *answer_ids, Ids *out, int64_t *answer) ERR_MUST_CHECK;

// As apply_chat_template does it (whole conversation, no generation header unless asked): reward models and tests.
Err chat_conversation(const ChatTemplate *c, const Tokenizer *t, const Message *m, int64_t n, bool generation_prompt,
                      Ids *out) ERR_MUST_CHECK;

// Multi-turn SFT: mask[i] = 1 where token i is a target (every assistant text and its stop token). Nothing follows the last
// stop token. Both are appended to.
Err chat_masked(const ChatTemplate *c, const Tokenizer *t, const Message *m, int64_t n, Ids *out, Ids *mask) ERR_MUST_CHECK;

// One example against the contract: one BOS or none, the prompt's ids are a prefix of the example's, the mask is not empty and
// covers nothing of the prompt, the last target is the stop token and nothing follows it (cut rows are exempt from this).
// ERR_DATA says which part is violated.
Err chat_check(const ChatTemplate *c, const Tokenizer *t, const Ids *prompt, const Ids *example, const Ids *mask,
               bool cut) ERR_MUST_CHECK;

// Start-up contract: chat_check on examples rendered here, with and without a system message, one turn and two.
Err chat_contract(const ChatTemplate *c, const Tokenizer *t) ERR_MUST_CHECK;

#endif
