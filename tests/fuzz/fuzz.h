// SPDX-License-Identifier: Apache-2.0
// What the fuzz targets share. A target is one function that takes any bytes; it aborts when the code under test breaks a
// promise: another error than the wanted ones, an empty message, a result that does not read back. libFuzzer calls it in `make
// fuzz`; replay.c calls it with the kept inputs in `make check`.
#ifndef IMF_TESTS_FUZZ_H
#define IMF_TESTS_FUZZ_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/str.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// A promise of the code under test; the message so far is printed with it.
#define WANT(cond)                                                                                            \
    do {                                                                                                      \
        if (!(cond)) {                                                                                        \
            fprintf(stderr, "%s:%d: not true: %s (message: %s)\n", __FILE__, __LINE__, #cond, err_message()); \
            abort();                                                                                          \
        }                                                                                                     \
    } while (0)

// OK, or bad data with a message that names `what`.
#define WANT_GOOD_ERROR(err, what) WANT((err) == OK || ((err) == ERR_DATA && strstr(err_message(), what)))

// A directory of this process in memory, made once and removed at the end.
static char fuzz_dir[] = "/dev/shm/imf-fuzz-XXXXXX";

static void fuzz_remove(void) { WANT(io_remove_tree(fuzz_dir) == OK); }

static const char *fuzz_place(void)
{
    static int made;
    if (made++) return fuzz_dir;
    log_quiet(true);
    WANT(mkdtemp(fuzz_dir) && atexit(fuzz_remove) == 0);
    return fuzz_dir;
}

// Writes the bytes to NAME in that directory and returns the path (static).
static inline const char *fuzz_write(const char *name, const uint8_t *data, size_t size)
{
    static char path[IO_PATH];
    WANT(io_join(path, fuzz_place(), name) == OK);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    WANT(fd >= 0 && io_write_all(fd, path, data, (int64_t)size) == OK && close(fd) == 0);
    return path;
}

// The bytes as a C string of their own (a NUL inside ends it early); the caller frees it.
static inline char *fuzz_string(const uint8_t *data, size_t size)
{
    char *s = malloc(size + 1);
    WANT(s);
    if (size) memcpy(s, data, size);
    s[size] = '\0';
    return s;
}

#endif
