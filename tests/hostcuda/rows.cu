// SPDX-License-Identifier: Apache-2.0
// The row-wise kernels and the optimiser against their formulas in double, at odd shapes, every buffer with a gap behind each row.
#include "kernels/cuda/optim.cuh"

#include "tests/hostcuda/arrays.hpp"

#include <functional>

using hostcuda::launch;

enum { T = 21 };
static const int WIDTHS[] = {1, 7, 64, 100, 576};
static const std::vector<int32_t> ROW = {0, 9, 9, T};  // packed sequences, one empty

static int64_t stride_of(int64_t width) { return (width + 7) / 8 * 8 + 8; }

static std::vector<float> random_floats(size_t n)
{
    std::vector<float> v(n);
    for (auto &x : v) x = random_value();
    return v;
}

static double value(float x) { return x; }
static double value(double x) { return x; }
static double value(uint16_t x) { return of_bf16(x); }

// Every value of [t][width] is what `want` says, within `part` of the size that it gives.
struct Want {
    double value, size;
};

template <typename V>
static bool near(const char *name, const std::vector<V> &got, int64_t rows, int64_t width, int64_t stride, double part, const std::function<Want(int64_t, int64_t)> &want)
{
    for (int64_t t = 0; t < rows; t++)
        for (int64_t h = 0; h < width; h++) {
            const Want w = want(t, h);
            const double x = value(got[(size_t)(t * stride + h)]);
            if (!(std::fabs(x - w.value) <= part * w.size + 1e-30)) return printf("%s[%d][%d] of width %d = %g, not %g\n", name, (int)t, (int)h, (int)width, x, w.value), false;
        }
    return true;
}

static bool ran(bool good)
{
    if (!good) printf("%s\n", hostcuda::report());
    return good;
}

static const double FP32 = 1e-6, BF16 = 1.0 / 256;  // a rounding to bf16 moves a value by up to 2^-8 of it

static bool check_norm(int H)
{
    const int64_t S = stride_of(H);
    const auto x = random_floats(T * S), w = random_floats(H), in = random_floats(T * S), dw0 = random_floats(H);
    const auto dy = random_floats(T * S);
    Array<float> dx_(T * S), dy_(dy), full_(T * S), x_(x), w_(w), in_(in), rstd_(T), dw_(dw0);
    Array<uint16_t> y_(T * S);
    Array<int32_t> row_(ROW);
    const float eps = 1e-5f;
    const unsigned grid = (T + 3) / 4;
    rows::NormBwd b = {x_.p, dy_.p, in_.p, dx_.p, w_.p, rstd_.p, dw_.p, row_.p, (int)ROW.size() - 1, S, S, S, S, T, H};
    if (!ran(launch("rmsnorm_fwd", rmsnorm_fwd<uint16_t>, grid, rows::THREADS, 0, rows::Norm<uint16_t>{x_.p, y_.p, w_.p, rstd_.p, S, S, T, H, eps}) &&
             launch("rmsnorm_fwd", rmsnorm_fwd<float>, grid, rows::THREADS, 0, rows::Norm<float>{x_.p, full_.p, w_.p, nullptr, S, S, T, H, eps}) &&
             launch("rmsnorm_bwd_x", rmsnorm_bwd_x, grid, rows::THREADS, 0, b) &&
             launch("rmsnorm_bwd_w", rmsnorm_bwd_w, (H + 31) / 32, rows::SUM_THREADS, rows::SUM_BYTES, b)))
        return false;
    std::vector<double> rstd(T), dot(T), dot_size(T);
    for (int t = 0; t < T; t++) {
        double sum = 0;
        for (int h = 0; h < H; h++) sum += (double)x[t * S + h] * x[t * S + h];
        rstd[t] = 1 / sqrt(sum / H + (double)eps);
        for (int h = 0; h < H; h++) {
            const double term = (double)w[h] * dy[t * S + h] * x[t * S + h];
            dot[t] += term, dot_size[t] += std::fabs(term);
        }
    }
    const auto y = [&](int64_t t, int64_t h) {
        const double v = x[t * S + h] * rstd[t] * w[h];
        return Want{v, std::fabs(v)};
    };
    return near("y", y_.read(), T, H, S, BF16, y) && near("y in fp32", full_.read(), T, H, S, FP32, y) &&
           near("rstd", rstd_.read(), 1, T, T, FP32, [&](int64_t, int64_t t) { return Want{rstd[t], rstd[t]}; }) &&
           near("dx", dx_.read(), T, H, S, FP32, [&](int64_t t, int64_t h) {
               const double r = rstd[t], a = r * w[h] * dy[t * S + h], m = r * r * r / H * x[t * S + h];
               return Want{in[t * S + h] + a - m * dot[t], std::fabs(in[t * S + h]) + std::fabs(a) + std::fabs(m) * dot_size[t]};
           }) &&
           near("dw", dw_.read(), 1, H, H, FP32, [&](int64_t, int64_t h) {
               Want v = {dw0[h], std::fabs(dw0[h])};
               for (int t = 0; t < T; t++) {
                   const double term = (double)dy[t * S + h] * x[t * S + h] * rstd[t];
                   v.value += term, v.size += std::fabs(term);
               }
               return v;
           });
}

static bool check_norm_alone()
{
    const int64_t H = 64;
    const auto x = random_floats(H), w = random_floats(H);
    const auto dy = random_floats(H);
    Array<float> x_(x), dy_(dy), w_(w), dx_(H), rstd_(1), in_(std::vector<float>(H, 0));
    Array<uint16_t> y_(H);
    rows::NormBwd b = {x_.p, dy_.p, nullptr, dx_.p, w_.p, rstd_.p, nullptr, nullptr, 0, H, H, H, H, 1, H};
    if (!ran(launch("rmsnorm_fwd", rmsnorm_fwd<uint16_t>, 1, rows::THREADS, 0, rows::Norm<uint16_t>{x_.p, y_.p, w_.p, rstd_.p, H, H, 1, H, 1e-5f}) &&
             launch("rmsnorm_bwd_x", rmsnorm_bwd_x, 1, rows::THREADS, 0, b)))
        return false;
    const auto without = dx_.read();
    b.dx_in = in_.p;
    if (!ran(launch("rmsnorm_bwd_x", rmsnorm_bwd_x, 1, rows::THREADS, 0, b))) return false;
    return without == dx_.read() || (printf("no residual gradient is not zero\n"), false);
}

static bool check_bias(int width)
{
    const int64_t S = stride_of(width);
    const auto dy = random_bf16(T * S);
    const auto before = random_floats(width);
    Array<uint16_t> dy_(dy);
    Array<float> dbias_(before);
    Array<int32_t> row_(ROW);
    const rows::Bias b = {dy_.p, dbias_.p, row_.p, (int)ROW.size() - 1, S, width};
    if (!ran(launch("bias_bwd", bias_bwd, (width + 31) / 32, rows::SUM_THREADS, rows::SUM_BYTES, b))) return false;
    return near("dbias", dbias_.read(), 1, width, width, FP32, [&](int64_t, int64_t h) {
        Want v = {before[h], std::fabs(before[h])};
        for (int t = 0; t < T; t++) v.value += of_bf16(dy[t * S + h]), v.size += std::fabs(of_bf16(dy[t * S + h]));
        return v;
    });
}

static bool check_rope(int D, int heads, int gap = 8)
{
    const int64_t width = (int64_t)D * heads, S = (width + 7) / 8 * 8 + gap;
    const auto x = random_bf16(T * S);
    const auto table = random_floats(50 * D);
    std::vector<int32_t> pos(T);
    for (int t = 0; t < T; t++) pos[t] = t * 7 % 50;
    Array<float> table_(table);
    Array<int32_t> pos_(pos);
    for (bool inverse : {false, true}) {
        Array<uint16_t> x_(x);
        const unsigned grid = (unsigned)((T * heads * ((D / 2 + 3) / 4) + rows::THREADS - 1) / rows::THREADS);
        if (!ran(launch("rope", rope, grid, rows::THREADS, 0, rows::Rope{x_.p, S, pos_.p, table_.p, T, heads, D, inverse}))) return false;
        const bool good = near("rope", x_.read(), T, width, S, BF16, [&](int64_t t, int64_t h) {
            const int64_t i = h % D % (D / 2), head = h / D;
            const double low = of_bf16(x[t * S + head * D + i]), high = of_bf16(x[t * S + head * D + i + D / 2]);
            const double c = table[pos[t] * D + i], s = (inverse ? -1 : 1) * (double)table[pos[t] * D + i + D / 2];
            const double a = h % D < D / 2 ? low * c : high * c, b = h % D < D / 2 ? -high * s : low * s;
            return Want{a + b, std::fabs(a) + std::fabs(b)};
        });
        if (!good) return false;
    }
    return true;
}

// act(x) = x sigmoid(w(x)) of a gate: w and its derivative.
static double inner(rows::Silu, double x, double *slope) { return *slope = 1, x; }
static double inner(rows::Gelu, double x, double *slope)
{
    const double k = 2 * sqrt(2 / M_PI), c = 0.044715;
    return *slope = k * (1 + 3 * c * x * x), k * (x + c * x * x * x);
}

// What lies behind the columns of a row is as it was.
static bool is_kept(const char *what, const std::vector<uint16_t> &now, const std::vector<uint16_t> &before, int64_t width, int64_t stride)
{
    for (size_t i = 0; i < now.size(); i++)
        if ((int64_t)i % stride >= width && now[i] != before[i]) return printf("%s[%d] is written, behind a row\n", what, (int)i), false;
    return true;
}

template <typename Gate> static bool check_glu(int F)
{
    const int64_t S = stride_of(F);
    auto g = random_bf16(T * S), u = random_bf16(T * S), dy = random_bf16(T * S);
    g[0] = as_bf16(-200), g[(size_t)S] = as_bf16(200);
    Array<uint16_t> g_(g), u_(u), dy_(dy), y_(T * S);
    const unsigned grid = (unsigned)((T * ((F + 7) / 8) + rows::THREADS - 1) / rows::THREADS);
    const rows::Glu a = {g_.p, u_.p, dy_.p, y_.p, g_.p, u_.p, S, S, S, S, S, S, T, F};  // gradients in place
    if (!ran(launch("glu_fwd", glu_fwd<Gate>, grid, rows::THREADS, 0, a) && launch("glu_bwd", glu_bwd<Gate>, grid, rows::THREADS, 0, a))) return false;
    double gate, up, d, s, slope;
    const auto at = [&](int64_t t, int64_t f) {
        gate = of_bf16(g[t * S + f]), up = of_bf16(u[t * S + f]), d = of_bf16(dy[t * S + f]);
        s = 1 / (1 + exp(-inner(Gate(), gate, &slope)));
    };
    return near("y", y_.read(), T, F, S, BF16, [&](int64_t t, int64_t f) {
               at(t, f);
               return Want{gate * s * up, std::fabs(gate * s * up)};
           }) &&
           near("dg", g_.read(), T, F, S, BF16, [&](int64_t t, int64_t f) {
               at(t, f);
               const double turn = gate * s * (1 - s) * slope;
               return Want{d * up * (s + turn), std::fabs(d * up) * (s + std::fabs(turn))};
           }) &&
           near("du", u_.read(), T, F, S, BF16, [&](int64_t t, int64_t f) {
               at(t, f);
               return Want{d * gate * s, std::fabs(d * gate * s)};
           }) &&
           is_kept("dg", g_.read(), g, F, S) && is_kept("du", u_.read(), u, F, S);
}

// Sums of two floats and of a gradient in its order are those of the CPU, bit for bit.
static bool check_sums(int H)
{
    const int64_t S = stride_of(H), V = 5;
    const auto a = random_floats(T * S), b = random_floats(T * S), table0 = random_floats(V * S);
    const auto table = random_bf16(V * S);
    std::vector<int32_t> token(T);
    for (int t = 0; t < T; t++) token[t] = t * t % 4;
    Array<float> a_(a), b_(b), y_(T * S), e_(T * S), dtable_(table0);
    Array<uint16_t> r_(T * S), table_(table);
    Array<int32_t> token_(token);
    const unsigned grid = (unsigned)(T * rows::pieces_of(H) + 3) / 4;
    const rows::Sum sum = {a_.p, b_.p, y_.p, r_.p, S, S, S, T, H};
    if (!ran(launch("add_rows", add_rows, grid, rows::THREADS, 0, sum) && launch("round_rows", round_rows, grid, rows::THREADS, 0, sum) &&
             launch("embed_fwd", embed_fwd, grid, rows::THREADS, 0, rows::Embed{table_.p, e_.p, nullptr, token_.p, S, S, 0, T, H}) &&
             launch("embed_bwd", embed_bwd, T, rows::THREADS, 16, rows::Embed{nullptr, a_.p, dtable_.p, token_.p, 0, S, S, T, H})))
        return false;
    return near("a + b", y_.read(), T, H, S, 0, [&](int64_t t, int64_t h) { return Want{a[t * S + h] + b[t * S + h], 0}; }) &&
           near("rounded", r_.read(), T, H, S, 0, [&](int64_t t, int64_t h) { return Want{of_bf16(as_bf16(a[t * S + h])), 0}; }) &&
           near("embedding", e_.read(), T, H, S, 0, [&](int64_t t, int64_t h) { return Want{of_bf16(table[token[t] * S + h]), 0}; }) &&
           near("dtable", dtable_.read(), V, H, S, 0, [&](int64_t v, int64_t h) {
               float x = table0[v * S + h];
               for (int t = 0; t < T; t++)
                   if (token[t] == v) x += a[t * S + h];
               return Want{x, 0};
           });
}

static bool check_linear(int in, int out)
{
    const auto x32 = random_floats(T * in), w = random_floats(out * in), bias = random_floats(out);
    const std::vector<double> x(x32.begin(), x32.end());
    for (bool relu : {false, true}) {
        Array<double> x_(x), y_(T * out);
        Array<float> w_(w), bias_(bias);
        const rows::LinearF64 a = {x_.p, w_.p, relu ? bias_.p : nullptr, y_.p, T, in, out, relu};
        if (!ran(launch("linear_f64", linear_f64, (unsigned)(T * out + 3) / 4, rows::THREADS, 0, a))) return false;
        const bool good = near("linear in fp64", y_.read(), T, out, out, 1e-15, [&](int64_t t, int64_t o) {
            Want v = {relu ? (double)bias[o] : 0, relu ? std::fabs((double)bias[o]) : 0};
            for (int64_t i = 0; i < in; i++) v.value += (double)w[o * in + i] * x[t * in + i], v.size += std::fabs((double)w[o * in + i] * x[t * in + i]);
            return Want{relu && v.value < 0 ? 0 : v.value, v.size};
        });
        if (!good) return false;
    }
    return true;
}

static bool check_optimiser(int n)
{
    const auto w = random_floats(n), m = random_floats(n), g = random_floats(n);
    auto v = random_floats(n);
    for (auto &x : v) x = std::fabs(x);
    const float clip = 0.5f, lr = 1e-2f;
    const int64_t step = 3;
    Array<float> w_(w), m_(m), v_(v), g_(g), clip_(std::vector<float>{clip}), lr_(std::vector<float>{lr});
    Array<int64_t> step_(std::vector<int64_t>{step});
    Array<uint16_t> rounded_(n);
    const int blocks = (n + optim::BLOCK - 1) / optim::BLOCK;
    Array<double> sum_(blocks);
    const optim::AdamW a = {w_.p, m_.p, v_.p, g_.p, rounded_.p, n, clip_.p, lr_.p, step_.p, 0.9f, 0.95f, 1e-8f, 0.1f};
    if (!ran(launch("adamw", adamw, (unsigned)((n + 2047) / 2048), optim::THREADS, 8, a) &&
             launch("sqnorm", sqnorm, blocks, optim::THREADS, optim::THREADS * 8, g_.p, n, sum_.p)))
        return false;
    const auto first = [&](int64_t i) { return 0.9f * (double)m[i] + (1 - (double)0.9f) * g[i] * clip; };
    const auto second = [&](int64_t i) { return 0.95f * (double)v[i] + (1 - (double)0.95f) * g[i] * clip * g[i] * clip; };
    const auto got = w_.read();
    const auto rounded = rounded_.read();
    for (int i = 0; i < n; i++)
        if (rounded[i] != as_bf16(got[i])) return printf("rounded[%d]\n", i), false;
    return near("m", m_.read(), 1, n, n, FP32, [&](int64_t, int64_t i) { return Want{first(i), std::fabs(m[i]) + std::fabs(g[i])}; }) &&
           near("v", v_.read(), 1, n, n, FP32, [&](int64_t, int64_t i) { return Want{second(i), second(i)}; }) &&
           near("w", got, 1, n, n, FP32, [&](int64_t, int64_t i) {
               const double b1 = 1 - pow((double)0.9f, 3), b2 = 1 - pow((double)0.95f, 3);
               const double by = lr / b1 * first(i) / (sqrt(second(i)) / sqrt(b2) + (double)1e-8f);
               return Want{w[i] - (double)lr * 0.1f * w[i] - by, std::fabs(w[i]) + std::fabs(by) * 4};
           }) &&
           near("squares", [&] {
               std::vector<float> s;
               for (double x : sum_.read()) s.push_back((float)x);
               return s;
           }(), 1, blocks, blocks, FP32, [&](int64_t, int64_t b) {
               Want s = {0, 0};
               for (int64_t i = b * optim::BLOCK; i < n && i < (b + 1) * optim::BLOCK; i++) s.value += (double)g[i] * g[i];
               s.size = s.value;
               return s;
           });
}

// Two gradients summed in fixed point, exactly; a value that does not fit is told and leaves its sum alone.
static bool check_fixed(int n, float odd)
{
    auto g = random_floats(n), h = random_floats(n);
    g[n - 1] = odd, h[0] = -2047.9999f;
    Array<float> g_(g), h_(h), back_(n);
    Array<int64_t> sum_(std::vector<int64_t>(n, 5));
    Array<uint32_t> bad_(std::vector<uint32_t>{0});
    const unsigned blocks = (unsigned)((n + optim::BLOCK - 1) / optim::BLOCK);
    if (!ran(launch("fixed_add", fixed_add, blocks, optim::THREADS, 0, g_.p, sum_.p, (int64_t)n, bad_.p) &&
             launch("fixed_add", fixed_add, blocks, optim::THREADS, 0, h_.p, sum_.p, (int64_t)n, bad_.p) &&
             launch("fixed_get", fixed_get, blocks, optim::THREADS, 0, (const int64_t *)sum_.p, back_.p, (int64_t)n)))
        return false;
    const auto fits = [](float x) { return std::fabs(x) < 2048; };
    const auto sum = sum_.read();
    const auto back = back_.read(), left = g_.read();
    if (bad_.read()[0] != (fits(odd) ? 0u : 1u)) return printf("fixed point of %g: bad is %u\n", (double)odd, bad_.read()[0]), false;
    for (int i = 0; i < n; i++) {
        const int64_t want = 5 + (fits(g[i]) ? llrint((double)g[i] * 0x1p40) : 0) + llrint((double)h[i] * 0x1p40);
        if (sum[i] != want || back[i] != (float)((double)want * 0x1p-40) || left[i] != 0)
            return printf("fixed point [%d]: %lld, wanted %lld; back %g; left %g\n", i, (long long)sum[i], (long long)want, (double)back[i], (double)left[i]), false;
    }
    return true;
}

static bool uses_memory()
{
    const std::set<std::string> kernels = {"rmsnorm_fwd", "rmsnorm_bwd_x", "rmsnorm_bwd_w", "bias_bwd", "rope", "glu_fwd", "glu_bwd", "add_rows", "round_rows",
                                           "embed_fwd", "embed_bwd", "linear_f64", "adamw", "sqnorm", "fixed_add", "fixed_get"};
    const std::vector<Exception> exceptions = {
        {"a.rstd[t]", "a number a row"},
        {"a.row[r", "all lanes read where a packed sequence begins and ends"},
        {"a.pos[s.t]", "a position for all heads of a token"},
        {"a.token[", "all lanes read one token, or those before the block's"},
        {"sum += (double)a.bias[o]", "one lane has the sum"},
        {"a.y[t * a.out + o]", "one lane has the sum"},
        {"(double)*a.step", "one thread reads the step's numbers"},
        {"clip = *a.clip", "all lanes read two numbers"},
        {"sum[blockIdx.x] = part[0]", "a number a block"},
    };
    // width 504: rows of stride 512, which begin with a sector
    return uses_memory_well(kernels, exceptions, [] {
        return check_norm(504) && check_bias(504) && check_rope(64, 4, 16) && check_glu<rows::Silu>(504) && check_glu<rows::Gelu>(504) && check_sums(504) &&
               check_linear(64, 16) && check_optimiser(4096) && check_fixed(4096, 2048);
    });
}

int main()
{
    state = 3;
    for (int seed = 0; seed < 2; seed++) {
        hostcuda::set_order(hostcuda::Order::RANDOM, (uint64_t)seed);
        for (int width : WIDTHS)
            if (!check_norm(width) || !check_bias(width) || !check_glu<rows::Silu>(width) || !check_glu<rows::Gelu>(width) || !check_sums(width)) return 1;
        if (!check_linear(1, 1) || !check_linear(100, 19) || !check_linear(32, 5)) return 1;
        if (!check_norm_alone() || !check_rope(64, 3) || !check_rope(128, 1) || !check_rope(6, 2)) return 1;
        for (int n : {1, 100, 4096, 9001})
            if (!check_optimiser(n) || !check_fixed(n, 0x3p-41f) || !check_fixed(n, 2048) || !check_fixed(n, NAN)) return 1;
    }
    return !uses_memory() || !holds_for_inexact_functions([] { return check_glu<rows::Silu>(100) && check_glu<rows::Gelu>(100); });
}
