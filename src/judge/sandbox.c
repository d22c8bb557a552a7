// SPDX-License-Identifier: Apache-2.0
// The supervisor. It runs no Python itself: it starts the two servers (referee.py knows the tests, zygote.py forks candidates
// and never learns what is expected), hands frames between them, applies the rule of time, and kills what is left over.
//
//   rank (MPI) --socket--> supervisor --pipes--> referee   plan: tests -> steps;  judge: results -> verdict
//                                     --pipes--> zygote    run: program, steps -> results;   forks the candidate
//
// A frame: 4 bytes length (big endian), a line of JSON, then raw bytes. The supervisor is a child subreaper: a candidate's
// orphans become its children and are killed after every run. A server that hangs or dies is killed and started again; that
// run is "undecided: sandbox". Time is no input: a run that used between half and twice the CPU limit, or hit the wall limit
// of three limits + 2 s while it hardly computed, is done again; if it is there again it is "undecided: time".
#include "judge/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/profile.h"
#include "judge/code_python.h"
#include "judge/judge.h"
#include "judge/sandbox_policy.h"
#include "text/utf8.h"

enum { FRAME_MAX = 16 << 20 };

// ---- frames -------------------------------------------------------------------------------------------------------------------

// Reads or writes n bytes before `deadline` (time_now; 0: no limit).
static Err move_bytes(int fd, char *p, int64_t n, bool out, double deadline)
{
    while (n > 0) {
        struct pollfd w = {.fd = fd, .events = out ? POLLOUT : POLLIN};
        double left = deadline - time_now();
        int ready = poll(&w, 1, deadline == 0 ? -1 : left > 0 ? (int)(left * 1000) + 1 : 0);
        if (ready < 0 && errno == EINTR) continue;
        CHECK(ready > 0, ERR_IO, "the code sandbox does not answer");
        ssize_t k = out ? write(fd, p, (size_t)n) : read(fd, p, (size_t)n);
        if (k < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        CHECK(k > 0, ERR_IO, "the code sandbox ended");
        p += k, n -= k;
    }
    return OK;
}

static Err send_frame(int fd, const json_t *head, const Str *raw, double deadline)
{
    Str s = {0};
    Err err = OK;
    char *text = json_dumps(head, JSON_COMPACT);
    CHECK_DONE(text, ERR_INTERNAL, "no memory for a frame");
    int64_t n = (int64_t)strlen(text) + 1 + (raw ? raw->len : 0);
    CHECK_DONE(n <= FRAME_MAX, ERR_DATA, "a program with its tests is longer than %d MiB", FRAME_MAX >> 20);
    char length[4] = {(char)(n >> 24), (char)(n >> 16), (char)(n >> 8), (char)n};
    TRY_DONE(str_add(&s, length, 4));
    TRY_DONE(str_puts(&s, text));
    TRY_DONE(str_puts(&s, "\n"));
    if (raw && raw->len) TRY_DONE(str_add(&s, raw->p, raw->len));
    TRY_DONE(move_bytes(fd, s.p, s.len, true, deadline));
done:
    if (text) {
        void (*release)(void *) = NULL;
        json_get_alloc_funcs(NULL, &release);
        release(text);
    }
    str_free(&s);
    return err;
}

// *head: new reference; raw (may be NULL) receives the bytes after the JSON line.
static Err read_frame(int fd, json_t **head, Str *raw, double deadline)
{
    unsigned char length[4];
    Str s = {0};
    Err err = OK;
    *head = NULL;
    TRY_DONE(move_bytes(fd, (char *)length, 4, false, deadline));
    int64_t n = ((int64_t)length[0] << 24) | (length[1] << 16) | (length[2] << 8) | length[3];
    CHECK_DONE(n > 0 && n <= FRAME_MAX, ERR_IO, "a frame of the code sandbox has a wrong length");
    for (int64_t at = 0; at < n;) {
        char buf[65536];
        int64_t k = n - at < (int64_t)sizeof buf ? n - at : (int64_t)sizeof buf;
        TRY_DONE(move_bytes(fd, buf, k, false, deadline));
        TRY_DONE(str_add(&s, buf, k));
        at += k;
    }
    const char *end = memchr(s.p, '\n', (size_t)s.len);
    CHECK_DONE(end, ERR_IO, "a frame of the code sandbox has no header");
    *head = json_loadb(s.p, (size_t)(end - s.p), JSON_ALLOW_NUL, NULL);
    CHECK_DONE(json_is_object(*head), ERR_IO, "a frame of the code sandbox is no JSON");
    if (raw) {
        str_clear(raw);
        TRY_DONE(str_add(raw, end + 1, s.len - (end + 1 - s.p)));
    }
done:
    if (err != OK) json_decref(*head), *head = NULL;
    str_free(&s);
    return err;
}

// ---- the supervisor process ---------------------------------------------------------------------------------------------------

typedef struct Supervisor {
    SandboxPolicy policy;
    bool probed;
    SandboxChild referee, zygote;
} Supervisor;

static Err need_server(Supervisor *s, bool zygote)
{
    SandboxChild *c = zygote ? &s->zygote : &s->referee;
    if (c->pid > 0) return OK;
    return sandbox_spawn(&s->policy, zygote ? code_zygote_text : code_referee_text, zygote, c);
}

static Err need_policy(Supervisor *s)
{
    if (s->probed) return OK;
    sandbox_policy_free(&s->policy);
    TRY(sandbox_probe(&s->policy));
    s->probed = true;
    return OK;
}

// Kills every child but the two servers (orphans of a candidate), again until there is none.
static void kill_orphans(const Supervisor *s)
{
    char path[64], text[65536];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    for (int turn = 0; turn < 200; turn++) {
        int fd = open(path, O_RDONLY | O_CLOEXEC), found = 0;
        ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
        if (fd >= 0) close(fd);
        text[n > 0 ? n : 0] = '\0';
        for (char *p = text, *next; *p; p = next) {
            pid_t pid = (pid_t)strtol(p, &next, 10);
            if (next == p) break;
            if (pid <= 0 || pid == s->zygote.pid || pid == s->referee.pid) continue;
            kill(pid, SIGKILL);
            waitpid(pid, NULL, 0);
            found++;
        }
        if (!found) return;
    }
}

// One question to a server. When it fails the server is ended, so that the next question starts a fresh one.
static Err ask(Supervisor *s, bool zygote, const json_t *head, const Str *raw, double seconds, json_t **reply, Str *reply_raw)
{
    Err err = OK;
    *reply = NULL;
    TRY(need_server(s, zygote));
    SandboxChild *c = zygote ? &s->zygote : &s->referee;
    double deadline = time_now() + seconds;
    TRY_DONE(send_frame(c->in, head, raw, deadline));
    TRY_DONE(read_frame(c->out, reply, reply_raw, deadline));
done:
    if (err != OK) sandbox_end(c);
    return err;
}

typedef struct Run {
    const json_t *request;
    json_t *plan;
    double limit, cpu;
    char class[48];
    int outcome;
    char reason[256];
    bool doubtful;  // must be done again
} Run;

// Runs the candidate once and has the result judged.
static Err run_once(Supervisor *s, Run *r)
{
    json_t *job = NULL, *ran = NULL, *head = NULL, *verdict = NULL;
    Str raw = {0};
    Err err = OK;
    job = json_pack("{s:O,s:O,s:O,s:O,s:O}", "program", json_object_get(r->request, "program"), "steps", json_object_get(r->plan, "steps"),
                    "cpu", json_object_get(r->request, "cpu"), "memory", json_object_get(r->request, "memory"), "output",
                    json_object_get(r->request, "output"));
    CHECK_DONE(job, ERR_DATA, "a request to the code sandbox is incomplete");
    TRY_DONE(ask(s, true, job, NULL, (2 * r->limit + 1) / 0.05 + 12, &ran, &raw));  // zygote.py: IDLE
    kill_orphans(s);
    const char *class = json_string_value(json_object_get(ran, "class"));
    snprintf(r->class, sizeof r->class, "%s", class ? class : "sandbox");
    r->cpu = json_number_value(json_object_get(ran, "cpu"));
    bool wall = !strcmp(r->class, "wall"), other = !strcmp(r->class, "cpu") || !strcmp(r->class, "output");  // no matter of time
    r->doubtful = wall || (!other && r->cpu >= 0.5 * r->limit && r->cpu <= 2 * r->limit);
    CHECK_DONE(strcmp(r->class, "sandbox"), ERR_IO, "seccomp could not be switched on");
    head = json_pack("{s:s,s:s}", "op", "judge", "class", r->class);
    TRY_DONE(ask(s, false, head, &raw, 60, &verdict, NULL));
    r->outcome = (int)json_integer_value(json_object_get(verdict, "outcome"));
    const char *reason = json_string_value(json_object_get(verdict, "reason"));
    utf8_copy(r->reason, sizeof r->reason, reason ? reason : "");
    if (json_object_get(verdict, "error")) {
        r->outcome = VERDICT_UNDECIDED;
        utf8_copy(r->reason, sizeof r->reason, json_string_value(json_object_get(verdict, "error")));
    }
done:
    json_decref(job);
    json_decref(ran);
    json_decref(head);
    json_decref(verdict);
    str_free(&raw);
    return err;
}

static Err run_request(Supervisor *s, const json_t *request, json_t **reply)
{
    json_t *head = NULL;
    Run r = {.request = request, .limit = json_number_value(json_object_get(request, "cpu"))};
    Err err = OK;
    head = json_pack("{s:s,s:O}", "op", "plan", "tests", json_object_get(request, "tests"));
    CHECK_DONE(head, ERR_DATA, "a request to the code sandbox has no tests");
    TRY_DONE(ask(s, false, head, NULL, 60, &r.plan, NULL));
    const char *unreadable = json_string_value(json_object_get(r.plan, "error"));
    if (unreadable) {
        r.outcome = VERDICT_UNDECIDED;
        utf8_copy(r.reason, sizeof r.reason, unreadable);
    } else {
        TRY_DONE(run_once(s, &r));
        if (r.doubtful) TRY_DONE(run_once(s, &r));
        if (r.doubtful) {
            r.outcome = VERDICT_UNDECIDED;
            snprintf(r.reason, sizeof r.reason, "time");
        }
    }
done:
    if (err == ERR_IO) {  // a server broke: this run alone is lost
        r.outcome = VERDICT_UNDECIDED;
        snprintf(r.reason, sizeof r.reason, "sandbox: %.200s", err_message());
        kill_orphans(s);
        err = OK;
    }
    if (err == OK)
        *reply = json_pack("{s:i,s:s,s:b,s:f}", "outcome", r.outcome, "reason", r.reason, "weak",
                           json_is_true(json_object_get(r.plan, "weak")), "cpu", r.cpu);
    json_decref(head);
    json_decref(r.plan);
    return err;
}

static Err describe(Supervisor *s, json_t **reply)
{
    char text[1024], user[64] = "the caller's user";
    if (geteuid() == 0) snprintf(user, sizeof user, "uid %d", SANDBOX_UID);
    char files[32] = "a small root directory";
    if (s->policy.landlock) snprintf(files, sizeof files, "Landlock ABI %d", s->policy.landlock);
    snprintf(text, sizeof text, "tier %s: %s, seccomp allow list, rlimits, %scandidates run as %s; python %s at %s",
             s->policy.namespaces ? "T0" : "T1", files, s->policy.namespaces ? "pid, net, ipc and mount namespaces, " : "", user,
             s->policy.version, s->policy.python);
    *reply = json_pack("{s:s}", "text", text);
    return OK;
}

static Err answer(Supervisor *s, const json_t *request, json_t **reply)
{
    const char *op = json_string_value(json_object_get(request, "op"));
    TRY(need_policy(s));
    if (op && !strcmp(op, "describe")) return describe(s, reply);
    return run_request(s, request, reply);
}

static void supervise(int fd)
{
    Supervisor s = {0};
    json_t *request, *reply;
    while (read_frame(fd, &request, NULL, 0) == OK) {
        reply = NULL;
        Err err = answer(&s, request, &reply);
        if (err != OK || !reply) reply = json_pack("{s:i,s:s}", "error", (int)(err ? err : ERR_INTERNAL), "message", err_message());
        err = send_frame(fd, reply, NULL, 0);
        json_decref(request);
        json_decref(reply);
        if (err != OK) break;
    }
    sandbox_end(&s.zygote);
    sandbox_end(&s.referee);
    kill_orphans(&s);
    sandbox_policy_free(&s.policy);
}

// In the forked process: an own session, nothing of the caller's open but stderr and the socket.
static void become_supervisor(int fd)
{
    int socket = fcntl(fd, F_DUPFD, 64), null = open("/dev/null", O_RDWR);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    prctl(PR_SET_DUMPABLE, 0);
    signal(SIGPIPE, SIG_IGN);
    // A batch system signals every process of a job: a server or a candidate that died of it would be a wrong verdict.
    signal(SIGUSR1, SIG_IGN), signal(SIGUSR2, SIG_IGN), signal(SIGTERM, SIG_IGN), signal(SIGINT, SIG_IGN);
    setsid();
    dup2(null, 0);
    dup2(null, 1);
    dup2(socket, 3);
#ifdef SYS_close_range
    if (syscall(SYS_close_range, 4, ~0u, 0) != 0)
#endif
        for (int i = 4; i < 4096; i++) close(i);
    fcntl(3, F_SETFD, FD_CLOEXEC);
    supervise(3);
    _exit(0);
}

// ---- the caller's side ------------------------------------------------------------------------------------------------------------

static struct {
    pid_t pid;
    int fd;
} link_to = {0, -1};

Err sandbox_start(void)
{
    int fds[2];
    if (link_to.pid > 0) return OK;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0, ERR_UNAVAILABLE, "cannot make a socket pair: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0) become_supervisor(fds[1]);
    close(fds[1]);
    if (pid < 0) close(fds[0]);
    CHECK(pid > 0, ERR_UNAVAILABLE, "cannot fork the code sandbox's supervisor: %s", strerror(errno));
    link_to.pid = pid, link_to.fd = fds[0];
    return OK;
}

Err sandbox_stop(void)
{
    if (link_to.pid <= 0) return OK;
    close(link_to.fd);  // the supervisor reads the end of its input and ends
    while (waitpid(link_to.pid, NULL, 0) < 0 && errno == EINTR) continue;
    link_to.pid = 0, link_to.fd = -1;
    return OK;
}

Err sandbox_request(const json_t *request, json_t **reply)
{
    PROFILE(PHASE_WAIT);
    CHECK(link_to.pid > 0, ERR_INTERNAL, "sandbox_start() was not called before MPI_Init");
    TRY(send_frame(link_to.fd, request, NULL, 0));
    TRY(read_frame(link_to.fd, reply, NULL, 0));
    const json_t *code = json_object_get(*reply, "error");
    if (!code) return OK;
    Err err = (Err)json_integer_value(code);
    char message[512];
    const char *text = json_string_value(json_object_get(*reply, "message"));
    snprintf(message, sizeof message, "%s", text ? text : "the code sandbox failed");
    json_decref(*reply);
    *reply = NULL;
    FAIL(err ? err : ERR_INTERNAL, "%s", message);
}

Err sandbox_describe(Str *out)
{
    json_t *request = json_pack("{s:s}", "op", "describe"), *reply = NULL;
    Err err = sandbox_request(request, &reply);
    json_decref(request);
    TRY(err);
    err = str_puts(out, json_string_value(json_object_get(reply, "text")));
    json_decref(reply);
    return err;
}
