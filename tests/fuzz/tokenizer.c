// SPDX-License-Identifier: Apache-2.0
// libFuzzer: any bytes as tokenizer.json; when they load, the same bytes are encoded with it and decoded again (PRS-6).
#include "fuzz.h"
#include "text/tokenizer.h"

static void use(const Tokenizer *t, const char *text, int64_t n)
{
    Ids ids = {0};
    Str back = {0};
    Err err = tok_encode(t, text, n, true, &ids);
    WANT(err == OK || err == ERR_DATA);
    if (err == OK) WANT(tok_decode(t, ids.id, ids.n, false, &back) == OK);
    ids_free(&ids);
    str_free(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Tokenizer *t;
    fuzz_write("tokenizer.json", data, size);
    Err err = tok_load(fuzz_place(), &t);
    WANT_GOOD_ERROR(err, "tokenizer.json");
    if (err != OK) return 0;
    use(t, (const char *)data, (int64_t)size);
    use(t, " a  b\n\xc3\xa9 e\xcc\x81 12345--_x~[@]<|im_end|> water</s>", 42);
    tok_free(t);
    return 0;
}
