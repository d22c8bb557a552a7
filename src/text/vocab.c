// SPDX-License-Identifier: Apache-2.0
#include "text/vocab.h"

#include <string.h>
#include <xxhash.h>

#include "base/mem.h"
#include "text/utf8.h"

enum { ALPHABET_END = 0x144, LONGEST_LOOKUP = 1024 };

static bool stands_for_itself(uint32_t c)
{
    return (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF);
}

// The byte of a character of the alphabet, or -1.
static int char_byte(uint32_t cp)
{
    if (cp < 0x100) return stands_for_itself(cp) ? (int)cp : -1;
    if (cp >= ALPHABET_END) return -1;
    uint32_t k = cp - 0x100;  // the k-th byte that does not stand for itself: 0x00-0x20, 0x7F-0xA0, 0xAD
    return k <= 0x20 ? (int)k : k <= 0x42 ? (int)(k - 0x21 + 0x7F) : 0xAD;
}

int vocab_byte_text(unsigned char byte, char buf[2])
{
    uint32_t cp = byte;
    if (!stands_for_itself(cp)) cp = byte <= 0x20 ? 0x100u + byte : byte <= 0xA0 ? 0x121u + byte - 0x7F : 0x143u;
    char four[4];
    int n = utf8_put(four, cp);
    memcpy(buf, four, 2);
    return n;
}

Err vocab_init(Vocab *v, int64_t tokens, int64_t text_bytes)
{
    *v = (Vocab){.slots = 16, .pool_size = 2 * (text_bytes + tokens)};
    while (v->slots < 2 * tokens) v->slots *= 2;
    TRY(MEM_ARRAY(&v->pool, v->pool_size));
    TRY(MEM_ARRAY(&v->slot, v->slots));
    memset(v->slot, 0xFF, (size_t)v->slots * sizeof *v->slot);
    return MEM_GROW(&v->token, 0, &v->cap, tokens);
}

void vocab_free(Vocab *v)
{
    mem_free(v->pool);
    mem_free(v->slot);
    mem_free(v->token);
    *v = (Vocab){0};
}

// The slot that holds the text, or the free one where it belongs.
static int64_t find_slot(const Vocab *v, const char *text, int64_t n)
{
    int64_t i = (int64_t)(XXH3_64bits(text, (size_t)n) & (uint64_t)(v->slots - 1));
    for (;; i = (i + 1) & (v->slots - 1)) {
        int32_t id = v->slot[i];
        if (id < 0) return i;
        const VocabToken *t = &v->token[id];
        if (t->text_n == n && memcmp(t->text, text, (size_t)n) == 0) return i;
    }
}

static char *pool_take(Vocab *v, int64_t n)
{
    char *p = v->pool + v->pool_used;
    v->pool_used += n;
    return p;
}

// Bytes of a text in the alphabet, into `out` (room for n); -1 when a character is not of the alphabet.
static int64_t alphabet_bytes(const char *text, int64_t n, char *out)
{
    int64_t len = 0;
    for (int64_t i = 0; i < n;) {
        uint32_t cp;
        int step = utf8_next(text + i, n - i, &cp), byte = step > 0 ? char_byte(cp) : -1;
        if (byte < 0) return -1;
        out[len++] = (char)byte;
        i += step;
    }
    return len;
}

Err vocab_add(Vocab *v, const char *text, int64_t n, int64_t id, bool raw)
{
    CHECK(n >= 1 && n <= VOCAB_TOKEN_BYTES, ERR_DATA, "a token of %lld bytes (1 to %d are allowed)", (long long)n,
          VOCAB_TOKEN_BYTES);
    CHECK(id >= 0 && id < VOCAB_LARGEST, ERR_DATA, "token '%.60s' has id %lld (0 to %d are allowed)", text, (long long)id,
          VOCAB_LARGEST - 1);
    CHECK(id >= v->n || !v->token[id].text, ERR_DATA, "tokens '%.60s' and '%.60s' have the same id %lld", text,
          v->token[id].text, (long long)id);
    ASSERT(v->used < v->slots / 2 + 1 && v->pool_used + 2 * (n + 1) <= v->pool_size);
    int64_t slot = find_slot(v, text, n);
    CHECK(v->slot[slot] < 0, ERR_DATA, "token '%.60s' is there twice", text);
    TRY(MEM_GROW(&v->token, v->n, &v->cap, id + 1));
    char *copy = pool_take(v, n + 1), *bytes = pool_take(v, n + 1);
    memcpy(copy, text, (size_t)n);
    int64_t len = raw ? -1 : alphabet_bytes(text, n, bytes);
    if (len < 0) memcpy(bytes, text, (size_t)n), len = n;
    v->token[id] = (VocabToken){.text = copy, .bytes = bytes, .text_n = (int32_t)n, .bytes_n = (int32_t)len,
                                 .model = !raw};
    v->slot[slot] = (int32_t)id;
    v->used++;
    if (id >= v->n) v->n = id + 1;
    if (n > v->longest_text) v->longest_text = (int32_t)n;
    return OK;
}

int32_t vocab_find(const Vocab *v, const char *text, int64_t n) { return v->slot[find_slot(v, text, n)]; }

int32_t vocab_find_bytes(const Vocab *v, const char *bytes, int64_t n)
{
    char text[2 * LONGEST_LOOKUP];
    int64_t len = 0;
    if (n > LONGEST_LOOKUP || n > v->longest_text) return -1;
    for (int64_t i = 0; i < n; i++) len += vocab_byte_text((unsigned char)bytes[i], text + len);
    return vocab_find(v, text, len);
}
