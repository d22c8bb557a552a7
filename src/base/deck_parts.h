// SPDX-License-Identifier: Apache-2.0
// Inside of the deck, shared by deck.c (values), deck_yaml.c (reading) and deck_text.c (printing).
#ifndef IMF_BASE_DECK_PARTS_H
#define IMF_BASE_DECK_PARTS_H

#include "base/deck.h"

enum { DECK_PATH = 256, DECK_NODES = 8192, DECK_DEPTH = 32, DECK_BYTES = 1 << 20 };

// A scalar, or a section or list entry (value NULL), with the place that gave it.
typedef struct DeckNode {
    char *path;    // concrete: "sources[1].temperature"
    char *value;   // normalised text
    char *where;   // "file:line:column" or "--set path"
} DeckNode;

struct Deck {
    DeckNode *node;
    int64_t n, cap;
};

// The pattern of a concrete path: every index becomes []. ERR_RECIPE when it does not fit.
Err deck_pattern(const char *path, const char *where, char out[DECK_PATH]) ERR_MUST_CHECK;
const DeckKey *deck_key(const char *pattern);                 // NULL: no such value
bool deck_is_section(const char *pattern);                    // some key lies below it: "sft", "sources", "sources[]"
DeckNode *deck_node(const Deck *d, const char *path);         // NULL: not given

// Adds a section (value NULL) or checks and adds a value; a value that is there is replaced when `again`, else refused.
Err deck_put(Deck *d, const char *path, const char *value, const char *where, bool again) ERR_MUST_CHECK;

// Reads the YAML file into d.
Err deck_read_yaml(Deck *d, const char *file) ERR_MUST_CHECK;

// Value as text, given or default; NULL when neither.
const char *deck_text(const Deck *d, const DeckKey *key, const char *path);

// Is the text UTF-8 (without surrogates and over-long forms)?
bool deck_utf8(const char *text);

// Length of the first component of a path after `at`: up to '.', '[' or the end.
int deck_component(const char *at);

#endif
