// SPDX-License-Identifier: Apache-2.0
// A fuzz target without libFuzzer: calls it once with every file named on the command line. Silent; a breach aborts.
#include "base/io.h"
#include "base/mem.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// The bytes end where their block ends, so that a sanitizer sees a read behind them.
static int replay(const char *path)
{
    FileMap map;
    if (io_map(path, &map) != OK) {
        printf("%s\n", err_message());
        return 1;
    }
    uint8_t *copy = malloc((size_t)map.size + 1), *at = copy + 1;
    if (!copy) return 1;
    memcpy(at, map.p, (size_t)map.size);
    LLVMFuzzerTestOneInput(at, (size_t)map.size);
    free(copy);
    io_unmap(&map);
    return 0;
}

int main(int argc, char **argv)
{
    int failed = 0;
    for (int i = 1; i < argc; i++) failed |= replay(argv[i]);
    return failed;
}
