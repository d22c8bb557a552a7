// SPDX-License-Identifier: Apache-2.0
// Byte-level BPE from a Hugging Face tokenizer.json: Llama-3, Qwen-2.5, SmolLM2, Mistral-Nemo and our own small one.
//
// Ids are those of the crate `tokenizers`. Known to differ, since the Unicode data do: the order of combining marks in NFC, where
// ours are newer, and digits, where theirs are (of 327,679 code points in a context: 0 with SmolLM2, 76 with Qwen-2.5 by marks,
// 120 with Llama-3.1 by digits; pretok.h). Bytes without a token (SmolLM2 has none for 0x04, 06, 13, 14, 16, 1D, F1, F2) are
// left out of the ids as there, but not silently: the first is warned about, tok_lost counts them. A Tokenizer is read-only in
// use and serves any number of threads.
#ifndef IMF_TEXT_TOKENIZER_H
#define IMF_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/str.h"

typedef struct Tokenizer Tokenizer;

typedef struct Ids {  // growable; zero-initialise, release with ids_free
    int32_t *id;
    int64_t n, cap;
} Ids;
Err ids_push(Ids *ids, int32_t id) ERR_MUST_CHECK;
void ids_free(Ids *ids);

// Reads dir/tokenizer.json, tokenizer_config.json, special_tokens_map.json and chat_template.jinja as far as there.
// Errors: ERR_NOINPUT without tokenizer.json, ERR_DATA naming file and key; limits: 256 MiB, depth 64, vocabulary 2^22, tokens
// of 64 KiB. What would be computed differently here than its author meant (another model type, normaliser ...) is refused.
// The caller releases it with tok_free (NULL is fine).
Err tok_load(const char *dir, Tokenizer **out) ERR_MUST_CHECK;
void tok_free(Tokenizer *t);

// Appends the ids of n bytes of UTF-8 (invalid bytes: ERR_DATA). specials: text of special tokens becomes their id
// (otherwise it is plain text; added tokens that are not special are found in both cases). No BOS is added: that is the
// renderer's business.
Err tok_encode(const Tokenizer *t, const char *text, int64_t n, bool specials, Ids *out) ERR_MUST_CHECK;

// Appends the bytes of ids; skip_special leaves special tokens out. Bytes that are not UTF-8 become U+FFFD, as Python's
// errors="replace" does it, and so do ids without a token (padding rows of an embedding). No spaces are cleaned up.
Err tok_decode(const Tokenizer *t, const int32_t *id, int64_t n, bool skip_special, Str *out) ERR_MUST_CHECK;

int32_t tok_vocab(const Tokenizer *t);                           // largest id + 1
int32_t tok_last_plain(const Tokenizer *t);                      // largest id of model.vocab that is no added token; -1: none
int32_t tok_id(const Tokenizer *t, const char *token);           // id of a token's exact text (special ones too), or -1
const char *tok_text(const Tokenizer *t, int32_t id);            // text in the vocabulary (byte alphabet), or NULL
bool tok_is_special(const Tokenizer *t, int32_t id);
int32_t tok_bos(const Tokenizer *t);                             // -1: none
int32_t tok_eos(const Tokenizer *t);
const char *tok_chat_template(const Tokenizer *t);               // NULL: none
int64_t tok_lost(const Tokenizer *t);                            // bytes that encoding left out so far
Id tok_fingerprint(const Tokenizer *t);                          // of tokenizer.json and the template

#endif
