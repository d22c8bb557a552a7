// SPDX-License-Identifier: Apache-2.0
// mbarriers, cp.async, bulk copies (TMA), and words through which blocks tell each other what they know.
#include <algorithm>
#include <map>

#include "kernels/hostcuda/block.hpp"

using namespace hostcuda;

#define CALLER __builtin_return_address(0)

// ---- mbarrier -------------------------------------------------------------------------------------------------------

static Mbar *mbar_of(uint64_t *bar, const void *pc)
{
    Block *b = current->block;
    if (!is_shared(bar, 8) || (uintptr_t)bar % 8) defect(pc, "barrier", "an mbarrier lies in shared memory, at a multiple of 8 bytes");
    auto found = b->mbars.find(bar);
    if (found == b->mbars.end()) defect(pc, "barrier", "the mbarrier was not initialised");
    if (!comes_after(current, found->second.made))
        defect(pc, "race", "use of an mbarrier, which nothing orders after its initialisation, %s", source_line_of(found->second.made).c_str());
    return &found->second;
}

void mbar_init(uint64_t *bar, uint32_t arrivals)
{
    if (!is_shared(bar, 8) || (uintptr_t)bar % 8 || arrivals < 1 || arrivals >= 1u << 20)
        defect(CALLER, "barrier", "an mbarrier lies in shared memory, at a multiple of 8 bytes, and takes 1 to %u arrivals, not %u", (1u << 20) - 1, arrivals);
    Mbar m;
    m.count = m.pending = (int)arrivals;
    m.made = stamp_of(current, CALLER);
    m.agent = (uint16_t)current->block->agents++;
    current->block->mbars[bar] = m;
}

// Bulk copies count what has come in barriers, too: they see only one that was fenced behind its initialisation.
void fence_mbar_init()
{
    for (auto &[at, m] : current->block->mbars) m.fenced |= m.made.agent == current->id / WARP && m.made.lane == lane_of(current);
}

void fence_proxy_async()
{
    finish_issued(CALLER);
    fence_known();
}

void hostcuda::end_phase(Mbar *m)
{
    m->released.join(m->arriving);
    if (m->released.seen.size() <= m->agent) m->released.seen.resize(m->agent + 1, 0);
    m->phase++;
    m->released.seen[m->agent] = m->phase;  // its bulk copies have come
    m->pending = m->count;
}

static void arrive(uint64_t *bar, uint32_t bytes, const void *pc)
{
    Mbar *m = mbar_of(bar, pc);
    finish_issued(pc);
    publish(&m->arriving);
    m->bytes += bytes, m->due += bytes;
    if (--m->pending <= 0 && !m->bytes) end_phase(m);
}

Mbar *hostcuda::expecting(uint64_t *bar, int64_t bytes, const void *pc)
{
    Mbar *m = mbar_of(bar, pc);
    if (!m->fenced) defect(pc, "barrier", "no fence.mbarrier_init between the mbarrier's initialisation, %s, and a bulk copy", source_line_of(m->made).c_str());
    if (m->due < bytes) defect(pc, "barrier", "a bulk copy of %lld bytes where its mbarrier expects %lld more", (long long)bytes, (long long)m->due);
    m->due -= bytes;
    m->flying++;
    m->copies = m->phase + 1;
    m->copied = pc;
    return m;
}

void mbar_arrive(uint64_t *bar) { arrive(bar, 0, CALLER); }
void mbar_arrive_expect(uint64_t *bar, uint32_t bytes) { arrive(bar, bytes, CALLER); }

// Parity of the phase that is over: a fresh barrier's phase 0 is not, the one "before" it (parity 1) is.
void mbar_wait(uint64_t *bar, uint32_t parity)
{
    Mbar *m = mbar_of(bar, CALLER);
    if (parity > 1) defect(CALLER, "barrier", "a phase has parity 0 or 1, not %u", parity);
    wait("mbar_wait", CALLER, [m, parity] { return (m->phase & 1) != parity; });
    m->waited = m->phase;
    learn(m->released);
}

// A bulk copy may still write when its block has ended, into memory that is another block's by then.
bool hostcuda::leaves_copies(const Block *b)
{
    for (const auto &[at, m] : b->mbars)
        if (m.copies > m.waited) {
            char what[256];
            snprintf(what, sizeof what, "block (%u,%u,%u): it ended, and nobody has waited for the bulk copy of %s", b->at.x, b->at.y, b->at.z,
                     source_line(m.copied).c_str());
            write_report(nullptr, "barrier", what);
            return true;
        }
    return false;
}

// ---- cp.async -------------------------------------------------------------------------------------------------------

static void land(const Copy &c)
{
    if (c.from) memcpy(c.to, c.from, c.n);
    else memset(c.to, 0, c.n);
}

static void copy(void *shared, const void *global, size_t n, bool filled, const void *pc)
{
    if ((uintptr_t)shared % n || (uintptr_t)global % n) defect(pc, "misaligned", "cp.async of %zu bytes from %p to %p", n, global, shared);
    if (!is_shared(shared, n)) defect(pc, "out of bounds", "cp.async writes to shared memory only");
    const Copy c = {(unsigned char *)shared, filled ? (const unsigned char *)global : nullptr, n, current->groups + 1};
    check_copy(c, pc);
    const bool now = order() == Order::EARLY || (order() == Order::RANDOM && random_bits() % 2);
    if (now) land(c);
    current->flying.push_back(now ? Copy{nullptr, nullptr, 0, c.group} : c);
}

void cp_async16(void *shared, const void *global, bool filled) { copy(shared, global, 16, filled, CALLER); }
void cp_async4(void *shared, const void *global, bool filled) { copy(shared, global, 4, filled, CALLER); }

void cp_async_commit() { current->groups++; }

void cp_async_wait_n(int pending)
{
    Thread *t = current;
    t->waited = std::max(t->waited, t->groups > (uint32_t)pending ? t->groups - (uint32_t)pending : 0);
    for (const Copy &c : t->flying)
        if (c.to && c.group <= t->waited) land(c);
    t->flying.erase(std::remove_if(t->flying.begin(), t->flying.end(), [t](const Copy &c) { return c.group <= t->waited; }), t->flying.end());
}

// ---- between blocks -------------------------------------------------------------------------------------------------

static std::map<std::pair<uint32_t, const void *>, Known> words;  // (first block of the launch, address)

static Known *word(const void *p)
{
    const uint32_t launch = first_serial;
    if (!words.empty() && words.begin()->first.first != launch) words.clear();
    return &words[{launch, p}];
}

static void release(const void *p)
{
    Known mine;
    finish_issued(nullptr);
    publish(&mine);
    Known *w = word(p);
    mine.far[current->block->serial] = mine.seen;
    mine.seen.clear();
    w->join(mine);
}

static void acquire(const void *p)
{
    Known from = *word(p);
    const auto own = from.far.find(current->block->serial);
    if (own != from.far.end()) {
        from.seen = own->second;
        from.far.erase(own);
    }
    learn(from);
}

uint32_t ld_acquire(const uint32_t *p)
{
    check(Kind::ATOMIC, p, 4, CALLER);
    acquire(p);
    return *p;
}

void spin_until(const uint32_t *p, uint32_t v)
{
    check(Kind::ATOMIC, p, 4, CALLER);
    wait("spin_until", CALLER, [p, v] { return *p == v; });
    acquire(p);
}

void st_release(uint32_t *p, uint32_t v)
{
    check(Kind::ATOMIC, p, 4, CALLER);
    release(p);
    *p = v;
}

static void check_shared(const void *p, size_t n, const void *pc)
{
    if (!is_shared(p, n)) defect(pc, "out of bounds", "an atomic addition outside the block's shared memory, at %p", p);
    if ((uintptr_t)p % n) defect(pc, "misaligned", "atomic addition of %zu bytes at %p", n, p);
    check(Kind::ATOMIC, p, n, pc);
}

uint32_t atom_add_shared(uint32_t *p, uint32_t v)
{
    check_shared(p, 4, CALLER);
    return (*p += v) - v;
}

void red_add_shared(double *p, double v)
{
    check_shared(p, 8, CALLER);
    *p += v;
}

uint32_t atom_add_acq_rel(uint32_t *p, uint32_t v)
{
    check(Kind::ATOMIC, p, 4, CALLER);
    acquire(p);
    release(p);
    return (*p += v) - v;
}
