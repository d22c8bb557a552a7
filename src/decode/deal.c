// SPDX-License-Identifier: Apache-2.0
// Method: guided self-scheduling (Polychronopoulos and Kuck 1987): a chunk is 1 / (4 ranks) of what is left, so a rank asks
// seldom and ranks still end together. Chunks are whole prompts, which are then computed once; only the samples of the last
// prompts, one a rank, are dealt apart. Drawback: such a prompt is computed by every rank that gets a sample of it.
#include "decode/deal.h"

// Where the last `count` prompts begin.
static int64_t last_prompts(const int32_t *prompt, int64_t n, int64_t count)
{
    int64_t at = n;
    for (; at > 0 && count > 0; count--)
        do at--;
        while (at > 0 && prompt[at - 1] == prompt[at]);
    return at;
}

static int64_t end_of_prompt(const int32_t *prompt, int64_t n, int64_t at)
{
    while (at < n && prompt[at] == prompt[at - 1]) at++;
    return at;
}

void deal_cut(const int32_t *prompt, int64_t n, int ranks, int64_t *border, int64_t *chunks)
{
    const int64_t apart = last_prompts(prompt, n, ranks);
    int64_t at = 0;
    *chunks = 0;
    border[0] = 0;
    while (at < n) {
        const int64_t share = (n - at) / (4 * ranks);
        at += share > 1 ? share : 1;
        if (at <= apart) at = end_of_prompt(prompt, apart, at);
        border[++*chunks] = at;
    }
}
