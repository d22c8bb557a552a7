// SPDX-License-Identifier: Apache-2.0
// What CuTe says of the layouts that our kernels use, as text: tools/reference/cute.py compiles and runs this against CuTe's headers.
//
// All of it is host code. A table is stored as a part of each row and a part of each column, whose exclusive or it is; the program fails where
// that is not so for every element.
#include <cstdio>
#include <cstdlib>
#include <cute/atom/copy_traits_sm75.hpp>
#include <cute/atom/mma_atom.hpp>
#include <cute/atom/mma_traits_sm80.hpp>
#include <cute/atom/mma_traits_sm90_gmma.hpp>
#include <cute/tensor.hpp>
#include <vector>

using namespace cute;
using Table = std::vector<std::vector<int>>;

static Table table(int rows, int columns) { return Table((size_t)rows, std::vector<int>((size_t)columns, -1)); }

static void print_parts(const char *name, const Table &t)
{
    for (size_t r = 0; r < t.size(); r++)
        for (size_t c = 0; c < t[0].size(); c++)
            if (t[r][c] < 0 || t[r][c] != (t[r][0] ^ t[0][0] ^ t[0][c])) fprintf(stderr, "%s: no exclusive or at %zu, %zu\n", name, r, c), exit(1);
    printf("%s of a row", name);
    for (size_t r = 0; r < t.size(); r++) printf(" %d", t[r][0]);
    printf("\n%s of a column", name);
    for (size_t c = 0; c < t[0].size(); c++) printf(" %d", t[0][0] ^ t[0][c]);
    printf("\n");
}

// ---- fragments ------------------------------------------------------------------------------------------------------

// place(lane, value, &row, &column): where a layout puts value `value` of a lane.
template <typename Place> static void fragment(const char *name, int rows, int columns, int lanes, int values, Place place)
{
    Table lane = table(rows, columns), value = lane;
    for (int l = 0; l < lanes; l++)
        for (int v = 0; v < values; v++) {
            int r, c;
            place(l, v, &r, &c);
            lane[(size_t)r][(size_t)c] = l, value[(size_t)r][(size_t)c] = v;
        }
    printf("\nfragment %s %d %d\n", name, rows, columns);
    print_parts("lane", lane);
    print_parts("value", value);
}

// CuTe numbers the elements of a tile down its columns.
template <typename Layout> static void of_mma(const char *name, int rows, int columns, Layout layout)
{
    fragment(name, rows, columns, size<0>(layout), size<1>(layout), [&](int l, int v, int *r, int *c) { *r = layout(l, v) % rows, *c = layout(l, v) / rows; });
}

// CuTe numbers bits: 128 of each lane's row.
template <typename Layout> static void of_load(const char *name, Layout layout)
{
    fragment(name, 32, 8, 32, 8, [&](int l, int v, int *r, int *c) { *r = layout(l, v * 16) / 128, *c = layout(l, v * 16) % 128 / 16; });
}

static void fragments()
{
    using Mma = MMA_Traits<SM80_16x8x16_F32BF16BF16F32_TN>;
    of_mma("mma_a", 16, 16, Mma::ALayout{});
    of_mma("mma_b", 8, 16, Mma::BLayout{});
    of_mma("mma_c", 16, 8, Mma::CLayout{});
    of_load("ldmatrix", Copy_Traits<SM75_U32x4_LDSM_N>::DstLayout{});
    of_load("ldmatrix_trans", Copy_Traits<SM75_U16x8_LDSM_T>::DstLayout{});
    constexpr auto KMAJOR = GMMA::Major::K;
    of_mma("wgmma_a", 64, 16, MMA_Traits<SM90_64x64x16_F32BF16BF16_RS<KMAJOR, KMAJOR>>::ALayout{});
    of_mma("wgmma_c", 64, 64, MMA_Traits<SM90_64x64x16_F32BF16BF16_RS<KMAJOR, KMAJOR>>::CLayout{});
    of_mma("wgmma_c", 64, 80, MMA_Traits<SM90::GMMA::MMA_64x80x16_F32BF16BF16_RS<KMAJOR, KMAJOR>>::CLayout{});
    of_mma("wgmma_c", 64, 128, MMA_Traits<SM90_64x128x16_F32BF16BF16_RS<KMAJOR, KMAJOR>>::CLayout{});
    of_mma("wgmma_c", 64, 256, MMA_Traits<SM90_64x256x16_F32BF16BF16_RS<KMAJOR, KMAJOR>>::CLayout{});
}

// ---- operands in shared memory --------------------------------------------------------------------------------------

enum { PANEL = 64 };  // columns: 128 bytes
static uint128_t room[(256 * 256 * 2) / 16 + 64];

// at(row, column): byte offset. Panels of 64 columns have a start each; within them the offset is an exclusive or.
template <typename At> static void offsets(int rows, int columns, At at)
{
    Table inside = table(rows, PANEL);
    printf("panels");
    for (int p = 0; p < columns / PANEL; p++) {
        printf(" %d", at(0, p * PANEL));
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < PANEL; c++) {
                int *in = &inside[(size_t)r][(size_t)c], offset = at(r, p * PANEL + c) - at(0, p * PANEL);
                if (p && *in != offset) fprintf(stderr, "panels differ at %d, %d\n", r, c), exit(1);
                *in = offset;
            }
    }
    printf("\n");
    print_parts("offset", inside);
}

// The descriptor of `slice`, its start address left out; beside it the address, in bytes from the tile's beginning.
template <GMMA::Major MAJOR, typename T, typename S> static void descriptor(const T &tile, const S &slice, int mn, int k)
{
    auto d = GMMA::make_gmma_desc<MAJOR>(slice);
    d.bitfield.start_address_ = 0;
    printf("descriptor %d %d %d %td %016llx\n", mn, (int)size<0>(slice), k, (char *)&slice(0, 0) - (char *)&tile(0, 0), (unsigned long long)d.desc_);
}

// All descriptors of 16 columns in k, for COUNT rows (or columns) of the other kind.
template <GMMA::Major MAJOR, int COUNT, typename T> static void descriptors(const T &tile)
{
    for (int mn = 0; mn < size<0>(tile) / COUNT; mn++)
        for (int k = 0; k < size<1>(tile) / 16; k++) descriptor<MAJOR>(tile, local_tile(tile, Shape<Int<COUNT>, _16>{}, make_coord(mn, k)), mn * COUNT, k * 16);
}

static bfloat16_t *memory() { return (bfloat16_t *)(((uintptr_t)room + 1023) / 1024 * 1024); }

// A tile [ROWS][K], k innermost, in panels of 64 columns.
template <int ROWS, int K> static void k_major()
{
    auto tile = make_tensor(make_smem_ptr(memory()), tile_to_shape(GMMA::Layout_K_SW128_Atom<bfloat16_t>{}, Shape<Int<ROWS>, Int<K>>{}, Step<_1, _2>{}));
    printf("\noperand k_major %d %d\n", ROWS, K);
    offsets(ROWS, K, [&](int r, int k) { return (int)((char *)&tile(r, k) - (char *)&tile(0, 0)); });
    descriptors<GMMA::Major::K, ROWS>(tile);
    if constexpr (ROWS % 64 == 0 && ROWS > 64) descriptors<GMMA::Major::K, 64>(tile);
}

// A tile [K][N], n innermost, in panels of 64 columns.
template <int K, int N> static void mn_major()
{
    auto tile = make_tensor(make_smem_ptr(memory()), tile_to_shape(GMMA::Layout_MN_SW128_Atom<bfloat16_t>{}, Shape<Int<N>, Int<K>>{}, Step<_2, _1>{}));
    printf("\noperand mn_major %d %d\n", K, N);
    offsets(K, N, [&](int k, int n) { return (int)((char *)&tile(n, k) - (char *)&tile(0, 0)); });
    descriptors<GMMA::Major::MN, N>(tile);
    if constexpr (N > 64) descriptors<GMMA::Major::MN, 64>(tile);
}

static void operands()
{
    k_major<64, 64>(), k_major<80, 64>(), k_major<128, 64>(), k_major<256, 64>();
    k_major<64, 128>(), k_major<80, 256>(), k_major<128, 128>(), k_major<64, 256>();
    mn_major<64, 64>(), mn_major<64, 128>(), mn_major<80, 256>(), mn_major<128, 64>(), mn_major<128, 128>(), mn_major<128, 256>();
}

// Which 16-byte column of a row of 128 bytes a 16-byte column is stored in: what TMA's 128-byte swizzle writes and wgmma's reads.
static void swizzle()
{
    auto layout = composition(Swizzle<3, 4, 3>{}, Layout<Shape<_8, _128>, Stride<_128, _1>>{});
    printf("\nswizzle 128B 8 8\n");
    for (int r = 0; r < 8; r++)
        for (int c = 0; c < 8; c++) printf("%d%s", layout(r, c * 16) % 128 / 16, c == 7 ? "\n" : " ");
}

int main(int argc, char **)
{
    if (argc > 1) operands(), swizzle();
    else fragments();
    return 0;
}
