// SPDX-License-Identifier: Apache-2.0
// What attention's ops share on the host's side: the form for mma.sync (ops_attn.cu) and the one for Hopper (ops_attn_sm90.cu, compiled for sm_90a alone).
#ifndef IMF_CUDA_OPS_ATTN_HPP
#define IMF_CUDA_OPS_ATTN_HPP

#include "kernels/cuda/attn_bwd.cuh"
#include "kernels/cuda/device.hpp"

static_assert(sizeof(attn::Seg) == sizeof(Segment), "segments are read where they lie");

static inline attn::Table table_of(const Segment *seg, int64_t S, int64_t T) { return {(const attn::Seg *)seg, (int)S, (int)T}; }

namespace attn_bwd {

enum { PREPARE_WARPS = 4, PREPARE_THREADS = PREPARE_WARPS * 32 };  // of a block of attn_bwd_prepare*

// The workspace: delta, turns, sums; each begins at a multiple of 64 bytes.
struct Space {
    int64_t turn, sums, bytes;  // offsets
    int query_tiles;
};

// H: the Shape of a form.
template <typename H> Space space_of(const AttnBwdArgs *a)
{
    Space s;
    s.query_tiles = (int)(a->T / H::QUERIES + a->S);
    s.turn = round64(a->T * a->N * (int64_t)sizeof(float));
    s.sums = s.turn + round64(H::turns((int)a->N, s.query_tiles) * (int64_t)sizeof(uint32_t));
    s.bytes = s.sums + H::sums((int)a->N, s.query_tiles) * (int64_t)sizeof(float);
    return s;
}

template <typename H> int64_t bytes_of(const AttnBwdArgs *a) { return space_of<H>(a).bytes; }

template <typename H> Bwd args_of(const AttnBwdArgs *a)
{
    const Space s = space_of<H>(a);
    Bwd b = {};
    b.q = bf16(a->q), b.k = bf16(a->k), b.v = bf16(a->v), b.o = bf16(a->o), b.dout = bf16(a->dout), b.lse = a->lse;
    b.dq = bf16(a->dq), b.dk = bf16(a->dk), b.dv = bf16(a->dv);
    b.q_stride = a->q.stride, b.k_stride = a->k.stride, b.v_stride = a->v.stride, b.o_stride = a->o.stride, b.dout_stride = a->dout.stride;
    b.dq_stride = a->dq.stride, b.dk_stride = a->dk.stride, b.dv_stride = a->dv.stride;
    b.N = (int)a->N, b.K = (int)a->K, b.table = table_of(a->seg, a->S, a->T), b.rule = {a->scale, a->softcap, a->window};
    b.delta = (float *)a->workspace;
    b.turn = (uint32_t *)((char *)a->workspace + s.turn);
    b.sums = (float *)((char *)a->workspace + s.sums);
    b.query_tiles = s.query_tiles;
    return b;
}

}  // namespace attn_bwd

// cuda_attn_* on Hopper, of arguments that are checked, without padding. Bytes: 0 where it has no form for heads of that size.
Err sm90_attn_fwd(Ctx *ctx, const AttnArgs *a) ERR_MUST_CHECK;
int64_t sm90_attn_bwd_workspace(const AttnBwdArgs *a);
Err sm90_attn_bwd(Ctx *ctx, const AttnBwdArgs *a) ERR_MUST_CHECK;

#endif
