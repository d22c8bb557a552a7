// SPDX-License-Identifier: Apache-2.0
#include "base/mem.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

// Every block carries its size in the 64 bytes before the pointer that the caller sees.
enum { HEADER = 64, HUGE_PAGE = 1 << 21 };
static _Atomic int64_t bytes_now, bytes_peak;

static void count(int64_t delta)
{
    int64_t now = atomic_fetch_add(&bytes_now, delta) + delta;
    int64_t peak = atomic_load(&bytes_peak);
    while (now > peak && !atomic_compare_exchange_weak(&bytes_peak, &peak, now)) {}
}

static Err allocate(void *pp, int64_t n, int64_t size, bool huge)
{
    void *none = NULL;
    memcpy(pp, &none, sizeof none);
    int64_t bytes = 0;
    ASSERT(n >= 0 && size > 0);
    CHECK(!__builtin_mul_overflow(n, size, &bytes) && bytes < INT64_MAX - 4 * HEADER, ERR_DATA,
          "a size of %lld x %lld bytes is not sensible; a file is probably corrupt", (long long)n, (long long)size);
    int64_t total = HEADER + (bytes + HEADER - 1) / HEADER * HEADER;
    huge = huge && total >= 4 * HUGE_PAGE;
    char *block = aligned_alloc(huge ? HUGE_PAGE : HEADER, (size_t)total);
    CHECK(block, ERR_UNAVAILABLE, "out of memory: %lld bytes wanted, %lld in use; use fewer ranks per node or a "
          "smaller row_tokens", (long long)bytes, (long long)mem_now());
#ifdef MADV_HUGEPAGE
    if (huge) (void)madvise(block, (size_t)total, MADV_HUGEPAGE);  // advice: where there are none nothing changes
#endif
    memset(block, 0, (size_t)total);
    memcpy(block, &bytes, sizeof bytes);
    count(bytes);
    void *p = block + HEADER;
    memcpy(pp, &p, sizeof p);
    return OK;
}

Err mem_alloc(void *pp, int64_t n, int64_t size) { return allocate(pp, n, size, false); }
Err mem_alloc_huge(void *pp, int64_t n, int64_t size) { return allocate(pp, n, size, true); }

Err mem_grow(void *pp, int64_t used, int64_t *cap, int64_t need, int64_t size)
{
    if (need <= *cap) return OK;
    int64_t wider = *cap < 8 ? 8 : *cap;
    while (wider < need) wider *= 2;
    void *old, *fresh;
    memcpy(&old, pp, sizeof old);
    TRY(mem_alloc(&fresh, wider, size));
    if (used > 0) memcpy(fresh, old, (size_t)(used * size));
    mem_free(old);
    memcpy(pp, &fresh, sizeof fresh);
    *cap = wider;
    return OK;
}

Err mem_strndup(char **out, const char *s, int64_t n)
{
    TRY(mem_alloc(out, n + 1, 1));
    memcpy(*out, s, (size_t)n);
    return OK;
}

Err mem_strdup(char **out, const char *s) { return mem_strndup(out, s, (int64_t)strlen(s)); }

void mem_sort(void *items, int64_t n, int64_t size, int (*compare)(const void *, const void *))
{
    if (n > 1) qsort(items, (size_t)n, (size_t)size, compare);
}

void mem_free(void *p)
{
    if (!p) return;
    char *block = (char *)p - HEADER;
    int64_t bytes;
    memcpy(&bytes, block, sizeof bytes);
    count(-bytes);
    free(block);
}

int64_t mem_now(void) { return atomic_load(&bytes_now); }
int64_t mem_peak(void) { return atomic_load(&bytes_peak); }

// glibc raises its threshold to the size of what was freed; from then on blocks of that size lie on the heap, where they stay.
void mem_init(void)
{
#ifdef __GLIBC__
    (void)mallopt(M_MMAP_THRESHOLD, 1 << 20);
#endif
}

void mem_trim(void)
{
#ifdef __GLIBC__
    (void)malloc_trim(0);
#endif
}
