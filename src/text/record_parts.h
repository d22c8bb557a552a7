// SPDX-License-Identifier: Apache-2.0
// Inside of the records, shared by record.c (writing), record_set.c (reading) and record_finish.c (compaction).
#ifndef IMF_TEXT_RECORD_PARTS_H
#define IMF_TEXT_RECORD_PARTS_H

#include "base/io.h"
#include "text/record.h"

enum { INDEX_BYTES = 40 };

typedef struct RecordEntry {
    Id id;
    int64_t offset, length;
    uint64_t sum;
    int64_t file;
} RecordEntry;

struct RecordSet {
    char dir[IO_PATH];
    char **file;          // names in dir
    int *fd;              // -1: not open yet
    int64_t files;
    RecordEntry *entry;   // ascending in id
    int64_t n;
    Str header;           // first part's header line
    Str line;             // scratch
};

void record_put_index(const RecordEntry *e, unsigned char out[INDEX_BYTES]);
void record_get_index(const unsigned char in[INDEX_BYTES], RecordEntry *e);
uint64_t record_sum(const char *line, int64_t n);

// The text of a header line (with newline) from {"recipe","inputs"} (NULL: none), appended.
Err record_header_text(const char *stage, const json_t *header, Str *out) ERR_MUST_CHECK;
// The verified line of entry i, valid until the next call.
Err record_fetch(RecordSet *s, int64_t i, const char **line, int64_t *n) ERR_MUST_CHECK;
// Of two header lines. An input that is null is unknown (a source model that was removed after sampling): it agrees with any.
bool record_same_field(const json_t *a, const json_t *b, const char *key);
bool record_same_inputs(const json_t *a, const json_t *b);
// ERR_RECIPE unless the header line at `path` names the same recipe and inputs as `mine`.
Err record_same_header(const char *path, const json_t *theirs, const json_t *mine) ERR_MUST_CHECK;

#endif
