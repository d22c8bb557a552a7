// SPDX-License-Identifier: Apache-2.0
// Paged decode attention against sums in double: shared prefixes, chunks and pages that are part filled, GQA, soft-cap, window; the same bits in
// every order and whoever shares a slot's prefix.
#include "kernels/cuda/decode.cuh"

#include "tests/hostcuda/arrays.hpp"

#include <string>

using decode::Decode;
using decode::Store;
using hostcuda::launch;

struct Case {
    int D, N, K;
    std::vector<int> prefix;       // tokens of each prompt
    std::vector<int> prompt, own;  // of each slot: its prompt, its own tokens
    float softcap;
    int window;

    int slots() const { return (int)prompt.size(); }
    attn::Rule rule() const { return {1 / sqrtf((float)D), softcap, window}; }
};

static int pages_of(int tokens) { return (tokens + decode::PAGE - 1) / decode::PAGE; }

// Every prompt's tokens, then every slot's: their keys and values, and the pages they go to (numbered backwards, so that neighbours are none).
struct Cache {
    std::vector<uint16_t> k, v;
    std::vector<int32_t> page, place, prefix_page, own_page, prefix_len, own_len;
    std::vector<int> first_prefix, first_own;  // token of each prompt, each slot
    int pages = 0, max_prefix = 1, max_own = 1;
};

static void add_tokens(Cache *c, int tokens, std::vector<int> *first, std::vector<std::vector<int32_t>> *list, int all)
{
    first->push_back((int)c->page.size());
    list->emplace_back();
    for (int i = 0; i < tokens; i++) {
        if (i % decode::PAGE == 0) list->back().push_back(all - 1 - c->pages++);
        c->page.push_back(list->back().back());
        c->place.push_back(i % decode::PAGE);
    }
}

static Cache fill(const Case &c)
{
    Cache x;
    std::vector<std::vector<int32_t>> prefix, own;
    int all = 0;
    for (int n : c.prefix) all += pages_of(n), x.max_prefix = std::max(x.max_prefix, pages_of(n));
    for (int n : c.own) all += pages_of(n), x.max_own = std::max(x.max_own, pages_of(n));
    for (int n : c.prefix) add_tokens(&x, n, &x.first_prefix, &prefix, all);
    for (int n : c.own) add_tokens(&x, n, &x.first_own, &own, all);
    x.prefix_page.assign((size_t)(c.slots() * x.max_prefix), -1), x.own_page.assign((size_t)(c.slots() * x.max_own), -1);
    for (int s = 0; s < c.slots(); s++) {
        x.prefix_len.push_back(c.prefix[c.prompt[s]]), x.own_len.push_back(c.own[s]);
        std::copy(prefix[c.prompt[s]].begin(), prefix[c.prompt[s]].end(), x.prefix_page.begin() + s * x.max_prefix);
        std::copy(own[s].begin(), own[s].end(), x.own_page.begin() + s * x.max_own);
    }
    x.k = random_bf16(x.page.size() * c.K * c.D), x.v = random_bf16(x.page.size() * c.K * c.D);
    return x;
}

// Slots of one prompt next to each other, at most GROUP in a group (or each alone, and two groups of none behind them).
static void make_groups(const Case &c, bool alone, std::vector<int32_t> *order, std::vector<int32_t> *group)
{
    group->push_back(0);
    for (int p = 0; p < (int)c.prefix.size(); p++) {
        for (int s = 0; s < c.slots(); s++) {
            if (c.prompt[s] != p) continue;
            if ((int)order->size() - group->back() == (alone ? 1 : decode::GROUP)) group->push_back((int)order->size());
            order->push_back(s);
        }
        if (group->back() < (int)order->size()) group->push_back((int)order->size());
    }
    if (alone) group->insert(group->end(), 2, group->back());
}

template <int D> static bool go(const Decode &a)
{
    const unsigned items = (unsigned)(a.groups * decode::chunks_of(a.max_prefix_pages) + a.slots * decode::chunks_of(a.max_own_pages));
    return launch("decode_chunks", a.rule.softcap > 0 ? decode_chunks<D, true> : decode_chunks<D, false>, dim3(items, a.K), attn::THREADS, attn::Shape<D>::BYTES, a) &&
           launch("decode_combine", decode_combine<D>, (unsigned)((a.slots * a.N + 3) / 4), 128, 0, a);
}

static bool run_case(const Case &c, const Cache &x, const std::vector<uint16_t> &q, bool alone, std::vector<uint16_t> *o)
{
    std::vector<int32_t> order, group;
    make_groups(c, alone, &order, &group);
    Array<uint16_t> q_(q), o_(q.size()), k(x.k), v(x.v), pages((size_t)(x.pages * decode::page_values(c.K, c.D)));
    Array<int32_t> page(x.page), place(x.place), prefix_page(x.prefix_page), own_page(x.own_page), prefix_len(x.prefix_len), own_len(x.own_len);
    Array<int32_t> order_(order), group_(group);
    Decode a = {};
    a.q = q_.p, a.o = o_.p, a.pages = pages.p, a.prefix_page = prefix_page.p, a.prefix_len = prefix_len.p, a.own_page = own_page.p, a.own_len = own_len.p;
    a.order = order_.p, a.group = group_.p, a.q_stride = a.o_stride = c.N * c.D, a.groups = (int)group.size() - 1, a.slots = c.slots(), a.N = c.N, a.K = c.K;
    a.max_prefix_pages = x.max_prefix, a.max_own_pages = x.max_own, a.rule = c.rule();
    const size_t parts = (size_t)(c.slots() * c.N * decode::all_chunks(a));
    Array<float> part(parts * c.D), part_sum(parts * 2);
    a.part = part.p, a.part_sum = part_sum.p;
    const int64_t n = (int64_t)x.page.size(), stores = n * 2 * c.K * (c.D / 8);
    const Store s = {k.p, v.p, pages.p, page.p, place.p, c.K * c.D, c.K * c.D, n, c.K, c.D};
    const bool good = launch("kv_store", kv_store, (unsigned)((stores + 127) / 128), 128, 0, s) && (c.D == 64 ? go<64>(a) : c.D == 128 ? go<128>(a) : go<256>(a));
    if (good) *o = o_.read();
    else printf("%s\n", hostcuda::report());
    return good;
}

static bool check(const Case &c, const Cache &x, const std::vector<uint16_t> &q, const std::vector<uint16_t> &o)
{
    for (int s = 0; s < c.slots(); s++)
        for (int n = 0; n < c.N; n++) {
            const int prefix = c.prefix[c.prompt[s]], all = prefix + c.own[s], kv = n / (c.N / c.K);
            std::vector<std::pair<size_t, double>> keys;
            double most = -INFINITY, sum = 0;
            for (int j = 0; j < all; j++) {
                if (c.window > 0 && j <= all - 1 - c.window) continue;
                const size_t at = ((size_t)(j < prefix ? x.first_prefix[c.prompt[s]] + j : x.first_own[s] + j - prefix) * c.K + kv) * c.D;
                double score = 0;
                for (int d = 0; d < c.D; d++) score += (double)of_bf16(q[(size_t)((s * c.N + n) * c.D + d)]) * of_bf16(x.k[at + d]);
                score /= sqrt((double)c.D);
                if (c.softcap > 0) score = c.softcap * tanh(score / c.softcap);
                keys.push_back({at, score}), most = std::fmax(most, score);
            }
            for (auto &[at, score] : keys) sum += score = exp(score - most);
            for (int d = 0; d < c.D; d++) {
                double want = 0, size = 0;
                for (const auto &[at, weight] : keys) want += weight / sum * of_bf16(x.v[at + d]), size += weight / sum * std::fabs(of_bf16(x.v[at + d]));
                const double got = of_bf16(o[(size_t)((s * c.N + n) * c.D + d)]);
                if (!(std::fabs(got - want) <= size / 128 + 1e-6)) return printf("o[%d][%d][%d] = %g, not %g\n", s, n, d, got, want), false;
            }
        }
    return true;
}

static int check_case(const Case &c, const std::string &name)
{
    state = 23;
    const Cache x = fill(c);
    const std::vector<uint16_t> q = random_bf16((size_t)(c.slots() * c.N * c.D));
    std::vector<uint16_t> first;  // the last run: every slot in a group of its own
    const auto run = [&](int seed, std::vector<uint16_t> *o) { return run_case(c, x, q, seed == 2, o); };
    if (!same_in_every_order(name, &first, run)) return 1;
    if (!check(c, x, q, first)) return printf("%s\n", name.c_str()), 1;
    return 0;
}

static bool uses_memory(int D)
{
    const Case c = {D, 4, 2, {72}, {0, 0}, {64, 65}, 0, 0};
    const Cache x = fill(c);
    const std::vector<uint16_t> q = random_bf16((size_t)(c.slots() * c.N * c.D));
    std::vector<uint16_t> o;
    const std::vector<Exception> exceptions = {
        {"a.group[g", "all lanes read one number of the tables"}, {"a.order[", "as a.group"}, {"a.prefix_len[slot]", "as a.group"}, {"a.own_len[slot]", "as a.group"},
        {"w.page[", "as a.group"}, {"a.page[token]", "as a.group"}, {"a.part_sum", "two numbers a row and chunk"},
    };
    return uses_memory_well({"kv_store", "decode_chunks", "decode_combine"}, exceptions, [&] { return run_case(c, x, q, false, &o); });
}

int main()
{
    const Case cases[] = {
        {64, 4, 2, {70, 300}, {0, 1, 0, 1, 1}, {1, 64, 65, 270, 2}, 0, 0},
        {128, 2, 1, {65}, std::vector<int>(10, 0), {1, 2, 3, 4, 5, 6, 7, 8, 9, 70}, 0, 0},  // more samples than a group
        {256, 2, 2, {40, 100}, {0, 1}, {33, 30}, 0, 0},
        {64, 8, 1, {0, 20}, {0, 1, 1}, {5, 7, 1}, 3, 0},  // no prefix; soft-cap
        {128, 2, 1, {10}, {0, 0}, {3, 70}, 2, 0},
        {256, 1, 1, {70}, {0}, {3}, 2, 60},
        {64, 2, 1, {256, 300}, {0, 1}, {256, 300}, 0, 0},  // lists that end with a chunk
        {64, 1, 1, {130}, {0, 0}, {40, 10}, 0, 50},       // a window that ends within the prefix, and one within a page
    };
    int i = 0;
    for (const Case &c : cases)
        if (check_case(c, "case " + std::to_string(i++))) return 1;
    for (int D : {64, 128, 256})
        if (!uses_memory(D)) return 1;
    return !no_conflicts() || !holds_for_inexact_functions([] { return !check_case({64, 2, 1, {70}, {0, 0}, {5, 70}, 3, 0}, "inexact"); });
}
