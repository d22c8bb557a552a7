// SPDX-License-Identifier: Apache-2.0
// Byte-pair encoding of one piece: starting from single bytes, the pair of neighbours with the lowest rank (the leftmost of
// equals) is merged until no pair is known.
//
// Method: short pieces (nearly all) by repeated scans of a small array, long ones by a heap of candidate pairs over a linked
// list, O(n log n), so that a run of a million letters costs no more than it must. Both give the same ids.
#ifndef IMF_TEXT_BPE_H
#define IMF_TEXT_BPE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

typedef struct BpeMerge {
    uint64_t pair;  // (left + 1) << 32 | right; 0: free slot
    int32_t rank, id;
} BpeMerge;

typedef struct Bpe {
    const Vocab *vocab;  // borrowed
    BpeMerge *merge;     // open addressing, [slots]
    int64_t slots;
    int32_t byte_id[256];  // -1: no token for this byte
    bool ignore_merges;    // a piece that is a token is taken whole (Llama-3)
    int32_t unk;           // for bytes without a token; -1: such bytes are left out (SmolLM2 has no token for 0x13)
    bool fuse_unk;         // several of them in a row give one
    _Atomic int64_t *lost; // bytes left out so far, owned; the first one is warned about
} Bpe;

typedef struct BpeScratch {  // grows as needed; zero-initialise, release with bpe_scratch_free
    int32_t *first;
    struct BpeNode *node;
    struct BpePair *heap;
    int64_t first_cap, node_cap, heap_cap, heap_n;
} BpeScratch;

Err bpe_init(Bpe *b, const Vocab *v, int64_t merges) ERR_MUST_CHECK;
void bpe_free(Bpe *b);
// A merge of two tokens' texts; of equal pairs the last counts. ERR_DATA when one of the three is not in the vocabulary.
Err bpe_add_merge(Bpe *b, const char *left, int64_t n_left, const char *right, int64_t n_right, int32_t rank) ERR_MUST_CHECK;

// Appends the ids of n >= 1 raw bytes.
Err bpe_encode(const Bpe *b, const char *p, int64_t n, BpeScratch *s, Ids *out) ERR_MUST_CHECK;
void bpe_scratch_free(BpeScratch *s);

#endif
