#include <stddef.h>
#include "base/deck.h"
// placeholder until the real one lands
struct Deck { int x; };
const DeckKey deck_schema[] = {{"run_dir", DECK_STR, "", 0, 0, "runs/x", NULL, "x"}};
const int deck_schema_size = 1;
Err deck_load(Deck **out, const char *path, const char *const *sets, int n) { (void)out, (void)path, (void)sets, (void)n; FAIL(ERR_UNAVAILABLE, "not yet"); }
void deck_free(Deck *d) { (void)d; }
const char *deck_str(const Deck *d, const char *p) { (void)d, (void)p; return ""; }
int64_t deck_i64(const Deck *d, const char *p) { (void)d, (void)p; return 0; }
Err deck_print(const Deck *d, Str *o) { (void)d, (void)o; return OK; }
Err deck_manual(Str *o, const char *p) { (void)o, (void)p; return OK; }
