// SPDX-License-Identifier: Apache-2.0
#include "model/changes.h"

#include <stddef.h>

#include "base/mem.h"
#include "base/profile.h"
#include "model/weights.h"

enum { CHUNK = 1 << 16 };

typedef struct Buffers {
    float base[CHUNK], rounded[CHUNK];
    char encoded[CHUNK * sizeof(float)];
} Buffers;

static Err count_part(const Model *m, const WeightPart *part, const StDir *dir, DType storage, Buffers *b, Changes *out)
{
    const StTensor *t;
    TRY(weight_find(dir, part, &t));
    for (int64_t at = 0; at < part->n; at += CHUNK) {
        const int64_t n = part->n - at < CHUNK ? part->n - at : CHUNK;
        const float *w = m->w + part->offset + at;
        TRY(st_read(t, at, n, b->base));
        st_encode(w, n, storage, b->encoded);
        st_decode(b->encoded, n, storage, b->rounded);
        for (int64_t i = 0; i < n; i++) {
            out->learned += w[i] != b->base[i];
            out->written += b->rounded[i] != b->base[i];
        }
    }
    out->elements += part->n;
    return OK;
}

Err model_changes(const Model *m, const char *base, DType storage, Changes *out)
{
    PROFILE(PHASE_IO);
    StDir dir;
    WeightPart *part = NULL;
    Buffers *b = NULL;
    int64_t parts = 0;
    Err err = OK;
    *out = (Changes){0};
    TRY(st_open(base, &dir));
    TRY_DONE(MEM_ARRAY(&b, 1));
    TRY_DONE(weight_parts(m, &part, &parts));
    for (int64_t i = 0; i < parts; i++) TRY_DONE(count_part(m, &part[i], &dir, storage, b, out));
done:
    mem_free(part);
    mem_free(b);
    st_close(&dir);
    return err;
}
