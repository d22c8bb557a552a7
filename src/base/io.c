// SPDX-License-Identifier: Apache-2.0
#include "base/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/mem.h"
#include "base/profile.h"

const char *io_advice(int error)
{
    switch (error) {
    case ENOENT:
    case ENOTDIR:
    case ELOOP:
    case ENAMETOOLONG:
        return "; is the path right, seen from the current directory?";
    case EACCES:
    case EPERM:
        return "; check who may read and write it";
    case EISDIR:
        return "; name a file";
    case EROFS:
        return "; choose a place that can be written";
    case ENOSPC:
    case EDQUOT:
        return "; make room there, or choose another place";
    default:
        return "; is the disk or its server in order?";
    }
}

Err io_map(const char *path, FileMap *out)
{
    PROFILE(PHASE_IO);
    *out = (FileMap){0};
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);  // a pipe without a writer must not hold us
    CHECK(fd >= 0, ERR_NOINPUT, "cannot open %s: %s%s", path, strerror(errno), io_advice(errno));
    struct stat st;
    void *p = MAP_FAILED;
    int ok = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    if (ok && st.st_size > 0) p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    CHECK(ok, ERR_NOINPUT, "cannot read %s: %s; name a regular file", path,
          S_ISDIR(st.st_mode) ? "it is a directory" : "it is no regular file");
    if (st.st_size == 0) {
        out->p = "";
        return OK;
    }
    CHECK(p != MAP_FAILED, ERR_IO, "cannot map %s: %s", path, strerror(errno));
    *out = (FileMap){p, (int64_t)st.st_size};
    return OK;
}

void io_unmap(FileMap *m)
{
    if (m->size > 0) munmap((void *)m->p, (size_t)m->size);
    *m = (FileMap){0};
}

Err io_read(const char *path, Str *s, int64_t limit)
{
    PROFILE(PHASE_IO);
    FileMap map;
    TRY(io_map(path, &map));
    Err err = OK;
    CHECK_DONE(map.size <= limit, ERR_DATA, "%s has %lld bytes; at most %lld are allowed here: is it the right file?", path,
               (long long)map.size, (long long)limit);
    TRY_DONE(str_add(s, map.p, map.size));
done:
    io_unmap(&map);
    return err;
}

Err io_write_all(int fd, const char *path, const void *bytes, int64_t n)
{
    PROFILE(PHASE_IO);
    const char *p = bytes;
    while (n > 0) {
        ssize_t put = write(fd, p, (size_t)n);
        if (put < 0 && errno == EINTR) continue;
        CHECK(put > 0, ERR_IO, "cannot write %s: %s%s", path, strerror(errno), io_advice(errno));
        p += put;
        n -= put;
    }
    return OK;
}

Err io_sync_dir(const char *path)
{
    PROFILE(PHASE_IO);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(fd >= 0, ERR_IO, "cannot open directory %s: %s%s", path, strerror(errno), io_advice(errno));
    int rc = fsync(fd), why = errno;
    close(fd);
    CHECK(rc == 0 || why == EINVAL, ERR_IO, "cannot sync directory %s: %s%s", path, strerror(why), io_advice(why));
    return OK;
}

static Err sync_parent(const char *path)
{
    char dir[IO_PATH];
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    if (!slash) return io_sync_dir(".");
    slash[slash == dir] = '\0';
    return io_sync_dir(dir);
}

static Err write_and_sync(const char *path, const char *bytes, int64_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    CHECK(fd >= 0, ERR_CREATE, "cannot create %s: %s%s", path, strerror(errno), io_advice(errno));
    Err err = io_write_all(fd, path, bytes, n);
    int synced = fsync(fd), why = errno, closed = close(fd);
    if (err != OK) return err;
    CHECK(synced == 0, ERR_IO, "cannot sync %s: %s%s", path, strerror(why), io_advice(why));
    CHECK(closed == 0, ERR_IO, "cannot close %s: %s%s", path, strerror(errno), io_advice(errno));
    return OK;
}

Err io_write(const char *path, const char *bytes, int64_t n)
{
    PROFILE(PHASE_IO);
    char tmp[IO_PATH];
    int len = snprintf(tmp, sizeof tmp, "%s.tmp", path);
    CHECK(len < (int)sizeof tmp, ERR_CREATE, "path too long: %s", path);
    Err err = OK;
    TRY_DONE(write_and_sync(tmp, bytes, n));
    fault_point("file-rename");
    CHECK_DONE(rename(tmp, path) == 0, ERR_IO, "cannot rename %s to %s: %s%s", tmp, path, strerror(errno), io_advice(errno));
    fault_point("file-renamed");
    return sync_parent(path);
done:
    unlink(tmp);
    return err;
}

Err io_mkdirs(const char *path)
{
    PROFILE(PHASE_IO);
    char part[IO_PATH];
    int len = snprintf(part, sizeof part, "%s", path);
    CHECK(len < (int)sizeof part, ERR_CREATE, "path too long: %s", path);
    for (char *p = part + 1; len > 0; p++) {
        char c = *p;
        if (c != '/' && c != '\0') continue;
        *p = '\0';
        CHECK(mkdir(part, 0777) == 0 || errno == EEXIST, ERR_CREATE, "cannot create directory %s: %s%s", part, strerror(errno),
              io_advice(errno));
        if (c == '\0') break;
        *p = c;
    }
    CHECK(io_is_dir(path), ERR_CREATE, "%s is in the way: not a directory; remove it or choose another place", path);
    return OK;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

Err io_remove_tree(const char *path)
{
    PROFILE(PHASE_IO);
    if (!io_exists(path)) return OK;
    CHECK(nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0, ERR_IO, "cannot remove %s: %s%s", path, strerror(errno),
          io_advice(errno));
    return OK;
}

bool io_exists(const char *path) { return access(path, F_OK) == 0; }

bool io_has(const char *dir, const char *name)
{
    char path[IO_PATH];
    return io_join(path, dir, name) == OK && io_exists(path);
}

bool io_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int64_t io_size(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (int64_t)st.st_size : -1;
}

Err io_copy(const char *from, const char *to)
{
    PROFILE(PHASE_IO);
    FileMap map;
    TRY(io_map(from, &map));
    Err err = io_write(to, map.p, map.size);
    io_unmap(&map);
    return err;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

Err io_list(const char *path, char ***names, int64_t *n)
{
    PROFILE(PHASE_IO);
    *names = NULL;
    *n = 0;
    int64_t cap = 0;
    DIR *dir = opendir(path);
    CHECK(dir, ERR_NOINPUT, "cannot open directory %s: %s%s", path, strerror(errno), io_advice(errno));
    Err err = OK;
    for (struct dirent *e; (e = readdir(dir));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        TRY_DONE(MEM_GROW(names, *n, &cap, *n + 1));
        TRY_DONE(mem_strdup(&(*names)[*n], e->d_name));
        ++*n;
    }
    MEM_SORT(*names, *n, compare_names);
done:
    closedir(dir);
    return err;
}

void io_list_free(char **names, int64_t n)
{
    for (int64_t i = 0; i < n; i++) mem_free(names[i]);
    mem_free(names);
}

Err io_join(char buf[IO_PATH], const char *dir, const char *name)
{
    int len = snprintf(buf, IO_PATH, "%s/%s", dir, name);
    CHECK(len < IO_PATH, ERR_DATA, "path too long: %s/%s", dir, name);
    return OK;
}

const char *io_basename(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

Err io_free_bytes(const char *dir, int64_t *out)
{
    struct statvfs v;
    CHECK(statvfs(dir, &v) == 0, ERR_IO, "cannot ask for the free space of %s: %s%s", dir, strerror(errno), io_advice(errno));
    *out = (int64_t)v.f_bavail * (int64_t)v.f_frsize;
    return OK;
}
