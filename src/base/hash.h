// SPDX-License-Identifier: Apache-2.0
// Ids and digests: XXH3, 128 bits. An id names a thing by its content, so that stages can join without positions.
#ifndef IMF_BASE_HASH_H
#define IMF_BASE_HASH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

typedef struct Id {
    uint64_t hi, lo;
} Id;

enum { ID_TEXT = 33 };  // 32 hex digits and the NUL

typedef struct Hash Hash;  // running hash

Id hash_bytes(const void *p, int64_t n);
Id hash_text(const char *s);

Err hash_new(Hash **out) ERR_MUST_CHECK;
void hash_add(Hash *h, const void *p, int64_t n);
void hash_add_text(Hash *h, const char *s);     // with its NUL, so that fields do not run together
void hash_add_i64(Hash *h, int64_t v);          // little endian
void hash_add_f64(Hash *h, double v);           // its bits
void hash_add_id(Hash *h, Id id);
Id hash_end(Hash *h);                           // frees h

Err hash_file(const char *path, Id *out) ERR_MUST_CHECK;  // contents of a file

void id_print(Id id, char text[ID_TEXT]);
bool id_parse(const char *text, Id *out);
int id_compare(Id a, Id b);                     // <0, 0, >0; the order of the hex text
bool id_equal(Id a, Id b);
int id_compare_qsort(const void *a, const void *b);

#endif
