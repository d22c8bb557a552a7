// SPDX-License-Identifier: Apache-2.0
// The inside of hostcuda: blocks, warps and threads as they run, and the clocks that say what is ordered.
//
// Agents of a block have a clock component each: its warps, for every warp its cp.async copies and its part of wgmma products, and
// every mbarrier with the bulk copies that it counts (epochs are phases). An access is stamped with
// (block, agent, epoch); whoever knows that agent at that epoch comes after it. A warp's epoch ends when it publishes what it
// knows (barrier, arrive, release) and when its lanes meet (shuffle, __syncwarp), so two lanes that touch the same bytes in
// one epoch are a race too. Drawback: what one lane learns by waiting, its whole warp knows.
#ifndef IMF_HOSTCUDA_BLOCK_HPP
#define IMF_HOSTCUDA_BLOCK_HPP

#include <bitset>
#include <boost/context/fiber.hpp>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/hostcuda/hostcuda.hpp"

namespace hostcuda {

enum { WARP = 32, GROUP = 128, NAMED = 16, STACK = 128 * 1024, GRAIN = 16 };
enum { SEVERAL = 255 };
enum { NEVER = 0, HOST = 1, FIRST_BLOCK = 2 };  // block serials; HOST: copied before the launch

// Writes the report (kernel, kind, block, thread, source line of pc, text) and ends the launch: the running thread never goes on.
[[noreturn]] void defect(const void *pc, const char *kind, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void only_sm90(const char *instruction, const void *pc);                // a defect where devices say that they are others
void write_report(const void *pc, const char *kind, const char *text);  // without unwinding: from the scheduler
void report_begin(const char *kernel);
void report_clear();
std::string source_line(const void *pc);                               // "file.cu:12 (function)"

using Clock = std::vector<uint32_t>;

// What an agent knows to have happened.
struct Known {
    Clock seen;                     // [agent of its own block]: epochs up to this one
    Clock fenced;                   // the same: what asynchronous units see of it, too (fence.proxy.async)
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
extern "C" const char __executable_start;  // the linker's
// Distance from the program's beginning.
inline uint32_t code_of(const void *pc) { return pc ? (uint32_t)((const char *)pc - &__executable_start) : 0; }
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

// A wgmma that a thread has issued for its warpgroup; d and a are registers of its own.
struct Product {
    float *d;
    const uint32_t *a;  // NULL: A lies in shared memory, desc_a says where
    uint64_t desc_a, desc_b;
    int n;
    bool accumulate, turn_b;
    uint32_t group;  // counted in commits, from 1
    const void *pc;
};

// What a thread has in flight, and since when its registers are ordered before the next one.
struct Products {
    std::vector<Product> ops;
    size_t before = 0;                                 // products that were waited for and removed
    uint32_t groups = 0, done = 0;                     // committed; carried out
    const unsigned char *lo = nullptr, *hi = nullptr;  // the registers of ops lie between
    uint32_t fences = 0;
    Product *at(size_t i) { return i >= before && i - before < ops.size() ? &ops[i - before] : nullptr; }
    std::bitset<STACK / GRAIN> written;  // since the last fence, by pieces of the stack
};

struct Thread {
    int id;
    uint3 index;
    Block *block;
    Issued issued;
    Products products;
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
    int64_t bytes = 0;  // of bulk copies: expected and not yet come
    int64_t due = 0;    // of them, not yet issued
    int flying = 0;     // issued, not yet come
    uint32_t phase = 0;
    uint32_t copies = 0, waited = 0;  // phases: the last with a bulk copy, the last that somebody waited for
    const void *copied = nullptr;     // where the bulk copy was issued
    uint16_t agent = 0;
    Known arriving, released;
    Access made;
    bool fenced = false;  // bulk copies see that it was initialised
};

// A bulk copy of a box of rows on its way into shared memory; it lands in the columns that the swizzle makes of them.
struct BulkCopy {
    unsigned char *to;
    const unsigned char *from;  // element (0, 0)
    int64_t width, height, stride;  // of the tensor: elements, rows, bytes
    int x, y, columns, rows;        // of the box: what lies outside of the tensor is zero
    uint64_t *bar;
};

struct Block {
    uint32_t serial;
    uint3 at;
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    Meeting barrier[NAMED];
    std::map<const void *, Mbar> mbars;
    std::vector<BulkCopy> flying;
    int agents = 0;              // clock components so far
    std::vector<int> registers;  // [warp]: a thread's
    int64_t registers_left = 0;  // given back by setmaxnreg
    std::vector<unsigned char> memory;
    unsigned char *shared = nullptr;
    size_t shared_bytes = 0;
    struct Shadow *shadow = nullptr;
    int left = 0;

    int warp_agent(int w) const { return w; }
    int copy_agent(int w) const { return (int)warps.size() + w; }
    int product_agent(int w) const { return 2 * (int)warps.size() + w; }
    bool is_async(int agent) const { return agent >= 2 * (int)warps.size(); }  // wgmma and bulk copies: the asynchronous proxy
    ~Block();
};

// --- the launch that runs --------------------------------------------------------------------------------------------

extern Thread *current;  // NULL: host code
inline Warp &warp_of(Thread *t) { return t->block->warps[t->id / WARP]; }
inline int lane_of(const Thread *t) { return t->id % WARP; }

uint32_t random_bits();  // within a launch: begins anew with the seed
uint32_t stream_bits();  // between launches: goes on
Order order();
extern uint32_t first_serial;  // of this launch: blocks below it are over, and everything knows them

[[noreturn]] void leave_broken();

// What the running thread's warp knows, asynchronous units that it starts from now on see as well.
void fence_known();

// For a bulk copy of so many bytes, which must have been expected.
Mbar *expecting(uint64_t *bar, int64_t bytes, const void *pc);
void end_phase(Mbar *m);
bool leaves_copies(const Block *b);  // an ended block; true: reported

// A bulk copy that is under way lands; false: there is none.
bool land_one(Block *b);

// The running thread touches registers of a wgmma in flight?
void check_registers(bool write, const unsigned char *p, size_t n, const void *pc);

// Gives the core to others until `until` holds.
void wait(const char *at, const void *pc, const std::function<bool()> &until);

// All lanes of mask meet; the last one calls action with what every lane gave. Then the warp's epoch ends.
void meet(const char *what, const void *pc, unsigned mask, void *args, void (*action)(void *const args[WARP]));

// Carries out what the running thread has issued; before registers are touched, and before it meets or leaves others.
void finish_issued(const void *pc);

// The running thread's warp publishes to `to`; its epoch ends.
void publish(Known *to);
void learn(const Known &from);

// --- products of tiles -----------------------------------------------------------------------------------------------

enum { DEPTH = 16 };

// The two values of a register.
inline void unpack_bf16(uint32_t v, float pair[2]) { pair[0] = low_bf16(v), pair[1] = high_bf16(v); }

// d[rows][n] += a[rows][DEPTH] . b[DEPTH][n], all dense and at multiples of 32 bytes.
void multiply_16x8(float *d, const float *a, const float *b);
void multiply_64xn(float *d, const float *a, const float *b, int n);  // n: a multiple of 8

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
// By an asynchronous unit, for the running thread; agent and epoch say when it is over.
void check_async(Kind kind, const void *p, size_t n, int agent, uint32_t epoch, const void *pc);
// The same for pieces of 16 bytes, so many bytes from the beginning of shared memory.
void check_pieces(Kind kind, const uint32_t *at, int pieces, int agent, uint32_t epoch, const void *pc);
Access stamp_of(const Thread *t, const void *pc);   // of what t does now
bool comes_after(const Thread *t, const Access &a);  // does t know that a is over?
bool is_shared(const void *p, size_t n);             // of the running block

// The 128-byte swizzle of bulk copies and wgmma: 16-byte columns are exchanged by bits 7 to 9 of an address whose blocks of 1024 are aligned.
inline uintptr_t swizzled(uintptr_t a) { return a ^ (a >> 3 & 0x70); }

extern Counts counted;  // mma.cc
extern bool counting;   // count.cc
void count_access(const void *p, size_t n, const void *pc);

}  // namespace hostcuda

#endif
