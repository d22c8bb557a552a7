// SPDX-License-Identifier: Apache-2.0
// Faults on purpose: named points where a test may end the process as kill -9 would (CKP-2; tests/lib/chaos.sh).
//
//   IMF_FAULT=POINT:N[:RANK][@STAGE]   the N-th passage through POINT ends in SIGKILL: on that rank, in that stage of the
//                                      pipeline; of any when left out. Each process counts its own passages.
//
//   POINT              WINDOW      WHERE
//   item-finished      item        a record is ready, nothing of its line is on disk
//   step-finished      item        an optimiser step is done, its line of metrics.jsonl is not written
//   journal-write      journal     half of a record's line is on disk
//   journal-line       journal     the line is on disk, its index entry is not
//   journal-index      journal     line and index entry are on disk
//   step-line          journal     half of a line of metrics.jsonl is on disk
//   compact-begin      compaction  an ended stage's parts are whole, none is merged
//   compact-text       compaction  a merged text file has its name, its index has not
//   compact-file       compaction  a merged file and its index have their names, the next ones have not
//   compact-files      compaction  all merged files are there, `done` is not
//   compact-done       compaction  `done` is there, so are the parts
//   compact-remove     compaction  one part is removed, the others are there
//   refs-computed      checkpoint  reference log-probabilities are computed, nothing of their file is there
//   refs-written       checkpoint  their file is there
//   shard-write        checkpoint  a tile of a checkpoint's file is written, more follow
//   shard-close        checkpoint  the file is closed, not verified
//   manifest           checkpoint  all files are verified, there is no manifest
//   checkpoint-rename  rename      the manifest is there, the directory has its temporary name
//   checkpoint-renamed rename      the directory has its name, older ones are not pruned
//   prune              rename      an old checkpoint has lost its name and is not removed
//   export-rename      rename      a model is exported, its directory has a temporary name
//   export-removed     rename      an earlier export is removed, the new one has a temporary name
//   export-renamed     rename      the model is in its place, done.json is not there
//   file-rename        rename      any file that is written whole: written and synced under a temporary name
//   file-renamed       rename      the same: it has its name
//   row-fails          error       a row's gradient is half computed. No kill: the rank meets an error (exit 65)
#ifndef IMF_BASE_FAULT_H
#define IMF_BASE_FAULT_H

#include <stdbool.h>

#include "base/err.h"

// Reads IMF_FAULT once. ERR_USAGE when it names no point of the table. Without the variable a point costs one comparison.
Err fault_open(int rank) ERR_MUST_CHECK;
void fault_stage(const char *name);  // borrowed: the stage that runs from now on

extern bool fault_armed;
bool fault_reached(const char *point);  // counts a passage; true when it is the one
_Noreturn void fault_kill(const char *point);

// Is this the passage that ends? For points that first leave something half-done, fault_kill must follow; or an error.
static inline bool fault_due(const char *point) { return fault_armed && fault_reached(point); }

static inline void fault_point(const char *point)
{
    if (fault_due(point)) fault_kill(point);
}

#endif
