// SPDX-License-Identifier: Apache-2.0
// libFuzzer: any bytes as model.safetensors, and (first byte '{') as the index beside it. Refused naming the file, or every
// tensor lies in the file and can be found and read (PRS-1, PRS-6).
#include "fuzz.h"
#include "model/safetensors.h"

enum { BLOCK = 1024 };

static void use(const StTensor *t)
{
    float x[BLOCK];
    for (int64_t at = 0; t->readable && at < t->n; at += BLOCK) {
        Err err = st_read(t, at, t->n - at < BLOCK ? t->n - at : BLOCK, x);
        WANT_GOOD_ERROR(err, t->file);
        if (err != OK) return;
    }
    volatile char last = t->bytes ? t->data[t->bytes - 1] : 0;  // measured only: still in the file
    (void)last;
}

static void use_all(Err err, StDir *d, const char *named)
{
    WANT_GOOD_ERROR(err, named);
    if (err != OK) return;
    for (int64_t i = 0; i < d->tensors; i++) {
        use(&d->tensor[i]);
        WANT(st_find(d, d->tensor[i].name) == &d->tensor[i]);
    }
    st_close(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    StDir d;
    Err err = st_open_file(fuzz_write("shard.safetensors", data, size), &d);
    use_all(err, &d, "shard.safetensors");
    if (!size || data[0] != '{') return 0;
    static const uint8_t shard[] =
        "\x43\0\0\0\0\0\0\0{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}            \0\0\0\0";
    fuzz_write("shard.safetensors", shard, sizeof shard - 1);
    fuzz_write("model.safetensors.index.json", data, size);
    err = st_open(fuzz_place(), &d);
    WANT(err == OK || ((err == ERR_DATA || err == ERR_NOINPUT) && strstr(err_message(), fuzz_dir)));
    if (err == OK) use_all(err, &d, "safetensors");
    return 0;
}
