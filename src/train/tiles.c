// SPDX-License-Identifier: Apache-2.0
#include "train/tiles.h"

#include "base/mem.h"

int64_t tile_rows(int64_t cols)
{
    int64_t rows = TILE_ELEMENTS / (cols > 0 ? cols : 1);
    return rows < 1 ? 1 : rows;
}

Err tiles_make(const Model *m, Tile **tiles, int64_t *n)
{
    int64_t count = 0;
    for (int32_t i = 0; i < m->specs; i++) {
        int64_t step = tile_rows(m->spec[i].cols);
        count += (m->spec[i].rows + step - 1) / step;
    }
    TRY(MEM_ARRAY(tiles, count));
    *n = count;
    Tile *t = *tiles;
    for (int32_t i = 0; i < m->specs; i++) {
        const WeightSpec *s = &m->spec[i];
        int64_t step = tile_rows(s->cols);
        for (int64_t row = 0; row < s->rows; row += step, t++) {
            int64_t rows = s->rows - row < step ? s->rows - row : step;
            *t = (Tile){i, row, rows, s->offset + row * s->cols, rows * s->cols};
        }
    }
    return OK;
}

TileShare tile_share(const Tile *tiles, int64_t n, int rank, int ranks)
{
    TileShare s = {n * rank / ranks, n * (rank + 1) / ranks, 0, 0};
    if (s.first == s.last) return s;
    s.begin = tiles[s.first].offset;
    s.end = tiles[s.last - 1].offset + tiles[s.last - 1].n;
    return s;
}
