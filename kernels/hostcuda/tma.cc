// SPDX-License-Identifier: Apache-2.0
// Tensor maps and the bulk copies that follow them (TMA): a box of rows of a bf16 matrix into shared memory, swizzled.
//
// A copy is checked when it is issued, by what the issuing warp knows: nobody may still read what it writes. It lands at once, later, or when
// nothing else can run; then its bytes count in its mbarrier, and who waits for that phase knows what it wrote.
#include <algorithm>

#include "kernels/hostcuda/block.hpp"
#include "kernels/hostcuda/cuda.h"

using namespace hostcuda;

#define CALLER __builtin_return_address(0)

namespace {

enum : uint64_t { MAGIC = 0x70616d20736f6e65 };
enum { SWIZZLED = 128, MOST_BOX = 256 };

// What a map holds.
struct Map {
    uint64_t magic;
    const unsigned char *address;
    uint64_t width, height, stride;  // elements, rows, bytes
    uint32_t columns, rows;
};
static_assert(sizeof(Map) <= sizeof(CUtensorMap), "a map is 128 bytes");

}  // namespace

CUresult cuTensorMapEncodeTiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *address, const cuuint64_t *dims, const cuuint64_t *strides,
                                const cuuint32_t *box, const cuuint32_t *element_strides, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill)
{
    const uint64_t limit = (uint64_t)1 << 32;
    if ((uintptr_t)map % 64 || rank != 2 || type != CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 || interleave || fill) return CUDA_ERROR_INVALID_VALUE;
    if ((uintptr_t)address % 16 || strides[0] % 16 || strides[0] >> 40 || element_strides[1] != 1) return CUDA_ERROR_INVALID_VALUE;
    for (int i = 0; i < 2; i++)
        if (!dims[i] || dims[i] > limit || !box[i] || box[i] > MOST_BOX) return CUDA_ERROR_INVALID_VALUE;
    if (box[0] * 2 % 16 || swizzle != CU_TENSOR_MAP_SWIZZLE_128B || box[0] * 2 > SWIZZLED) return CUDA_ERROR_INVALID_VALUE;
    const Map m = {MAGIC, (const unsigned char *)address, dims[0], dims[1], strides[0], box[0], box[1]};
    memset(map, 0, sizeof *map);
    memcpy(map, &m, sizeof m);
    return CUDA_SUCCESS;
}

// ---- a copy -----------------------------------------------------------------------------------------------------------

// Byte x of row r.
static unsigned char *at_byte(unsigned char *to, int r, int x) { return (unsigned char *)swizzled((uintptr_t)to + (uintptr_t)(r * SWIZZLED + x)); }

// Elements of row y of the box that lie inside of the tensor.
static int inside(const BulkCopy &c, int r)
{
    if (c.y + r < 0 || c.y + r >= c.height || c.x < 0) return 0;
    return (int)std::max<int64_t>(0, std::min<int64_t>(c.columns, c.width - c.x));
}

static const unsigned char *row_of(const BulkCopy &c, int r) { return c.from + (c.y + r) * c.stride + (int64_t)c.x * 2; }

static void land(Block *b, const BulkCopy &c)
{
    for (int r = 0; r < c.rows; r++) {
        const int there = inside(c, r) * 2;
        for (int x = 0; x < c.columns * 2; x += 2) {
            uint16_t v = 0;
            if (x < there) memcpy(&v, row_of(c, r) + x, 2);
            memcpy(at_byte(c.to, r, x), &v, 2);
        }
    }
    Mbar *m = &b->mbars.at(c.bar);
    m->flying--;
    m->bytes -= c.rows * c.columns * 2;
    if (m->pending <= 0 && !m->bytes) end_phase(m);
}

bool hostcuda::land_one(Block *b)
{
    if (b->flying.empty()) return false;
    const size_t i = random_bits() % b->flying.size();
    const BulkCopy c = b->flying[i];
    b->flying.erase(b->flying.begin() + (long)i);
    land(b, c);
    return true;
}

static Map open(const TensorMap *map, const void *pc)
{
    Map m;
    memcpy(&m, map, sizeof m);
    if (m.magic != MAGIC || (uintptr_t)map % 64) defect(pc, "tensor map", "this is no tensor map, or not at a multiple of 64 bytes");
    return m;
}

void tma_load_2d(void *shared, const TensorMap *map, int x, int y, uint64_t *bar)
{
    only_sm90("a bulk copy", CALLER);
    const Map m = open(map, CALLER);
    const BulkCopy c = {(unsigned char *)shared, m.address, (int64_t)m.width, (int64_t)m.height, (int64_t)m.stride, x, y, (int)m.columns, (int)m.rows, bar};
    const size_t bytes = (size_t)(c.rows * c.columns * 2);
    if ((uintptr_t)shared % SWIZZLED) defect(CALLER, "misaligned", "a swizzled bulk copy begins at a multiple of %d bytes", SWIZZLED);
    if (!is_shared(shared, (size_t)c.rows * SWIZZLED)) defect(CALLER, "out of bounds", "a bulk copy of %zu bytes leaves shared memory", bytes);
    Mbar *b = expecting(bar, (int64_t)bytes, CALLER);
    for (int r = 0; r < c.rows; r++) {
        if (const int n = inside(c, r)) check_async(Kind::READ, row_of(c, r), (size_t)n * 2, b->agent, b->phase + 1, CALLER);
        for (int col = 0; col < c.columns * 2; col += 16) check_async(Kind::WRITE, at_byte(c.to, r, col), 16, b->agent, b->phase + 1, CALLER);
    }
    if (order() == Order::EARLY || (order() == Order::RANDOM && random_bits() % 2)) land(current->block, c);
    else current->block->flying.push_back(c);
}
