// Key/value pages: a pool that all samples in flight share. A page holds KV_PAGE tokens of every layer.
//
// Layout of one layer: [page]{keys [K heads][D][KV_PAGE], values [K heads][KV_PAGE][D]} (DecodeAttnArgs in kernels/ops.h). The pool doubles when it runs
// dry, so that after the first samples nothing is allocated any more.
#ifndef IMF_DECODE_KV_H
#define IMF_DECODE_KV_H

#include <stdint.h>

#include "base/err.h"
#include "kernels/ops.h"

typedef struct KvPool {
    int64_t layers, heads, D;
    float **layer;   // [layers] owned; moves when the pool grows
    int64_t pages;   // in each layer
    int32_t *spare;  // [pages] stack of the free ones
    int64_t spares;
} KvPool;

Err kv_open(KvPool *p, int64_t layers, int64_t heads, int64_t D, int64_t pages) ERR_MUST_CHECK;
void kv_close(KvPool *p);

Err kv_take(KvPool *p, int32_t *page) ERR_MUST_CHECK;  // contents undefined
void kv_give(KvPool *p, int32_t page);

// Stores k and v ([heads][D] each) of one token at `place` (0 .. KV_PAGE-1) of a page.
void kv_store(KvPool *p, int64_t layer, int32_t page, int64_t place, const float *k, const float *v);

static inline int64_t kv_pages_for(int64_t tokens) { return (tokens + KV_PAGE - 1) / KV_PAGE; }

#endif
