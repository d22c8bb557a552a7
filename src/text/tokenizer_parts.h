// SPDX-License-Identifier: Apache-2.0
// What a Tokenizer is made of; shared by tokenizer.c (use) and tokenizer_json.c (loading) alone.
#ifndef IMF_TEXT_TOKENIZER_PARTS_H
#define IMF_TEXT_TOKENIZER_PARTS_H

#include <jansson.h>

#include "text/added.h"
#include "text/bpe.h"
#include "text/pretok.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

struct Tokenizer {
    Vocab vocab;
    Bpe bpe;
    Pretok pretok;
    Added raw, normalized;  // added tokens sought before and after the normaliser
    bool nfc;
    int32_t bos, eos;
    char *chat_template;    // owned; NULL: none
    Id fingerprint;
};

// Appends the canonical composition (NFC) of n bytes of valid UTF-8.
Err tok_normalize(const char *p, int64_t n, Str *out) ERR_MUST_CHECK;

// Fills vocab, bpe, pretok, added tokens and the normaliser from tokenizer.json. Errors name path and key.
Err tok_read_json(Tokenizer *t, const char *path) ERR_MUST_CHECK;

// Parses a JSON file of bounded size and depth; *out is a new reference. flags: jansson's.
Err tok_parse_file(const char *path, size_t flags, json_t **out, Id *hash) ERR_MUST_CHECK;

#endif
