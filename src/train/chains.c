// SPDX-License-Identifier: Apache-2.0
#include "train/chains.h"

#include <string.h>

#include "base/mem.h"
#include "base/profile.h"
#include "par/par.h"

enum { CHAIN_TAG = 4200 };

void chain_share(int32_t active, int rank, int ranks, int32_t *first, int32_t *last)
{
    *first = (int32_t)((int64_t)active * rank / ranks);
    *last = (int32_t)((int64_t)active * (rank + 1) / ranks);
}

static bool siblings(const ChainNode *left, const ChainNode *right)
{
    return left->level == right->level && left->index % 2 == 0 && right->index == left->index + 1;
}

int32_t chain_plan(int32_t first, int32_t last, ChainNode node[CHAIN_NODES])
{
    int32_t n = 0;
    for (int32_t c = first; c < last; c++) {
        node[n++] = (ChainNode){0, c, NULL};
        while (n > 1 && siblings(&node[n - 2], &node[n - 1])) {
            n--;
            node[n - 1] = (ChainNode){node[n - 1].level + 1, node[n - 1].index / 2, NULL};
        }
    }
    return n;
}

int32_t chain_buffers(int32_t first, int32_t last)
{
    ChainNode node[CHAIN_NODES];
    int32_t most = 0;
    for (int32_t c = first; c < last; c++) {
        int32_t n = chain_plan(first, c, node) + 1;
        if (n > most) most = n;
    }
    return most;
}

void chain_init(ChainSum *s, const Model *m)
{
    *s = (ChainSum){.elements = m->elements, .room = model_grad_elements(m)};
}

void chain_reset(ChainSum *s)
{
    while (s->nodes > 0) s->spare[s->spares++] = s->node[--s->nodes].g;
    if (s->open) s->spare[s->spares++] = s->open;
    s->open = NULL;
}

void chain_free(ChainSum *s)
{
    chain_reset(s);
    while (s->spares > 0) mem_free(s->spare[--s->spares]);
}

Err chain_begin(ChainSum *s, float **g)
{
    PROFILE(PHASE_OPTIM);
    ASSERT(!s->open && s->nodes < CHAIN_NODES);
    if (s->spares > 0) {
        s->open = s->spare[--s->spares];
        memset(s->open, 0, (size_t)s->room * sizeof(float));
    } else {
        TRY(MEM_ARRAY(&s->open, s->room));
    }
    *g = s->open;
    return OK;
}

static void add_to(float *restrict a, const float *restrict b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) a[i] += b[i];
}

Err chain_end(ChainSum *s, int32_t chain)
{
    PROFILE(PHASE_OPTIM);
    ASSERT(s->open);
    s->node[s->nodes++] = (ChainNode){0, chain, s->open};
    s->open = NULL;
    while (s->nodes > 1 && siblings(&s->node[s->nodes - 2], &s->node[s->nodes - 1])) {
        ChainNode right = s->node[--s->nodes], *left = &s->node[s->nodes - 1];
        add_to(left->g, right.g, s->elements);
        *left = (ChainNode){left->level + 1, left->index / 2, left->g};
        s->spare[s->spares++] = right.g;
    }
    return OK;
}

// --- over ranks ----------------------------------------------------------------------------------------------------
//
// Shares are reduced a portion at a time, so that only a portion of what others hold is here at once.

enum { PORTION = 1 << 21 };  // elements

typedef struct Reduce {  // one reduction: what travels where
    const ChainSum *sum;
    const Tile *tiles;
    int64_t n_tiles;
    int32_t active;
    ParRequest **request;  // [requests]
    int32_t requests;
    ChainNode *node;       // [nodes] portions of all subtrees of the step for the own share, in chain order
    int32_t nodes;
    float *received;       // storage of those that came from others
} Reduce;

// Elements of a share that lie in the portion at `at`.
static int64_t in_portion(TileShare s, int64_t at)
{
    int64_t left = s.end - s.begin - at;
    return left < 0 ? 0 : left < PORTION ? left : PORTION;
}

static Err send_portion(Reduce *r, int64_t at)
{
    for (int peer = 0; peer < par_size(); peer++) {
        TileShare share = tile_share(r->tiles, r->n_tiles, peer, par_size());
        int64_t n = in_portion(share, at);
        if (peer == par_rank() || n == 0) continue;
        for (int32_t i = 0; i < r->sum->nodes; i++)
            TRY(par_isend(r->sum->node[i].g + share.begin + at, n * (int64_t)sizeof(float), peer, CHAIN_TAG + i,
                          &r->request[r->requests++]));
    }
    return OK;
}

static Err receive_portion(Reduce *r, TileShare mine, int64_t at)
{
    int64_t n = in_portion(mine, at);
    float *free_at = r->received;
    r->nodes = 0;
    for (int peer = 0; peer < par_size(); peer++) {
        ChainNode plan[CHAIN_NODES];
        int32_t first, last;
        chain_share(r->active, peer, par_size(), &first, &last);
        int32_t count = chain_plan(first, last, plan);
        for (int32_t i = 0; i < count; i++) {
            ChainNode *node = &r->node[r->nodes++];
            *node = plan[i];
            if (peer == par_rank()) {
                node->g = r->sum->node[i].g + mine.begin + at;
            } else if (n > 0) {
                node->g = free_at;
                free_at += n;
                TRY(par_irecv(node->g, n * (int64_t)sizeof(float), peer, CHAIN_TAG + i, &r->request[r->requests++]));
            }
        }
    }
    return OK;
}

// Adds node (level, index) into out (set: out is overwritten), consuming r->node from *next on. Depth: log2(chains).
static Err add_node(const Reduce *r, int32_t level, int32_t index, int32_t *next, float *out, int64_t n, float *const *scratch)
{
    ASSERT(*next < r->nodes);
    const ChainNode *held = &r->node[*next];
    if (held->level == level && held->index == index) {
        ++*next;
        memcpy(out, held->g, (size_t)n * sizeof *out);
        return OK;
    }
    ASSERT(level > 0);
    TRY(add_node(r, level - 1, 2 * index, next, out, n, scratch));
    if ((int64_t)(2 * index + 1) << (level - 1) >= r->active) return OK;
    TRY(add_node(r, level - 1, 2 * index + 1, next, scratch[level - 1], n, scratch));
    add_to(out, scratch[level - 1], n);
    return OK;
}

enum { SLICE = 4096, LEVELS = 32 };  // elements that are combined at a time: scratch stays in the cache

// out may be the memory of one of the nodes: a slice of all of them is read before it is written.
static Err combine(Reduce *r, int64_t n, float *out)
{
    float store[LEVELS][SLICE], *scratch[LEVELS];
    int32_t top = 0;
    for (int i = 0; i < LEVELS; i++) scratch[i] = store[i];
    while ((int64_t)1 << top < r->active) top++;
    ASSERT(top < LEVELS);
    for (int64_t at = 0; at < n; at += SLICE) {
        int64_t width = n - at < SLICE ? n - at : SLICE;
        int32_t next = 0;
        TRY(add_node(r, top, 0, &next, scratch[top], width, scratch));
        ASSERT(next == r->nodes);
        memcpy(out + at, scratch[top], (size_t)width * sizeof *out);
        for (int32_t i = 0; i < r->nodes; i++) r->node[i].g += width;
    }
    return OK;
}

// Subtrees that others hold; *own: this rank's.
static int32_t count_remote(int32_t active, int rank, int ranks, int32_t *own)
{
    ChainNode plan[CHAIN_NODES];
    int32_t first, last, remote = 0;
    for (int peer = 0; peer < ranks; peer++) {
        chain_share(active, peer, ranks, &first, &last);
        int32_t count = chain_plan(first, last, plan);
        if (peer != rank) remote += count;
        else *own = count;
    }
    return remote;
}

int64_t chain_received(int32_t active, TileShare mine, int rank, int ranks)
{
    int32_t own;
    return count_remote(active, rank, ranks, &own) * in_portion(mine, 0);
}

static Err prepare(Reduce *r, TileShare mine)
{
    int32_t own = 0, remote = count_remote(r->active, par_rank(), par_size(), &own);
    ASSERT(own == r->sum->nodes);
    TRY(MEM_ARRAY(&r->node, remote + own));
    TRY(MEM_ARRAY(&r->request, remote + (int64_t)own * par_size()));
    return mem_alloc(&r->received, chain_received(r->active, mine, par_rank(), par_size()), (int64_t)sizeof(float));
}

static Err reduce_portion(Reduce *r, TileShare mine, int64_t at, float *out)
{
    r->requests = 0;
    TRY(receive_portion(r, mine, at));
    TRY(send_portion(r, at));
    for (int32_t i = 0; i < r->requests; i++) TRY(par_wait(r->request[i]));
    return combine(r, in_portion(mine, at), out);
}

// The largest share of any rank: all make as many portions.
static int64_t largest_share(const Reduce *r)
{
    int64_t most = 0;
    for (int peer = 0; peer < par_size(); peer++) {
        TileShare s = tile_share(r->tiles, r->n_tiles, peer, par_size());
        if (s.end - s.begin > most) most = s.end - s.begin;
    }
    return most;
}

Err chain_reduce(const ChainSum *s, int32_t active, const Tile *tiles, int64_t n_tiles, float *out)
{
    Reduce r = {.sum = s, .tiles = tiles, .n_tiles = n_tiles, .active = active};
    TileShare mine = tile_share(tiles, n_tiles, par_rank(), par_size());
    int64_t most = largest_share(&r);
    Err err = OK;
    TRY_DONE(par_agree(prepare(&r, mine)));  // before anyone sends
    for (int64_t at = 0; at < most; at += PORTION) TRY_DONE(reduce_portion(&r, mine, at, out + at));
done:
    mem_free(r.request);
    mem_free(r.received);
    mem_free(r.node);
    return err;
}
