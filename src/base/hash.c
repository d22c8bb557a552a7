// SPDX-License-Identifier: Apache-2.0
#include "base/hash.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/io.h"


static Id from_xxh(XXH128_hash_t h) { return (Id){h.high64, h.low64}; }

Id hash_bytes(const void *p, int64_t n) { return from_xxh(XXH3_128bits(p, (size_t)n)); }
Id hash_text(const char *s) { return hash_bytes(s, (int64_t)strlen(s)); }

Err hash_new(Hash **out)
{
    XXH3_state_t *state = XXH3_createState();
    CHECK(state, ERR_UNAVAILABLE, "out of memory for a hash state");
    XXH3_128bits_reset(state);
    *out = (Hash *)state;
    return OK;
}

void hash_add(Hash *h, const void *p, int64_t n) { XXH3_128bits_update((XXH3_state_t *)h, p, (size_t)n); }
void hash_add_text(Hash *h, const char *s) { hash_add(h, s, (int64_t)strlen(s) + 1); }
void hash_add_i64(Hash *h, int64_t v) { hash_add(h, &v, sizeof v); }
void hash_add_f64(Hash *h, double v) { hash_add(h, &v, sizeof v); }

void hash_add_id(Hash *h, Id id)
{
    hash_add(h, &id.hi, sizeof id.hi);
    hash_add(h, &id.lo, sizeof id.lo);
}

Id hash_end(Hash *h)
{
    Id id = from_xxh(XXH3_128bits_digest((XXH3_state_t *)h));
    XXH3_freeState((XXH3_state_t *)h);
    return id;
}

Err hash_file(const char *path, Id *out)
{
    FileMap map;
    TRY(io_map(path, &map));
    *out = hash_bytes(map.p, map.size);
    io_unmap(&map);
    return OK;
}

void id_print(Id id, char text[ID_TEXT]) { snprintf(text, ID_TEXT, "%016" PRIx64 "%016" PRIx64, id.hi, id.lo); }

static bool hex64(const char *s, uint64_t *out)
{
    *out = 0;
    for (int i = 0; i < 16; i++) {
        char c = s[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0) return false;
        *out = *out << 4 | (uint64_t)digit;
    }
    return true;
}

bool id_parse(const char *text, Id *out)
{
    return strlen(text) == ID_TEXT - 1 && hex64(text, &out->hi) && hex64(text + 16, &out->lo);
}

int id_compare(Id a, Id b)
{
    if (a.hi != b.hi) return a.hi < b.hi ? -1 : 1;
    return a.lo < b.lo ? -1 : a.lo > b.lo;
}

bool id_equal(Id a, Id b) { return a.hi == b.hi && a.lo == b.lo; }
int id_compare_qsort(const void *a, const void *b) { return id_compare(*(const Id *)a, *(const Id *)b); }
