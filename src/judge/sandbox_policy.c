// SPDX-License-Identifier: Apache-2.0
// Confinement of candidate programs, see sandbox_policy.h. Landlock's header of Debian 12 stops at ABI 2, so its constants are
// written out here (linux/landlock.h, kernel 6.12). Where the kernel has no Landlock, a mount namespace with a small root takes its
// place; with neither, code is not run. Landlock alone is no sandbox (it leaves chmod, signals, UDP ...), seccomp
// alone neither (it cannot see paths): both are always on.
#include "judge/sandbox_policy.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif

enum { EXECUTE = 1 << 0, WRITE_FILE = 1 << 1, READ_FILE = 1 << 2, READ_DIR = 1 << 3, RULE_PATH = 1, CREATE_VERSION = 1 };

typedef struct Ruleset {  // struct landlock_ruleset_attr of ABI 6
    uint64_t fs, net, scoped;
} Ruleset;
typedef struct __attribute__((packed)) PathRule {
    uint64_t allowed;
    int32_t fd;
} PathRule;

// ---- seccomp: the allow list --------------------------------------------------------------------------------------------------

static const char *const allowed_calls[] = {
    "read", "write", "readv", "writev", "pread64", "close", "fstat", "newfstatat", "stat", "lstat", "statx", "lseek", "access",
    "faccessat", "faccessat2", "readlink", "readlinkat", "getcwd", "getdents64", "dup", "dup2", "dup3", "mmap", "mprotect", "munmap",
    "mremap", "madvise", "brk", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "select", "pselect6", "poll",
    "ppoll", "sched_yield", "nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday", "time", "times",
    "getpid", "gettid", "getuid", "geteuid", "getgid", "getegid", "getrlimit", "getrusage", "sysinfo", "uname", "futex",
    "set_robust_list", "get_robust_list", "rseq", "set_tid_address", "arch_prctl", "getrandom", "exit", "exit_group",
    "restart_syscall", "membarrier"};

static int allow(scmp_filter_ctx c, const char *name, unsigned n, const struct scmp_arg_cmp *cmp)
{
    int call = seccomp_syscall_resolve_name(name);
    if (call == __NR_SCMP_ERROR) return 0;  // not on this architecture
    int rc = seccomp_rule_add_array(c, SCMP_ACT_ALLOW, call, n, cmp);
    return rc == -EDOM || rc == -EINVAL ? 0 : rc;
}

// (argument & mask) == value
static struct scmp_arg_cmp masked(unsigned argument, uint64_t mask, uint64_t value)
{
    return (struct scmp_arg_cmp){.arg = argument, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value};
}

// Calls that are harmless with some arguments only.
static int allow_some(scmp_filter_ctx c)
{
    const uint64_t writing = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | O_APPEND | (O_TMPFILE & ~O_DIRECTORY);
    const struct scmp_arg_cmp read_only = masked(1, writing, 0), read_only_at = masked(2, writing, 0);
    const struct scmp_arg_cmp terminal = masked(1, ~0ull, TCGETS), close_on_exec = masked(1, ~0ull, FIOCLEX);
    const struct scmp_arg_cmp thread = masked(0, CLONE_THREAD | CLONE_VM, CLONE_THREAD | CLONE_VM);
    const struct scmp_arg_cmp ask_own[2] = {masked(0, ~0ull, 0), masked(2, ~0ull, 0)}, own = masked(0, ~0ull, 0);
    const int commands[] = {F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL};
    int rc = allow(c, "open", 1, &read_only) | allow(c, "openat", 1, &read_only_at) | allow(c, "ioctl", 1, &terminal) |
             allow(c, "ioctl", 1, &close_on_exec) | allow(c, "clone", 1, &thread) | allow(c, "prlimit64", 2, ask_own) |
             allow(c, "sched_getaffinity", 1, &own);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        const struct scmp_arg_cmp command = masked(1, ~0ull, (uint64_t)commands[i]);
        rc |= allow(c, "fcntl", 1, &command);
    }
    // glibc falls back to clone when clone3 is not there
    return rc | seccomp_rule_add_array(c, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0, NULL);
}

// The program as bytes: everything not listed fails with EPERM; another architecture's calls kill.
static Err make_filter(Str *out)
{
    Err err = OK;
    char buf[4096];
    ssize_t n;
    int fd = -1, rc = 0;
    scmp_filter_ctx c = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    CHECK(c, ERR_UNAVAILABLE, "libseccomp cannot make a filter on this machine");
    for (size_t i = 0; i < sizeof allowed_calls / sizeof allowed_calls[0]; i++) rc |= allow(c, allowed_calls[i], 0, NULL);
    rc |= allow_some(c);
    fd = memfd_create("filter", MFD_CLOEXEC);
    CHECK_DONE(rc == 0 && fd >= 0 && seccomp_export_bpf(c, fd) == 0 && lseek(fd, 0, SEEK_SET) == 0, ERR_UNAVAILABLE,
               "libseccomp cannot make the allow list on this machine (%s)", strerror(errno));
    while ((n = read(fd, buf, sizeof buf)) > 0) TRY_DONE(str_add(out, buf, n));
done:
    if (fd >= 0) close(fd);
    seccomp_release(c);
    return err;
}

// ---- Landlock ---------------------------------------------------------------------------------------------------------------

static int landlock_abi(void)
{
    long v = syscall(SYS_landlock_create_ruleset, NULL, (size_t)0, CREATE_VERSION);
    return v > 0 ? (int)v : 0;
}

// A path that does not exist needs no rule.
static int allow_path(int ruleset, const char *path, uint64_t rights)
{
    PathRule rule = {.allowed = rights, .fd = open(path, O_PATH | O_CLOEXEC)};
    if (rule.fd < 0) return 0;
    long rc = syscall(SYS_landlock_add_rule, ruleset, RULE_PATH, &rule, 0);
    close(rule.fd);
    return rc == 0 ? 0 : -1;
}

// Reading below the interpreter's directories, /dev/null and /dev/urandom; nothing else, no writing anywhere.
static int restrict_files(const SandboxPolicy *p)
{
    static const int fs_bits[] = {0, 13, 14, 15, 15, 16};  // rights that an ABI knows
    const uint64_t tree = EXECUTE | READ_FILE | READ_DIR;
    int abi = p->landlock;
    Ruleset rules = {.fs = (1ull << fs_bits[abi < 5 ? abi : 5]) - 1, .net = abi >= 4 ? 3 : 0, .scoped = abi >= 6 ? 3 : 0};
    size_t size = abi >= 6 ? sizeof rules : abi >= 4 ? 2 * sizeof(uint64_t) : sizeof(uint64_t);
    int set = (int)syscall(SYS_landlock_create_ruleset, &rules, size, 0);
    if (set < 0) return -1;
    int rc = allow_path(set, "/usr/lib", tree) | allow_path(set, "/usr/lib64", tree) | allow_path(set, "/lib", tree) |
             allow_path(set, "/lib64", tree) | allow_path(set, p->library, tree) | allow_path(set, p->python, EXECUTE | READ_FILE) |
             allow_path(set, "/etc/ld.so.cache", READ_FILE) | allow_path(set, "/dev/null", READ_FILE | WRITE_FILE) |
             allow_path(set, "/dev/urandom", READ_FILE);
    if (rc == 0) rc = (int)syscall(SYS_landlock_restrict_self, set, 0);
    close(set);
    return rc;
}

// ---- namespaces and user -----------------------------------------------------------------------------------------------------

static bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0) close(fd);
    return ok;
}

// Makes the path below `root` and binds the file or directory of the same path there. One that does not exist is left out.
static bool bind_path(const char *root, const char *path)
{
    char to[1024], part[1024];
    struct stat st;
    if (stat(path, &st) != 0) return true;
    snprintf(to, sizeof to, "%s%s", root, path);
    for (char *p = to + strlen(root) + 1; (p = strchr(p, '/')); p++) {
        snprintf(part, sizeof part, "%.*s", (int)(p - to), to);
        if (mkdir(part, 0755) != 0 && errno != EEXIST) return false;
    }
    int fd = S_ISDIR(st.st_mode) ? -1 : open(to, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    if (fd >= 0) close(fd);
    if (S_ISDIR(st.st_mode) && mkdir(to, 0755) != 0 && errno != EEXIST) return false;
    return mount(path, to, NULL, MS_BIND | MS_REC, NULL) == 0;
}

// Where there is no Landlock: a root directory that holds the interpreter and nothing else (the uid cannot write there).
static bool enter_small_root(const SandboxPolicy *p)
{
    const char *paths[] = {"/usr/lib", "/usr/lib64", "/lib", "/lib64", p->library, p->python, "/etc/ld.so.cache", "/dev/null", "/dev/urandom"};
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) return false;
    if (mount("imf", "/tmp", "tmpfs", MS_NOSUID, "size=256k,mode=755") != 0) return false;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        if (!str_starts(paths[i], "/usr/lib/") && !bind_path("/tmp", paths[i])) return false;
    return chroot("/tmp") == 0 && chdir("/") == 0;
}

// New pid, net, ipc and mount namespaces for the processes that this one will fork; as a plain user inside a user namespace.
static bool new_namespaces(void)
{
    int flags = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWNS;
    unsigned uid = geteuid(), gid = getegid();
    char map[64];
    prctl(PR_SET_DUMPABLE, 1);  // the supervisor's 0 would make uid_map unwritable
    if (uid == 0) return unshare(flags) == 0;
    if (unshare(flags | CLONE_NEWUSER) != 0) return false;
    snprintf(map, sizeof map, "%u %u 1\n", uid, uid);
    bool ok = write_text("/proc/self/uid_map", map) && write_text("/proc/self/setgroups", "deny\n");
    snprintf(map, sizeof map, "%u %u 1\n", gid, gid);
    return ok && write_text("/proc/self/gid_map", map);
}

static bool enter_namespaces(const SandboxPolicy *p) { return new_namespaces() && (p->landlock || enter_small_root(p)); }

static bool drop_root(void)
{
    if (geteuid() != 0) return true;
    return setgroups(0, NULL) == 0 && setresgid(SANDBOX_UID, SANDBOX_UID, SANDBOX_UID) == 0 &&
           setresuid(SANDBOX_UID, SANDBOX_UID, SANDBOX_UID) == 0 && setuid(0) != 0;
}

static bool namespaces_work(const SandboxPolicy *p)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        if (!enter_namespaces(p)) _exit(1);
        pid_t first = fork();  // the first process of a pid namespace
        if (first == 0) _exit(getpid() == 1 && drop_root() ? 0 : 1);
        _exit(first > 0 && waitpid(first, &status, 0) == first && WIFEXITED(status) ? WEXITSTATUS(status) : 1);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// ---- processes ----------------------------------------------------------------------------------------------------------------

static char *const clean_environment[] = {(char *)"PYTHONHASHSEED=0", (char *)"LC_ALL=C.UTF-8", (char *)"PATH=/usr/bin", NULL};

// Descriptors 0, 1, 2 (and 3 for the seccomp program) as given; all others closed.
static void place_descriptors(int in, int out, int err_fd, int filter)
{
    int fds[4] = {in, out, err_fd, filter};
    for (int i = 0; i < 4; i++)
        if (fds[i] >= 0) fds[i] = fcntl(fds[i], F_DUPFD, 64);
    for (int i = 0; i < 4; i++)
        if (fds[i] >= 0) dup2(fds[i], i);
    int first = filter >= 0 ? 4 : 3;
#ifdef SYS_close_range
    if (syscall(SYS_close_range, first, ~0u, 0) == 0) return;
#endif
    for (int fd = first; fd < 4096; fd++) close(fd);
}

// In the forked process: confine, then become python. Never returns.
static void become_python(const SandboxPolicy *p, const char *program, int in, int out, int filter)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    char *argv[] = {(char *)p->python, (char *)"-s", (char *)"-S", (char *)"-B", (char *)"-c", (char *)program, (char *)"3", NULL};
    place_descriptors(in, out, getenv("IMF_SANDBOX_STDERR") ? 2 : null, filter);
    setsid();
    bool ok = chdir("/") == 0 && drop_root() && prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
    const struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    if (ok && p->landlock) ok = restrict_files(p) == 0;
    if (ok) execve(p->python, argv, clean_environment);
    _exit(98);
}

// The zygote must be the first process of its pid namespace, so another fork lies between; that one waits for it.
static void become_parent_of_python(const SandboxPolicy *p, const char *program, int in, int out, int filter)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (!enter_namespaces(p)) _exit(97);
    pid_t pid = fork();
    if (pid == 0) become_python(p, program, in, out, filter);
    close(in), close(out);
    int status;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
    _exit(0);
}

static int filter_file(const Str *filter)
{
    int fd = memfd_create("filter", MFD_CLOEXEC);
    if (fd >= 0 && (write(fd, filter->p, (size_t)filter->len) != filter->len || lseek(fd, 0, SEEK_SET) != 0)) close(fd), fd = -1;
    return fd;
}

Err sandbox_spawn(const SandboxPolicy *p, const char *program, bool zygote, SandboxChild *out)
{
    int to[2] = {-1, -1}, from[2] = {-1, -1}, filter = -1;
    Err err = OK;
    *out = (SandboxChild){.in = -1, .out = -1};
    CHECK_DONE(pipe2(to, O_CLOEXEC) == 0 && pipe2(from, O_CLOEXEC) == 0 && (!zygote || (filter = filter_file(&p->filter)) >= 0),
               ERR_UNAVAILABLE, "cannot make pipes for the code sandbox: %s", strerror(errno));
    pid_t pid = fork();
    CHECK_DONE(pid >= 0, ERR_UNAVAILABLE, "cannot fork the code sandbox: %s", strerror(errno));
    if (pid == 0) {
        if (zygote && p->namespaces) become_parent_of_python(p, program, to[0], from[1], filter);
        become_python(p, program, to[0], from[1], filter);
    }
    *out = (SandboxChild){.pid = pid, .in = to[1], .out = from[0]};
    to[1] = from[0] = -1;
done:
    for (int i = 0; i < 2; i++) {
        if (to[i] >= 0) close(to[i]);
        if (from[i] >= 0) close(from[i]);
    }
    if (filter >= 0) close(filter);
    return err;
}

void sandbox_end(SandboxChild *c)
{
    if (c->pid <= 0) return;
    close(c->in);
    close(c->out);
    kill(c->pid, SIGKILL);
    while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR) continue;
    *c = (SandboxChild){.in = -1, .out = -1};
}

// ---- probe --------------------------------------------------------------------------------------------------------------------

// Runs the interpreter once, unconfined but with an empty environment: version, standard library, whether ctypes is there.
static bool ask_python(SandboxPolicy *p, const char *path)
{
    static const char question[] = "import sys,os,ctypes,json,resource\n"
                                   "print('%d.%d.%d\\n%s' % (sys.version_info[:3]+(os.path.dirname(os.__file__),)))";
    char buf[1024];
    int fds[2];
    ssize_t n, len = 0;
    if (access(path, X_OK) != 0 || pipe2(fds, O_CLOEXEC) != 0) return false;
    pid_t pid = fork();
    if (pid == 0) {
        char *argv[] = {(char *)path, (char *)"-s", (char *)"-S", (char *)"-B", (char *)"-c", (char *)question, NULL};
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        place_descriptors(null, fds[1], null, -1);
        if (chdir("/") == 0 && drop_root()) execve(path, argv, clean_environment);
        _exit(98);
    }
    close(fds[1]);
    while (pid > 0 && (n = read(fds[0], buf + len, sizeof buf - 1 - (size_t)len)) > 0) len += n;
    close(fds[0]);
    int status = 1;
    if (pid > 0) waitpid(pid, &status, 0);
    buf[len] = '\0';
    snprintf(p->python, sizeof p->python, "%s", path);
    return status == 0 && sscanf(buf, "%63s %511s", p->version, p->library) == 2;
}

static bool find_python(SandboxPolicy *p)
{
    const char *own = getenv("IMF_PYTHON"), *path = getenv("PATH");
    if (own) return ask_python(p, own);
    if (ask_python(p, "/usr/bin/python3")) return true;
    for (const char *at = path; at && *at;) {
        char file[512];
        int n = (int)strcspn(at, ":");
        snprintf(file, sizeof file, "%.*s/python3", n, at);
        if (n && ask_python(p, file)) return true;
        at += n + (at[n] == ':');
    }
    return false;
}

Err sandbox_probe(SandboxPolicy *p)
{
    const char *mode = getenv("IMF_SANDBOX");
    *p = (SandboxPolicy){0};
    bool none = mode && !strcmp(mode, "none");
    CHECK(find_python(p), ERR_UNAVAILABLE, "no python3 with its standard library was found (tried %s); judging code needs it: "
          "apt-get install python3, or set IMF_PYTHON", getenv("IMF_PYTHON") ? "IMF_PYTHON" : "/usr/bin/python3 and PATH");
    if (!none && !(mode && !strcmp(mode, "userns"))) p->landlock = landlock_abi();
    p->namespaces = !none && !(mode && !strcmp(mode, "t1")) && namespaces_work(p);
    CHECK(p->landlock || p->namespaces, ERR_UNAVAILABLE, "this machine has neither Landlock nor user namespaces%s; code cannot be run "
          "safely here: use a kernel >= 5.13 with landlock in the boot parameter lsm=, or leave code prompts out",
          none ? " (IMF_SANDBOX=none)" : "");
    return make_filter(&p->filter);
}

void sandbox_policy_free(SandboxPolicy *p) { str_free(&p->filter); }
