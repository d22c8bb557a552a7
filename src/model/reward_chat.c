// SPDX-License-Identifier: Apache-2.0
#include "model/reward_chat.h"

#include <string.h>

#include "base/mem.h"

Err reward_pattern(const ChatTemplate *c, const Tokenizer *t, RewardHead *h)
{
    const Message a = {"user", "a"}, b = {"user", "7"};
    Ids x = {0}, y = {0};
    Err err = OK;
    int64_t n = 0;
    TRY_DONE(chat_prompt(c, t, &a, 1, &x));
    TRY_DONE(chat_prompt(c, t, &b, 1, &y));
    while (n < x.n && n < y.n && x.id[x.n - 1 - n] == y.id[y.n - 1 - n]) n++;
    CHECK_DONE(n >= 1 && n <= REWARD_PATTERN, ERR_DATA,
               "the template '%s' puts %lld tokens between question and answer; a gating pattern has 1 to %d",
               chat_template_name(c), (long long)n, REWARD_PATTERN);
    memcpy(h->pattern, x.id + x.n - n, (size_t)n * sizeof *x.id);
    h->pattern_len = (int32_t)n;
done:
    ids_free(&x);
    ids_free(&y);
    return err;
}

Err reward_render(const RewardHead *h, const ChatTemplate *c, const Tokenizer *t, const Message *m, int64_t n,
                  const char *answer, Ids *out, int64_t *gating)
{
    Message *all;
    int64_t first = out->n;
    TRY(MEM_ARRAY(&all, n + 1));
    memcpy(all, m, (size_t)n * sizeof *m);
    all[n] = (Message){"assistant", answer};
    Err err = chat_conversation(c, t, all, n + 1, false, out);
    mem_free(all);
    TRY(err);
    *gating = reward_gating_position(h, out->id + first, out->n - first);
    CHECK(*gating >= 0, ERR_DATA,
          "the gating pattern of the reward model does not occur in a conversation rendered by the template '%s'; does "
          "reward.template belong to this model?", chat_template_name(c));
    return OK;
}
