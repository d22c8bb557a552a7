// SPDX-License-Identifier: Apache-2.0
// The inside of hostcuda: blocks, warps and threads as they run, and the clocks that say what is ordered.
//
// Agents of a block have a clock component each: its warps, and for every warp its cp.async copies. An access is stamped with
// (block, agent, epoch); whoever knows that agent at that epoch comes after it. A warp's epoch ends when it publishes what it
// knows (barrier, arrive, release) and when its lanes meet (shuffle, __syncwarp), so two lanes that touch the same bytes in
// one epoch are a race too. Drawback: what one lane learns by waiting, its whole warp knows.
#ifndef IMF_HOSTCUDA_BLOCK_HPP
#define IMF_HOSTCUDA_BLOCK_HPP

#include <boost/context/fiber.hpp>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/hostcuda/hostcuda.hpp"

namespace hostcuda {

enum { WARP = 32, NAMED = 16, STACK = 128 * 1024 };
enum { SEVERAL = 255 };
enum { NEVER = 0, HOST = 1, FIRST_BLOCK = 2 };  // block serials; HOST: copied before the launch

// Writes the report (kernel, kind, block, thread, source line of pc, text) and ends the launch: the running thread never goes on.
[[noreturn]] void defect(const void *pc, const char *kind, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void write_report(const void *pc, const char *kind, const char *text);  // without unwinding: from the scheduler
void report_begin(const char *kernel);
void report_clear();
std::string source_line(const void *pc);                               // "file.cu:12 (function)"

using Clock = std::vector<uint32_t>;

// What an agent knows to have happened.
struct Known {
    Clock seen;                     // [agent of its own block]: epochs up to this one
    std::map<uint32_t, Clock> far;  // [block serial]: of other blocks of the launch
    void join(const Known &o);
};

// Who touched some bytes last. Kept small: there are several for every few bytes.
struct Access {
    uint32_t block = NEVER;  // serial, counted over all launches; NEVER: nobody
    uint32_t epoch = 0;
    uint32_t code = 0;       // place in the program: code_of(pc)
    uint16_t agent = 0;
    uint8_t lane = 0;        // SEVERAL: more than one in that epoch
    bool atomic = false;
};
uint32_t code_of(const void *pc);  // distance from the program's beginning
std::string source_line_of(const Access &a);

struct Block;

// cp.async of one lane: group numbers count its commits from 1.
struct Copy {
    unsigned char *to;          // NULL: it has landed
    const unsigned char *from;  // NULL: zeros
    size_t n;
    uint32_t group;
};

// A warp-wide instruction that one lane has issued. Registers are arrays on the lane's stack.
struct WarpOp {
    enum Kind { LOAD, LOAD_TRANS, PRODUCT } kind;
    void *out;
    const void *a, *b;  // LOAD: a is the row in shared memory
};

// Instructions are carried out when a lane looks at registers that they touch, or meets others: for the whole warp at once.
struct Issued {
    std::vector<WarpOp> ops;
    uint64_t before = 0;  // instructions of this lane that were carried out and removed
    const unsigned char *lo = nullptr, *hi = nullptr;  // the registers of ops lie between
};

struct Thread {
    int id;
    uint3 index;
    Block *block;
    Issued issued;
    std::unique_ptr<boost::context::fiber> fiber;
    boost::context::fiber back;
    const std::function<bool()> *until = nullptr;  // waits for it; NULL: can run
    const char *at = "";                           // what it waits at
    const void *pc = nullptr;
    bool ended = false, broken = false;  // broken: at a defect
    unsigned char *stack = nullptr;      // STACK bytes
    std::vector<Copy> flying;
    uint32_t groups = 0, waited = 0;  // committed; known to have landed
};

// A place where a number of threads meet. What they knew is known to all of them afterwards.
struct Meeting {
    int arrived = 0;
    uint32_t generation = 0;
    int wanted = 0;
    Known arriving, released;
};

struct WarpMeeting {
    unsigned mask = 0, arrived = 0;
    uint32_t generation = 0;
    const char *what = nullptr;
    const void *pc = nullptr;  // where the first lane came
    void *args[WARP] = {};
};

struct Warp {
    Known known;
    std::vector<std::unique_ptr<WarpMeeting>> meetings;
};

struct Mbar {
    int count = 0, pending = 0;
    uint32_t phase = 0;
    Known arriving, released;
    Access made;
};

struct Block {
    uint32_t serial;
    uint3 at;
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    Meeting barrier[NAMED];
    std::map<const void *, Mbar> mbars;
    std::vector<unsigned char> memory;
    unsigned char *shared = nullptr;
    size_t shared_bytes = 0;
    struct Shadow *shadow = nullptr;
    int left = 0;

    int warp_agent(int w) const { return w; }
    int copy_agent(int w) const { return (int)warps.size() + w; }
    ~Block();
};

// --- the launch that runs --------------------------------------------------------------------------------------------

extern Thread *current;  // NULL: host code
inline Warp &warp_of(Thread *t) { return t->block->warps[t->id / WARP]; }
inline int lane_of(const Thread *t) { return t->id % WARP; }

uint32_t random_bits();  // within a launch: begins anew with the seed
uint32_t stream_bits();  // between launches: goes on
Order order();
uint32_t first_serial();  // of this launch: blocks below it are over, and everything knows them

[[noreturn]] void leave_broken();

// Gives the core to others until `until` holds.
void wait(const char *at, const void *pc, const std::function<bool()> &until);

// All lanes of mask meet; the last one calls action with what every lane gave. Then the warp's epoch ends.
void meet(const char *what, const void *pc, unsigned mask, void *args, void (*action)(void *const args[WARP]));

// Carries out what the running thread has issued; before registers are touched, and before it meets or leaves others.
void finish_issued(const void *pc);

// The running thread's warp publishes to `to`; its epoch ends.
void publish(Known *to);
void learn(const Known &from);

// --- memory ----------------------------------------------------------------------------------------------------------

Shadow *shadow_new(size_t bytes);
void shadow_free(Shadow *s);
void allow(Range r);  // host memory that the kernel may read; forgotten at the next launch
void forget_allowed();

// An access by the running thread: is it inside what the kernel may touch, was it written, is it ordered?
enum class Kind { READ, WRITE, ATOMIC };
void check(Kind kind, const void *p, size_t n, const void *pc);
// The same for the copy of 16 bytes that the thread hands over now.
void check_copy(const Copy &c, const void *pc);
Access stamp_of(const Thread *t, const void *pc);   // of what t does now
bool comes_after(const Thread *t, const Access &a);  // does t know that a is over?
bool is_shared(const void *p, size_t n);             // of the running block

extern bool counting;  // count.cc
void count_access(const void *p, size_t n, const void *pc);

}  // namespace hostcuda

#endif
