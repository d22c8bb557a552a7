// SPDX-License-Identifier: Apache-2.0
// libFuzzer: any bytes as a recipe and as a --set. Refused with file and line, or taken; what was taken prints as a recipe that
// loads back to the same, and every value lies in its key's range (PRS-6).
#include "base/deck.h"
#include "fuzz.h"

static void print(const Deck *d, Str *out) { WANT(deck_print(d, out) == OK); }

// The resolved recipe loads again and is the same.
static void check_round_trip(const Deck *d)
{
    Str one = {0}, two = {0};
    Deck *again;
    print(d, &one);
    WANT(deck_load(&again, fuzz_write("again.yaml", (const uint8_t *)str_text(&one), (size_t)one.len), NULL, 0) == OK);
    print(again, &two);
    WANT(!strcmp(str_text(&one), str_text(&two)));
    WANT(id_equal(deck_hash(d), deck_hash(again)));
    deck_free(again);
    str_free(&one);
    str_free(&two);
}

static void check_ranges(const Deck *d)
{
    for (int i = 0; i < deck_schema_size; i++) {
        const DeckKey *k = &deck_schema[i];
        if (strchr(k->path, '[')) continue;
        double v = k->type == DECK_I64 ? (double)deck_i64(d, k->path) : k->type == DECK_F64 ? deck_f64(d, k->path) : k->min;
        WANT(v >= k->min && v <= k->max);
    }
}

static void load(const char *path, const char *set, const char *named)
{
    Deck *d;
    Err err = deck_load(&d, path, &set, set ? 1 : 0);
    WANT(err == OK || err == ERR_RECIPE || err == ERR_DATA || (set && err == ERR_USAGE));
    WANT(err == OK || strstr(err_message(), named));
    if (err != OK) return;
    check_ranges(d);
    check_round_trip(d);
    deck_free(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    load(fuzz_write("recipe.yaml", data, size), NULL, "recipe.yaml");
    char *set = fuzz_string(data, size);
    if (size < 1000) load(NULL, set, "--set");
    free(set);
    return 0;
}
