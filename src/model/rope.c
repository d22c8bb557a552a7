// SPDX-License-Identifier: Apache-2.0
// RoPE table: cos and sin of position x frequency, with Llama-3's frequency scaling (spec 1.3).
//
// Frequencies and angles are fp32 numbers, as the models were trained and as transformers computes them: at position 8,000 an
// fp32 angle is off by up to 2e-4, which is part of the model. cos and sin of that angle are then exact to fp32.
#include <math.h>
#include <stddef.h>

#include "base/mem.h"
#include "model/weights.h"
#include "par/par.h"

static const double TWO_PI = 6.283185307179586;

// spec 1.3: high frequencies stay, low ones are divided by the factor, between them a linear blend.
static float scale_llama3(const ModelConfig *c, float w)
{
    float wavelength = (float)(TWO_PI / (double)w);
    float original = (float)c->rope_original;
    if (wavelength < original / c->rope_high) return w;
    if (wavelength > original / c->rope_low) return w / c->rope_factor;
    float s = (original / wavelength - c->rope_low) / (c->rope_high - c->rope_low);
    return (1 - s) * w / c->rope_factor + s * w;
}

static float frequency(const ModelConfig *c, int64_t i)
{
    float exponent = (float)(2 * i) / (float)c->D;
    float w = 1.0f / (float)pow((double)c->rope_theta, (double)exponent);
    return c->rope_llama3 ? scale_llama3(c, w) : w;
}

static void fill(float *row, const float *w, int64_t half, int64_t position)
{
    for (int64_t i = 0; i < half; i++) {
        float angle = (float)position * w[i];
        row[i] = (float)cos((double)angle);
        row[half + i] = (float)sin((double)angle);
    }
}

int64_t rope_bytes(const ModelConfig *c) { return c->max_positions * c->D * 4; }

Err model_rope_table(Model *m)
{
    const ModelConfig *c = &m->cfg;
    int64_t half = c->D / 2, ranks = m->shared ? par_node_size() : 1, rank = m->shared ? par_node_rank() : 0;
    float *w = NULL;
    m->rope_positions = c->max_positions;
    TRY(m->shared ? par_shared_alloc(rope_bytes(c), &m->rope) : mem_alloc(&m->rope, rope_bytes(c), 1));
    TRY(MEM_ARRAY(&w, half));
    for (int64_t i = 0; i < half; i++) w[i] = frequency(c, i);
    for (int64_t p = rank; p < m->rope_positions; p += ranks) fill(m->rope + p * c->D, w, half, p);
    mem_free(w);
    if (m->shared) TRY(par_node_barrier());
    return OK;
}
