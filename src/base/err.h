// SPDX-License-Identifier: Apache-2.0
// Errors: every fallible function returns an Err; the message lives beside it, once per thread.
//
// The first failing function writes the message (what, where, what to do); each caller on the way up adds one line of
// trace through TRY. An error is local (this rank alone knows) unless the prototype says "collective"; local errors
// become collective in par_agree(). Only main() ends the process, with the code as its exit status.
#ifndef IMF_BASE_ERR_H
#define IMF_BASE_ERR_H

typedef enum Err {
    OK = 0,
    ERR_DIFFERENT = 1,     // imf compare: A and B differ. No failure: nothing is printed for it
    ERR_USAGE = 64,        // wrong command line
    ERR_DATA = 65,         // a file or record is malformed or corrupt
    ERR_NOINPUT = 66,      // an input does not exist or cannot be read
    ERR_UNAVAILABLE = 69,  // this machine lacks something (sandbox tier, python3, memory)
    ERR_INTERNAL = 70,     // our bug, or numbers that must not happen (NaN)
    ERR_CREATE = 73,       // an output cannot be created
    ERR_IO = 74,           // reading or writing failed half-way (disk full, EIO)
    ERR_REQUEUE = 75,      // checkpointed on request; run me again
    ERR_RECIPE = 78        // the recipe is wrong
} Err;

#define ERR_MUST_CHECK __attribute__((warn_unused_result))

// Records the message of a new error and returns `code`. Called through CHECK and FAIL.
Err err_raise(Err code, const char *func, const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

// Adds a line of trace to the current error and returns `code`. Called through TRY.
Err err_frame(Err code, const char *func, const char *file, int line);

// The message and the trace of the newest error of this thread; empty strings when there was none.
const char *err_message(void);
const char *err_trace(void);

// Replaces the message (par_agree hands the failing rank's message to the others). The trace is kept.
void err_set_message(const char *text);

// Puts "context: " before the current message and returns `code`; for callers that know the file or line.
Err err_context(Err code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// Puts text behind the current message and returns `code`; for advice that holds for every error of a function.
Err err_add(Err code, const char *text);

// Returns from the enclosing function with a new error.
#define FAIL(code, ...) return err_raise((code), __func__, __FILE__, __LINE__, __VA_ARGS__)

// The user's or a file's fault: always checked.
#define CHECK(cond, code, ...)                                                       \
    do {                                                                             \
        if (!(cond)) return err_raise((code), __func__, __FILE__, __LINE__, __VA_ARGS__); \
    } while (0)

// Our fault: always checked too, costs a branch.
#define ASSERT(cond)                                                                          \
    do {                                                                                      \
        if (!(cond))                                                                          \
            return err_raise(ERR_INTERNAL, __func__, __FILE__, __LINE__, "assertion failed: %s", #cond); \
    } while (0)

// Propagates an error to the caller.
#define TRY(call)                                                             \
    do {                                                                      \
        Err try_err_ = (call);                                                \
        if (try_err_ != OK) return err_frame(try_err_, __func__, __FILE__, __LINE__); \
    } while (0)

// Propagates an error to the label `done` of a function that has things to release; needs a local `Err err`.
#define TRY_DONE(call)                                              \
    do {                                                            \
        err = (call);                                               \
        if (err != OK) {                                            \
            err = err_frame(err, __func__, __FILE__, __LINE__);     \
            goto done;                                              \
        }                                                           \
    } while (0)
#define CHECK_DONE(cond, code, ...)                                                   \
    do {                                                                              \
        if (!(cond)) {                                                                \
            err = err_raise((code), __func__, __FILE__, __LINE__, __VA_ARGS__);       \
            goto done;                                                                \
        }                                                                             \
    } while (0)

#endif
