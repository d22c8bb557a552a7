// SPDX-License-Identifier: Apache-2.0
// Arena: many allocations, one release. Used for a row's activations, a step's scratch, a file's parsed contents.
// A reset keeps one block as large as the most that was in use, so that a loop that resets each turn allocates in its first turns
// only, though its requests differ in size from turn to turn.
#ifndef IMF_BASE_ARENA_H
#define IMF_BASE_ARENA_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

// Memory other than mem_alloc's. Errors are those of `alloc`.
typedef struct MemSource {
    Err (*alloc)(void *owner, void *pp, int64_t bytes);
    void (*free)(void *owner, void *p);  // NULL p: nothing
    void *owner;                         // borrowed
} MemSource;

typedef struct ArenaBlock ArenaBlock;
typedef struct Arena {  // zero-initialise: Arena a = {0};
    ArenaBlock *first, *current;
    int64_t used;  // bytes used in `current`
    int64_t before, most;  // bytes used in the blocks before it; the most that were ever in use at once
    int64_t want;  // bytes of the first block
    const MemSource *source;  // set by hand, borrowed: where blocks come from; NULL: mem_alloc
    bool counting; // set by hand: requests are counted in `most` and met with NULL; for plans
} Arena;

typedef struct ArenaMark {
    ArenaBlock *block;
    int64_t used, before;
} ArenaMark;

// Sets *(T **)pp to n * size bytes, 64-byte aligned, not zeroed, valid until the arena is reset or freed.
Err arena_alloc(Arena *a, void *pp, int64_t n, int64_t size) ERR_MUST_CHECK;
#define ARENA_ARRAY(a, pp, n) arena_alloc((a), (pp), (n), (int64_t)sizeof **(pp))

// A copy of n bytes plus a NUL.
Err arena_strndup(Arena *a, char **out, const char *s, int64_t n) ERR_MUST_CHECK;

ArenaMark arena_mark(const Arena *a);
void arena_rewind(Arena *a, ArenaMark mark);  // forgets what was allocated after the mark
void arena_reset(Arena *a);                   // forgets everything, keeps the memory
void arena_reserve(Arena *a, int64_t bytes);  // likewise, and makes one block of at least so many bytes of what comes next
void arena_free(Arena *a);                    // gives the memory back

#endif
