// SPDX-License-Identifier: Apache-2.0
// Inside of `imf show`: show.c (which kind of file), show_dir.c (directories).
#ifndef IMF_STAGE_SHOW_PARTS_H
#define IMF_STAGE_SHOW_PARTS_H

#include <jansson.h>

#include "base/io.h"
#include "base/str.h"

// All local, all append to *out.
Err show_record_set(const char *dir, Str *out) ERR_MUST_CHECK;   // collective on one rank: rank 0 alone must not call it
Err show_model(const char *dir, Str *out) ERR_MUST_CHECK;
Err show_weights(const char *path, Str *out) ERR_MUST_CHECK;     // one safetensors file
Err show_run(const char *dir, Str *out) ERR_MUST_CHECK;
Err show_part_of_run(const char *dir, Str *out) ERR_MUST_CHECK;  // RUN/sft, RUN/eval ...
Err show_metrics(const char *path, Str *out) ERR_MUST_CHECK;
Err show_eval(const char *path, Str *out) ERR_MUST_CHECK;        // eval/summary.json as a table

bool show_is_run(const char *dir);
bool show_is_part_of_run(const char *dir);

// Label and value of one JSON value on a line, real numbers short.
Err show_value(Str *out, const char *label, const json_t *v) ERR_MUST_CHECK;
// A whole JSON file.
Err show_read_json(const char *path, json_t **out) ERR_MUST_CHECK;

#endif
