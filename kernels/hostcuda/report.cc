// SPDX-License-Identifier: Apache-2.0
// Defects: one text for the first one of a launch, with the source line from the debug information.
#include <backtrace.h>
#include <cstdarg>
#include <cstdio>
#include <string>

#include "kernels/hostcuda/block.hpp"

namespace hostcuda {

static char text[2048];

const char *report() { return text; }

static void ignore_error(void *, const char *, int) {}

static int take_line(void *out, uintptr_t, const char *file, int line, const char *function)
{
    if (!file || strstr(file, "hostcuda.hpp") || !strncmp(file, "/usr/", 5)) return 0;  // inlined: its caller is wanted
    char buf[512];
    snprintf(buf, sizeof buf, "%s:%d%s%s%s", file, line, function ? " (" : "", function ? function : "", function ? ")" : "");
    *(std::string *)out = buf;
    return 1;
}

std::string source_line(const void *pc)
{
    static backtrace_state *state = backtrace_create_state(nullptr, 0, ignore_error, nullptr);
    std::string line = "an unknown place";
    if (pc && state) backtrace_pcinfo(state, (uintptr_t)pc - 1, take_line, ignore_error, &line);
    return line;
}

std::string source_line_of(const Access &a) { return source_line(a.code ? &__executable_start + a.code : nullptr); }

void write_report(const void *pc, const char *kind, const char *what)
{
    size_t n = strlen(text);
    n += (size_t)snprintf(text + n, sizeof text - n, "%s: ", kind);
    if (current && n < sizeof text)
        n += (size_t)snprintf(text + n, sizeof text - n, "block (%u,%u,%u) thread (%u,%u,%u), %s: ", place.block.x, place.block.y,
                              place.block.z, place.thread.x, place.thread.y, place.thread.z, source_line(pc).c_str());
    if (n < sizeof text) snprintf(text + n, sizeof text - n, "%s", what);
}

void defect(const void *pc, const char *kind, const char *fmt, ...)
{
    char what[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    write_report(pc, kind, what);
    leave_broken();
}

void only_sm90(const char *instruction, const void *pc)
{
    if (architecture() != 90) defect(pc, "architecture", "%s is of sm_90a, and the device is sm_%d", instruction, architecture());
}

void report_begin(const char *kernel) { snprintf(text, sizeof text, "%s: ", kernel); }
void report_clear() { *text = '\0'; }

}  // namespace hostcuda
