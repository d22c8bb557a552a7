// SPDX-License-Identifier: Apache-2.0
// Files: whole-file reading, mapping, atomic writing, directories. Every message names the path and errno.
#ifndef IMF_BASE_IO_H
#define IMF_BASE_IO_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

// What to do about an errno of a file: "; ..." to end a message with.
const char *io_advice(int error);

typedef struct FileMap {
    const char *p;  // read-only contents, valid until io_unmap
    int64_t size;
} FileMap;

Err io_map(const char *path, FileMap *out) ERR_MUST_CHECK;  // ERR_NOINPUT when it cannot be opened
void io_unmap(FileMap *m);

// Reads a whole file into *s (appended). At most `limit` bytes, else ERR_DATA.
Err io_read(const char *path, Str *s, int64_t limit) ERR_MUST_CHECK;

// Writes tmp file, fsync, rename, fsync of the directory: the file is there whole or not at all.
Err io_write(const char *path, const char *bytes, int64_t n) ERR_MUST_CHECK;

Err io_mkdirs(const char *path) ERR_MUST_CHECK;              // like mkdir -p
Err io_sync_dir(const char *path) ERR_MUST_CHECK;            // fsync of a directory
Err io_remove_tree(const char *path) ERR_MUST_CHECK;         // no error when it is not there
bool io_exists(const char *path);
bool io_has(const char *dir, const char *name);              // dir/name exists
bool io_is_dir(const char *path);
int64_t io_size(const char *path);                           // -1 when it is not there
Err io_copy(const char *from, const char *to) ERR_MUST_CHECK;

// Names in a directory, sorted, without "." and ".."; release with io_list_free.
Err io_list(const char *path, char ***names, int64_t *n) ERR_MUST_CHECK;
void io_list_free(char **names, int64_t n);

// Writes all n bytes to a descriptor (retries short writes and EINTR).
Err io_write_all(int fd, const char *path, const void *bytes, int64_t n) ERR_MUST_CHECK;

// "dir/name" into buf (size IO_PATH); ERR_DATA when it does not fit.
enum { IO_PATH = 4096 };
Err io_join(char buf[IO_PATH], const char *dir, const char *name) ERR_MUST_CHECK;
const char *io_basename(const char *path);

// Bytes that an unprivileged writer may still write to the file system of `dir`.
Err io_free_bytes(const char *dir, int64_t *out) ERR_MUST_CHECK;

#endif
