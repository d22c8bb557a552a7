// SPDX-License-Identifier: Apache-2.0
// Do tokenizer and model belong together? What can be seen before a weight is read, so that it is not found in the middle of a run.
#ifndef IMF_MODEL_FIT_H
#define IMF_MODEL_FIT_H

#include "model/model.h"
#include "text/chat.h"

// Local; reads dir/config.json. ERR_DATA with one message when
//   - plain text can become an id that the embedding lacks (of model.vocab; an embedding with more rows is fine),
//   - the chat template (NULL: none) writes one, or the tokenizer's BOS or EOS is one; any other added token may be (padding,
//     images): model_check_ids sees it when it occurs,
//   - no eos_token_id of the model is a special token of the tokenizer, or both name a BOS and the model's is none.
Err model_check_tokenizer(const char *dir, const Tokenizer *t, const ChatTemplate *chat) ERR_MUST_CHECK;

#endif
