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

// Accesses in memory that grows and is kept.
struct Readers {
    Access *at = nullptr;
    uint32_t n = 0, room = 0;

    ~Readers() { free(at); }
    Access *begin() const { return at; }
    Access *end() const { return at + n; }
    void clear() { n = 0; }
    Access *last_of(const Access &who) const  // the same agent's; NULL: none
    {
        for (uint32_t i = n; i-- > 0;)
            if (at[i].agent == who.agent && at[i].block == who.block) return at + i;
        return nullptr;
    }
    Access *add(const Access &a)
    {
        if (n == room) {
            room = room ? room * 2 : 4;
            at = (Access *)realloc((void *)at, room * sizeof *at);
            if (!at) abort();
        }
        at[n] = a;
        return at + n++;
    }
};

struct Cell {
    Access write, read;
    Readers reads;  // further ones, when they do not come one after the other

    Cell() = default;
    Cell(const Cell &o) { *this = o; }
    Cell &operator=(const Cell &o)
    {
        if (this == &o) return *this;
        write = o.write, read = o.read;
        reads.clear();
        for (const Access &a : o.reads) reads.add(a);
        return *this;
    }
    void forget_reads()
    {
        read = Access();
        reads.clear();
    }
};

struct alignas(64) Chunk {
    Cell one;                      // width CHUNK
    std::unique_ptr<Cell[]> part;  // CHUNK / width of them, where it is less; kept
    uint16_t width = CHUNK, finest = CHUNK;  // finest: part has cells for it

    Cell *cells() { return width < CHUNK ? part.get() : &one; }
    // Cells of `w` bytes or less.
    void refine(uint32_t w)
    {
        if (w >= width) return;
        std::unique_ptr<Cell[]> finer;
        if (w < finest) finer.reset(new Cell[CHUNK / w]);
        Cell *to = finer ? finer.get() : part.get();
        for (uint32_t i = CHUNK / w; i-- > 0;) to[i] = cells()[i * w / width];
        if (finer) part = std::move(finer), finest = (uint16_t)w;
        width = (uint16_t)w;
    }
    void join()  // all were written by one access
    {
        if (width == CHUNK) return;
        one = part[0];
        width = CHUNK;
    }
    void forget()
    {
        one.write = Access();
        one.forget_reads();
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
static std::vector<Range> allowed;  // of the host: kernels' arguments

// Some that nobody has now, for the next block: fresh but for memory that they keep.
static std::vector<Shadow *> spare;
enum { MOST_SPARE = 8, SWIZZLED_BYTES = 1024 };

Shadow *shadow_new(size_t bytes)
{
    const size_t chunks = (bytes + SWIZZLED_BYTES - 1) / SWIZZLED_BYTES * (SWIZZLED_BYTES / CHUNK);
    const auto found = std::find_if(spare.begin(), spare.end(), [chunks](const Shadow *s) { return s->chunk.size() == chunks; });
    if (found == spare.end()) return new Shadow{std::vector<Chunk>(chunks)};
    Shadow *s = *found;
    spare.erase(found);
    for (Chunk &k : s->chunk) k.forget();
    return s;
}

void shadow_free(Shadow *s)
{
    spare.push_back(s);
    if (spare.size() <= MOST_SPARE) return;
    delete spare.front();
    spare.erase(spare.begin());
}

void allow(Range r) { allowed.push_back(r); }
void forget_allowed() { allowed.clear(); }

// ---- order ----------------------------------------------------------------------------------------------------------

namespace {

// An access as it is checked, with what the running thread knows at hand.
struct Look {
    Kind kind;
    bool async = false;  // through the asynchronous proxy
    uint8_t lane;
    uint16_t own, copies, units;  // agents: the thread's warp, its copies, the first of the asynchronous proxy's
    uint32_t waited;       // of its own copies
    const Block *block;
    const Known *known;
    const void *pc;  // for the report
    Access me;

    Look(Kind kind_, const Thread *t, const void *pc_) : kind(kind_), block(t->block), pc(pc_)
    {
        const unsigned w = (unsigned)t->id / WARP;
        lane = (uint8_t)lane_of(t);
        own = (uint16_t)block->warp_agent((int)w), copies = (uint16_t)block->copy_agent((int)w);
        units = (uint16_t)block->product_agent(0);
        waited = t->waited;
        known = &block->warps[w].known;
        me.block = block->serial, me.epoch = known->seen[own], me.code = code_of(pc);
        me.agent = own, me.lane = lane, me.atomic = kind == Kind::ATOMIC;
    }

    bool has_seen(const Access &a) const
    {
        if (a.block < first_serial) return true;
        if (a.block != block->serial) return has_seen_far(a);
        const Clock &seen = known->seen;
        if (a.agent == own) return a.lane == lane || a.epoch < seen[own];
        if (a.agent < seen.size() && seen[a.agent] >= a.epoch) return true;
        return a.agent == copies && a.lane == lane && a.epoch <= waited;
    }
    bool has_seen_far(const Access &a) const
    {
        const auto far = known->far.find(a.block);
        return far != known->far.end() && a.agent < far->second.size() && far->second[a.agent] >= a.epoch;
    }
    // Does an asynchronous unit that the thread starts now see what a wrote?
    bool is_fenced(const Access &a) const
    {
        if (a.block != block->serial || a.agent >= units) return true;
        return a.agent < known->fenced.size() && known->fenced[a.agent] >= a.epoch;
    }
    bool is_mine(const Access &a) const { return a.block == me.block && a.agent == me.agent && a.epoch == me.epoch; }
};

}  // namespace

Access stamp_of(const Thread *t, const void *pc) { return Look(Kind::READ, t, pc).me; }
bool comes_after(const Thread *t, const Access &a) { return Look(Kind::READ, t, nullptr).has_seen(a); }

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

// The warp that read last is found first: its other lanes come next.
static void add_read(Cell *c, const Look &l)
{
    Access &last = c->read;
    Readers &all = c->reads;
    if (!l.is_mine(last) && !l.has_seen(last)) {
        if (all.n && all.at->block < first_serial) all.clear();  // of launches before: ordered
        Access *mine = all.last_of(l.me);
        std::swap(mine ? *mine : *all.add(l.me), last);
    }
    if (!l.is_mine(last)) last = l.me;
    else if (last.lane != l.me.lane) last.lane = SEVERAL;
}

[[noreturn]] static void unwritten(const Look &l, const void *p)
{
    char buf[128];
    defect(l.pc, "unwritten", "read of %s, which nobody has written", where(p, buf));
}

[[noreturn]] static void unfenced(const Cell &c, const Look &l, const void *p)
{
    char buf[128], who[96];
    defect(l.pc, "proxy", "%s of %s by an asynchronous unit: no fence.proxy.async behind the write by %s, %s", l.kind == Kind::READ ? "read" : "write",
           where(p, buf), name_of(c.write, who), source_line_of(c.write).c_str());
}

static void look(Cell *c, const Look &l, const void *p)
{
    const auto unordered = [&l](const Access &a) { return !l.has_seen(a) && !(a.atomic && l.me.atomic); };
    // Who reads again has been looked at: a write in between would have forgotten the read. Several lanes: any lane may.
    if (l.kind == Kind::READ && l.is_mine(c->read) && (c->read.lane == l.me.lane || c->read.lane == SEVERAL)) return;
    if (unordered(c->write)) race(l.kind, c->write, true, p, l.me, l.pc);
    if (l.kind != Kind::WRITE && c->write.block == NEVER) unwritten(l, p);
    if (l.async && c->write.block != NEVER && !l.is_fenced(c->write)) unfenced(*c, l, p);
    if (l.kind == Kind::READ) return add_read(c, l);
    if (unordered(c->read)) race(l.kind, c->read, false, p, l.me, l.pc);
    for (const Access &r : c->reads)
        if (unordered(r)) race(l.kind, r, false, p, l.me, l.pc);
    c->write = l.me;
    c->forget_reads();
}

// The widest cells whose borders an access of bytes [from, to) respects.
static uint32_t width_of(size_t from, size_t to)
{
    const size_t borders = from | to;
    return borders % CHUNK == 0 ? (uint32_t)CHUNK : borders % 4 == 0 ? 4 : borders % 2 == 0 ? 2 : 1;
}

// Bytes [from, to) of a chunk.
static void look_chunk(Chunk *k, size_t from, size_t to, const unsigned char *base, const Look &l)
{
    k->refine(width_of(from, to));
    if (k->width == CHUNK) return look(&k->one, l, base);
    Cell *c = &k->part[from / k->width];
    for (size_t at = from; at < to; at += k->width) look(c++, l, base + at);
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

static bool lies_in(const std::vector<Range> &ranges, const void *p, size_t n)
{
    return std::any_of(ranges.begin(), ranges.end(), [&](const Range &r) { return p >= r.p && (const char *)p + n <= (const char *)r.p + r.n; });
}

// Tables that the program cannot write to.
static bool is_constant(const void *p, size_t n)
{
    static std::vector<Range> constants;
    if (constants.empty()) dl_iterate_phdr(add_constants, &constants);
    return lies_in(constants, p, n);
}

static void touch(const void *p, size_t n, const Look &l)
{
    char buf[128];
    const Block *b = current->block;
    const unsigned char *at = (const unsigned char *)p;
    if (is_shared(p, n)) return look_range(b->shadow, b->shared, (size_t)(at - b->shared), n, l);
    if (l.kind == Kind::READ && lies_in(allowed, p, n)) return;  // arguments
    if (const Allocation *a = allocation_of(p, n)) return look_range(a->shadow, a->p, (size_t)(at - a->p), n, l);
    if (l.kind == Kind::READ && is_constant(p, n)) return;
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
    touch(p, n, Look(kind, current, pc));
}

void check_copy(const Copy &c, const void *pc)
{
    Look l(Kind::READ, current, pc);
    l.me.agent = l.copies;
    l.me.epoch = c.group;
    if (counting && c.from) count_access(c.from, c.n, pc);
    if (counting) count_access(c.to, c.n, pc);
    if (c.from) touch(c.from, c.n, l);
    l.kind = Kind::WRITE;
    touch(c.to, c.n, l);
}

static Look look_of_unit(Kind kind, int agent, uint32_t epoch, const void *pc)
{
    Look l(kind, current, pc);
    l.async = true;
    l.me.agent = (uint16_t)agent;
    l.me.epoch = epoch;
    return l;
}

void check_async(Kind kind, const void *p, size_t n, int agent, uint32_t epoch, const void *pc) { touch(p, n, look_of_unit(kind, agent, epoch, pc)); }

void check_pieces(Kind kind, const uint32_t *at, int pieces, int agent, uint32_t epoch, const void *pc)
{
    enum { AHEAD = 8 };
    const Look l = look_of_unit(kind, agent, epoch, pc);
    const Block *b = current->block;
    const std::vector<Chunk> &chunk = b->shadow->chunk;
    for (int i = 0; i < pieces; i++) {
        if (i + 2 * AHEAD < pieces) __builtin_prefetch(&chunk[at[i + 2 * AHEAD] / CHUNK]);
        if (i + AHEAD < pieces) __builtin_prefetch(chunk[at[i + AHEAD] / CHUNK].one.reads.at);
        touch(b->shared + at[i], 16, l);
    }
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
