// SPDX-License-Identifier: Apache-2.0
// Weights as generation reads them: panels (op_pack) instead of rows, in the same memory.
//
// Generation multiplies few rows by every weight again and again; from panels that costs no more than reading the weights once.
// Packing in place needs no second copy, and with shared weights the ranks of a node take turns by tensor.
#include "base/mem.h"
#include "base/profile.h"
#include "model/model.h"
#include "par/par.h"

static bool is_matrix(const Model *m, const WeightSpec *s)
{
    return s->kind == W_QKV || s->kind == W_O || s->kind == W_GATE_UP || s->kind == W_DOWN || s->kind == W_HEAD ||
           (s->kind == W_EMBED && m->cfg.tied);
}

static PackArgs pack_args(const Model *m, const WeightSpec *s)
{
    return (PackArgs){.w = tensor_f32(m->w + s->offset, s->cols), .in = s->cols, .out = s->rows};
}

static Err pack_share(Ctx *ctx, const Model *m, void *workspace)
{
    int64_t ranks = m->shared ? par_node_size() : 1, rank = m->shared ? par_node_rank() : 0, next = 0;
    for (int32_t i = 0; i < m->specs; i++) {
        if (!is_matrix(m, &m->spec[i]) || next++ % ranks != rank) continue;
        PackArgs a = pack_args(m, &m->spec[i]);
        a.workspace = workspace;
        TRY(op_pack(ctx, &a));
    }
    return OK;
}

static Err pack_own(Ctx *ctx, const Model *m)
{
    int64_t bytes = 0;
    void *workspace;
    for (int32_t i = 0; i < m->specs; i++) {
        PackArgs a = pack_args(m, &m->spec[i]);
        if (op_pack_workspace(&a) > bytes) bytes = op_pack_workspace(&a);
    }
    TRY(mem_alloc(&workspace, bytes, 1));
    Err err = pack_share(ctx, m, workspace);
    mem_free(workspace);
    return err;
}

Err model_pack(Ctx *ctx, Model *m)
{
    PROFILE(PHASE_IO);
    ASSERT(!m->packed);
    if (m->dtype != DT_F32) return OK;
    m->packed = true;
    if (!m->shared) return pack_own(ctx, m);
    TRY(par_node_barrier());  // the ranks that still check what they have loaded
    TRY(par_agree(pack_own(ctx, m)));
    return par_node_barrier();
}
