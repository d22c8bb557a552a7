// SPDX-License-Identifier: Apache-2.0
#include "decode/kv.h"

#include <string.h>

#include "base/mem.h"

static Err grow(KvPool *p, int64_t pages)
{
    const int64_t used = p->pages;
    for (int64_t l = 0; l < p->layers; l++) {
        void *wider;
        TRY(ctx_alloc(p->ctx, &wider, pages, p->page_bytes));
        if (used) memcpy(wider, p->layer[l], (size_t)(used * p->page_bytes));
        ctx_free(p->ctx, p->layer[l]);
        p->layer[l] = wider;
    }
    int64_t cap = used;
    TRY(MEM_GROW(&p->spare, p->spares, &cap, pages));
    for (int64_t i = pages - 1; i >= used; i--) p->spare[p->spares++] = (int32_t)i;
    p->pages = pages;
    return OK;
}

Err kv_open(KvPool *p, Ctx *ctx, int64_t layers, int64_t page_bytes, int64_t pages)
{
    *p = (KvPool){.ctx = ctx, .layers = layers, .page_bytes = page_bytes};
    TRY(MEM_ARRAY(&p->layer, layers));
    return grow(p, pages);
}

void kv_close(KvPool *p)
{
    for (int64_t l = 0; p->layer && l < p->layers; l++) ctx_free(p->ctx, p->layer[l]);
    mem_free(p->layer);
    mem_free(p->spare);
    *p = (KvPool){0};
}

int64_t kv_pages_grown(int64_t first, int64_t need)
{
    while (first < need) first *= 2;
    return first;
}

Err kv_take(KvPool *p, int32_t *page)
{
    if (p->spares == 0) TRY(grow(p, kv_pages_grown(p->pages, p->pages + 1)));
    *page = p->spare[--p->spares];
    return OK;
}

void kv_give(KvPool *p, int32_t page) { p->spare[p->spares++] = page; }
