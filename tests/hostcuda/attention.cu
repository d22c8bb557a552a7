// SPDX-License-Identifier: Apache-2.0
// attn_fwd against sums in double: head sizes, GQA, shared prefixes, soft-cap, window, padding; the same bits in every order, and for
// a segment wherever it lies in its row.
#include "kernels/cuda/attn_fwd.cuh"

#include <cstdio>
#include <ctime>
#include <string>
#include <vector>

using attn::Fwd;
using attn::Seg;

static uint32_t state;

static float random_value()
{
    state = state * 1664525u + 1013904223u;
    return ((float)(state >> 8) / (1 << 23) - 1) * 1.7f;
}

static float of_bf16(uint16_t v)
{
    const uint32_t u = (uint32_t)v << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static std::vector<uint16_t> random_bf16(size_t n)
{
    std::vector<uint16_t> v(n);
    for (auto &x : v) x = (uint16_t)pack_bf16(random_value(), 0);
    return v;
}

template <typename T> static T *upload(const std::vector<T> &v)
{
    T *p = (T *)hostcuda::device_alloc(v.size() * sizeof(T));
    hostcuda::device_write(p, v.data(), v.size() * sizeof(T));
    return p;
}

template <typename T> static std::vector<T> download(const T *p, size_t n)
{
    std::vector<T> v(n);
    hostcuda::device_read(v.data(), p, n * sizeof(T));
    return v;
}

struct Case {
    int D, T, N, K;
    std::vector<Seg> seg;
    float softcap;
    int window;
};

struct Result {
    std::vector<uint16_t> o;
    std::vector<float> lse;
};

template <int D> static bool go(const Fwd &a, int tiles)
{
    return hostcuda::launch("attn_fwd", attn_fwd<D>, dim3(tiles, a.N), attn::THREADS, attn::Shape<D>::BYTES, a);
}

static bool run_case(const Case &c, const std::vector<uint16_t> &q, const std::vector<uint16_t> &k, const std::vector<uint16_t> &v, Result *r)
{
    Fwd a = {};
    const size_t n = (size_t)c.T * c.N * c.D;
    uint16_t *dq = upload(q), *dk = upload(k), *dv = upload(v);
    Seg *seg = upload(c.seg);
    a.q = dq, a.k = dk, a.v = dv, a.seg = seg;
    a.o = (uint16_t *)hostcuda::device_alloc(n * 2);
    a.lse = (float *)hostcuda::device_alloc((size_t)c.T * c.N * 4);
    a.q_stride = a.o_stride = c.N * c.D, a.k_stride = a.v_stride = c.K * c.D;
    a.T = c.T, a.S = (int)c.seg.size(), a.N = c.N, a.K = c.K;
    a.scale = 1 / sqrtf((float)c.D), a.softcap = c.softcap, a.window = c.window;
    const int tiles = c.T / attn::QUERIES + a.S;
    const bool good = (c.D == 64 ? go<64>(a, tiles) : c.D == 128 ? go<128>(a, tiles) : go<256>(a, tiles)) &&
                      hostcuda::launch("attn_clear_padding", attn_clear_padding, (c.T + 63) / 64, 64, 0, a, c.D);
    if (!good) printf("%s\n", hostcuda::report());
    if (good) r->o = download(a.o, n), r->lse = download(a.lse, (size_t)c.T * c.N);
    for (void *p : {(void *)dq, (void *)dk, (void *)dv, (void *)seg, (void *)a.o, (void *)a.lse}) hostcuda::device_free(p);
    return good;
}

// ---- the definition ---------------------------------------------------------------------------------------------------

struct Reference {
    const Case &c;
    const std::vector<uint16_t> &q, &k, &v;

    double score(int token, int n, int key) const
    {
        double s = 0;
        const int kv = n / (c.N / c.K);
        for (int d = 0; d < c.D; d++) s += (double)of_bf16(q[(token * c.N + n) * c.D + d]) * of_bf16(k[(key * c.K + kv) * c.D + d]);
        s /= sqrt((double)c.D);
        return c.softcap > 0 ? c.softcap * tanh(s / c.softcap) : s;
    }

    // Keys that a query at that position sees, with their scores.
    void seen(const Seg &g, int token, int n, int pos, std::vector<std::pair<int, double>> *out) const
    {
        for (int j = 0; j < g.len; j++)
            if (g.pos0 + j <= pos && (c.window <= 0 || g.pos0 + j > pos - c.window)) out->push_back({g.start + j, score(token, n, g.start + j)});
    }

    // The weights are rounded to bf16 (by at most 2^-8 of their size each), and so is the output.
    bool check_row(const Result &r, const Seg &g, int i, int n) const
    {
        std::vector<std::pair<int, double>> keys;
        const int token = g.start + i, kv = n / (c.N / c.K);
        if (g.prefix >= 0) seen(c.seg[g.prefix], token, n, g.pos0 + i, &keys);
        seen(g, token, n, g.pos0 + i, &keys);
        double most = -INFINITY, sum = 0;
        for (const auto &[key, s] : keys) most = std::fmax(most, s);
        for (const auto &[key, s] : keys) sum += exp(s - most);
        const double lse = most + log(sum), got_lse = r.lse[(size_t)n * c.T + token];
        if (!(std::fabs(got_lse - lse) < 1e-5 * (1 + std::fabs(lse)))) return printf("lse[%d][%d] = %g, not %g\n", n, token, got_lse, lse), false;
        for (int d = 0; d < c.D; d++) {
            double want = 0, size = 0;
            for (const auto &[key, s] : keys) {
                const double x = exp(s - lse) * of_bf16(v[(key * c.K + kv) * c.D + d]);
                want += x, size += std::fabs(x);
            }
            const double got = of_bf16(r.o[((size_t)token * c.N + n) * c.D + d]);
            if (!(std::fabs(got - want) <= size / 128 + 1e-6)) return printf("o[%d][%d][%d] = %g, not %g\n", token, n, d, got, want), false;
        }
        return true;
    }

    bool check(const Result &r) const
    {
        std::vector<bool> used(c.T);
        for (const Seg &g : c.seg)
            for (int i = 0; i < g.len; i++) {
                used[g.start + i] = true;
                for (int n = 0; n < c.N; n++)
                    if (!check_row(r, g, i, n)) return false;
            }
        for (int t = 0; t < c.T; t++)
            for (int i = 0; i < c.N * c.D; i++)
                if (!used[t] && r.o[(size_t)t * c.N * c.D + i]) return printf("padding %d is not zero\n", t), false;
        return true;
    }
};

static int check_case(const Case &c, const std::string &name)
{
    const hostcuda::Order orders[] = {hostcuda::Order::EARLY, hostcuda::Order::LATE, hostcuda::Order::RANDOM};
    state = 7;
    const auto q = random_bf16((size_t)c.T * c.N * c.D), k = random_bf16((size_t)c.T * c.K * c.D), v = random_bf16((size_t)c.T * c.K * c.D);
    Result first, r;
    for (int seed = 0; seed < 3; seed++) {
        hostcuda::set_order(orders[seed], (uint64_t)seed);
        if (!run_case(c, q, k, v, seed ? &r : &first)) return printf("%s: refused\n", name.c_str()), 1;
        if (seed && (r.o != first.o || r.lse != first.lse)) return printf("%s: other bits in another order\n", name.c_str()), 1;
    }
    if (!Reference{c, q, k, v}.check(first)) return printf("%s\n", name.c_str()), 1;
    return 0;
}

// A segment alone at the start of its row, and the same tokens behind another segment: the same bits.
static int check_place()
{
    enum { D = 64, L = 100, BEFORE = 37 };
    Case alone = {D, L, 2, 1, {{0, L, -1, 0}}, 0, 0}, behind = {D, L + BEFORE, 2, 1, {{0, BEFORE, -1, 0}, {BEFORE, L, -1, 0}}, 0, 0};
    state = 9;
    auto q = random_bf16((size_t)behind.T * 2 * D), k = random_bf16((size_t)behind.T * D), v = random_bf16((size_t)behind.T * D);
    const auto tail = [](const std::vector<uint16_t> &x, int width) { return std::vector<uint16_t>(x.begin() + (size_t)BEFORE * width, x.end()); };
    Result a, b;
    if (!run_case(behind, q, k, v, &b) || !run_case(alone, tail(q, 2 * D), tail(k, D), tail(v, D), &a)) return 1;
    if (a.o != tail(b.o, 2 * D)) return printf("a segment's bits depend on its place\n"), 1;
    return 0;
}

static void time_it()
{
    Case c = {128, 512, 2, 1, {{0, 512, -1, 0}}, 0, 0};
    state = 5;
    const auto q = random_bf16((size_t)c.T * c.N * c.D), k = random_bf16((size_t)c.T * c.D), v = random_bf16((size_t)c.T * c.D);
    Result r;
    timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    run_case(c, q, k, v, &r);
    clock_gettime(CLOCK_MONOTONIC, &to);
    double flop = 0;
    for (int i = 0; i < c.T / 64; i++) flop += 4.0 * 64 * (i + 1) * 64 * c.D * c.N;
    printf("attn_fwd D128, 512 tokens, 2 heads: %.2f GFLOP/s on hostcuda\n", 1e-9 * flop / ((double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec)));
}

int main(int argc, char **)
{
    const std::vector<Seg> pair = {{0, 70, -1, 0}, {70, 33, 0, 70}, {103, 65, 0, 70}, {172, 20, -1, 0}};  // 168..171 and 192.. are padding
    const Case cases[] = {
        {64, 200, 4, 2, pair, 0, 0},
        {128, 200, 2, 1, pair, 0, 0},
        {256, 200, 2, 2, pair, 0, 0},
        {128, 200, 2, 2, pair, 5, 0},
        {64, 200, 2, 1, pair, 0, 40},
        {64, 192, 1, 1, {{0, 192, -1, 0}}, 0, 127},  // the first key of a tile is the last that the last query does not see
        {256, 130, 1, 1, {{0, 130, -1, 0}}, 3, 17},
        {64, 1, 1, 1, {{0, 1, -1, 0}}, 0, 0},
    };
    int i = 0;
    for (const Case &c : cases)
        if (check_case(c, "case " + std::to_string(i++))) return 1;
    if (check_place()) return 1;
    if (argc > 1) time_it();
    return 0;
}
