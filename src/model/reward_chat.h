// SPDX-License-Identifier: Apache-2.0
// Conversations for a reward model: rendering, the gating token, and one conversation's score.
#ifndef IMF_MODEL_REWARD_CHAT_H
#define IMF_MODEL_REWARD_CHAT_H

#include "model/reward.h"
#include "text/chat.h"

// The gating pattern of a template: the tokens from the end of the user's text to the answer, which is what every prompt ends
// with. (Llama-3: end of turn, assistant header, blank line: ArmoRM's five ids.)
Err reward_pattern(const ChatTemplate *c, const Tokenizer *t, RewardHead *h) ERR_MUST_CHECK;

// Ids of the whole conversation m[n] + answer, appended to *out, and the gating position in them. ERR_DATA when the pattern is
// not there: the template does not belong to this reward model.
Err reward_render(const RewardHead *h, const ChatTemplate *c, const Tokenizer *t, const Message *m, int64_t n,
                  const char *answer, Ids *out, int64_t *gating) ERR_MUST_CHECK;

#endif
