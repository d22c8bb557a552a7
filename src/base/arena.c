// SPDX-License-Identifier: Apache-2.0
#include "base/arena.h"

#include <string.h>

#include "base/mem.h"

enum { ALIGN = 64, SMALLEST = 1 << 16 };

struct ArenaBlock {
    ArenaBlock *next;
    int64_t size;  // usable bytes at `data`
    char *data;
};

static void block_clear(const Arena *a, ArenaBlock *b)
{
    if (a->source) a->source->free(a->source->owner, b->data);
    else mem_free(b->data);
    b->data = NULL, b->size = 0;
}

static Err block_fill(const Arena *a, ArenaBlock *b, int64_t bytes)
{
    int64_t size = bytes > SMALLEST ? bytes : SMALLEST;
    block_clear(a, b);
    TRY(a->source ? a->source->alloc(a->source->owner, &b->data, size) : mem_alloc(&b->data, size, 1));
    b->size = size;
    return OK;
}

// Makes `current` the next block, which is a new one or has been kept by a rewind. A kept one that is too small is replaced, not
// left behind: requests whose sizes change from step to step would leave a block of every size.
static Err advance(Arena *a, int64_t bytes)
{
    ArenaBlock **next = a->current ? &a->current->next : &a->first;
    if (!*next) TRY(MEM_ARRAY(next, 1));
    if (next == &a->first && bytes < a->want) bytes = a->want;
    if ((*next)->size < bytes || !(*next)->data) TRY(block_fill(a, *next, bytes));
    a->current = *next;
    a->before += a->used;
    a->used = 0;
    return OK;
}

Err arena_alloc(Arena *a, void *pp, int64_t n, int64_t size)
{
    int64_t bytes = 0;
    ASSERT(n >= 0 && size > 0);
    CHECK(!__builtin_mul_overflow(n, size, &bytes) && bytes < INT64_MAX - ALIGN, ERR_DATA,
          "a size of %lld x %lld bytes is not sensible", (long long)n, (long long)size);
    bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (!a->counting && (!a->current || a->used + bytes > a->current->size)) TRY(advance(a, bytes));
    void *p = a->counting ? NULL : a->current->data + a->used;
    a->used += bytes;
    if (a->before + a->used > a->most) a->most = a->before + a->used;
    memcpy(pp, &p, sizeof p);
    return OK;
}

Err arena_strndup(Arena *a, char **out, const char *s, int64_t n)
{
    TRY(arena_alloc(a, out, n + 1, 1));
    memcpy(*out, s, (size_t)n);
    (*out)[n] = '\0';
    return OK;
}

ArenaMark arena_mark(const Arena *a) { return (ArenaMark){a->current, a->used, a->before}; }

void arena_rewind(Arena *a, ArenaMark mark)
{
    a->current = mark.block;
    a->used = mark.used;
    a->before = mark.before;
}

void arena_reserve(Arena *a, int64_t bytes)
{
    int64_t want = a->most > bytes ? a->most : bytes;
    if (a->first && (a->first->next || a->first->size < want)) {
        arena_free(a);
        mem_trim();  // the blocks lie on malloc's heap, where the new one does not fit
    }
    a->want = a->most = want;
    arena_rewind(a, (ArenaMark){NULL, 0, 0});
}

void arena_reset(Arena *a)
{
    if (a->first && a->first->next) arena_reserve(a, 0);
    else arena_rewind(a, (ArenaMark){NULL, 0, 0});
}

void arena_free(Arena *a)
{
    for (ArenaBlock *b = a->first, *next; b; b = next) {
        next = b->next;
        block_clear(a, b);
        mem_free(b);
    }
    *a = (Arena){.source = a->source};
}
