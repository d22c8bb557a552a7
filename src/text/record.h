// Records: how stages hand over. JSONL parts with a header line and a fixed-size index, in run_dir/<stage>/.
//
//   part-<job>-<rank>.jsonl   line 1: header {"format":"imf-<stage>","version":1,"recipe":id,"inputs":{..},"program":..}
//                             then one line a record: {"id":"<32 hex>","data":{..},"run":{..}}
//   part-<job>-<rank>.idx     40 bytes a record: id (16), offset (8), length (8), XXH3-64 of the line (8), little endian
//
// `data` is the record (it is what the digest covers); `run` says who made it and when, and is not. A part is written by
// one process and never reopened; a torn last line is skipped by readers. An ended stage is compacted into part files in
// id order and marked by the file `done` (count, digest).
#ifndef IMF_TEXT_RECORD_H
#define IMF_TEXT_RECORD_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/str.h"

typedef struct RecordWriter RecordWriter;
typedef struct RecordSet RecordSet;

// Opens this process's own part; header takes {"recipe":..,"inputs":..} (borrowed).
Err record_create(RecordWriter **out, const char *run_dir, const char *stage, const json_t *header) ERR_MUST_CHECK;
// Writes one line; data and run (may be NULL) are borrowed. fsync at most every 30 s and at close.
Err record_write(RecordWriter *w, Id id, const json_t *data, const json_t *run) ERR_MUST_CHECK;
Err record_close(RecordWriter *w) ERR_MUST_CHECK;

// All complete records of a stage (rank 0 lists, the index is broadcast: collective). Duplicated ids keep the first.
Err record_open(RecordSet **out, const char *run_dir, const char *stage) ERR_MUST_CHECK;
int64_t record_count(const RecordSet *s);
Id record_id(const RecordSet *s, int64_t i);                              // ascending in i
int64_t record_find(const RecordSet *s, Id id);                           // -1: not there
Err record_read(RecordSet *s, int64_t i, json_t **data) ERR_MUST_CHECK;   // new reference; checks the checksum
void record_free(RecordSet *s);

// Collective: merges all parts into compacted ones in id order, computes the digest, writes `done`, removes the parts.
Err record_finish(const char *run_dir, const char *stage, Id *digest) ERR_MUST_CHECK;
bool record_done(const char *run_dir, const char *stage, Id *digest, int64_t *count);  // local look at the file `done`

// --- JSON with messages that name file, line and key ---------------------------------------------------------------

// Parses one JSON text (duplicates rejected, depth limited); `where` goes into messages.
Err json_parse(const char *text, int64_t n, const char *where, json_t **out) ERR_MUST_CHECK;
Err json_get_text(const json_t *o, const char *key, const char *where, const char **out) ERR_MUST_CHECK;
Err json_get_i64(const json_t *o, const char *key, const char *where, int64_t *out) ERR_MUST_CHECK;
Err json_get_f64(const json_t *o, const char *key, const char *where, double *out) ERR_MUST_CHECK;

// Calls f for every line of a JSONL file (blank lines skipped; a JSON array file is accepted too).
typedef Err (*JsonlFn)(void *user, const json_t *row, const char *where);
Err jsonl_each(const char *path, JsonlFn f, void *user) ERR_MUST_CHECK;

// Canonical text of a JSON value (sorted keys, compact, %.17g): what ids are hashed from. Caller frees with str_free.

Err json_canonical(const json_t *v, Str *out) ERR_MUST_CHECK;

#endif
