// SPDX-License-Identifier: Apache-2.0
// The vocabulary: token text <-> id, and the byte alphabet.
//
// Byte-level BPE writes each byte as one printable character (GPT-2's table: '!'..'~', U+00A1..U+00AC and U+00AE..U+00FF
// stand for themselves, the other 68 bytes in order for U+0100..U+0143), so that every token is valid text. Pieces are kept
// as raw bytes here; only look-ups by text go through the alphabet.
#ifndef IMF_TEXT_VOCAB_H
#define IMF_TEXT_VOCAB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum { VOCAB_LARGEST = 1 << 22, VOCAB_TOKEN_BYTES = 65536 };  // PRS-4

typedef struct VocabToken {
    const char *text;   // in the byte alphabet, NUL-terminated; NULL: no token has this id
    const char *bytes;  // what it stands for
    int32_t text_n, bytes_n;
    bool model;           // from model.vocab: BPE may give it
    bool added, special;  // from added_tokens
} VocabToken;

typedef struct Vocab {
    VocabToken *token;  // [n]
    int64_t n;          // largest id + 1
    int64_t cap;
    char *pool;         // owns the strings
    int64_t pool_used, pool_size;
    int32_t *slot;      // open addressing by hash of text: id or -1
    int64_t slots;      // power of two
    int64_t used;
    int32_t longest_text;
} Vocab;

// Room for `tokens` tokens whose texts have `text_bytes` bytes together.
Err vocab_init(Vocab *v, int64_t tokens, int64_t text_bytes) ERR_MUST_CHECK;
void vocab_free(Vocab *v);

// raw: the text stands for its own bytes (added tokens), otherwise it is read through the byte alphabet (a text with a
// character outside of it stands for itself). ERR_DATA when the id or the text is taken, or beyond the limits.
Err vocab_add(Vocab *v, const char *text, int64_t n, int64_t id, bool raw) ERR_MUST_CHECK;

int32_t vocab_find(const Vocab *v, const char *text, int64_t n);           // -1: not there
int32_t vocab_find_bytes(const Vocab *v, const char *bytes, int64_t n);    // by the alphabet; -1 also for long ones

// The alphabet's character for a byte, as UTF-8 in buf; its length (1 or 2).
int vocab_byte_text(unsigned char byte, char buf[2]);

#endif
