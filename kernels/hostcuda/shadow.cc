// SPDX-License-Identifier: Apache-2.0
// Every access to memory: bounds, alignment, was it written, does anything order it with those before?
//
// A byte range has a cell: its last write, and the reads since then. 16 bytes that are always touched together share one; where they
// are not, the 16 have cells of 4, 2 or 1 bytes. After FastTrack (Flanagan and Freund, PLDI 2009), with epochs of warps.
#include <link.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "kernels/hostcuda/block.hpp"

namespace hostcuda {

enum { CHUNK = 16 };

struct Cell {
    Access write, read;
    std::unique_ptr<std::vector<Access>> reads;  // further ones, when they do not come one after the other

    Cell() = default;
    Cell(const Cell &o) { *this = o; }
    Cell &operator=(const Cell &o)
    {
        write = o.write, read = o.read;
        reads.reset(o.reads ? new std::vector<Access>(*o.reads) : nullptr);
        return *this;
    }
};

struct Chunk {
    Cell one;                      // width CHUNK
    std::unique_ptr<Cell[]> part;  // CHUNK / width of them
    uint32_t width = CHUNK;

    Cell *cells() { return part ? part.get() : &one; }
    // Cells of `w` bytes or less.
    void refine(uint32_t w)
    {
        if (w >= width) return;
        std::unique_ptr<Cell[]> finer(new Cell[CHUNK / w]);
        for (uint32_t i = 0; i < CHUNK / w; i++) finer[i] = cells()[i * w / width];
        part = std::move(finer);
        width = w;
    }
    void join()  // all were written by one access
    {
        if (!part) return;
        one = part[0];
        part.reset();
        width = CHUNK;
    }
};

struct Shadow {
    std::vector<Chunk> chunk;
};

struct Allocation {
    unsigned char *p;
    size_t n;
    Shadow *shadow;
};

static std::map<const unsigned char *, Allocation> allocations;
static const Allocation *last_found;
static std::vector<Range> allowed;

Shadow *shadow_new(size_t bytes)
{
    Shadow *s = new Shadow;
    s->chunk.resize((bytes + CHUNK - 1) / CHUNK);
    return s;
}

void shadow_free(Shadow *s) { delete s; }
void allow(Range r) { allowed.push_back(r); }
void forget_allowed() { allowed.clear(); }

// ---- order ----------------------------------------------------------------------------------------------------------

Access stamp_of(const Thread *t, const void *pc)
{
    Access a;
    const int w = t->id / WARP;
    a.block = t->block->serial;
    a.agent = (uint16_t)t->block->warp_agent(w);
    a.lane = (uint8_t)lane_of(t);
    a.epoch = t->block->warps[w].known.seen[w];
    a.code = code_of(pc);
    return a;
}

bool comes_after(const Thread *t, const Access &a)
{
    if (a.block < first_serial()) return true;
    const Block *b = t->block;
    const int w = t->id / WARP;
    const Known &k = b->warps[w].known;
    if (a.block != b->serial) {
        const auto far = k.far.find(a.block);
        return far != k.far.end() && a.agent < far->second.size() && far->second[a.agent] >= a.epoch;
    }
    if (a.agent == b->warp_agent(w)) return a.lane == lane_of(t) || a.epoch < k.seen[a.agent];
    if (a.agent == b->copy_agent(w) && a.lane == lane_of(t) && a.epoch <= t->waited) return true;
    return a.agent < k.seen.size() && k.seen[a.agent] >= a.epoch;
}

// Does an asynchronous unit that t starts now see what a wrote?
static bool is_fenced(const Thread *t, const Access &a)
{
    if (a.block != t->block->serial || t->block->is_async(a.agent)) return true;
    const Clock &f = warp_of((Thread *)t).known.fenced;
    return a.agent < f.size() && f[a.agent] >= a.epoch;
}

static const char *name_of(const Access &a, char buf[96])
{
    const Block *b = current->block;
    if (a.block != b->serial) snprintf(buf, 96, "another block's thread");
    else if (a.agent >= b->product_agent((int)b->warps.size())) snprintf(buf, 96, "a bulk copy");
    else if (b->is_async(a.agent)) snprintf(buf, 96, "wgmma of warp %d", a.agent - b->product_agent(0));
    else if (a.agent >= b->warps.size()) snprintf(buf, 96, "the copy (cp.async) of thread %d", (a.agent - (int)b->warps.size()) * WARP + a.lane % WARP);
    else if (a.lane == SEVERAL) snprintf(buf, 96, "several threads of warp %d", a.agent);
    else snprintf(buf, 96, "thread %d", a.agent * WARP + a.lane);
    return buf;
}

// Where an address lies, in words; a little beside something still counts as there.
static const char *where(const void *p, char buf[128])
{
    enum { BESIDE = 1024 };
    const unsigned char *at = (const unsigned char *)p;
    const Block *b = current->block;
    const auto next = allocations.upper_bound(at);
    const Allocation *a = next == allocations.begin() ? nullptr : &std::prev(next)->second;
    if (at + BESIDE >= b->shared && at < b->shared + b->shared_bytes + BESIDE) snprintf(buf, 128, "shared memory + %td", at - b->shared);
    else if (a && at < a->p + a->n + BESIDE) snprintf(buf, 128, "global memory + %td of %zu bytes", at - a->p, a->n);
    else snprintf(buf, 128, "address %p, which is no device memory", p);
    return buf;
}

static void race(Kind kind, const Access &other, bool other_writes, const void *p, const Access &me, const void *pc)
{
    char place_text[128], who[96];
    const bool copy = me.agent >= current->block->warps.size();
    defect(pc, "race", "%s%s of %s, which nothing orders after the %s by %s, %s", copy ? "asynchronous " : "",
           kind == Kind::READ ? "read" : "write", where(p, place_text), other_writes ? "write" : "read", name_of(other, who),
           source_line_of(other).c_str());
}

// ---- cells ----------------------------------------------------------------------------------------------------------

static void add_read(Cell *c, const Access &me)
{
    Access &last = c->read;
    if (last.block == me.block && last.agent == me.agent && last.epoch == me.epoch) {
        if (last.lane != me.lane) last.lane = SEVERAL;
        return;
    }
    if (last.block == NEVER || comes_after(current, last)) {
        last = me;
        return;
    }
    if (!c->reads) c->reads.reset(new std::vector<Access>);
    std::vector<Access> &all = *c->reads;
    if (!all.empty() && all.front().block < first_serial()) all.clear();  // of launches before: ordered
    for (auto r = all.rbegin(); r != all.rend(); ++r) {                   // the last readers read again
        if (r->block != me.block || r->agent != me.agent) continue;
        if (r->epoch == me.epoch && r->lane != me.lane) r->lane = SEVERAL;
        else if (r->epoch != me.epoch) *r = me;
        return;
    }
    all.push_back(me);
}

// An access as it is checked; pc: for the report.
struct Look {
    Kind kind;
    Access me;
    const void *pc;
    bool async = false;  // through the asynchronous proxy
};

static void look(Cell *c, const Look &l, const void *p)
{
    const auto unordered = [&](const Access &a) { return a.block != NEVER && !(a.atomic && l.me.atomic) && !comes_after(current, a); };
    if (unordered(c->write)) race(l.kind, c->write, true, p, l.me, l.pc);
    if (l.kind != Kind::WRITE && c->write.block == NEVER) {
        char buf[128];
        defect(l.pc, "unwritten", "read of %s, which nobody has written", where(p, buf));
    }
    if (l.async && c->write.block != NEVER && !is_fenced(current, c->write)) {
        char buf[128], who[96];
        defect(l.pc, "proxy", "%s of %s by an asynchronous unit: no fence.proxy.async behind the write by %s, %s", l.kind == Kind::READ ? "read" : "write",
               where(p, buf), name_of(c->write, who), source_line_of(c->write).c_str());
    }
    if (l.kind == Kind::READ) {
        add_read(c, l.me);
        return;
    }
    if (unordered(c->read)) race(l.kind, c->read, false, p, l.me, l.pc);
    if (c->reads)
        for (const Access &r : *c->reads)
            if (unordered(r)) race(l.kind, r, false, p, l.me, l.pc);
    c->write = l.me;
    c->read = Access();
    c->reads.reset();
}

// The widest cells whose borders an access of bytes [from, to) respects.
static uint32_t width_of(size_t from, size_t to)
{
    uint32_t w = CHUNK;
    while ((from | to) % w) w = w == CHUNK ? 4 : w / 2;
    return w;
}

// Bytes [from, to) of a chunk.
static void look_chunk(Chunk *k, size_t from, size_t to, const unsigned char *base, const Look &l)
{
    k->refine(width_of(from, to));
    for (size_t at = from; at < to; at += k->width) look(&k->cells()[at / k->width], l, base + at);
    if (from == 0 && to == CHUNK && l.kind == Kind::WRITE) k->join();
}

static void look_range(Shadow *s, const unsigned char *base, size_t at, size_t n, const Look &l)
{
    for (size_t end = at + n; at < end;) {
        const size_t i = at / CHUNK, to = std::min(end, (i + 1) * CHUNK);
        look_chunk(&s->chunk[i], at - i * CHUNK, to - i * CHUNK, base + i * CHUNK, l);
        at = to;
    }
}

// ---- where an address lies --------------------------------------------------------------------------------------------

bool is_shared(const void *p, size_t n)
{
    const Block *b = current->block;
    const unsigned char *at = (const unsigned char *)p;
    return at >= b->shared && at + n <= b->shared + b->shared_bytes;
}

static const Allocation *allocation_of(const void *p, size_t n)
{
    const unsigned char *at = (const unsigned char *)p;
    const Allocation *&last = last_found;
    if (last && at >= last->p && at + n <= last->p + last->n) return last;
    auto next = allocations.upper_bound(at);
    if (next == allocations.begin()) return nullptr;
    const Allocation *a = &std::prev(next)->second;
    if (at + n > a->p + a->n) return nullptr;
    return last = a;
}

static int add_constants(struct dl_phdr_info *info, size_t, void *out)
{
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const auto &h = info->dlpi_phdr[i];
        if (h.p_type == PT_LOAD && !(h.p_flags & PF_W))
            ((std::vector<Range> *)out)->push_back({(void *)(info->dlpi_addr + h.p_vaddr), h.p_memsz});
    }
    return 0;
}

// Arguments, and tables that the program cannot write to.
static bool is_allowed(Kind kind, const void *p, size_t n)
{
    static std::vector<Range> constants;
    if (kind != Kind::READ) return false;
    if (constants.empty()) dl_iterate_phdr(add_constants, &constants);
    const auto holds = [&](const Range &r) { return p >= r.p && (const char *)p + n <= (const char *)r.p + r.n; };
    return std::any_of(allowed.begin(), allowed.end(), holds) || std::any_of(constants.begin(), constants.end(), holds);
}

static void touch(const void *p, size_t n, const Look &l)
{
    char buf[128];
    const Block *b = current->block;
    const unsigned char *at = (const unsigned char *)p;
    if (is_shared(p, n)) return look_range(b->shadow, b->shared, (size_t)(at - b->shared), n, l);
    if (const Allocation *a = allocation_of(p, n)) return look_range(a->shadow, a->p, (size_t)(at - a->p), n, l);
    if (is_allowed(l.kind, p, n)) return;
    defect(l.pc, "out of bounds", "%s of %zu bytes at %s; the block has %zu bytes of shared memory",
           l.kind == Kind::READ ? "read" : "write", n, where(p, buf), b->shared_bytes);
}

void check(Kind kind, const void *p, size_t n, const void *pc)
{
    const unsigned char *at = (const unsigned char *)p;
    if (at >= current->stack && at < current->stack + STACK) {
        if (at < current->issued.hi && at + n > current->issued.lo) finish_issued(pc);
        if (current->products.fences) check_registers(kind != Kind::READ, at, n, pc);
        return;
    }
    if (counting && kind != Kind::ATOMIC) count_access(p, n, pc);
    Look l = {kind, stamp_of(current, pc), pc};
    l.me.atomic = kind == Kind::ATOMIC;
    touch(p, n, l);
}

void check_copy(const Copy &c, const void *pc)
{
    Look l = {Kind::READ, stamp_of(current, pc), pc};
    l.me.agent = (uint16_t)current->block->copy_agent(current->id / WARP);
    l.me.epoch = c.group;
    if (counting && c.from) count_access(c.from, c.n, pc);
    if (counting) count_access(c.to, c.n, pc);
    if (c.from) touch(c.from, c.n, l);
    l.kind = Kind::WRITE;
    touch(c.to, c.n, l);
}

void check_async(Kind kind, const void *p, size_t n, int agent, uint32_t epoch, const void *pc)
{
    Look l = {kind, stamp_of(current, pc), pc, true};
    l.me.agent = (uint16_t)agent;
    l.me.epoch = epoch;
    touch(p, n, l);
}

// ---- global memory ----------------------------------------------------------------------------------------------------

void *device_alloc(size_t bytes)
{
    void *p = nullptr;
    if (posix_memalign(&p, 256, bytes ? bytes : 1)) return nullptr;
    memset(p, 0xff, bytes);
    allocations[(unsigned char *)p] = {(unsigned char *)p, bytes, shadow_new(bytes)};
    return p;
}

void device_free(void *p)
{
    auto a = allocations.find((unsigned char *)p);
    if (a == allocations.end()) return;
    last_found = nullptr;
    shadow_free(a->second.shadow);
    allocations.erase(a);
    free(p);
}

// The host wrote it, before everything that a kernel does.
static bool mark_written(void *to, size_t bytes)
{
    const Allocation *a = allocation_of(to, bytes);
    if (!a) return false;
    Cell host;
    host.write.block = HOST;
    for (size_t at = (size_t)((unsigned char *)to - a->p), end = at + bytes; at < end;) {
        const size_t i = at / CHUNK, next = std::min(end, (i + 1) * CHUNK);
        Chunk *k = &a->shadow->chunk[i];
        k->refine(width_of(at - i * CHUNK, next - i * CHUNK));
        for (; at < next; at += k->width) k->cells()[(at - i * CHUNK) / k->width] = host;
        if (next - i * CHUNK == CHUNK && bytes >= CHUNK && k->part && to <= a->p + i * CHUNK) k->join();
    }
    return true;
}

bool device_holds(const void *p, size_t bytes) { return allocation_of(p, bytes) != nullptr; }
bool device_written(const void *p, size_t bytes) { return mark_written((void *)p, bytes); }

bool device_write(void *to, const void *from, size_t bytes)
{
    if (!mark_written(to, bytes)) return false;
    memcpy(to, from, bytes);
    return true;
}

bool device_copy(void *to, const void *from, size_t bytes)
{
    return allocation_of(from, bytes) && device_write(to, from, bytes);
}

bool device_set(void *to, int value, size_t bytes)
{
    if (!mark_written(to, bytes)) return false;
    memset(to, value, bytes);
    return true;
}

bool device_read(void *to, const void *from, size_t bytes)
{
    if (!allocation_of(from, bytes)) return false;
    memcpy(to, from, bytes);
    return true;
}

}  // namespace hostcuda

// ---- what -fsanitize=thread calls -------------------------------------------------------------------------------------

using namespace hostcuda;

#define CALLER __builtin_return_address(0)

static void hook(Kind kind, const void *p, size_t n, bool aligned, const void *pc)
{
    if (!current) return;
    if (aligned && (uintptr_t)p % n) defect(pc, "misaligned", "access of %zu bytes at %p", n, p);
    check(kind, p, n, pc);
}

template <typename V, typename T> static V load(const T *p, const void *pc)
{
    V v;
    hook(Kind::READ, p, sizeof v, true, pc);
    memcpy(&v, p, sizeof v);
    return v;
}

template <typename V, typename T> static void store(T *p, V v, const void *pc)
{
    hook(Kind::WRITE, p, sizeof v, true, pc);
    memcpy(p, &v, sizeof v);
}

float4 ld_v4(const float *p) { return load<float4>(p, CALLER); }
void st_v4(float *p, float4 v) { store(p, v, CALLER); }
uint4 ld_u4(const uint16_t *p) { return load<uint4>(p, CALLER); }
void st_u4(uint16_t *p, uint4 v) { store(p, v, CALLER); }

extern "C" {
#define HOOKS(n)                                                                                  \
    void __tsan_read##n(void *p) { hook(Kind::READ, p, n, true, CALLER); }                        \
    void __tsan_write##n(void *p) { hook(Kind::WRITE, p, n, true, CALLER); }                      \
    void __tsan_unaligned_read##n(void *p) { hook(Kind::READ, p, n, false, CALLER); }             \
    void __tsan_unaligned_write##n(void *p) { hook(Kind::WRITE, p, n, false, CALLER); }
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
void __tsan_read_range(void *p, size_t n) { hook(Kind::READ, p, n, false, CALLER); }
void __tsan_write_range(void *p, size_t n) { hook(Kind::WRITE, p, n, false, CALLER); }
void __tsan_init() {}
long __tsan_atomic64_fetch_add(volatile long *p, long v, int)  // gcov counts with it; kernels have ptx.cuh
{
    const long old = *p;
    *p = old + v;
    return old;
}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void *, void *) {}
void __tsan_vptr_read(void *) {}
}
