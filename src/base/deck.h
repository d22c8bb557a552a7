// SPDX-License-Identifier: Apache-2.0
// The recipe ("input deck"): YAML through libyaml's events, checked against one table (deck_schema.c) that also prints
// the manual. Unknown key: ERR_RECIPE with file:line:column and the nearest name. Anchors, aliases, tags, duplicate keys
// and depth over 32 are refused.
//
// Values are asked for by path: "sft.learning_rate", "sources[1].temperature". Asking for a path that the schema does not
// know, or for another type, is our bug and aborts. Relative paths in a recipe are relative to the current directory. An
// empty plain value ("key:") means the default.
#ifndef IMF_BASE_DECK_H
#define IMF_BASE_DECK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/str.h"

typedef enum DeckType { DECK_STR, DECK_I64, DECK_F64, DECK_BOOL } DeckType;

typedef struct DeckKey {
    const char *path;     // "sources[].temperature": [] stands for any index
    DeckType type;
    const char *unit;     // "" when there is none
    double min, max;      // numbers
    const char *preset;   // default as text; NULL: must be given in every entry of its list; "" = empty string
    const char *choices;  // "a|b|c" or NULL
    const char *help;     // one sentence
    bool layout;          // says where or how, not what: changes no result and is left out of deck_hash
} DeckKey;

extern const DeckKey deck_schema[];
extern const int deck_schema_size;

typedef struct Deck Deck;

// path NULL: only defaults. sets: "a.b=c" overrides in order.
Err deck_load(Deck **out, const char *path, const char *const *sets, int n_sets) ERR_MUST_CHECK;
void deck_free(Deck *d);

const char *deck_str(const Deck *d, const char *path);   // never NULL
int64_t deck_i64(const Deck *d, const char *path);
double deck_f64(const Deck *d, const char *path);
bool deck_bool(const Deck *d, const char *path);
int64_t deck_count(const Deck *d, const char *list);     // length of a list: "sources"
bool deck_given(const Deck *d, const char *path);        // set by the file or --set
// As deck_str, but an empty value is ERR_RECIPE naming the key and its help.
Err deck_need(const Deck *d, const char *path, const char **out) ERR_MUST_CHECK;

Err deck_print(const Deck *d, Str *out) ERR_MUST_CHECK;          // resolved recipe as YAML; loads back to the same
const char *deck_preset(const DeckKey *key);                      // the default as a person reads it; "required", "empty"
Err deck_values(Str *out, const DeckKey *key) ERR_MUST_CHECK;       // "whole number, tokens, 8 to 1e+07"
Err deck_manual(Str *out, const char *prefix) ERR_MUST_CHECK;    // table of keys under prefix ("" = all)

// Calls f for every key whose value differs, in the schema's order; a or b is NULL where that recipe has no such list entry.
typedef Err (*DeckDiffer)(void *user, const char *path, bool layout, const char *a, const char *b);
Err deck_compare(const Deck *a, const Deck *b, DeckDiffer f, void *user) ERR_MUST_CHECK;

// Hash of the resolved values that decide results (no layout keys). sections: "prompts select seed" takes only these top
// level names, so that a stage's records stay valid when a later stage's part of the recipe changes; NULL or "": all.
Id deck_hash(const Deck *d);
Err deck_hash_of(const Deck *d, const char *sections, Id *out) ERR_MUST_CHECK;

#endif
