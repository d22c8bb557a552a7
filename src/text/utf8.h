// SPDX-License-Identifier: Apache-2.0
// UTF-8: walking, checking, and replacing what is not UTF-8. All local, no state.
#ifndef IMF_TEXT_UTF8_H
#define IMF_TEXT_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

// Bytes (1-4) of the well-formed character at p, with its code point in *cp; or minus the bytes (1-3) of the maximal
// ill-formed subpart there (Unicode 15, section 3.9, table 3-7: what Python and Rust replace by one U+FFFD). n >= 1.
int utf8_next(const char *p, int64_t n, uint32_t *cp);

// Bytes of cp written to buf.
int utf8_put(char buf[4], uint32_t cp);

// Offset of the first byte that is not UTF-8; n when all of it is.
int64_t utf8_check(const char *p, int64_t n);

// Appends n bytes; each maximal ill-formed subpart becomes U+FFFD, as bytes.decode(errors="replace") does in Python.
Err utf8_add_lossy(Str *out, const char *p, int64_t n) ERR_MUST_CHECK;

// U+0000 becomes a space: it would end the text for C and is refused by readers of JSON. The ids keep the truth.
void utf8_blank_nul(Str *s);

// Copies as many whole characters of a NUL-terminated text as fit into size bytes with the NUL.
void utf8_copy(char *to, size_t size, const char *from);

// White space as Python's str.isspace, and so str.strip and Jinja's `trim`, see it.
bool utf8_is_space(uint32_t cp);

// Cuts such white space from both ends: *p and *n are moved.
void utf8_trim(const char **p, int64_t *n);

#endif
