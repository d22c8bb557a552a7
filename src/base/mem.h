// SPDX-License-Identifier: Apache-2.0
// The only file that calls malloc: counted, 64-byte aligned, zeroed memory that fails with a message instead of NULL.
#ifndef IMF_BASE_MEM_H
#define IMF_BASE_MEM_H

#include <stdint.h>

#include "base/err.h"

// Sets *(T **)pp to n * size zeroed bytes, 64-byte aligned (n = 0 gives a valid pointer). The caller owns it and
// releases it with mem_free. ERR_UNAVAILABLE, naming the size, when there is no memory.
Err mem_alloc(void *pp, int64_t n, int64_t size) ERR_MUST_CHECK;

// The same on huge pages where the system gives them: for what is read from end to end again and again, like weights. (Other memory
// gains nothing from them, and clearing them costs more where a host has to find them first.)
Err mem_alloc_huge(void *pp, int64_t n, int64_t size) ERR_MUST_CHECK;

// Grows *(T **)pp from holding `used` elements to at least `need`; *cap is updated (doubling). New bytes are zero.
Err mem_grow(void *pp, int64_t used, int64_t *cap, int64_t need, int64_t size) ERR_MUST_CHECK;

// A copy of the NUL-terminated string / of n bytes followed by a NUL.
Err mem_strdup(char **out, const char *s) ERR_MUST_CHECK;
Err mem_strndup(char **out, const char *s, int64_t n) ERR_MUST_CHECK;

// Sorts n items as qsort does; n may be 0 and the array NULL, which qsort does not allow.
void mem_sort(void *items, int64_t n, int64_t size, int (*compare)(const void *, const void *));

void mem_free(void *p);
void mem_init(void);  // once, first of all: what is large goes back to the system when it is freed, so `imf plan` can know what a job holds
void mem_trim(void);  // gives free memory that malloc holds back to the system; after much was freed for good

// Bytes now allocated and the most there ever were, this process.
int64_t mem_now(void);
int64_t mem_peak(void);

// MEM_ARRAY(&p, n): n zeroed elements of whatever p points to.
#define MEM_ARRAY(pp, n) mem_alloc((pp), (n), (int64_t)sizeof **(pp))
#define MEM_GROW(pp, used, cap, need) mem_grow((pp), (used), (cap), (need), (int64_t)sizeof **(pp))
#define MEM_SORT(p, n, compare) mem_sort((p), (n), (int64_t)sizeof *(p), (compare))

#endif
