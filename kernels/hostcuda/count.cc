// SPDX-License-Identifier: Apache-2.0
// How well a kernel's accesses use memory: sectors of global memory, passes over the banks of shared memory.
//
// The k-th time that each lane of a warp executes an instruction is one access of the warp. Where lanes go through a loop a different number
// of times, later rounds are matched as if the lanes had stayed together.
#include <algorithm>
#include <deque>
#include <tuple>

#include "kernels/hostcuda/block.hpp"

namespace hostcuda {

bool counting;

enum { SECTOR = 32, BANKS = 32, WORD = 4 };

namespace {

struct Total {
    uint64_t warps = 0, least = 0, taken = 0;
};

// One access of a warp, of the lanes that have come so far.
struct Group {
    uint32_t lanes = 0;
    uintptr_t at[WARP];
};

// An instruction as one warp executes it.
struct Site {
    bool shared = false;
    size_t n = 0;
    uint64_t times[WARP] = {}, closed = 0;  // executions by each lane; groups that were evaluated
    std::deque<Group> open;
    Total *total = nullptr;
};

}  // namespace

static std::map<std::tuple<uint32_t, int, const void *, bool>, Site> sites;       // block serial, warp, pc, shared
static std::map<std::tuple<std::string, const void *, bool>, Total> totals;  // kernel, pc, shared

// Bytes that somebody wants, and bytes of the sectors that they lie in.
static void count_sectors(const Group &g, size_t n, Total *t)
{
    std::vector<std::pair<uintptr_t, uint32_t>> sectors;  // a bit for each byte
    for (int l = 0; l < WARP; l++)
        for (size_t i = 0; g.lanes >> l & 1 && i < n; i++) {
            const uintptr_t at = g.at[l] + i, sector = at / SECTOR;
            auto s = std::find_if(sectors.rbegin(), sectors.rend(), [sector](const auto &each) { return each.first == sector; });
            if (s != sectors.rend()) s->second |= 1u << at % SECTOR;
            else sectors.push_back({sector, 1u << at % SECTOR});
        }
    for (const auto &[sector, bytes] : sectors) t->least += (uint64_t)__builtin_popcount(bytes);
    t->taken += sectors.size() * SECTOR;
}

// A pass delivers a word of each bank, to whoever wants it; accesses of 8 and 16 bytes go 16 and 8 lanes at a time.
static void count_passes(const Group &g, size_t n, Total *t)
{
    const int together = n <= WORD ? WARP : (int)(WARP * WORD / n);
    for (int from = 0; from < WARP; from += together) {
        std::vector<uintptr_t> words;
        int of_bank[BANKS] = {}, passes = 0;
        for (int l = from; l < from + together; l++)
            for (size_t i = 0; g.lanes >> l & 1 && i < n; i += WORD) words.push_back((g.at[l] + i) / WORD);
        std::sort(words.begin(), words.end());
        words.erase(std::unique(words.begin(), words.end()), words.end());
        for (uintptr_t w : words) passes = std::max(passes, ++of_bank[w % BANKS]);
        t->least += passes > 0;
        t->taken += (uint64_t)passes;
    }
}

static void close_first(Site *s)
{
    const Group &g = s->open.front();
    s->total->warps++;
    if (s->shared) count_passes(g, s->n, s->total);
    else count_sectors(g, s->n, s->total);
    s->open.pop_front();
    s->closed++;
}

static uint32_t all_lanes()
{
    const int left = (int)current->block->threads.size() - current->id / WARP * WARP;
    return left >= WARP ? ~0u : (1u << left) - 1;
}

void count_access(const void *p, size_t n, const void *pc)
{
    const bool shared = is_shared(p, n);
    if (n > 16 || (!shared && !device_holds(p, n))) return;  // arguments and constants come from elsewhere
    Site &s = sites[{current->block->serial, current->id / WARP, pc, shared}];
    if (!s.total) {
        const std::string text = report();  // "kernel: " while it runs
        s.total = &totals[{text.substr(0, text.find(':')), pc, shared}];
        s.shared = shared;
    }
    s.n = std::max(s.n, n);
    const int lane = lane_of(current);
    const uint64_t k = s.times[lane]++ - s.closed;
    while (s.open.size() <= k) s.open.emplace_back();
    s.open[k].lanes |= 1u << lane;
    s.open[k].at[lane] = (uintptr_t)p;
    while (!s.open.empty() && s.open.front().lanes == all_lanes()) close_first(&s);
}

void count(bool on) { counting = on; }

std::vector<Accesses> take_accesses()
{
    for (auto &[key, s] : sites)
        while (!s.open.empty()) close_first(&s);
    sites.clear();
    std::map<std::tuple<std::string, std::string, bool>, Total> lines;
    for (const auto &[key, t] : totals) {
        Total &l = lines[{std::get<0>(key), source_line(std::get<1>(key)), std::get<2>(key)}];
        l.warps += t.warps, l.least += t.least, l.taken += t.taken;
    }
    totals.clear();
    std::vector<Accesses> all;
    for (const auto &[key, t] : lines) all.push_back({std::get<0>(key), std::get<1>(key), std::get<2>(key), t.warps, t.least, t.taken});
    std::stable_sort(all.begin(), all.end(), [](const Accesses &a, const Accesses &b) { return a.part() < b.part(); });
    return all;
}

}  // namespace hostcuda
