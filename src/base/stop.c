// SPDX-License-Identifier: Apache-2.0
// Everything that the handlers do is async-signal-safe: a flag, open, write, close, timer_settime, _exit. A timer of its own
// ends the 20 seconds, because alarm() watches the writing of checkpoints.
#include "base/stop.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct {
    volatile sig_atomic_t asked, ending, has_path;
    char path[PATH_MAX];
    timer_t timer;
    bool has_timer;
} g;

// snprintf is not safe in a handler.
static void leave_farewell(int code)
{
    char text[8] = {(char)('0' + code / 100 % 10), (char)('0' + code / 10 % 10), (char)('0' + code % 10), '\n'};
    if (!g.has_path) return;
    int fd = open(g.path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) return;
    (void)!write(fd, text, 4);
    close(fd);
}

static void on_request(int number)
{
    (void)number;
    g.asked = 1;
}

static void on_term(int number)
{
    const struct itimerspec limit = {.it_value = {.tv_sec = STOP_SECONDS}};
    int saved = errno;
    (void)number;
    leave_farewell(0);
    g.asked = 1;
    if (g.has_timer && !g.ending) timer_settime(g.timer, 0, &limit, NULL);
    g.ending = 1;
    errno = saved;
}

static void on_interrupt(int number)
{
    leave_farewell(0);
    signal(number, SIG_DFL);
    raise(number);
}

static void on_limit(int number)
{
    static const char text[] = "imf: error 75: SIGTERM's 20 seconds are over before the step was finished and saved; the "
                               "newest checkpoint and the records so far stand; run the same command to go on\n";
    (void)number;
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    _exit(ERR_REQUEUE);
}

static void handle(int number, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(number, &action, NULL);
}

void stop_listen(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 5};
    handle(event.sigev_signo, on_limit);
    g.has_timer = timer_create(CLOCK_MONOTONIC, &event, &g.timer) == 0;
    handle(SIGUSR1, on_request);
    handle(SIGUSR2, on_request);
    handle(SIGTERM, on_term);
    if (signal(SIGINT, SIG_DFL) == SIG_IGN) signal(SIGINT, SIG_IGN);  // as shells start what runs in the background
    else handle(SIGINT, on_interrupt);
}

bool stop_asked(void) { return g.asked; }

void stop_farewell_at(const char *path)
{
    g.has_path = 0;
    if (!path) return;
    snprintf(g.path, sizeof g.path, "%s", path);
    g.has_path = 1;
}

void stop_farewell(int code) { leave_farewell(code); }
