// SPDX-License-Identifier: Apache-2.0
// Records: how stages hand over. JSONL parts with a header line and a fixed-size index, in run_dir/<stage>/.
//
//   part-<start>-<job>-<rank>.jsonl  line 1: header {"format":"imf-<stage>","version":1,"recipe":id,"inputs":{..},"program":..}
//                                    then one line a record: {"id":"<32 hex>","data":{..},"run":{..}}
//   part-<start>-<job>-<rank>.idx    40 bytes a record, little endian:
//       OFFSET SIZE  DESCRIPTION
//            0   16  id, high half then low half
//           16    8  offset of the line in the .jsonl
//           24    8  length of the line with its newline
//           32    8  XXH3-64 of the line
//   data-<nnnnn>.jsonl, .idx         the same, in id order, once the stage has ended
//   done                             {"count":..,"digest":..}: the stage has ended; from then on parts are not looked at
//
// `data` is the record (it is what the digest covers); `run` says who made it and when, and is not. A part is written by
// one process and never reopened; readers skip a torn last line and take lines that the index lost from the text itself.
#ifndef IMF_TEXT_RECORD_H
#define IMF_TEXT_RECORD_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/io.h"
#include "base/str.h"

typedef struct RecordWriter RecordWriter;
typedef struct RecordSet RecordSet;

// How a stage starts. Collective. header: {"recipe":..,"inputs":{..}} (borrowed); an input that is null agrees with any. *done:
// it has ended before. ERR_RECIPE when the directory holds records of another recipe or of other inputs.
Err record_begin(const char *run_dir, const char *stage, const json_t *header, bool *done) ERR_MUST_CHECK;

// Opens this process's own part (local; makes the directory). header as above.
Err record_create(RecordWriter **out, const char *run_dir, const char *stage, const json_t *header) ERR_MUST_CHECK;
// Writes one line; data and run (may be NULL) are borrowed. fsync at most every 30 s and at close. After an error the part
// ends with the last whole record.
Err record_write(RecordWriter *w, Id id, const json_t *data, const json_t *run) ERR_MUST_CHECK;
// From now on record_write leaves out what `had` holds (borrowed until record_close; NULL: nothing): for stages that go through all
// of their work again after an interruption.
void record_skip(RecordWriter *w, const RecordSet *had);
Err record_close(RecordWriter *w) ERR_MUST_CHECK;  // frees w, also on errors; NULL is fine

// All complete records of a stage, running or ended; none when it never ran. Collective: rank 0 lists and reads the indexes
// and broadcasts them. Duplicated ids keep the first.
Err record_open(RecordSet **out, const char *run_dir, const char *stage) ERR_MUST_CHECK;
// The same for one process alone (local).
Err record_open_here(RecordSet **out, const char *run_dir, const char *stage) ERR_MUST_CHECK;
// Is it the directory of a record set, and of which: "RUN/eval/target" is set "eval/target" of RUN. Local.
bool record_is_set(const char *dir);
Err record_locate(const char *dir, char run_dir[IO_PATH], char stage[256]) ERR_MUST_CHECK;
// The same for a stage that must have ended: ERR_NOINPUT naming the command to run first. digest may be NULL.
Err record_require(RecordSet **out, const char *run_dir, const char *stage, const char *command, Id *digest) ERR_MUST_CHECK;
int64_t record_count(const RecordSet *s);
Id record_id(const RecordSet *s, int64_t i);                              // ascending in i
int64_t record_find(const RecordSet *s, Id id);                           // -1: not there
Err record_read(RecordSet *s, int64_t i, json_t **data) ERR_MUST_CHECK;   // new reference; checks the checksum
Err record_read_line(RecordSet *s, int64_t i, json_t **line) ERR_MUST_CHECK;  // the whole {"id","data","run"}
const char *record_header(const RecordSet *s);                            // first part's header line, "" when none
void record_free(RecordSet *s);

// Collective: merges all parts into compacted ones in id order, computes the digest, writes `done`, removes the parts.
// Every rank has closed its writer before. Memory: 64 bytes a record.
Err record_finish(const char *run_dir, const char *stage, Id *digest) ERR_MUST_CHECK;
bool record_done(const char *run_dir, const char *stage, Id *digest, int64_t *count);  // local look at the file `done`

// --- JSON with messages that name file, line and key ---------------------------------------------------------------

// Parses one JSON text (duplicates rejected, depth limited); `where` goes into messages.
Err json_parse(const char *text, int64_t n, const char *where, json_t **out) ERR_MUST_CHECK;
// The same for a whole file's text; the message begins with path:line:column.
Err json_parse_file(const Str *text, const char *path, json_t **out) ERR_MUST_CHECK;
Err json_get_text(const json_t *o, const char *key, const char *where, const char **out) ERR_MUST_CHECK;
Err json_get_i64(const json_t *o, const char *key, const char *where, int64_t *out) ERR_MUST_CHECK;
Err json_get_f64(const json_t *o, const char *key, const char *where, double *out) ERR_MUST_CHECK;
Err json_get_id(const json_t *o, const char *key, const char *where, Id *out) ERR_MUST_CHECK;

// json_pack and json_object_set_new for ids.
json_t *json_id(Id id);

// Calls f for every line of a JSONL file (blank lines skipped; a JSON array file is accepted too). Rows are read one by one:
// memory is that of the longest, and one over JSONL_ROW bytes is ERR_DATA.
enum { JSONL_ROW = 64 << 20 };
typedef Err (*JsonlFn)(void *user, const json_t *row, const char *where);
Err jsonl_each(const char *path, JsonlFn f, void *user) ERR_MUST_CHECK;
Err jsonl_stdin(JsonlFn f, void *user) ERR_MUST_CHECK;  // the same for standard input

// Canonical text of a JSON value (sorted keys, compact, 17 digits), appended to *out: what ids are hashed from.
Err json_canonical(const json_t *v, Str *out) ERR_MUST_CHECK;

#endif
