// SPDX-License-Identifier: Apache-2.0
// What the tests of attention kernels share: random inputs, device arrays, the cases, and the definition in double.
#ifndef TESTS_HOSTCUDA_ATTENTION_HPP
#define TESTS_HOSTCUDA_ATTENTION_HPP

#include "kernels/cuda/attn_fwd.cuh"
#include "kernels/cuda/attn_fwd_sm90.cuh"
#include "kernels/cuda/tensor_map.hpp"

#include "tests/hostcuda/arrays.hpp"

#include <string>

using attn::Fwd;
using attn::Seg;

struct Case {
    int D, T, N, K;
    std::vector<Seg> seg;
    float softcap;
    int window;

    attn::Rule rule() const { return {1 / sqrtf((float)D), softcap, window}; }
    size_t queries() const { return (size_t)T * N * D; }
    size_t keys() const { return (size_t)T * K * D; }
    // Of one row of queries and keys each, in tiles of 64 x 64 that hold a causal one.
    double products_in_tiles() const { return 64.0 * 64 * (T / 64) * (T / 64 + 1) / 2 * D * N; }
    std::vector<bool> used() const
    {
        std::vector<bool> is(T);
        for (const Seg &g : seg)
            for (int i = 0; i < g.len; i++) is[g.start + i] = true;
        return is;
    }
};

struct Inputs {
    std::vector<uint16_t> q, k, v;
};

// Padding is NaN.
static Inputs random_inputs(const Case &c)
{
    Inputs in = {random_bf16(c.queries()), random_bf16(c.keys()), random_bf16(c.keys())};
    const std::vector<bool> used = c.used();
    for (std::vector<uint16_t> *x : {&in.q, &in.k, &in.v})
        for (size_t i = 0; i < x->size(); i++)
            if (!used[i / (x->size() / c.T)]) (*x)[i] = 0x7fc0;
    return in;
}

template <int D> static bool forward(const Fwd &a, int tiles)
{
    return hostcuda::launch("attn_fwd", a.rule.softcap > 0 ? attn_fwd<D, true> : attn_fwd<D, false>, dim3(tiles, a.N), attn::THREADS, attn::Shape<D>::BYTES, a);
}

template <int D> static bool forward_sm90(const attn_sm90::Fwd &a, int tiles)
{
    return hostcuda::launch("attn_fwd_sm90", a.rule.softcap > 0 ? attn_fwd_sm90<D, true> : attn_fwd_sm90<D, false>, dim3(tiles, a.N), attn_sm90::THREADS,
                            attn_sm90::Shape<D>::BYTES, a);
}

// The forward of a case, on device arrays that last as long as this.
struct OnDevice {
    const Case &c;
    Array<uint16_t> q, k, v, o;
    Array<float> lse;
    Array<Seg> seg;
    attn::Table table;

    OnDevice(const Case &c_, const Inputs &in)
        : c(c_), q(in.q), k(in.k), v(in.v), o(c.queries()), lse((size_t)c.T * c.N), seg(c.seg), table{seg.p, (int)c.seg.size(), c.T}
    {
    }
    bool run(Form form = MMA) { return (form == MMA ? run_mma() : run_sm90()) && pad(o.p, c.N * c.D, lse.p); }
    bool run_sm90()
    {
        attn_sm90::Fwd a = {};
        const int keys = c.D > 128 ? attn_sm90::Shape<256>::KEYS : attn_sm90::Shape<64>::KEYS;
        if (!encode_map(cuTensorMapEncodeTiled, &a.q, q.p, c.N * c.D, c.T, c.N * c.D, attn_sm90::ROWS)) return false;
        if (!encode_map(cuTensorMapEncodeTiled, &a.k, k.p, c.K * c.D, c.T, c.K * c.D, keys)) return false;
        if (!encode_map(cuTensorMapEncodeTiled, &a.v, v.p, c.K * c.D, c.T, c.K * c.D, keys)) return false;
        a.o = o.p, a.lse = lse.p, a.o_stride = c.N * c.D, a.N = c.N, a.K = c.K, a.table = table, a.rule = c.rule();
        const int tiles = c.T / attn_sm90::QUERIES + table.S;
        if constexpr (is_built(SM90)) return c.D == 64 ? forward_sm90<64>(a, tiles) : c.D == 128 ? forward_sm90<128>(a, tiles) : forward_sm90<256>(a, tiles);
        return false;
    }
    bool run_mma()
    {
        Fwd a = {};
        a.q = q.p, a.k = k.p, a.v = v.p, a.o = o.p, a.lse = lse.p;
        a.q_stride = a.o_stride = c.N * c.D, a.k_stride = a.v_stride = c.K * c.D;
        a.N = c.N, a.K = c.K, a.table = table, a.rule = c.rule();
        const int tiles = c.T / attn::QUERIES + table.S;
        if constexpr (is_built(MMA)) return c.D == 64 ? forward<64>(a, tiles) : c.D == 128 ? forward<128>(a, tiles) : forward<256>(a, tiles);
        return false;
    }
    bool pad(uint16_t *x, int width, float *of_n) { return hostcuda::launch("attn_clear_padding", attn_clear_padding, c.T, 64, 0, table, x, width, width, of_n, c.N); }
};

// A key that a query sees.
struct Seen {
    int key;
    double score, slope;  // slope: d score / d product
};

struct Definition {
    const Case &c;
    const Inputs &in;

    int kv_of(int n) const { return n / (c.N / c.K); }
    double q(int token, int n, int d) const { return of_bf16(in.q[((size_t)token * c.N + n) * c.D + d]); }
    double k(int key, int n, int d) const { return of_bf16(in.k[((size_t)key * c.K + kv_of(n)) * c.D + d]); }
    double v(int key, int n, int d) const { return of_bf16(in.v[((size_t)key * c.K + kv_of(n)) * c.D + d]); }

    void see(const Seg &g, int token, int n, int pos, std::vector<Seen> *out) const
    {
        for (int j = 0; j < g.len; j++) {
            if (g.pos0 + j > pos || (c.window > 0 && g.pos0 + j <= pos - c.window)) continue;
            double s = 0, slope = 1;
            for (int d = 0; d < c.D; d++) s += q(token, n, d) * k(g.start + j, n, d);
            s /= sqrt((double)c.D);
            if (c.softcap > 0) {
                const double t = tanh(s / c.softcap);
                s = c.softcap * t, slope = 1 - t * t;
            }
            out->push_back({g.start + j, s, slope});
        }
    }

    // Keys that query i of a segment sees; their log-sum-exp.
    std::vector<Seen> keys_of(const Seg &g, int i, int n, double *lse) const
    {
        std::vector<Seen> keys;
        if (g.prefix >= 0) see(c.seg[g.prefix], g.start + i, n, g.pos0 + i, &keys);
        see(g, g.start + i, n, g.pos0 + i, &keys);
        double most = -INFINITY, sum = 0;
        for (const Seen &x : keys) most = std::fmax(most, x.score);
        for (const Seen &x : keys) sum += exp(x.score - most);
        *lse = most + log(sum);
        return keys;
    }

    bool padding_is_zero(const std::vector<uint16_t> &x, int width, const char *name) const
    {
        const std::vector<bool> there = c.used();
        for (int t = 0; t < c.T; t++)
            for (int i = 0; i < width; i++)
                if (!there[t] && x[(size_t)t * width + i]) return printf("padding %d of %s is not zero\n", t, name), false;
        return true;
    }
};

// Where attention's kernels need not use memory well (uses_memory_well).
static const std::vector<Exception> TABLE = {
    {"t.seg[", "all lanes read one segment"},
    {"g.len + height - 1", "all lanes read one segment"},
};

// Two answers of one prompt, another prompt; 168..171 and 192.. are padding.
static const std::vector<Seg> PAIR = {{0, 70, -1, 0}, {70, 33, 0, 70}, {103, 65, 0, 70}, {172, 20, -1, 0}};

#endif
