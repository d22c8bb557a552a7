// libFuzzer: any bytes as tokenizer.json; when they load, the same bytes are encoded with it and decoded again (PRS-6).
//
//   clang -g -O1 -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -Isrc -I. tests/fuzz/tokenizer.c src/text/{utf8,vocab,bpe,
//     pretok,added,tokenizer,tokenizer_json}.c src/base/{arena,err,hash,io,lease,log,mem,str}.c -ljansson -lpcre2-8 -lutf8proc
//     -lxxhash -lm -o fuzz_tokenizer && ./fuzz_tokenizer CORPUS tests/data/text/tiny/odd
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const Tokenizer *t, const char *text, int64_t n)
{
    Ids ids = {0};
    Str back = {0};
    if (tok_encode(t, text, n, true, &ids) == OK && tok_decode(t, ids.id, ids.n, false, &back) != OK) abort();
    ids_free(&ids);
    str_free(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char dir[] = "/dev/shm/imf-fuzz-XXXXXX";
    static char path[IO_PATH];
    Tokenizer *t;
    if (!path[0] && (log_quiet(true), !mkdtemp(dir) || io_join(path, dir, "tokenizer.json") != OK)) abort();
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || io_write_all(fd, path, data, (int64_t)size) != OK || close(fd) != 0) abort();
    Err err = tok_load(dir, &t);
    if (err != OK && err != ERR_DATA) abort();
    if (err == OK) {
        use(t, (const char *)data, (int64_t)size);
        use(t, " a  b\n\xc3\xa9 e\xcc\x81 12345--_x~[@]<|im_end|> water</s>", 42);
        tok_free(t);
    }
    return 0;
}
