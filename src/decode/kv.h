// SPDX-License-Identifier: Apache-2.0
// Key/value pages: a pool that all samples in flight share. A page holds KV_PAGE tokens of every layer.
//
// What a page looks like is op_kv_store's affair (kernels/ops.h). The pool doubles when it runs dry, so that after the first
// samples nothing is allocated any more.
#ifndef IMF_DECODE_KV_H
#define IMF_DECODE_KV_H

#include <stdint.h>

#include "base/err.h"
#include "kernels/ops.h"

typedef struct KvPool {
    Ctx *ctx;        // borrowed: whose ops read the pages
    int64_t layers, page_bytes;  // of one layer
    void **layer;    // [layers] owned; moves when the pool grows
    int64_t pages;   // in each layer
    int32_t *spare;  // [pages] stack of the free ones
    int64_t spares;
} KvPool;

Err kv_open(KvPool *p, Ctx *ctx, int64_t layers, int64_t page_bytes, int64_t pages) ERR_MUST_CHECK;
void kv_close(KvPool *p);

// Pages that a pool has which started with `first` and met a need of `need` at once.
int64_t kv_pages_grown(int64_t first, int64_t need);

Err kv_take(KvPool *p, int32_t *page) ERR_MUST_CHECK;  // contents undefined
void kv_give(KvPool *p, int32_t page);

static inline int64_t kv_pages_for(int64_t tokens) { return (tokens + KV_PAGE - 1) / KV_PAGE; }

#endif
