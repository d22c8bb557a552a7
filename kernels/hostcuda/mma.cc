// SPDX-License-Identifier: Apache-2.0
// ldmatrix and mma.sync, warp-wide. Fragment layouts: PTX ISA, "Matrix Fragments for mma.m16n8k16" and "ldmatrix".
#include "block.hpp"

using namespace hostcuda;

#define CALLER __builtin_return_address(0)

namespace {
struct Load {
    uint32_t *out;
    const unsigned char *row;
    bool trans;
};
struct Product {
    float *d;
    const uint32_t *a, *b;
};
}  // namespace

// Lane l holds of each matrix row l / 4, columns 2 (l % 4) and the next; transposed: of each column.
static void do_load(void *const args[WARP])
{
    const Load *const *lane = (const Load *const *)args;
    for (int m = 0; m < 4; m++)
        for (int l = 0; l < WARP; l++) {
            uint16_t v[2];
            for (int e = 0; e < 2; e++) {
                const int r = lane[l]->trans ? l % 4 * 2 + e : l / 4, c = lane[l]->trans ? l / 4 : l % 4 * 2 + e;
                memcpy(&v[e], lane[m * 8 + r]->row + c * 2, 2);
            }
            lane[l]->out[m] = v[0] | (uint32_t)v[1] << 16;
        }
}

static void load(uint32_t *out, const void *row, bool trans, const void *pc)
{
    if ((uintptr_t)row % 16) defect(pc, "misaligned", "ldmatrix reads rows of 16 bytes, not at %p", row);
    if (!is_shared(row, 16)) defect(pc, "out of bounds", "ldmatrix reads shared memory only");
    check(Kind::READ, row, 16, pc);
    Load l = {out, (const unsigned char *)row, trans};
    meet(trans ? "ldmatrix.trans" : "ldmatrix", pc, ~0u, &l, do_load);
}

void ldmatrix_x4(uint32_t (&out)[4], const void *row) { load(out, row, false, CALLER); }
void ldmatrix_x4_trans(uint32_t (&out)[4], const void *row) { load(out, row, true, CALLER); }

static float of_bf16(uint32_t v)
{
    v <<= 16;
    float f;
    memcpy(&f, &v, 4);
    return f;
}

// Register i of a fragment of A: rows + 8 for odd i, columns + 8 for i >= 2; of B: rows (k) + 8 for i = 1.
static void do_product(void *const args[WARP])
{
    float a[16][16], b[16][8], d[16][8];
    for (int l = 0; l < WARP; l++) {
        const Product *p = (const Product *)args[l];
        for (int i = 0; i < 4; i++)
            for (int e = 0; e < 2; e++) a[l / 4 + i % 2 * 8][l % 4 * 2 + i / 2 * 8 + e] = of_bf16(p->a[i] >> 16 * e & 0xffff);
        for (int i = 0; i < 2; i++)
            for (int e = 0; e < 2; e++) b[l % 4 * 2 + i * 8 + e][l / 4] = of_bf16(p->b[i] >> 16 * e & 0xffff);
        for (int i = 0; i < 4; i++) d[l / 4 + i / 2 * 8][l % 4 * 2 + i % 2] = p->d[i];
    }
    for (int r = 0; r < 16; r++)
        for (int k = 0; k < 16; k++)
            for (int c = 0; c < 8; c++) d[r][c] += a[r][k] * b[k][c];
    for (int l = 0; l < WARP; l++)
        for (int i = 0; i < 4; i++) ((const Product *)args[l])->d[i] = d[l / 4 + i / 2 * 8][l % 4 * 2 + i % 2];
}

void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    Product p = {d, a, b};
    meet("mma", CALLER, ~0u, &p, do_product);
}
