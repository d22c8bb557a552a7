#include "decode/kv.h"

#include "base/mem.h"

static Err grow(KvPool *p, int64_t pages)
{
    const int64_t used = p->pages;
    for (int64_t l = 0; l < p->layers; l++) {
        int64_t cap = used * p->page_bytes;
        char *block = p->layer[l];
        TRY(MEM_GROW(&block, cap, &cap, pages * p->page_bytes));
        p->layer[l] = block;
    }
    int64_t cap = used;
    TRY(MEM_GROW(&p->spare, p->spares, &cap, pages));
    for (int64_t i = pages - 1; i >= used; i--) p->spare[p->spares++] = (int32_t)i;
    p->pages = pages;
    return OK;
}

Err kv_open(KvPool *p, int64_t layers, int64_t page_bytes, int64_t pages)
{
    *p = (KvPool){.layers = layers, .page_bytes = page_bytes};
    TRY(MEM_ARRAY(&p->layer, layers));
    return grow(p, pages);
}

void kv_close(KvPool *p)
{
    for (int64_t l = 0; p->layer && l < p->layers; l++) mem_free(p->layer[l]);
    mem_free(p->layer);
    mem_free(p->spare);
    *p = (KvPool){0};
}

Err kv_take(KvPool *p, int32_t *page)
{
    if (p->spares == 0) TRY(grow(p, 2 * p->pages));
    *page = p->spare[--p->spares];
    return OK;
}

void kv_give(KvPool *p, int32_t page) { p->spare[p->spares++] = page; }
