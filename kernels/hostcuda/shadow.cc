// SPDX-License-Identifier: Apache-2.0
// Every access to memory: bounds, alignment, was it written, does anything order it with those before?
//
// A byte range has a cell: its last write, and the reads since then. Cells are 2 bytes wide (bf16), but 16 bytes that are
// always touched together share one. After FastTrack (Flanagan and Freund, PLDI 2009), with epochs of warps.
#include <link.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "block.hpp"

namespace hostcuda {

enum { CHUNK = 16, CELL = 2, CELLS = CHUNK / CELL };

struct Cell {
    Access write, read;
    std::vector<Access> reads;  // when they do not come one after the other
};

struct Chunk {
    Cell one;
    std::unique_ptr<Cell[]> part;  // CELLS of them, when parts were touched
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
    a.pc = pc;
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
    return k.seen[a.agent] >= a.epoch;
}

static const char *name_of(const Access &a, char buf[96])
{
    const Block *b = current->block;
    if (a.block != b->serial) snprintf(buf, 96, "another block's thread");
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

static void race(Kind kind, const Access &other, bool other_writes, const void *p, const Access &me)
{
    char place_text[128], who[96];
    const bool copy = me.agent >= current->block->warps.size();
    defect(me.pc, "race", "%s%s of %s, which nothing orders after the %s by %s, %s", copy ? "copy's " : "",
           kind == Kind::READ ? "read" : "write", where(p, place_text), other_writes ? "write" : "read", name_of(other, who),
           source_line(other.pc).c_str());
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
    for (Access &r : c->reads)
        if (r.block == me.block && r.agent == me.agent) {
            if (r.epoch == me.epoch && r.lane != me.lane) r.lane = SEVERAL;
            else if (r.epoch != me.epoch) r = me;
            return;
        }
    c->reads.push_back(me);
}

static void look(Cell *c, Kind kind, const void *p, const Access &me)
{
    const auto unordered = [&](const Access &a) { return a.block != NEVER && !(a.atomic && me.atomic) && !comes_after(current, a); };
    if (unordered(c->write)) race(kind, c->write, true, p, me);
    if (kind != Kind::WRITE && c->write.block == NEVER) {
        char buf[128];
        defect(me.pc, "unwritten", "read of %s, which nobody has written", where(p, buf));
    }
    if (kind == Kind::READ) {
        add_read(c, me);
        return;
    }
    if (unordered(c->read)) race(kind, c->read, false, p, me);
    for (const Access &r : c->reads)
        if (unordered(r)) race(kind, r, false, p, me);
    c->write = me;
    c->read = Access();
    c->reads.clear();
}

// Bytes [from, to) of a chunk.
static void look_chunk(Chunk *k, Kind kind, size_t from, size_t to, const unsigned char *base, const Access &me)
{
    const bool whole = from == 0 && to == CHUNK;
    if (whole && !k->part) {
        look(&k->one, kind, base, me);
        return;
    }
    if (!k->part) {
        k->part.reset(new Cell[CELLS]);
        for (int i = 0; i < CELLS; i++) k->part[i] = k->one;
    }
    for (size_t i = from / CELL; i <= (to - 1) / CELL; i++) look(&k->part[i], kind, base + i * CELL, me);
    if (!whole || kind != Kind::WRITE) return;
    k->one = k->part[0];
    k->part.reset();
}

static void look_range(Shadow *s, const unsigned char *base, size_t at, size_t n, Kind kind, const Access &me)
{
    for (size_t end = at + n; at < end;) {
        const size_t i = at / CHUNK, to = std::min(end, (i + 1) * CHUNK);
        look_chunk(&s->chunk[i], kind, at - i * CHUNK, to - i * CHUNK, base + i * CHUNK, me);
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

static void touch(Kind kind, const void *p, size_t n, const Access &me)
{
    char buf[128];
    const Block *b = current->block;
    if (is_shared(p, n)) return look_range(b->shadow, b->shared, (size_t)((const unsigned char *)p - b->shared), n, kind, me);
    if (const Allocation *a = allocation_of(p, n)) return look_range(a->shadow, a->p, (size_t)((const unsigned char *)p - a->p), n, kind, me);
    if (is_allowed(kind, p, n)) return;
    defect(me.pc, "out of bounds", "%s of %zu bytes at %s; the block has %zu bytes of shared memory",
           kind == Kind::READ ? "read" : "write", n, where(p, buf), b->shared_bytes);
}

void check(Kind kind, const void *p, size_t n, const void *pc)
{
    const unsigned char *at = (const unsigned char *)p;
    if (at >= current->stack && at < current->stack + STACK) return;
    Access me = stamp_of(current, pc);
    me.atomic = kind == Kind::ATOMIC;
    touch(kind, p, n, me);
}

void check_copy(const void *to, const void *from, uint32_t group, const void *pc)
{
    Access me = stamp_of(current, pc);
    me.agent = (uint16_t)current->block->copy_agent(current->id / WARP);
    me.epoch = group;
    if (from) touch(Kind::READ, from, CHUNK, me);
    touch(Kind::WRITE, to, CHUNK, me);
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

static bool mark_written(void *to, size_t bytes)
{
    const Allocation *a = allocation_of(to, bytes);
    if (!a) return false;
    Access host;
    host.block = HOST;
    for (size_t at = (size_t)((unsigned char *)to - a->p), end = at + bytes; at < end;) {
        Chunk *k = &a->shadow->chunk[at / CHUNK];
        const size_t next = std::min(end, (at / CHUNK + 1) * CHUNK);
        if (next - at == CHUNK) {
            k->part.reset();
            k->one.write = host;
        } else {
            if (!k->part) {
                k->part.reset(new Cell[CELLS]);
                for (int i = 0; i < CELLS; i++) k->part[i] = k->one;
            }
            for (size_t i = at % CHUNK / CELL; i <= (next - 1) % CHUNK / CELL; i++) k->part[i].write = host;
        }
        at = next;
    }
    return true;
}

bool device_write(void *to, const void *from, size_t bytes)
{
    if (!mark_written(to, bytes)) return false;
    memcpy(to, from, bytes);
    return true;
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
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void *, void *) {}
void __tsan_vptr_read(void *) {}
}
