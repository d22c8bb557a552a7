// SPDX-License-Identifier: Apache-2.0
// hostcuda's mma and ldmatrix, and the kernels' 128-byte swizzle, against CuTe's layouts (tests/data/cuda): operands are laid out as the
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

// ---- what they should do --------------------------------------------------------------------------------------------

// Small integers, so that sums are exact in any order.
static std::vector<float> small_integers(int n)
{
    std::vector<float> v((size_t)n);
    for (float &x : v) x = (float)(int)(random_value() * 9);
    return v;
}

// The lanes' registers that hold a matrix.
static std::vector<uint32_t> registers_of(const Fragment &f, const std::vector<float> &matrix, int values)
{
    std::vector<uint32_t> r((size_t)(32 * values / 2));
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
    return check_ldmatrix(l, false) || check_ldmatrix(l, true) || check_swizzle(l);
}
