// SPDX-License-Identifier: Apache-2.0
// Training rows from the run directory: record sets of the pair stage (fields: stage/stage.h).
#ifndef IMF_TRAIN_RECORDS_H
#define IMF_TRAIN_RECORDS_H

#include "text/record.h"
#include "train/rows.h"

typedef struct RowSource {
    RecordSet *rows;
    int64_t n;
    bool pairs;
    char tokenizer[ID_TEXT];  // fingerprint: stored ids of that tokenizer are used as they are
} RowSource;

// Collective. set: name of the record set. ERR_NOINPUT says which stage has to run first.
Err row_source_open(RowSource *s, const char *run_dir, const char *set, bool pairs, const Tokenizer *tok) ERR_MUST_CHECK;
Err row_source_read(RowSource *s, int64_t i, Arena *a, Row *out) ERR_MUST_CHECK;  // local
void row_source_close(RowSource *s);

#endif
