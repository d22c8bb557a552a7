// SPDX-License-Identifier: Apache-2.0
// wgmma: products of a warpgroup, and the registers that its warps pass on (setmaxnreg). PTX ISA, "Asynchronous Warpgroup Level Matrix
// Multiply-Accumulate Instructions".
//
// A product is carried out for all 128 threads at once, when its group is complete or waited for. Each of the four warps counts as reading its operands
// in shared memory until that warp has waited: what one warp has waited for says nothing of the others. Its registers may not be touched until then;
// registers touched since the last wgmma.fence may not be used by the next one.

#include <algorithm>

#include "kernels/hostcuda/block.hpp"

namespace hostcuda {

enum { ROWS = 64, MOST_N = 256 };

// ---- registers --------------------------------------------------------------------------------------------------------

static bool overlaps(const void *p, size_t n, const unsigned char *at, size_t m)
{
    const unsigned char *lo = (const unsigned char *)p;
    return p && at < lo + n && at + m > lo;
}

void check_registers(bool write, const unsigned char *p, size_t n, const void *pc)
{
    Products &q = current->products;
    if (p < q.hi && p + n > q.lo)
        for (const Product &o : q.ops)
            if (overlaps(o.d, (size_t)o.n * 2, p, n) || (write && overlaps(o.a, 16, p, n)))
                defect(pc, "wgmma", "%s of registers of the wgmma at %s, which was not waited for", write ? "write" : "read", source_line(o.pc).c_str());
    if (!write) return;
    const size_t at = (size_t)(p - current->stack);
    for (size_t i = at / GRAIN; i <= (at + n - 1) / GRAIN; i++) q.written[i] = true;
}

static void check_fenced(const void *p, size_t n, const void *pc)
{
    const Products &q = current->products;
    const unsigned char *at = (const unsigned char *)p;
    if (!q.fences) defect(pc, "wgmma", "no wgmma.fence before the first product");
    if (at < current->stack || at + n > current->stack + STACK) defect(pc, "wgmma", "registers of a product are no local array");
    for (size_t i = (size_t)(at - current->stack) / GRAIN; i <= (size_t)(at + n - 1 - current->stack) / GRAIN; i++)
        if (q.written[i]) defect(pc, "wgmma", "no wgmma.fence since registers of this product were written");
}

// ---- operands in shared memory ----------------------------------------------------------------------------------------

// A matrix as its descriptor says, 128-byte swizzle. K-major: 8 rows of 64 values make 1024 bytes, `stride` bytes from one such group to the next;
// turned (MN-major): rows are the depth and hold 64 values of N, `leading` bytes from one 64 to the next, `stride` from 8 rows to the next.
struct Operand {
    uint32_t start, leading, stride;
    bool turned;

    uint32_t at(int row, int k) const  // byte, without swizzle
    {
        if (turned) return start + (uint32_t)row / 64 * leading + (uint32_t)k / 8 * stride + (uint32_t)k % 8 * 128 + (uint32_t)row % 64 * 2;
        return start + (uint32_t)row / 8 * stride + (uint32_t)row % 8 * 128 + (uint32_t)k * 2;
    }
};

static Operand operand_of(uint64_t desc, bool turned, int rows, const void *pc)
{
    const Operand o = {(uint32_t)(desc & 0x3fff) << 4, (uint32_t)(desc >> 16 & 0x3fff) << 4, (uint32_t)(desc >> 32 & 0x3fff) << 4, turned};
    if (desc >> 62 != 1) defect(pc, "descriptor", "layout type %d: 1 (128-byte swizzle) is what hostcuda knows", (int)(desc >> 62));
    if (desc >> 49 & 7 || o.start & 0x380) defect(pc, "descriptor", "start %u is not in the first of 8 rows of 128 bytes", o.start);
    if (o.stride % 1024 || (turned && rows > 64 && o.leading % 1024))
        defect(pc, "descriptor", "strides of %u and %u bytes break groups of 8 rows of 128 bytes", o.leading, o.stride);
    const uint32_t last = o.at(rows - 1, DEPTH - 1) + 2;
    if (last > current->block->shared_bytes) defect(pc, "out of bounds", "operand of wgmma up to byte %u of %zu of shared memory", last, current->block->shared_bytes);
    return o;
}

// Pieces of 16 bytes are swizzled as a whole: eight values along k, or along the rows where the operand is turned.
static void check_operand(const Operand &o, int rows, int agent, uint32_t group, const void *pc)
{
    uint32_t at[MOST_N * DEPTH / 8];
    int pieces = 0;
    for (int r = 0; r < rows; r += o.turned ? 8 : 1)
        for (int k = 0; k < DEPTH; k += o.turned ? 1 : 8) at[pieces++] = (uint32_t)swizzled(o.at(r, k));
    check_pieces(Kind::READ, at, pieces, agent, group, pc);
}

// Rows of 16 values along k; with `across`, the rows of B as columns. A piece of 16 bytes at a time.
static void read_operand(const Block *b, const Operand &o, int rows, float *to, bool across)
{
    for (int r = 0; r < rows; r += o.turned ? 8 : 1)
        for (int k = 0; k < DEPTH; k += o.turned ? 1 : 8) {
            uint32_t piece[4];
            float value[8];
            memcpy(piece, b->shared + swizzled(o.at(r, k)), sizeof piece);
            for (int i = 0; i < 4; i++) unpack_bf16(piece[i], value + i * 2);
            for (int i = 0; i < 8; i++) {
                const int row = o.turned ? r + i : r, depth = o.turned ? k : k + i;
                to[across ? depth * rows + row : row * DEPTH + depth] = value[i];
            }
        }
}

// ---- a product ----------------------------------------------------------------------------------------------------------

// Thread t of a warpgroup holds in register 4 j + i row 16 (t / 32) + t % 32 / 4 + 8 (i / 2), column 8 j + 2 (t % 4) + i % 2.
static int row_of(int t) { return t / WARP * 16 + t % WARP / 4; }
static int column_of(int t) { return t % 4 * 2; }

static void read_a(float a[ROWS][DEPTH], const Block *b, Product *const op[GROUP])
{
    const Product &first = *op[0];
    if (!first.a) return read_operand(b, operand_of(first.desc_a, false, ROWS, first.pc), ROWS, a[0], false);
    for (int t = 0; t < GROUP; t++)  // register i: rows + 8 for odd i, columns + 8 for i >= 2, as in mma.m16n8k16
        for (int i = 0; i < 4; i++) unpack_bf16(op[t]->a[i], &a[row_of(t) + i % 2 * 8][column_of(t) + i / 2 * 8]);
}

// d[ROWS][n] from the threads' registers, or back.
static void move_d(float *d, int n, Product *const op[GROUP], bool back)
{
    for (int t = 0; t < GROUP; t++)
        for (int half = 0; half < 2; half++) {
            float *in_tile = d + (row_of(t) + half * 8) * n + column_of(t), *in_thread = op[t]->d + half * 2;
            for (int j = 0; j < n / 8; j++)
                if (back) memcpy(in_thread + j * 4, in_tile + j * 8, 8);
                else memcpy(in_tile + j * 8, in_thread + j * 4, 8);
        }
}

static void carry_out(const Block *b, Product *const op[GROUP])
{
    alignas(32) static float a[ROWS][DEPTH], bt[DEPTH * MOST_N], d[ROWS * MOST_N];
    const Product &first = *op[0];
    const int n = first.n;
    read_a(a, b, op);
    read_operand(b, operand_of(first.desc_b, first.turn_b, n, first.pc), n, bt, true);
    if (first.accumulate) move_d(d, n, op, false);
    else std::fill(d, d + ROWS * n, 0.0f);
    multiply_64xn(d, a[0], bt, n);
    move_d(d, n, op, true);
}

static void check_same(const Product &x, const Product *at, int thread, const void *pc)
{
    const Product y = at ? *at : Product();
    if (!at || x.n != y.n || !x.a != !y.a || x.desc_a != y.desc_a || x.desc_b != y.desc_b || x.turn_b != y.turn_b || x.accumulate != y.accumulate || x.group != y.group)
        defect(pc, "warp divergence", "threads 0 and %d of a warpgroup issue different products", thread);
}

static Thread *group_of(Thread *t) { return &t->block->threads[t->id / GROUP * GROUP]; }

// Everything up to group `until`, for all threads; in the order of issue.
static void carry_out_until(Thread *group, uint32_t until, const void *pc)
{
    Product *op[GROUP];
    for (size_t i = group->products.before; (op[0] = group->products.at(i)) && op[0]->group <= until; i++) {
        if (op[0]->group <= group->products.done) continue;
        for (int t = 1; t < GROUP; t++) {
            op[t] = group[t].products.at(i);
            check_same(*op[0], op[t], t, pc);
        }
        carry_out(group->block, op);
    }
    for (int t = 0; t < GROUP; t++) group[t].products.done = std::max(group[t].products.done, until);
}

static uint32_t committed(const Thread *group)
{
    uint32_t least = UINT32_MAX;
    for (int t = 0; t < GROUP; t++) least = std::min(least, group[t].products.groups);
    return least;
}

static bool all_committed(const Thread *group, uint32_t until)
{
    return std::all_of(group, group + GROUP, [until](const Thread &t) { return t.products.groups >= until; });
}

static void cover(Products *q, const void *p, size_t n)
{
    const unsigned char *at = (const unsigned char *)p;
    q->lo = q->lo ? std::min(q->lo, at) : at;
    q->hi = std::max(q->hi, at + n);
}

static void forget_waited(Products *q, uint32_t until)
{
    const size_t all = q->ops.size();
    q->ops.erase(std::remove_if(q->ops.begin(), q->ops.end(), [until](const Product &o) { return o.group <= until; }), q->ops.end());
    q->before += all - q->ops.size();
    q->lo = q->hi = nullptr;
    for (const Product &o : q->ops) {
        cover(q, o.d, (size_t)o.n * 2);
        if (o.a) cover(q, o.a, 16);
    }
}

}  // namespace hostcuda

using namespace hostcuda;

#define CALLER __builtin_return_address(0)

uint32_t shared_address(const void *p) { return (uint32_t)((const unsigned char *)p - current->block->shared); }

void wgmma_fence()
{
    Products &q = current->products;
    finish_issued(CALLER);
    q.written.reset();
    q.fences++;
}

void wgmma_issue(float *d, const uint32_t *a, uint64_t desc_a, uint64_t desc_b, int n, bool turn_b, int accumulate)
{
    const void *pc = CALLER;
    Products &q = current->products;
    only_sm90("wgmma", pc);
    const Product o = {d, a, desc_a, desc_b, n, accumulate != 0, turn_b, q.groups + 1, pc};
    if (current->id / GROUP * GROUP + GROUP > (int)current->block->threads.size()) defect(pc, "warp divergence", "wgmma wants a warpgroup of %d threads", GROUP);
    finish_issued(pc);
    check_fenced(d, (size_t)n * 2, pc);
    if (a) check_fenced(a, 16, pc);
    if (lane_of(current) == 0) {
        const int agent = current->block->product_agent(current->id / WARP);
        if (!a) check_operand(operand_of(desc_a, false, ROWS, pc), ROWS, agent, o.group, pc);
        check_operand(operand_of(desc_b, turn_b, n, pc), n, agent, o.group, pc);
    }
    if (current->id % GROUP == 0) counted.wgmmas++;
    q.ops.push_back(o);
    cover(&q, d, (size_t)n * 2);
    if (a) cover(&q, a, 16);
}

void wgmma_commit()
{
    Thread *group = group_of(current);
    current->products.groups++;
    if (order() == Order::LATE || (order() == Order::RANDOM && random_bits() % 2)) return;
    carry_out_until(group, committed(group), CALLER);
}

void wgmma_wait_n(int pending)
{
    Products &q = current->products;
    Thread *group = group_of(current);
    const uint32_t until = q.groups > (uint32_t)pending ? q.groups - (uint32_t)pending : 0;
    meet("wgmma.wait_group", CALLER, ~0u, nullptr, nullptr);
    wait("wgmma.wait_group", CALLER, [group, until] { return group->products.done >= until || all_committed(group, until); });
    carry_out_until(group, until, CALLER);
    forget_waited(&q, until);
    uint32_t &seen = warp_of(current).known.seen[current->block->product_agent(current->id / WARP)];
    seen = std::max(seen, until);
}

void wgmma_hold(const float *x, int n)
{
    if (current->products.fences) check_registers(false, (const unsigned char *)x, (size_t)n * sizeof *x, CALLER);
}

// ---- setmaxnreg -------------------------------------------------------------------------------------------------------

// A warp's first lane gives or takes for all of them.
void change_registers(int n, bool more)
{
    Block *b = current->block;
    only_sm90("setmaxnreg", CALLER);
    int &now = b->registers[current->id / WARP];
    if (n % 8 || n < 24 || n > 256) defect(CALLER, "registers", "setmaxnreg takes a multiple of 8 from 24 to 256, not %d", n);
    if (more ? n < now : n > now) defect(CALLER, "registers", "setmaxnreg.%s to %d: a thread has %d", more ? "inc" : "dec", n, now);
    if (lane_of(current) == 0) {
        wait("setmaxnreg.inc", CALLER, [b, n, &now] { return b->registers_left >= (int64_t)(n - now) * WARP; });
        b->registers_left += (int64_t)(now - n) * WARP;
        now = n;
    }
    meet("setmaxnreg", CALLER, ~0u, nullptr, nullptr);
}
