#include "decode/kv.h"

#include <string.h>

#include "base/mem.h"

static int64_t page_floats(const KvPool *p) { return 2 * p->heads * KV_PAGE * p->D; }

static Err grow(KvPool *p, int64_t pages)
{
    const int64_t used = p->pages;
    for (int64_t l = 0; l < p->layers; l++) {
        int64_t cap = used * page_floats(p);
        TRY(MEM_GROW(&p->layer[l], cap, &cap, pages * page_floats(p)));
    }
    int64_t cap = used;
    TRY(MEM_GROW(&p->spare, p->spares, &cap, pages));
    for (int64_t i = pages - 1; i >= used; i--) p->spare[p->spares++] = (int32_t)i;
    p->pages = pages;
    return OK;
}

Err kv_open(KvPool *p, int64_t layers, int64_t heads, int64_t D, int64_t pages)
{
    *p = (KvPool){.layers = layers, .heads = heads, .D = D};
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

void kv_store(KvPool *p, int64_t layer, int32_t page, int64_t place, const float *k, const float *v)
{
    const int64_t D = p->D;
    float *key = p->layer[layer] + page * page_floats(p) + place, *value = key - place + p->heads * KV_PAGE * D + place * D;
    for (int64_t i = 0; i < p->heads * D; i++) key[i * KV_PAGE] = k[i];
    for (int64_t h = 0; h < p->heads; h++) memcpy(value + h * KV_PAGE * D, v + h * D, (size_t)D * sizeof *v);
}
