// SPDX-License-Identifier: Apache-2.0
// Shared by t33_tokenizer.c and t34_chat.c: the small tokenizers and the hashes of ids (tools/reference/tokenizer.py).
#ifndef IMF_TESTS_TEXT_SUPPORT_H
#define IMF_TESTS_TEXT_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/io.h"
#include "base/mem.h"
#include "text/tokenizer.h"

#define TINY "tests/data/text/tiny/"
#define FNV_START 0xCBF29CE484222325u

enum { TINY_KINDS = 4 };
static const char *const tiny_kinds[TINY_KINDS] __attribute__((unused)) = {"smollm2", "qwen", "llama", "odd"};

static inline uint64_t fnv_add(uint64_t h, const void *p, int64_t n)
{
    const unsigned char *b = p;
    for (int64_t i = 0; i < n; i++) h = (h ^ b[i]) * 0x100000001B3u;
    return h;
}

// The k-th of the hashes in `want`, 8 hex digits each, is that of the ids.
static inline bool hash_matches(const char *want, int64_t k, const Ids *ids)
{
    uint64_t h = fnv_add(FNV_START, ids->id, ids->n * (int64_t)sizeof *ids->id);
    char text[9];
    snprintf(text, sizeof text, "%08x", (unsigned)(h ^ h >> 32));
    return (int64_t)strlen(want) >= 8 * (k + 1) && memcmp(want + 8 * k, text, 8) == 0;
}

// What follows `key` on its line of the file; NULL when there is no such line. The caller frees it.
static inline char *hash_line(const char *path, const char *key)
{
    Str s = {0};
    char *out = NULL, *at;
    assert_int_equal(io_read(path, &s, 1 << 20), OK);
    at = strncmp(s.p, key, strlen(key)) ? strstr(s.p, key) : s.p;
    while (at && at > s.p && at[-1] != '\n') at = strstr(at + 1, key);
    if (at) {
        at += strlen(key);
        assert_int_equal(mem_strndup(&out, at, (int64_t)strcspn(at, "\n")), OK);
    }
    str_free(&s);
    return out;
}

static inline Tokenizer *load_tiny(const char *kind)
{
    char path[IO_PATH];
    Tokenizer *t = NULL;
    snprintf(path, sizeof path, TINY "%s", kind);
    if (tok_load(path, &t) != OK) fail_msg("%s", err_message());
    return t;
}

#endif
