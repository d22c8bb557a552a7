// SPDX-License-Identifier: Apache-2.0
// A shared object for LD_PRELOAD that makes the Nth call of one kind fail (CKP-3). Only files whose path holds FAULT_PATH
// count.
//   FAULT_CALL  open | write | pwrite | fsync | rename | close | ftruncate (their other forms are counted with them)
//   FAULT_NTH   which call fails, from 1      FAULT_ERRNO  its errno, a number      FAULT_PERSIST  1: all later ones fail too
//   FAULT_MARK  a file that is made when a call has failed
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int calls;

static int counts_path(const char *path)
{
    const char *want = getenv("FAULT_PATH");
    return want && path && strstr(path, want);
}

static int counts_fd(int fd)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = '\0';
    return counts_path(path);
}

static int fails(const char *call, int counted)
{
    const char *kind = getenv("FAULT_CALL"), *nth = getenv("FAULT_NTH"), *number = getenv("FAULT_ERRNO");
    const char *mark = getenv("FAULT_MARK");
    if (!counted || !kind || !nth || !number || strcmp(kind, call)) return 0;
    int n = __sync_add_and_fetch(&calls, 1), first = atoi(nth);
    if (n < first || (n > first && !getenv("FAULT_PERSIST"))) return 0;
    long fd = mark ? syscall(SYS_openat, AT_FDCWD, mark, O_WRONLY | O_CREAT, 0666) : -1;
    if (fd >= 0) syscall(SYS_close, (int)fd);
    errno = atoi(number);
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OPEN(name)                                                     \
    int name(const char *path, int flags, ...)                         \
    {                                                                  \
        va_list ap;                                                    \
        va_start(ap, flags);                                           \
        int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, int) : 0; \
        va_end(ap);                                                    \
        return fails("open", counts_path(path)) ? -1 : REAL(name)(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

ssize_t write(int fd, const void *p, size_t n) { return fails("write", counts_fd(fd)) ? -1 : REAL(write)(fd, p, n); }
ssize_t writev(int fd, const struct iovec *v, int n) { return fails("write", counts_fd(fd)) ? -1 : REAL(writev)(fd, v, n); }
ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    return fails("pwrite", counts_fd(fd)) ? -1 : REAL(pwrite)(fd, p, n, at);
}
ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at)
{
    return fails("pwrite", counts_fd(fd)) ? -1 : REAL(pwrite64)(fd, p, n, at);
}
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t at)
{
    return fails("pwrite", counts_fd(fd)) ? -1 : REAL(pwritev)(fd, v, n, at);
}
ssize_t pwritev64(int fd, const struct iovec *v, int n, off64_t at)
{
    return fails("pwrite", counts_fd(fd)) ? -1 : REAL(pwritev64)(fd, v, n, at);
}
int fsync(int fd) { return fails("fsync", counts_fd(fd)) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fails("fsync", counts_fd(fd)) ? -1 : REAL(fdatasync)(fd); }
int rename(const char *from, const char *to) { return fails("rename", counts_path(to)) ? -1 : REAL(rename)(from, to); }
int ftruncate(int fd, off_t n) { return fails("ftruncate", counts_fd(fd)) ? -1 : REAL(ftruncate)(fd, n); }
int ftruncate64(int fd, off64_t n) { return fails("ftruncate", counts_fd(fd)) ? -1 : REAL(ftruncate64)(fd, n); }

int close(int fd)  // closed all the same, as Linux does
{
    int counted = counts_fd(fd), rc = REAL(close)(fd);
    return fails("close", counted) ? -1 : rc;
}
