// SPDX-License-Identifier: Apache-2.0
// One token a row of logits: src/decode/sampler.h's filters and draw, the same choice as the CPU's for equal logits (sm_80 and later).
//
// A block has a row. Nothing of V values is kept: a logit's penalty, temperature and weight are computed wherever they are needed.
//
//   largest logit, sum of e^x   ->  top-k's cut  ->  sum of e^x  ->  top-p's cut  ->  total of the weights  ->  the token
//
// A cut: bins of an eighth of a logit (shared memory, exact sums), the candidates of one bin in shared memory, sorted, and added in
// order. A bin of more than KEYS is taken in pieces; drawback: each costs 64 passes over the logits (only where logits are equal by the thousand).
// Sums in a fixed order are added by thread 0, from a tile that all threads fill. How many threads there are changes no bit.
//
// Compiled with --fmad=false (kernels/sample.h).
#ifndef IMF_CUDA_SAMPLE_CUH
#define IMF_CUDA_SAMPLE_CUH

#include "kernels/cuda/ptx.cuh"

#include "kernels/sample.h"

namespace sample {

enum { WARP = 32, THREADS = 512, KEYS = 2048, BINS = SAMPLE_BINS, LANES = SAMPLE_LANES, CHUNK = SAMPLE_CHUNK };

struct Shared {
    union {
        uint64_t key[KEYS];
        float weight[THREADS * LANES];  // of pick
    };
    double bin[BINS], value;  // value, index: what thread 0 tells all
    uint64_t index;
    uint32_t count[BINS];
    float tile[THREADS];
    uint32_t part[THREADS / WARP];
    uint32_t keys, stop;
};

// Logits as they go through the steps.
struct View {
    const float *logits;
    const uint8_t *seen;  // NULL: no penalty
    int64_t V;
    float penalty, temperature;
    float least;  // what is below is dropped
};

DEVICE float logit_at(const View &v, int64_t i)
{
    float x = v.logits[i];
    if (v.seen && v.seen[i]) x = sample_penalised(x, v.penalty);
    if (v.temperature != 1) x = x / v.temperature;
    return x < v.least ? -INFINITY : x;
}

// Unsigned numbers in the order of the values; -0 is 0, a NaN is above all.
DEVICE uint32_t key_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x) return ~0u;
    if (x == 0) return 1u << 31;
    return bits >> 31 ? ~bits : bits | 1u << 31;
}
DEVICE float value_of(uint32_t key)
{
    const uint32_t bits = key >> 31 ? key & ~(1u << 31) : ~key;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

// --- a block's sums ---------------------------------------------------------------------------------------------------

// What thread 0 has, for all. Between two calls the block meets elsewhere (every sum and every cut does).
DEVICE double tell(Shared &s, double value)
{
    if (threadIdx.x == 0) s.value = value;
    __syncthreads();
    return s.value;
}
DEVICE uint64_t tell_index(Shared &s, uint64_t index)
{
    if (threadIdx.x == 0) s.index = index;
    __syncthreads();
    return s.index;
}

// Of all threads' values, for all.
DEVICE uint32_t most_of(Shared &s, uint32_t v)
{
    for (int step = WARP / 2; step; step /= 2) {
        const uint32_t other = __shfl_xor_sync(~0u, v, step);
        v = other > v ? other : v;
    }
    if (threadIdx.x % WARP == 0) s.part[threadIdx.x / WARP] = v;
    __syncthreads();
    for (unsigned w = 0; w < blockDim.x / WARP; w++) v = s.part[w] > v ? s.part[w] : v;
    __syncthreads();
    return v;
}
DEVICE uint32_t sum_of(Shared &s, uint32_t v)
{
    for (int step = WARP / 2; step; step /= 2) v += __shfl_xor_sync(~0u, v, step);
    if (threadIdx.x % WARP == 0) s.part[threadIdx.x / WARP] = v;
    __syncthreads();
    v = 0;
    for (unsigned w = 0; w < blockDim.x / WARP; w++) v += s.part[w];
    __syncthreads();
    return v;
}

// Thread 0 takes value(0), value(1) ... value(n - 1), until take(i, value) says that it is enough. begin(i): by all threads before value(i) and the following.
template <typename Value, typename Take, typename Begin> DEVICE void in_order(Shared &s, int64_t n, Value value, Take take, Begin begin)
{
    for (int64_t from = 0; from < n; from += blockDim.x) {
        begin(from);
        const int64_t here = n - from < blockDim.x ? n - from : blockDim.x;
        if (threadIdx.x < here) s.tile[threadIdx.x] = value(from + threadIdx.x);
        __syncthreads();
        if (threadIdx.x == 0) {
            bool stop = false;
            for (int64_t i = 0; i < here && !stop; i++) stop = take(from + i, s.tile[i]);
            s.stop = stop;
        }
        __syncthreads();
        if (s.stop) return;
    }
}

template <typename Value, typename Take> DEVICE void in_order(Shared &s, int64_t n, Value value, Take take)
{
    in_order(s, n, value, take, [](int64_t) {});
}

// Key of the largest logit; *id: where it is, the first of equal ones.
DEVICE uint32_t largest(Shared &s, const View &v, int32_t *id)
{
    uint32_t most = 0, at = 0;
    for (int64_t i = threadIdx.x; i < v.V; i += blockDim.x) {
        const uint32_t key = key_of(logit_at(v, i));
        if (key > most) most = key, at = (uint32_t)i;
    }
    const uint32_t all = most_of(s, most);
    *id = (int32_t)~most_of(s, most == all ? ~at : 0);
    return all;
}

// Of e^(x - max).
DEVICE double total_of(Shared &s, const View &v, float max)
{
    double sum = 0;
    const auto lane_sum = [&](int64_t n) {
        const int64_t chunk = n / LANES * CHUNK, end = v.V - chunk < CHUNK ? v.V : chunk + CHUNK;
        float lane = 0;
        for (int64_t i = chunk + n % LANES; i < end; i += LANES) lane += sample_exp(logit_at(v, i) - max);
        return lane;
    };
    const auto add = [&](int64_t, float lane) {
        sum += (double)lane;
        return false;
    };
    in_order(s, (v.V + CHUNK - 1) / CHUNK * LANES, lane_sum, add);
    return tell(s, sum);
}

// --- cuts -------------------------------------------------------------------------------------------------------------

// What a token weighs: e^(x - max), or nothing where that is not above `light`; each 1 where they are counted.
struct Scale {
    float max, light;
    bool counts;
};
DEVICE float weight_of(const Scale &w, float x)
{
    if (w.counts) return 1;
    const float e = sample_exp(x - w.max);
    return e > w.light ? e : 0;
}

// Larger logit first, then the higher id: the order of cuts, as numbers above 0.
DEVICE uint64_t place_of(float x, int64_t i) { return (uint64_t)key_of(x) << 32 | (uint64_t)i; }

// Its place, where token i is in that bin and weighs something; else 0.
DEVICE uint64_t candidate(const View &v, const Scale &w, int bin, int64_t i)
{
    const float x = logit_at(v, i);
    return sample_bin(x, w.max) == bin && weight_of(w, x) > 0 ? place_of(x, i) : 0;
}

DEVICE uint32_t count_between(Shared &s, const View &v, const Scale &w, int bin, uint64_t low, uint64_t high)
{
    uint32_t n = 0;
    for (int64_t i = threadIdx.x; i < v.V; i += blockDim.x) {
        const uint64_t place = candidate(v, w, bin, i);
        n += place >= low && place < high;
    }
    return sum_of(s, n);
}

// The least place from which up to `high` at most KEYS candidates are; 1: all that are left.
DEVICE uint64_t low_end(Shared &s, const View &v, const Scale &w, int bin, uint64_t high)
{
    if (count_between(s, v, w, bin, 1, high) <= KEYS) return 1;
    uint64_t low = high;
    for (uint64_t step = 1ull << 63; step; step /= 2)
        if (low > step && count_between(s, v, w, bin, low - step, high) <= KEYS) low -= step;
    return low;
}

// Bitonic: s.key[0 .. n), n a power of 2, the largest first.
DEVICE void sort(Shared &s, int n)
{
    for (int size = 2; size <= n; size *= 2)
        for (int stride = size / 2; stride; stride /= 2) {
            for (int p = (int)threadIdx.x; p < n / 2; p += (int)blockDim.x) {
                const int i = 2 * p - (p & (stride - 1)), j = i + stride;
                const uint64_t a = s.key[i], b = s.key[j];
                if ((a < b) == !(i & size)) s.key[i] = b, s.key[j] = a;
            }
            __syncthreads();
        }
}

// The candidates of [low, high), at most KEYS, in order in s.key; their number.
DEVICE int gather(Shared &s, const View &v, const Scale &w, int bin, uint64_t low, uint64_t high)
{
    if (threadIdx.x == 0) s.keys = 0;
    __syncthreads();
    for (int64_t i = threadIdx.x; i < v.V; i += blockDim.x) {
        const uint64_t place = candidate(v, w, bin, i);
        if (place >= low && place < high) s.key[atom_add_shared(&s.keys, 1)] = place;
    }
    __syncthreads();
    const int n = (int)s.keys;
    int padded = 1;
    while (padded < n) padded *= 2;
    for (int i = n + (int)threadIdx.x; i < padded; i += (int)blockDim.x) s.key[i] = 0;
    __syncthreads();
    sort(s, padded);
    return n;
}

// What the bins hold. Sums of the last one are not exact; whether they are 0 is all that is asked of them.
DEVICE void fill_bins(Shared &s, const View &v, const Scale &w)
{
    for (int i = (int)threadIdx.x; i < BINS; i += (int)blockDim.x) s.bin[i] = 0, s.count[i] = 0;
    __syncthreads();
    for (int64_t i = threadIdx.x; i < v.V; i += blockDim.x) {
        const float x = logit_at(v, i), weight = weight_of(w, x);
        if (w.counts) atom_add_shared(&s.count[sample_bin(x, w.max)], 1);
        else if (weight > 0) red_add_shared(&s.bin[sample_bin(x, w.max)], (double)weight);
    }
    __syncthreads();
}

// Place of the last token that stays when tokens are taken in order while the weight of those taken before is < want.
DEVICE uint64_t find_cut(Shared &s, const View &v, const Scale &w, double want)
{
    const auto mass = [&](int b) { return w.counts ? (double)s.count[b] : s.bin[b]; };
    int bin = 0;
    double taken = 0;
    uint64_t cut = 0, low = ~0ull, high;
    fill_bins(s, v, w);
    if (threadIdx.x == 0) {
        while (bin < BINS - 1 && taken + mass(bin) < want) taken += mass(bin++);
        while (mass(bin) == 0) bin--;  // rounding of the last sum ran past the end
    }
    bin = (int)tell_index(s, (uint64_t)bin);
    do {
        high = low;
        low = low_end(s, v, w, bin, high);
        const int n = gather(s, v, w, bin, low, high);
        in_order(
            s, n, [&](int64_t i) { return weight_of(w, value_of((uint32_t)(s.key[i] >> 32))); },
            [&](int64_t i, float weight) {
                taken += (double)weight;
                cut = s.key[i];
                return taken >= want;
            });
    } while (low > 1 && !s.stop);
    return tell_index(s, cut);
}

// --- the draw ---------------------------------------------------------------------------------------------------------

// The first token in id order at which the running sum of the weights from `cut` on exceeds u times their total.
DEVICE int32_t pick(Shared &s, const View &v, const Scale &w, uint64_t cut, double u)
{
    double total = 0, sum = 0;
    int64_t block = 0, last = 0;
    const auto weight_at = [&](int64_t i) {
        const float x = i < v.V ? logit_at(v, i) : -INFINITY;
        return place_of(x, i) < cut ? 0.0f : weight_of(w, x);
    };
    // Weights of neighbours are computed by neighbours, and added by one thread; exchanged so that neither meets a bank conflict.
    const auto place = [](unsigned i) { return i ^ (i / LANES / 2 % LANES); };
    const auto weigh = [&](int64_t n) {
        for (unsigned i = threadIdx.x; i < blockDim.x * LANES; i += blockDim.x) s.weight[place(i)] = weight_at(n * LANES + i);
        __syncthreads();
    };
    const auto lanes = [&](int64_t) {
        float each[LANES];
        for (unsigned j = 0; j < LANES; j++) each[j] = s.weight[place(threadIdx.x * LANES + j)];
        return sample_lanes(each);
    };
    const auto add = [&](int64_t, float here) {
        total += (double)here;
        return false;
    };
    const auto seek = [&](int64_t n, float here) {
        if (here > 0) block = n * LANES;
        if (sum + (double)here > u * total) return true;
        sum += (double)here;
        return false;
    };
    const int64_t blocks = (v.V + LANES - 1) / LANES;
    in_order(s, blocks, lanes, add, weigh);
    in_order(s, blocks, lanes, seek, weigh);
    if (threadIdx.x == 0)
        for (int64_t i = block; i < block + LANES; i++) {
            const float weight = weight_at(i);
            if (weight == 0) continue;
            last = i;
            sum += (double)weight;
            if (sum > u * total) break;
        }
    return (int32_t)last;
}

// Steps 2 to 5 of src/decode/sampler.h on penalised logits of which max is the largest; thread 0 has the token.
DEVICE int32_t draw(Shared &s, View v, float max, const SampleRow &row)
{
    v.temperature = (float)row.temperature;
    max = max / v.temperature;
    if (row.top_k > 0 && row.top_k < v.V) v.least = value_of((uint32_t)(find_cut(s, v, {max, 0, true}, (double)row.top_k) >> 32));
    Scale w = {max, -1, false};
    uint64_t cut = 0;
    if (row.top_p < 1) {
        const double total = total_of(s, v, max);
        w.light = sample_light(row.top_p, total, v.V);
        cut = find_cut(s, v, w, row.top_p * total);
    }
    return pick(s, v, w, cut, row.u);
}

}  // namespace sample

// A block a row, of any number of warps up to THREADS.
inline __global__ void __launch_bounds__(sample::THREADS) sample_rows(const SampleArgs a)
{
    using namespace sample;
    SHARED_MEMORY(memory);
    Shared &s = *(Shared *)memory;
    SampleRow row = a.row[blockIdx.x];
    View v = {a.logits + blockIdx.x * a.V, nullptr, a.V, (float)row.penalty, 1, -INFINITY};
    uint32_t most = largest(s, v, &row.token);
    const bool good = most > key_of(-INFINITY) && most < key_of(INFINITY);
    if (good) {
        row.max = value_of(most);
        row.total = total_of(s, v, row.max);
        if (row.penalty != 1) v.seen = row.seen;
        most = largest(s, v, &row.token);
        if (row.temperature >= SAMPLE_GREEDY_BELOW) row.token = draw(s, v, value_of(most), row);
    }
    if (threadIdx.x) return;
    SampleRow *to = &a.row[blockIdx.x];
    to->token = good ? row.token : -1;
    if (!good) return;
    to->logit = v.logits[row.token], to->max = row.max, to->total = row.total;
    if (row.seen) row.seen[row.token] = 1;
}

#endif
