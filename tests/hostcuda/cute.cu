// SPDX-License-Identifier: Apache-2.0
// hostcuda's mma, ldmatrix and wgmma, and the kernels' 128-byte swizzle, against CuTe's layouts (tests/data/cuda): operands are laid out as the
// tables say, and the result is wanted where they say.
#include "kernels/cuda/fragments.cuh"

#include "tests/hostcuda/arrays.hpp"
#include "tests/hostcuda/layouts.hpp"

using hostcuda::launch;

// ---- kernels: registers from global memory, one instruction, registers to global memory -----------------------------

__global__ void one_mma(const uint32_t *a, const uint32_t *b, float *d)
{
    const int lane = (int)threadIdx.x;
    uint32_t x[4], y[2];
    float z[4];
    for (int i = 0; i < 4; i++) x[i] = a[lane * 4 + i], z[i] = d[lane * 4 + i];
    for (int i = 0; i < 2; i++) y[i] = b[lane * 2 + i];
    mma_m16n8k16(z, x, y);
    for (int i = 0; i < 4; i++) d[lane * 4 + i] = z[i];
}

// Lane l's row lies at place[l] of shared memory.
template <bool TRANS> __global__ void one_ldmatrix(const uint16_t *in, const int *place, uint32_t *out)
{
    SHARED_MEMORY(shared);
    const int lane = (int)threadIdx.x;
    for (int i = 0; i < 8; i++) ((uint16_t *)shared)[place[lane] * 8 + i] = in[lane * 8 + i];
    __syncwarp();
    uint32_t r[4];
    if (TRANS) ldmatrix_x4_trans(r, shared + place[lane] * 16);
    else ldmatrix_x4(r, shared + place[lane] * 16);
    for (int i = 0; i < 4; i++) out[lane * 4 + i] = r[i];
}

// a's tile (bytes_a; also its fragment in registers) and b's go to shared memory as they are; d (+)= a b.
template <int N, bool TURN_B, bool IN_REGISTERS>
__global__ void one_wgmma(const uint32_t *a, int bytes_a, const uint32_t *fragment, const uint32_t *b, int bytes_b, uint64_t desc_a, uint64_t desc_b, float *d)
{
    SHARED_MEMORY(shared);
    const int t = (int)threadIdx.x;
    for (int i = t; i < bytes_a / 4; i += 128) ((uint32_t *)shared)[i] = a[i];
    for (int i = t; i < bytes_b / 4; i += 128) ((uint32_t *)(shared + bytes_a))[i] = b[i];
    float x[N / 8][4];
    uint32_t y[4];
    for (int i = 0; i < 4; i++) y[i] = fragment[t * 4 + i];
    for (int i = 0; i < N / 2; i++) x[i / 4][i % 4] = d[t * (N / 2) + i];
    fence_proxy_async();
    __syncthreads();
    wgmma_fence();
    if (IN_REGISTERS) wgmma_rs<N, TURN_B>(x, y, desc_b, 1);
    else wgmma_ss<N, TURN_B>(x, desc_a, desc_b, 1);
    wgmma_commit();
    wgmma_wait<0>();
    for (int i = 0; i < N / 2; i++) d[t * (N / 2) + i] = x[i / 4][i % 4];
}

// ---- what they should do --------------------------------------------------------------------------------------------

// Small integers, so that sums are exact in any order.
static std::vector<float> small_integers(int n)
{
    std::vector<float> v((size_t)n);
    for (float &x : v) x = (float)(int)(random_value() * 9);
    return v;
}

// The registers, `values` of a lane, that hold a matrix.
static std::vector<uint32_t> registers_of(const Fragment &f, const std::vector<float> &matrix, int values, int lanes = 32)
{
    std::vector<uint32_t> r((size_t)(lanes * values / 2));
    for (int i = 0; i < f.rows; i++)
        for (int j = 0; j < f.columns; j++) {
            const int v = f.value.at(i, j);
            r[(size_t)(f.lane.at(i, j) * values / 2 + v / 2)] |= (uint32_t)as_bf16(matrix[(size_t)(i * f.columns + j)]) << v % 2 * 16;
        }
    return r;
}

static int check_mma(const Layouts &l)
{
    const Fragment &fa = l.fragment("mma_a", 16), &fb = l.fragment("mma_b", 16), &fc = l.fragment("mma_c", 8);
    const std::vector<float> a = small_integers(16 * 16), b = small_integers(8 * 16), c = small_integers(16 * 8);
    std::vector<float> in(32 * 4);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) in[(size_t)(fc.lane.at(i, j) * 4 + fc.value.at(i, j))] = c[(size_t)(i * 8 + j)];
    Array<uint32_t> da(registers_of(fa, a, 8)), db(registers_of(fb, b, 4));
    Array<float> d(in);
    if (!launch("one_mma", one_mma, 1, 32, 0, da.p, db.p, d.p)) return printf("%s\n", hostcuda::report()), 1;
    const std::vector<float> got = d.read();
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            float want = c[(size_t)(i * 8 + j)];
            for (int k = 0; k < 16; k++) want += a[(size_t)(i * 16 + k)] * b[(size_t)(j * 16 + k)];
            const float x = got[(size_t)(fc.lane.at(i, j) * 4 + fc.value.at(i, j))];
            if (x != want) return printf("mma: d[%d][%d] = %g, not %g\n", i, j, x, want), 1;
        }
    return 0;
}

static int check_ldmatrix(const Layouts &l, bool trans)
{
    const Fragment &f = l.fragment(trans ? "ldmatrix_trans" : "ldmatrix", 8);
    std::vector<uint16_t> in;
    std::vector<int> place;
    for (int i = 0; i < 32 * 8; i++) in.push_back((uint16_t)(i * 257));
    for (int i = 0; i < 32; i++) place.push_back((i * 5 + 3) % 32);
    Array<uint16_t> d_in(in);
    Array<int> d_place(place);
    Array<uint32_t> out(32 * 4);
    if (!launch("one_ldmatrix", trans ? one_ldmatrix<true> : one_ldmatrix<false>, 1, 32, 512, d_in.p, d_place.p, out.p)) return printf("%s\n", hostcuda::report()), 1;
    const std::vector<uint32_t> got = out.read();
    for (int r = 0; r < 32; r++)
        for (int c = 0; c < 8; c++) {
            const int v = f.value.at(r, c);
            const uint16_t x = (uint16_t)(got[(size_t)(f.lane.at(r, c) * 4 + v / 2)] >> v % 2 * 16), want = in[(size_t)(r * 8 + c)];
            if (x != want) return printf("%s: row %d, column %d is %04x, not %04x\n", f.name.c_str(), r, c, x, want), 1;
        }
    return 0;
}

// ---- wgmma ------------------------------------------------------------------------------------------------------------

// A tile of small integers, as it lies in shared memory, and its elements.
struct Tile {
    const Operand &o;
    std::vector<float> value;
    std::vector<uint32_t> bytes;

    explicit Tile(const Operand &o_) : o(o_), value(small_integers(o_.rows * o_.columns)), bytes((size_t)o_.bytes() / 4)
    {
        for (int r = 0; r < o.rows; r++)
            for (int c = 0; c < o.columns; c++)
                bytes[(size_t)o.offset(r, c) / 4] |= (uint32_t)as_bf16(value[(size_t)(r * o.columns + c)]) << o.offset(r, c) % 4 * 8;
    }
    bool turned() const { return o.name == "mn_major"; }
    float at(const Slice &s, int i, int k) const  // row or column i of a slice, k of its 16
    {
        return turned() ? value[(size_t)((s.k + k) * o.columns + s.first + i)] : value[(size_t)((s.first + i) * o.columns + s.k + k)];
    }
};

template <int N, bool TURN_B, bool IN_REGISTERS> static int check_product(const Layouts &l, const Tile &a, const Slice &sa, const Tile &b, const Slice &sb)
{
    const Fragment &fc = l.fragment("wgmma_c", N);
    const std::vector<float> c = small_integers(64 * N);
    std::vector<float> in(64 * N), rows;
    for (int i = 0; i < 64; i++)
        for (int j = 0; j < N; j++) in[(size_t)(fc.lane.at(i, j) * (N / 2) + fc.value.at(i, j))] = c[(size_t)(i * N + j)];
    for (int i = 0; i < 64; i++)
        for (int k = 0; k < 16; k++) rows.push_back(a.at(sa, i, k));
    Array<uint32_t> da(a.bytes), db(b.bytes), fragment(registers_of(l.fragment("wgmma_a", 16), rows, 8, 128));
    Array<float> d(in);
    const int bytes_a = a.o.bytes(), bytes_b = b.o.bytes();
    const uint64_t desc_a = sa.bits + (uint64_t)(sa.start >> 4), desc_b = sb.bits + (uint64_t)((bytes_a + sb.start) >> 4);
    if (!launch("one_wgmma", one_wgmma<N, TURN_B, IN_REGISTERS>, 1, 128, bytes_a + bytes_b, da.p, bytes_a, fragment.p, db.p, bytes_b, desc_a, desc_b, d.p))
        return printf("%s\n", hostcuda::report()), 1;
    const std::vector<float> got = d.read();
    for (int i = 0; i < 64; i++)
        for (int j = 0; j < N; j++) {
            float want = c[(size_t)(i * N + j)];
            for (int k = 0; k < 16; k++) want += a.at(sa, i, k) * b.at(sb, j, k);
            const float x = got[(size_t)(fc.lane.at(i, j) * (N / 2) + fc.value.at(i, j))];
            if (x != want) return printf("wgmma, %s %d %d from %d: d[%d][%d] = %g, not %g\n", b.o.name.c_str(), b.o.rows, b.o.columns, sb.start, i, j, x, want), 1;
        }
    return 0;
}

template <int N> static int check_slice(const Layouts &l, const Tile &a, const Slice &sa, const Tile &b, const Slice &sb)
{
    if (b.turned()) return check_product<N, true, false>(l, a, sa, b, sb) || check_product<N, true, true>(l, a, sa, b, sb);
    return check_product<N, false, false>(l, a, sa, b, sb) || check_product<N, false, true>(l, a, sa, b, sb);
}

// Every slice of every tile as b, with one of a's in turn.
static int check_wgmma(const Layouts &l)
{
    const Operand *of_a = nullptr;
    for (const Operand &o : l.operands)
        if (o.name == "k_major" && o.rows == 128 && o.columns == 64) of_a = &o;
    if (!of_a) return printf("no tile for a\n"), 1;
    const Tile a(*of_a);
    std::vector<Slice> slices;
    for (const Slice &s : of_a->slices)
        if (s.count == 64) slices.push_back(s);
    int checked = 0, wrong = 0;
    for (const Operand &o : l.operands) {
        const Tile b(o);
        for (const Slice &s : o.slices) {
            const Slice &sa = slices[(size_t)checked++ % slices.size()];
            wrong = s.count == 64    ? check_slice<64>(l, a, sa, b, s)
                    : s.count == 80  ? check_slice<80>(l, a, sa, b, s)
                    : s.count == 128 ? check_slice<128>(l, a, sa, b, s)
                    : s.count == 256 ? check_slice<256>(l, a, sa, b, s)
                                     : (printf("a slice of %d\n", s.count), 1);
            if (wrong) return 1;
        }
    }
    return checked < 100 ? (printf("only %d slices\n", checked), 1) : 0;
}

// 16-byte column c of row r of a box 128 bytes wide lies at c ^ r % 8: the swizzle of TMA and wgmma, of the operands' tables, and of the
// kernels' own tiles.
static int check_swizzle(const Layouts &l)
{
    for (int r = 0; r < 8; r++)
        for (int c = 0; c < 8; c++) {
            const int got = l.swizzle.at((size_t)(r * 8 + c));
            if (got != (c ^ r)) return printf("swizzle: column %d of row %d lies at %d\n", c, r, got), 1;
            if (at<64>(r, c) != r * 128 + got * 16) return printf("fragments.cuh: column %d of row %d lies at %d\n", c, r, at<64>(r, c)), 1;
        }
    for (const Operand &o : l.operands)
        for (int r = 0; r < o.rows; r++)
            for (int c = 0; c < o.columns; c++) {
                const int want = c / 64 * o.rows * 128 + r * 128 + (c % 64 / 8 ^ r % 8) * 16 + c % 8 * 2;
                if (o.offset(r, c) != want) return printf("%s %d %d: [%d][%d] lies at %d, not %d\n", o.name.c_str(), o.rows, o.columns, r, c, o.offset(r, c), want), 1;
            }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 2) return printf("usage: cute DIRECTORY\n"), 64;
    const Layouts l(argv[1]);
    if (!l.whole || l.fragments.size() != 10 || l.operands.size() != 14 || l.swizzle.size() != 64) return printf("%s is not what is expected\n", argv[1]), 1;
    state = 3;
    for (int i = 0; i < 4; i++)
        if (check_mma(l)) return 1;
    return check_ldmatrix(l, false) || check_ldmatrix(l, true) || check_wgmma(l) || check_swizzle(l);
}
