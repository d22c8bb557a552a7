// SPDX-License-Identifier: Apache-2.0
// cuda_x of attention over paged keys and values.
#include "kernels/cuda/decode.cuh"
#include "kernels/cuda/device.hpp"
#include "kernels/cuda/rows.cuh"

static_assert((int)decode::PAGE == (int)KV_PAGE && (int)decode::GROUP == (int)DECODE_GROUP, "pages and groups are those of kernels/ops.h");

int64_t cuda_kv_page_bytes(int64_t K, int64_t D) { return decode::page_values((int)K, (int)D) * (int64_t)sizeof(uint16_t); }

Err cuda_kv_store(Ctx *ctx, const KvStoreArgs *a)
{
    ASSERT_TYPE(a->k, DT_BF16);
    ASSERT_TYPE(a->v, DT_BF16);
    ASSERT(a->D % 8 == 0);
    const decode::Store s = {bf16(a->k), bf16(a->v), (uint16_t *)a->pages, a->page, a->place, a->k.stride, a->v.stride, a->n, (int)a->K, (int)a->D};
    TRY_CUDA(CUDA_LAUNCH(kv_store, blocks_of(a->n * 2 * a->K * (a->D / 8), rows::THREADS), rows::THREADS, 0, stream_of(ctx), s));
    return OK;
}

// --- decode --------------------------------------------------------------------------------------------------------------------

// Sums of all chunks, then their greatest scores and weights.
static int64_t parts_of(const DecodeAttnArgs *a)
{
    return a->slots * a->N * (decode::chunks_of((int)a->max_prefix_pages) + decode::chunks_of((int)a->max_own_pages));
}

int64_t cuda_attn_decode_workspace(const DecodeAttnArgs *a) { return parts_of(a) * (a->D + 2) * (int64_t)sizeof(float); }

template <int D> static Err attend(Ctx *ctx, const decode::Decode &d)
{
    const auto chunks = d.rule.softcap > 0 ? decode_chunks<D, true> : decode_chunks<D, false>;
    const int items = d.groups * decode::chunks_of(d.max_prefix_pages) + d.slots * decode::chunks_of(d.max_own_pages);
    TRY_CUDA(allow(chunks, attn::Shape<D>::BYTES));
    TRY_CUDA(CUDA_LAUNCH(chunks, dim3((unsigned)items, (unsigned)d.K), attn::THREADS, attn::Shape<D>::BYTES, stream_of(ctx), d));
    TRY_CUDA(CUDA_LAUNCH(decode_combine<D>, blocks_of((int64_t)d.slots * d.N, rows::THREADS / rows::WARP), rows::THREADS, 0, stream_of(ctx), d));
    return OK;
}

Err cuda_attn_decode(Ctx *ctx, const DecodeAttnArgs *a)
{
    ASSERT_TYPE(a->q, DT_BF16);
    ASSERT_TYPE(a->o, DT_BF16);
    ASSERT(a->N > 0 && a->K > 0 && a->N % a->K == 0);
    CHECK(a->N / a->K <= attn::QUERIES / decode::GROUP, ERR_RECIPE, "%lld query heads share a kv head; on CUDA at most %d do: run this model on the CPU",
          (long long)(a->N / a->K), attn::QUERIES / decode::GROUP);
    float *const space = (float *)a->workspace;
    const decode::Decode d = {bf16(a->q), bf16(a->o), (const uint16_t *)a->pages, a->prefix_page, a->prefix_len, a->own_page, a->own_len, a->order, a->group,
                              space, space + parts_of(a) * a->D, a->q.stride, a->o.stride, (int)a->groups, (int)a->slots, (int)a->N, (int)a->K,
                              (int)a->max_prefix_pages, (int)a->max_own_pages, {a->scale, a->softcap, a->window}};
    switch (a->D) {
    case 64: return attend<64>(ctx, d);
    case 128: return attend<128>(ctx, d);
    case 256: return attend<256>(ctx, d);
    }
    FAIL(ERR_RECIPE, "attention on CUDA has heads of 64, 128 and 256, not of %lld: run this model on the CPU", (long long)a->D);
}
