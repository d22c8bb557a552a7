// SPDX-License-Identifier: Apache-2.0
// Attention's backward on device arrays, and its gradient in double.
#ifndef TESTS_HOSTCUDA_ATTENTION_BWD_HPP
#define TESTS_HOSTCUDA_ATTENTION_BWD_HPP

#include "kernels/cuda/attn_bwd.cuh"
#include "kernels/cuda/attn_bwd_sm90.cuh"

#include "tests/hostcuda/attention.hpp"

using attn_bwd::Bwd;

struct Result {
    std::vector<uint16_t> o, dq, dk, dv;
    bool operator==(const Result &r) const { return o == r.o && dq == r.dq && dk == r.dk && dv == r.dv; }
};

// What both forms take, on device arrays that last as long as this.
struct Backward {
    OnDevice *f;
    Array<uint16_t> grad, dq, dk, dv;
    Array<float> delta, sums;
    Array<uint32_t> turn;
    Bwd a = {};

    Backward(OnDevice *f_, const std::vector<uint16_t> &dout, int query_tiles, int64_t sums_, int64_t turns)
        : f(f_), grad(dout), dq(f->c.queries()), dk(f->c.keys()), dv(f->c.keys()), delta((size_t)f->c.T * f->c.N), sums((size_t)sums_), turn((size_t)turns)
    {
        const Case &c = f->c;
        a.q = f->q.p, a.k = f->k.p, a.v = f->v.p, a.o = f->o.p, a.dout = grad.p, a.dq = dq.p, a.dk = dk.p, a.dv = dv.p;
        a.lse = f->lse.p, a.delta = delta.p, a.sums = sums.p, a.turn = turn.p;
        a.q_stride = a.o_stride = a.dout_stride = a.dq_stride = c.N * c.D, a.k_stride = a.v_stride = a.dk_stride = a.dv_stride = c.K * c.D;
        a.N = c.N, a.K = c.K, a.query_tiles = query_tiles, a.table = f->table, a.rule = c.rule();
    }
    bool finish(Result *r)
    {
        const Case &c = f->c;
        if (!f->pad(dq.p, c.N * c.D, nullptr) || !f->pad(dk.p, c.K * c.D, nullptr) || !f->pad(dv.p, c.K * c.D, nullptr)) return false;
        *r = {f->o.read(), dq.read(), dk.read(), dv.read()};
        return true;
    }
};

template <int D> static bool backward(const Case &c, OnDevice *f, const std::vector<uint16_t> &dout, Result *r)
{
    using H = attn_bwd::Shape<D>;
    const int query_tiles = c.T / H::QUERIES + f->table.S, key_tiles = c.T / attn_bwd::KEYS + f->table.S;
    Backward b(f, dout, query_tiles, H::sums(c.N, query_tiles), H::turns(c.N, query_tiles));
    return hostcuda::launch("attn_bwd_prepare", attn_bwd_prepare<D>, (c.T * c.N + 3) / 4, 128, 0, b.a) &&
           hostcuda::launch("attn_bwd_main", c.softcap > 0 ? attn_bwd_main<D, true> : attn_bwd_main<D, false>, c.K * key_tiles, H::THREADS, H::BYTES, b.a) && b.finish(r);
}

template <int D> static bool backward_sm90(const Case &c, OnDevice *f, const std::vector<uint16_t> &dout, Result *r)
{
    using H = attn_bwd_sm90::Shape<D>;
    const int query_tiles = c.T / H::QUERIES + f->table.S, key_tiles = c.T / H::KEYS + f->table.S;
    Backward b(f, dout, query_tiles, H::sums(c.N, query_tiles), H::turns(c.N, query_tiles));
    attn_bwd_sm90::Bwd s = {};
    s.a = b.a;
    if (!encode_map(cuTensorMapEncodeTiled, &s.q, b.a.q, c.N * D, c.T, c.N * D, H::QUERIES)) return false;
    if (!encode_map(cuTensorMapEncodeTiled, &s.dout, b.a.dout, c.N * D, c.T, c.N * D, H::QUERIES)) return false;
    if (!encode_map(cuTensorMapEncodeTiled, &s.k, b.a.k, c.K * D, c.T, c.K * D, H::KEYS)) return false;
    if (!encode_map(cuTensorMapEncodeTiled, &s.v, b.a.v, c.K * D, c.T, c.K * D, H::KEYS)) return false;
    return hostcuda::launch("attn_bwd_prepare_sm90", attn_bwd_prepare_sm90<D>, (c.T * c.N + 3) / 4, 128, 0, b.a) &&
           hostcuda::launch("attn_bwd_sm90", c.softcap > 0 ? attn_bwd_sm90_main<D, true> : attn_bwd_sm90_main<D, false>, c.K * key_tiles, attn_bwd_sm90::THREADS, H::BYTES, s) &&
           b.finish(r);
}

static bool run_form(const Case &c, OnDevice *f, const std::vector<uint16_t> &dout, Form form, Result *r)
{
    if constexpr (is_built(SM90))
        if (form == SM90) return c.D == 64 ? backward_sm90<64>(c, f, dout, r) : c.D == 128 ? backward_sm90<128>(c, f, dout, r) : backward_sm90<256>(c, f, dout, r);
    if constexpr (is_built(MMA)) return c.D == 64 ? backward<64>(c, f, dout, r) : c.D == 128 ? backward<128>(c, f, dout, r) : backward<256>(c, f, dout, r);
    return false;
}

static bool run_case(const Case &c, const Inputs &in, const std::vector<uint16_t> &dout, Form form, Result *r)
{
    OnDevice f(c, in);
    const bool good = f.run(form) && run_form(c, &f, dout, form, r);
    if (!good) printf("%s\n", hostcuda::report());
    return good;
}

// A gradient, and the sum of the sizes of its terms.
struct Sum {
    std::vector<double> value, size;
    explicit Sum(size_t n) : value(n), size(n) {}
    void add(size_t i, double x, double of) { value[i] += x, size[i] += of; }
};

struct Want {
    Sum dq, dk, dv;
};

static void add_query(const Definition &def, const std::vector<uint16_t> &dout, const Seg &g, int i, int n, Want *w)
{
    const Case &c = def.c;
    const size_t at = ((size_t)(g.start + i) * c.N + n) * c.D;
    double lse, delta = 0, delta_size = 0;
    const std::vector<Seen> keys = def.keys_of(g, i, n, &lse);
    std::vector<double> p, dp, size;
    for (const Seen &s : keys) {
        double x = 0, of = 0;
        for (int d = 0; d < c.D; d++) {
            const double term = of_bf16(dout[at + d]) * def.v(s.key, n, d);
            x += term, of += std::fabs(term);
        }
        p.push_back(exp(s.score - lse)), dp.push_back(x), size.push_back(of);
        delta += p.back() * x, delta_size += p.back() * of;
    }
    for (size_t j = 0; j < keys.size(); j++) {
        const size_t key = ((size_t)keys[j].key * c.K + def.kv_of(n)) * c.D;
        const double f = p[j] * keys[j].slope / sqrt((double)c.D), ds = f * (dp[j] - delta), ds_size = f * (size[j] + delta_size);
        for (int d = 0; d < c.D; d++) {
            const double q = def.q(g.start + i, n, d), k = def.k(keys[j].key, n, d), o = of_bf16(dout[at + d]);
            w->dq.add(at + d, ds * k, ds_size * std::fabs(k));
            w->dk.add(key + d, ds * q, ds_size * std::fabs(q));
            w->dv.add(key + d, p[j] * o, p[j] * std::fabs(o));
        }
    }
}

static Want gradient_of(const Definition &def, const std::vector<uint16_t> &dout)
{
    const Case &c = def.c;
    Want w = {Sum(c.queries()), Sum(c.keys()), Sum(c.keys())};
    for (const Seg &g : c.seg)
        for (int i = 0; i < g.len; i++)
            for (int n = 0; n < c.N; n++) add_query(def, dout, g, i, n, &w);
    return w;
}

#endif
