// SPDX-License-Identifier: Apache-2.0
// The packed bf16 copy of a model's matrices: from the fp32 block (training), or straight from the files (inference).
//
// Work is cut into strips of STRIP rows of a matrix, dealt round robin to the ranks of the node. From files, a strip is read
// to fp32 first: its rows may come from two tensors (q, k and v lie in one matrix of ours).
#include <string.h>

#include "base/mem.h"
#include "model/weights.h"
#include "par/par.h"

enum { STRIP = 16 * BF16_ROWS };

typedef struct Strip {
    const WeightSpec *spec;
    int64_t from, to;  // rows
} Strip;

// The next strip of this rank; *at counts strips of the model. False: there is none.
typedef struct Strips {
    const Model *m;
    int32_t spec;
    int64_t row, at;
} Strips;

static bool next_strip(Strips *s, Strip *out)
{
    const int64_t ranks = s->m->shared ? par_node_size() : 1, rank = s->m->shared ? par_node_rank() : 0;
    for (; s->spec < s->m->specs; s->spec++, s->row = 0) {
        const WeightSpec *spec = &s->m->spec[s->spec];
        while (spec->rows > 1 && s->row < spec->rows) {
            const int64_t to = s->row + STRIP < spec->rows ? s->row + STRIP : spec->rows;
            *out = (Strip){spec, s->row, to};
            s->row = to;
            if (s->at++ % ranks == rank) return true;
        }
    }
    return false;
}

// w: the strip's rows.
static Err pack_strip(Ctx *ctx, Model *m, const Strip *s, float *w)
{
    PackBf16Args a = {.w = tensor_f32(w - s->from * s->spec->cols, s->spec->cols), .packed = (uint16_t *)m->bf16 + s->spec->bf16,
                  .out = s->spec->rows, .in = s->spec->cols, .from = s->from, .to = s->to};
    return op_pack_bf16(ctx, &a);
}

static Err pack_block(Ctx *ctx, Model *m)
{
    Strips at = {.m = m};
    Strip s;
    while (next_strip(&at, &s)) TRY(pack_strip(ctx, m, &s, m->w + s.spec->offset + s.from * s.spec->cols));
    return OK;
}

Err model_pack_bf16(Ctx *ctx, Model *m)
{
    ASSERT(m->w);
    if (m->dtype != DT_BF16) {
        TRY(weight_memory(m, m->bf16_values * 2, &m->bf16));
        TRY(weight_mark_bf16(m));
        m->dtype = DT_BF16;
    }
    Err err = pack_block(ctx, m);
    if (!m->shared) return err;
    TRY(par_agree(err));
    return par_node_barrier();
}

// --- from files ----------------------------------------------------------------------------------------------------------

// Elements [from, to) of the block, as far as they lie in this part, to out (which stands for element `from`).
static Err read_overlap(const StDir *dir, const WeightPart *p, int64_t from, int64_t to, float *out)
{
    const StTensor *t = NULL;
    const int64_t first = from > p->offset ? from : p->offset, last = to < p->offset + p->n ? to : p->offset + p->n;
    if (first >= last) return OK;
    TRY(weight_find(dir, p, &t));
    return st_read(t, first - p->offset, last - first, out + (first - from));
}

static Err read_range(const StDir *dir, const WeightPart *part, int64_t parts, int64_t from, int64_t to, float *out)
{
    for (int64_t i = 0; i < parts; i++) TRY(read_overlap(dir, &part[i], from, to, out));
    return OK;
}

static Err pack_matrices(Model *m, const StDir *dir, const WeightPart *part, int64_t parts)
{
    Ctx ctx = {.isa = ISA_BASE, .threads = 1};  // rounding has the same bits at every level
    Strips at = {.m = m};
    Strip s;
    float *rows = NULL;
    int64_t most = 0;
    Err err = OK;
    for (int32_t i = 0; i < m->specs; i++)
        if (m->spec[i].cols > most) most = m->spec[i].cols;
    TRY(MEM_ARRAY(&rows, most * STRIP));
    while (err == OK && next_strip(&at, &s)) {
        const int64_t start = s.spec->offset + s.from * s.spec->cols;
        TRY_DONE(read_range(dir, part, parts, start, start + (s.to - s.from) * s.spec->cols, rows));
        TRY_DONE(pack_strip(&ctx, m, &s, rows));
    }
done:
    mem_free(rows);
    return err;
}

static Err read_vectors(Model *m, const StDir *dir, const WeightPart *part, int64_t parts)
{
    if (m->shared && par_node_rank() != 0) return OK;
    for (int32_t i = 0; i < m->specs; i++) {
        const WeightSpec *s = &m->spec[i];
        if (s->rows == 1) TRY(read_range(dir, part, parts, s->offset, s->offset + s->cols, m->vectors + s->vector));
    }
    return OK;
}

Err weight_pack_parts(Model *m, const StDir *dir)
{
    WeightPart *part = NULL;
    int64_t parts = 0;
    Err err = OK;
    TRY(weight_parts(m, &part, &parts));
    TRY_DONE(pack_matrices(m, dir, part, parts));
    TRY_DONE(read_vectors(m, dir, part, parts));
done:
    mem_free(part);
    return err;
}
