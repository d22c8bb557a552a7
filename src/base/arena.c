#include "base/arena.h"

#include <string.h>

#include "base/mem.h"

enum { ALIGN = 64, SMALLEST = 1 << 16 };

struct ArenaBlock {
    ArenaBlock *next;
    int64_t size;  // usable bytes at `data`
    char *data;
};

static Err block_new(ArenaBlock **out, int64_t bytes)
{
    TRY(MEM_ARRAY(out, 1));
    (*out)->size = bytes > SMALLEST ? bytes : SMALLEST;
    Err err = mem_alloc(&(*out)->data, (*out)->size, 1);
    if (err != OK) mem_free(*out);
    return err;
}

// Makes `current` a block with room for `bytes`: the next kept one that is large enough, or a new one put before it.
static Err advance(Arena *a, int64_t bytes)
{
    ArenaBlock *next = a->current ? a->current->next : a->first;
    if (!next || next->size < bytes) {
        ArenaBlock *fresh;
        TRY(block_new(&fresh, bytes));
        fresh->next = next;
        if (a->current) a->current->next = fresh;
        else a->first = fresh;
        next = fresh;
    }
    a->current = next;
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
    if (!a->current || a->used + bytes > a->current->size) TRY(advance(a, bytes));
    void *p = a->current->data + a->used;
    a->used += bytes;
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

ArenaMark arena_mark(const Arena *a) { return (ArenaMark){a->current, a->used}; }

void arena_rewind(Arena *a, ArenaMark mark)
{
    a->current = mark.block;
    a->used = mark.used;
}

void arena_reset(Arena *a) { arena_rewind(a, (ArenaMark){NULL, 0}); }

void arena_free(Arena *a)
{
    for (ArenaBlock *b = a->first, *next; b; b = next) {
        next = b->next;
        mem_free(b->data);
        mem_free(b);
    }
    *a = (Arena){0};
}
