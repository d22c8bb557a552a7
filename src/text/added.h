// SPDX-License-Identifier: Apache-2.0
// Added tokens: texts that are taken whole before anything else cuts the text (special tokens and others), as the crate
// `tokenizers` does it: leftmost, then longest; flags single_word, lstrip, rstrip; those with normalized: false are sought in
// the text as given, the others in the normalised text. A byte trie for each of the two.
#ifndef IMF_TEXT_ADDED_H
#define IMF_TEXT_ADDED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

typedef struct AddedToken {
    int32_t id;
    bool special, lstrip, rstrip, single_word;
} AddedToken;

typedef struct AddedNode {
    int32_t child, sibling;  // 0: none (node 0 is the root)
    int32_t token;           // index of the token that ends here, or -1
    unsigned char byte;
} AddedNode;

typedef struct Added {  // zero-initialise
    AddedToken *token;
    int64_t n, cap;
    AddedNode *node;
    int64_t nodes, node_cap;
} Added;

Err added_put(Added *a, const char *text, int64_t n, AddedToken token) ERR_MUST_CHECK;
void added_free(Added *a);

// Calls f for each stretch of the text, in order: id -1 for text between tokens. specials: also match special tokens.
typedef Err (*AddedPiece)(void *user, int32_t id, const char *p, int64_t n);
Err added_split(const Added *a, const char *text, int64_t n, bool specials, AddedPiece f, void *user) ERR_MUST_CHECK;

#endif
