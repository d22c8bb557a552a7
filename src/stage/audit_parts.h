// SPDX-License-Identifier: Apache-2.0
// The parts of imf audit: faults and lines (audit.c), record sets and how they hang together (audit_sets.c), trained models
// (audit_models.c). Not for other stages. Everything here is local: rank 0 works, nothing is written.
#ifndef IMF_STAGE_AUDIT_PARTS_H
#define IMF_STAGE_AUDIT_PARTS_H

#include "base/deck.h"
#include "base/io.h"
#include "text/record_check.h"

// Pipeline order: a set's parents stand before it.
enum {
    AUDIT_PROMPTS,
    AUDIT_DROPPED_PROMPTS,
    AUDIT_SAMPLES,
    AUDIT_DROPPED_SAMPLES,
    AUDIT_SCORES,
    AUDIT_VERDICTS,
    AUDIT_SFT,
    AUDIT_PAIRS,
    AUDIT_DROPPED,
    AUDIT_SETS
};

typedef struct AuditId {
    Id id, prompt;
} AuditId;

// What is remembered of a record set: 32 bytes a record.
typedef struct AuditSet {
    RecordState state;
    AuditId *id;  // [n] ascending; owned
    int64_t n, cap;
} AuditSet;

typedef struct Audit {
    const char *dir;
    Deck *deck;         // RUN/recipe.yaml; NULL when it cannot be read
    Str lines, faults;  // what is printed, in this order
    int64_t n_faults;
    const char *advice;      // of the running part: what to do, printed behind each of its faults
    int64_t before, hidden;  // faults before the running part; of it those that are not printed
    AuditSet set[AUDIT_SETS];
} Audit;

// A part of the audit: its faults carry the advice. audit_end appends "name: text, good" or "text: N faults" to the lines.
void audit_begin(Audit *a, const char *advice);
Err audit_end(Audit *a, const char *fmt, ...) ERR_MUST_CHECK __attribute__((format(printf, 2, 3)));
// What is wrong, beginning with file, line or id relative to the run directory.
Err audit_fault(Audit *a, const char *fmt, ...) ERR_MUST_CHECK __attribute__((format(printf, 2, 3)));
// An error about a file becomes a fault; others (no memory) stay errors.
Err audit_caught(Audit *a, Err err) ERR_MUST_CHECK;
// "DIR/name" of the run directory; true when it is there.
bool audit_path(const Audit *a, const char *name, char path[IO_PATH]);

// All record sets, the exports and eval/.
Err audit_sets(Audit *a) ERR_MUST_CHECK;
void audit_set_free(AuditSet *s);
bool audit_has(const AuditSet *s, Id id);
extern const char *const audit_set_names[AUDIT_SETS];

// sft/, dpo/, reward/: checkpoints, model, done.json, reference log-probs.
Err audit_training(Audit *a) ERR_MUST_CHECK;
// The fingerprint of RUN/<stage>/model in the recipe's dtype; *known: false when there is no such model or no recipe.
Err audit_fingerprint(Audit *a, const char *stage, Id *out, bool *known) ERR_MUST_CHECK;

#endif
