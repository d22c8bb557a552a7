// SPDX-License-Identifier: Apache-2.0
// Rows and pairs in the shape of the published FuseChat data: the lines of export/sft.jsonl and export/dpo.jsonl.
#ifndef IMF_TEXT_PUBLISHED_H
#define IMF_TEXT_PUBLISHED_H

#include <jansson.h>
#include <stdbool.h>

// row: data of a record of sft_rows or (pairs) of pairs; borrowed. New reference.
//   {dataset, source_model, conversations: [{from: human|gpt|system, value}, ..]}
//   {dataset, source_model, prompt: [messages], chosen: [{role, content}], rejected: [..]}
json_t *published_row(const json_t *row, bool pairs);

#endif
