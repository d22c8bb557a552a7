// SPDX-License-Identifier: Apache-2.0
// ldmatrix and mma.sync, warp-wide. Fragment layouts: PTX ISA, "Matrix Fragments for mma.m16n8k16" and "ldmatrix".
//
// A lane only notes what it issues. The hooks see every access to a register that a noted instruction reads or writes; then, and before
// the lane meets others, its warp carries out all that its lanes have noted, in one go: a change of fibers for each would take
// ten times as long.
#include <algorithm>

#include "kernels/hostcuda/block.hpp"

namespace hostcuda {

static void note(WarpOp op, size_t out_bytes, size_t a_bytes, size_t b_bytes)
{
    Issued *q = &current->issued;
    const auto cover = [q](const void *p, size_t n) {
        const unsigned char *at = (const unsigned char *)p;
        if (!n) return;
        q->lo = q->lo ? std::min(q->lo, at) : at;
        q->hi = std::max(q->hi, at + n);
    };
    cover(op.out, out_bytes), cover(op.a, a_bytes), cover(op.b, b_bytes);
    q->ops.push_back(op);
}

// ---- one instruction of a warp ----------------------------------------------------------------------------------------

Counts counted;

// Eight rows of 16 bytes come in one pass where no two lie in the same four banks.
static void count_conflicts(const WarpOp *const row[8])
{
    int passes = 1, banks = 0;
    for (int i = 0; i < 8; i++) banks |= 1 << (uintptr_t)row[i]->a / 16 % 8;
    if (banks == 0xff) return;
    for (int i = 0; i < 8; i++) {
        int same = 1;
        for (int j = 0; j < i; j++)
            same += row[i]->a != row[j]->a && ((uintptr_t)row[i]->a / 16 ^ (uintptr_t)row[j]->a / 16) % 8 == 0;
        passes = std::max(passes, same);
    }
    counted.conflicts += (uint64_t)passes - 1;
}

// Lane l gets of each matrix row l / 4, columns 2 (l % 4) and the next; transposed: of each column.
static void do_load(const WarpOp *const lane[WARP], bool trans)
{
    counted.loads++;
    for (int m = 0; m < 4; m++) count_conflicts(lane + m * 8);
    for (int m = 0; m < 4; m++) {
        uint16_t v[8][8];
        for (int r = 0; r < 8; r++) memcpy(v[r], lane[m * 8 + r]->a, sizeof v[r]);
        for (int l = 0; l < WARP; l++) {
            const int i = l / 4, j = l % 4 * 2;
            ((uint32_t *)lane[l]->out)[m] = trans ? v[j][i] | (uint32_t)v[j + 1][i] << 16 : v[i][j] | (uint32_t)v[i][j + 1] << 16;
        }
    }
}

static uint32_t to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    if (f != f) return 0x7fff;
    return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}

// Register i of a fragment of A: rows + 8 for odd i, columns + 8 for i >= 2; of B: rows (k) + 8 for i = 1.
static void do_product(const WarpOp *const lane[WARP])
{
    alignas(32) float a[16][DEPTH], b[DEPTH][8], d[16][8];
    for (int l = 0; l < WARP; l++) {
        const uint32_t *la = (const uint32_t *)lane[l]->a, *lb = (const uint32_t *)lane[l]->b;
        const float *ld = (const float *)lane[l]->out;
        const int row = l / 4, column = l % 4 * 2;
        for (int i = 0; i < 4; i++) unpack_bf16(la[i], &a[row + i % 2 * 8][column + i / 2 * 8]);
        for (int i = 0; i < 2; i++) {
            float pair[2];
            unpack_bf16(lb[i], pair);
            b[column + i * 8][row] = pair[0], b[column + i * 8 + 1][row] = pair[1];
            memcpy(&d[row + i * 8][column], ld + i * 2, 8);
        }
    }
    multiply_16x8(d[0], a[0], b[0]);
    for (int l = 0; l < WARP; l++)
        for (int i = 0; i < 2; i++) memcpy((float *)lane[l]->out + i * 2, &d[l / 4 + i * 8][l % 4 * 2], 8);
}

static const char *name_of(WarpOp::Kind k)
{
    return k == WarpOp::LOAD ? "ldmatrix" : k == WarpOp::LOAD_TRANS ? "ldmatrix.trans" : "mma";
}

static void carry_out(const WarpOp *const lane[WARP], const void *pc)
{
    const WarpOp::Kind kind = lane[0]->kind;
    for (int l = 1; l < WARP; l++)
        if (lane[l]->kind != kind)
            defect(pc, "warp divergence", "lane 0 issues %s and lane %d %s", name_of(kind), l, name_of(lane[l]->kind));
    if (kind == WarpOp::PRODUCT) do_product(lane);
    else do_load(lane, kind == WarpOp::LOAD_TRANS);
}

// ---- all that a warp's lanes have issued ------------------------------------------------------------------------------

static void remove_done(Issued *q, size_t n)
{
    q->ops.erase(q->ops.begin(), q->ops.begin() + (long)n);
    q->before += n;
    if (q->ops.empty()) q->lo = q->hi = nullptr;
}

// What every lane has issued by now.
static void advance(Block *b, int w, const void *pc)
{
    Thread *lane = &b->threads[w * WARP];
    if ((w + 1) * WARP > (int)b->threads.size()) defect(pc, "warp divergence", "a warp of fewer than %d threads issues mma or ldmatrix", WARP);
    uint64_t until = UINT64_MAX;
    for (int l = 0; l < WARP; l++) until = std::min(until, lane[l].issued.before + lane[l].issued.ops.size());
    const uint64_t from = lane[0].issued.before;
    const WarpOp *op[WARP];
    for (int l = 0; l < WARP; l++) op[l] = lane[l].issued.ops.data();
    for (uint64_t i = from; i < until; i++) {
        carry_out(op, pc);
        for (const WarpOp *&o : op) o++;
    }
    if (until > from)
        for (int l = 0; l < WARP; l++) remove_done(&lane[l].issued, until - from);
}

Counts take_counts() { return std::exchange(counted, Counts()); }

void finish_issued(const void *pc)
{
    Thread *t = current;
    if (t->issued.ops.empty()) return;
    advance(t->block, t->id / WARP, pc);
    wait("mma or ldmatrix", pc, [t] { return t->issued.ops.empty(); });
}

}  // namespace hostcuda

using namespace hostcuda;

#define CALLER __builtin_return_address(0)

static void load(uint32_t *out, const void *row, bool trans, const void *pc)
{
    if ((uintptr_t)row % 16) defect(pc, "misaligned", "ldmatrix reads rows of 16 bytes, not at %p", row);
    if (!is_shared(row, 16)) defect(pc, "out of bounds", "ldmatrix reads shared memory only");
    check(Kind::READ, row, 16, pc);
    if (current->products.fences) check_registers(true, (const unsigned char *)out, 16, pc);
    note({trans ? WarpOp::LOAD_TRANS : WarpOp::LOAD, out, row, nullptr}, 16, 0, 0);
}

void ldmatrix_x4(uint32_t (&out)[4], const void *row) { load(out, row, false, CALLER); }
void ldmatrix_x4_trans(uint32_t (&out)[4], const void *row) { load(out, row, true, CALLER); }
void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t *b) { note({WarpOp::PRODUCT, d, a, b}, 16, 16, 8); }
uint32_t pack_bf16(float low, float high) { return to_bf16(low) | to_bf16(high) << 16; }

__extension__ typedef _Float16 Half;

uint32_t pack_f16(float low, float high)
{
    const Half h[2] = {(Half)low, (Half)high};  // to nearest, ties to even
    uint32_t v;
    memcpy(&v, h, 4);
    return v;
}
static float half_of(uint32_t v, int i)
{
    Half h[2];
    memcpy(h, &v, 4);
    return (float)h[i];
}
float low_f16(uint32_t v) { return half_of(v, 0); }
float high_f16(uint32_t v) { return half_of(v, 1); }
