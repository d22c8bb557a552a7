// SPDX-License-Identifier: Apache-2.0
// Launches: fibers, the order in which warps run, and the places where threads meet.
#include "kernels/hostcuda/block.hpp"

#include <alloca.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace hostcuda {

Place place;
Thread *current;

enum { ALIVE = 4, SHARED_MOST = 227 * 1024, THREADS_MOST = 1024, REGISTERS = 65536, REGISTERS_MOST = 255 };

static struct {
    Order order = Order::RANDOM;
    uint64_t seed = 1, state = 1, between = 1;
    uint32_t serial = FIRST_BLOCK;  // of the next block
} g;
uint32_t first_serial = FIRST_BLOCK;

void set_order(Order o, uint64_t seed) { g.order = o, g.seed = seed, g.between = seed; }
Order order() { return g.order; }

// SplitMix64.
static uint32_t next_bits(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) >> 32);
}

uint32_t random_bits() { return next_bits(&g.state); }
uint32_t stream_bits() { return next_bits(&g.between); }

// ---- clocks ---------------------------------------------------------------------------------------------------------

static void join_clock(Clock *to, const Clock &from)
{
    if (to->size() < from.size()) to->resize(from.size());
    for (size_t i = 0; i < from.size(); i++) (*to)[i] = std::max((*to)[i], from[i]);
}

void Known::join(const Known &o)
{
    join_clock(&seen, o.seen);
    join_clock(&fenced, o.fenced);
    for (const auto &[block, clock] : o.far) join_clock(&far[block], clock);
}

// A warp's copies are known to others up to the first group that some lane still waits for.
static void settle_copies(Thread *t)
{
    Block *b = t->block;
    const int w = t->id / WARP;
    uint32_t landed = UINT32_MAX, most = 0;
    for (int lane = 0; lane < WARP; lane++) {
        const int i = w * WARP + lane;
        if (i >= (int)b->threads.size()) break;
        const Thread &each = b->threads[i];
        most = std::max(most, each.waited);
        for (const Copy &c : each.flying)
            if (c.group > each.waited) landed = std::min(landed, c.group - 1);
    }
    uint32_t *seen = &b->warps[w].known.seen[b->copy_agent(w)];
    *seen = std::max(*seen, std::min(landed, most));
}

static void end_epoch(Thread *t) { warp_of(t).known.seen[t->id / WARP]++; }

void publish(Known *to)
{
    settle_copies(current);
    to->join(warp_of(current).known);
    end_epoch(current);
}

void fence_known()
{
    Known &k = warp_of(current).known;
    join_clock(&k.fenced, k.seen);
    end_epoch(current);
}

void learn(const Known &from)
{
    Warp &w = warp_of(current);
    const uint32_t own = w.known.seen[current->id / WARP];
    w.known.join(from);
    w.known.seen[current->id / WARP] = own;
}

// ---- fibers ---------------------------------------------------------------------------------------------------------

// Stacks are kept for the next block: a kernel has a thousand of them.
static std::vector<unsigned char *> free_stacks;

struct Stacks {
    unsigned char *memory;
    boost::context::stack_context allocate()
    {
        boost::context::stack_context s;
        s.size = STACK;
        s.sp = memory + STACK;
        return s;
    }
    void deallocate(boost::context::stack_context &) {}
};

// Equal variables of a warp's lanes lie in different lines of a page: where they all began a page, they would fight for a few places of the cache.
static unsigned char *new_stack()
{
    enum { PAGE = 4096, LINE = 64 };
    static size_t stacks;
    return new unsigned char[STACK + PAGE] + stacks++ * LINE % PAGE;
}

static unsigned char *take_stack()
{
    if (free_stacks.empty()) return new_stack();
    unsigned char *s = free_stacks.back();
    free_stacks.pop_back();
    return s;
}

// What a lane has issued reads arrays in its kernel's frame, also when the kernel returns before the others meet it. Its frame has just ended:
// what runs now must lie further down.
enum { FRAME = STACK / 2 };

static void start(Thread *t, const std::function<void()> &body)
{
    t->stack = take_stack();
    t->fiber = std::make_unique<boost::context::fiber>(std::allocator_arg, Stacks{t->stack}, [t, &body](boost::context::fiber &&back) {
        t->back = std::move(back);
        body();
        volatile char *below = (volatile char *)alloca(FRAME);
        *below = 0;
        finish_issued(nullptr);
        t->ended = true;
        return std::move(t->back);
    });
}

static void enter(Thread *t)
{
    current = t;
    place.block = t->block->at;
    place.shared = t->block->shared;
    place.thread = t->index;
}

static void resume(Thread *t)
{
    enter(t);
    *t->fiber = std::move(*t->fiber).resume();
    current = nullptr;
}

void leave_broken()
{
    current->broken = true;
    std::move(current->back).resume();
    abort();  // nobody resumes it
}

void wait(const char *at, const void *pc, const std::function<bool()> &until)
{
    if (until()) return;
    Thread *t = current;
    t->at = at, t->pc = pc, t->until = &until;
    t->back = std::move(t->back).resume();
    enter(t);
    t->at = "";
}

// ---- a block --------------------------------------------------------------------------------------------------------

// A fiber that has not ended is not unwound: hooks are called from code that the compiler thinks cannot throw. What such a
// fiber's object holds lies on the stack that is taken back.
Block::~Block()
{
    for (Thread &t : threads) {
        if (!t.ended) (void)t.fiber.release();
        free_stacks.push_back(t.stack);
    }
    shadow_free(shadow);
}

// Fresh shared memory holds whatever was there: NaN.
static void make_shared(Block *b, size_t bytes)
{
    b->memory.assign(bytes + 1024, 0xff);
    b->shared = (unsigned char *)(((uintptr_t)b->memory.data() + 1023) / 1024 * 1024);
    b->shared_bytes = bytes;
    b->shadow = shadow_new(bytes);
}

static std::unique_ptr<Block> make_block(uint3 at, dim3 size, size_t shared_bytes, const std::function<void()> &body)
{
    auto b = std::make_unique<Block>();
    const int n = (int)(size.x * size.y * size.z);
    b->serial = g.serial++;
    b->at = at;
    b->left = n;
    b->warps.resize((n + WARP - 1) / WARP);
    b->agents = b->product_agent((int)b->warps.size());
    for (size_t w = 0; w < b->warps.size(); w++) {
        b->warps[w].known.seen.assign(b->agents, 0);
        b->warps[w].known.seen[w] = 1;
    }
    b->registers.assign(b->warps.size(), std::min(REGISTERS / n / 8 * 8, (int)REGISTERS_MOST));
    b->threads.resize(n);
    make_shared(b.get(), shared_bytes);
    for (int i = 0; i < n; i++) {
        b->threads[i].id = i;
        b->threads[i].index = {(unsigned)i % size.x, (unsigned)i / size.x % size.y, (unsigned)i / (size.x * size.y)};
        b->threads[i].block = b.get();
        start(&b->threads[i], body);
    }
    return b;
}

enum Progress { NONE, SOME, BROKEN };

// Runs the lanes of a warp until every one of them waits.
static Progress run_warp(Block *b, int w)
{
    const int from = w * WARP, to = std::min(from + WARP, (int)b->threads.size());
    Progress made = NONE;
    for (bool again = true; again;) {
        again = false;
        const int turn = (int)(random_bits() % WARP);
        for (int k = from; k < to; k++) {
            Thread *t = &b->threads[from + (k - from + turn) % (to - from)];
            if (t->ended || (t->until && !(*t->until)())) continue;
            t->until = nullptr;
            resume(t);
            made = SOME, again = true;
            if (t->broken) return BROKEN;
            b->left -= t->ended;
        }
    }
    return made;
}

// Nothing can run: who waits for whom?
static void tell_stuck(const std::vector<std::unique_ptr<Block>> &alive)
{
    char what[1024];
    const Block *b = alive[0].get();
    const Thread *first = nullptr;
    int ended = 0, waiting = 0, barrier = 0;
    for (const Thread &t : b->threads) {
        ended += t.ended;
        if (t.ended) continue;
        waiting++;
        barrier += !strcmp(t.at, "__syncthreads") || !strcmp(t.at, "bar_sync");
        if (!first) first = &t;
    }
    const bool diverged = barrier && (ended || barrier < waiting);
    const Thread *other = first;
    for (const Thread &t : b->threads)
        if (!t.ended && strcmp(t.at, first->at)) other = &t;
    snprintf(what, sizeof what, "block (%u,%u,%u): %d threads wait, %d have ended; thread %d waits at %s, %s; thread %d at %s, %s",
             b->at.x, b->at.y, b->at.z, waiting, ended, first->id, first->at, source_line(first->pc).c_str(), other->id, other->at,
             source_line(other->pc).c_str());
    write_report(nullptr, diverged ? "barrier divergence" : "deadlock", what);
}

// ---- a launch -------------------------------------------------------------------------------------------------------

static bool fits(dim3 grid, dim3 block, size_t shared_bytes)
{
    char what[256];
    const size_t n = (size_t)block.x * block.y * block.z;
    if (n >= 1 && n <= THREADS_MOST && grid.x && grid.y && grid.z && shared_bytes <= SHARED_MOST) return true;
    snprintf(what, sizeof what, "%zu threads a block (1 to %d), grid (%u,%u,%u), %zu bytes of shared memory (at most %d)", n,
             THREADS_MOST, grid.x, grid.y, grid.z, shared_bytes, SHARED_MOST);
    write_report(nullptr, "launch", what);
    return false;
}

// 0 to n - 1.
static std::vector<int> any_order(int n)
{
    std::vector<int> all(n);
    for (int i = 0; i < n; i++) all[i] = i;
    for (int i = n; i > 1; i--) std::swap(all[i - 1], all[random_bits() % (unsigned)i]);
    return all;
}

// Blocks begin in the order of their numbers, a few at a time; who is over makes room.
struct Launch {
    dim3 grid, block;
    size_t shared_bytes;
    const std::function<void()> &body;
    uint64_t next = 0, blocks;
    std::vector<std::unique_ptr<Block>> alive;

    void fill()
    {
        while (alive.size() < ALIVE && next < blocks) {
            const uint3 at = {(unsigned)(next % grid.x), (unsigned)(next / grid.x % grid.y), (unsigned)(next / grid.x / grid.y)};
            alive.push_back(make_block(at, block, shared_bytes, body));
            next++;
        }
    }

    // Blocks in any order; of a block all warps in any order, while the core's cache holds what is known of its memory.
    Progress round()
    {
        Progress made = NONE;
        for (const auto &b : alive)
            if (order() == Order::RANDOM && random_bits() % 2) made = land_one(b.get()) ? SOME : made;
        for (int b : any_order((int)alive.size()))
            for (int w : any_order((int)alive[b]->warps.size())) {
                const Progress p = run_warp(alive[b].get(), w);
                if (p == BROKEN) return BROKEN;
                if (p == SOME) made = SOME;
            }
        for (size_t i = 0; made == NONE && i < alive.size(); i++) made = land_one(alive[i].get()) ? SOME : NONE;
        for (const auto &b : alive)
            if (b->left == 0 && leaves_copies(b.get())) return BROKEN;
        alive.erase(std::remove_if(alive.begin(), alive.end(), [](const auto &b) { return b->left == 0; }), alive.end());
        return made;
    }

    bool go()
    {
        for (fill(); !alive.empty(); fill()) {
            const Progress p = round();
            if (p == NONE) tell_stuck(alive);
            if (p != SOME) return false;
        }
        return true;
    }
};

bool run(const char *what, dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &body, Range params)
{
    report_begin(what);
    if (!fits(grid, block, shared_bytes)) return false;
    g.state = g.seed * 0x9e3779b97f4a7c15u + 1;
    first_serial = g.serial;
    forget_allowed();
    allow(params);
    allow({&body, sizeof body});
    allow({&place, sizeof place});
    place.block_size = block;
    place.grid_size = grid;
    Launch l{grid, block, shared_bytes, body, 0, (uint64_t)grid.x * grid.y * grid.z, {}};
    const bool good = l.go();
    current = nullptr;
    l.alive.clear();
    if (good) report_clear();
    return good;
}

// ---- meetings -------------------------------------------------------------------------------------------------------

static void arrive(Meeting *m, int wanted, const void *pc, int id)
{
    finish_issued(pc);
    if (m->arrived && m->wanted != wanted)
        defect(pc, "barrier divergence", "barrier %d is awaited for %d threads here and for %d elsewhere", id, wanted, m->wanted);
    m->wanted = wanted;
    publish(&m->arriving);
    if (++m->arrived < wanted) return;
    m->released.join(m->arriving);
    m->arrived = 0;
    m->generation++;
}

static void sync(int id, int wanted, const char *at, const void *pc)
{
    Meeting *m = &current->block->barrier[id];
    const uint32_t generation = m->generation;
    arrive(m, wanted, pc, id);
    wait(at, pc, [m, generation] { return m->generation != generation; });
    learn(m->released);
}

void meet(const char *what, const void *pc, unsigned mask, void *args, void (*action)(void *const args[WARP]))
{
    finish_issued(pc);
    Warp &w = warp_of(current);
    const unsigned bit = 1u << lane_of(current);
    if (!(mask & bit)) defect(pc, "warp divergence", "%s with mask %08x is called by lane %d, which is not in it", what, mask, lane_of(current));
    WarpMeeting *m = nullptr;
    for (auto &each : w.meetings)
        if (each->mask & mask && (each->arrived || each->mask == mask)) {
            if (each->mask != mask || (each->arrived && strcmp(each->what, what)))
                defect(pc, "warp divergence", "lanes meet at %s (mask %08x) here and at %s (mask %08x), %s", what, mask, each->what,
                       each->mask, source_line(each->pc).c_str());
            m = each.get();
        }
    if (!m) {
        w.meetings.push_back(std::make_unique<WarpMeeting>());
        m = w.meetings.back().get();
        m->mask = mask;
    }
    const uint32_t generation = m->generation;
    if (!m->arrived) m->what = what, m->pc = pc;
    m->args[lane_of(current)] = args;
    m->arrived |= bit;
    if (m->arrived == mask) {
        if (action) action(m->args);
        settle_copies(current);
        end_epoch(current);
        m->arrived = 0;
        m->generation++;
    } else {
        wait(what, pc, [m, generation] { return m->generation != generation; });
    }
}

}  // namespace hostcuda

using namespace hostcuda;

#define CALLER __builtin_return_address(0)

void __syncthreads() { sync(0, (int)current->block->threads.size(), "__syncthreads", CALLER); }

static void check_barrier(int id, int threads, const void *pc)
{
    if (id < 1 || id >= NAMED || threads % WARP || threads < WARP || threads > (int)current->block->threads.size())
        defect(pc, "barrier", "barrier %d (1 to %d) for %d threads (a multiple of %d, at most those of the block)", id, NAMED - 1, threads, WARP);
}

void bar_sync(int id, int threads)
{
    check_barrier(id, threads, CALLER);
    sync(id, threads, "bar_sync", CALLER);
}

void bar_arrive(int id, int threads)
{
    check_barrier(id, threads, CALLER);
    arrive(&current->block->barrier[id], threads, CALLER, id);
}

void __syncwarp(unsigned mask) { meet("__syncwarp", CALLER, mask, nullptr, nullptr); }

namespace {
struct Shuffle {
    uint32_t v, out;
    int lane;
};
}  // namespace

static void do_shuffle(void *const args[WARP])
{
    for (int i = 0; i < WARP; i++) {
        Shuffle *s = (Shuffle *)args[i];
        const Shuffle *from = s ? (const Shuffle *)args[s->lane & 31] : nullptr;
        if (s) s->out = from ? from->v : 0x7fc0dead;  // a lane that takes no part: undefined
    }
}

uint32_t shuffle_bits(uint32_t v, int lane, unsigned mask)
{
    Shuffle s = {v, 0, lane};
    meet("shuffle", CALLER, mask, &s, do_shuffle);
    return s.out;
}

static void do_ballot(void *const args[WARP])
{
    unsigned all = 0;
    for (int i = 0; i < WARP; i++) all |= args[i] && ((Shuffle *)args[i])->v ? 1u << i : 0;
    for (int i = 0; i < WARP; i++)
        if (args[i]) ((Shuffle *)args[i])->out = all;
}

unsigned __ballot_sync(unsigned mask, int predicate)
{
    Shuffle s = {predicate != 0, 0, 0};
    meet("ballot", CALLER, mask, &s, do_ballot);
    return s.out;
}
