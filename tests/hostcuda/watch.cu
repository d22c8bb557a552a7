// SPDX-License-Identifier: Apache-2.0
// watch CASE, on 2 ranks: what becomes of a rank that waits for one that never comes (src/par/nccl). Every case must end at once:
// t29_watch.sh says how long it may take. Exit 0: both ranks ended as they should.
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "kernels/hostcuda/cuda_runtime.h"
#include "kernels/hostcuda/mpi/nccl.h"

extern "C" {
#include "par/par.h"
#include "par/par_device.h"
}

static Device *device;
static int64_t *x;  // [4]
static const ParRange both[] = {{0, 2}, {2, 4}};

#define WANT(cond)                                                                                      \
    do {                                                                                                \
        if (!(cond)) return fprintf(stderr, "rank %d, line %d: %s\n", par_rank(), __LINE__, #cond), 1; \
    } while (0)

static Err fail_here(void) { FAIL(ERR_DATA, "this is why"); }

static Err sum_and_wait(void)
{
    TRY(par_device_sum_i64(device, x, both));
    return par_device_wait(device);
}

// All ranks end with rank 1's error.
static int agreed(Err mine)
{
    WANT(par_agree(mine) == ERR_DATA && !strcmp(err_message(), "this is why"));
    return 0;
}

// Rank 1 fails, rank 0 waits for it.
static int waits(void)
{
    const Err mine = par_rank() ? fail_here() : sum_and_wait();
    WANT(par_rank() || mine == ERR_UNAVAILABLE);
    return agreed(mine);
}

// Rank 0 sits in a call of CUDA: its thread must end what it waits for.
static int sits(void)
{
    if (par_rank()) (void)usleep(300 * 1000);  // it sits
    Err mine = par_rank() ? fail_here() : par_device_sum_i64(device, x, both);
    if (par_rank() == 0) {
        WANT(mine == OK);
        WANT(device_wait(device) == OK);  // it returns
        mine = par_device_wait(device);
        WANT(mine == ERR_UNAVAILABLE && par_device_sum_i64(device, x, both) == ERR_UNAVAILABLE);
    }
    return agreed(mine);
}

// Rank 1 fails behind a collective that rank 0 will not come to; then it gives its memory back.
static int leaves(void)
{
    if (par_rank()) WANT(par_device_sum_i64(device, x, both) == OK);
    if (agreed(par_rank() ? fail_here() : OK)) return 1;
    device_free(device, x);
    x = nullptr;
    return 0;
}

// An error that all ranks get over, as that of a damaged checkpoint: what follows works.
static int goes_on(void)
{
    for (int turn = 0; turn < 3; turn++) {
        WANT(agreed(par_rank() ? fail_here() : OK) == 0);
        WANT(par_barrier() == OK && sum_and_wait() == OK);
    }
    const int64_t *own = x + 2 * par_rank();
    WANT(own[0] == (par_rank() ? 2 + 3 * 1 : 1 + 3 * 2) && own[1] == own[0]);
    return 0;
}

// NCCL itself fails on rank 0: its words reach both.
static int breaks(void)
{
    if (par_rank() == 0) hostcuda_nccl_break();
    const Err mine = sum_and_wait();
    WANT(mine == ERR_UNAVAILABLE && par_agree(mine) == ERR_UNAVAILABLE);
    WANT(strstr(err_message(), "unhandled system error on rank 0"));
    return 0;
}

// Rank 0's link breaks because rank 1 has failed: rank 1's error is told.
static int blames(void)
{
    if (par_rank() == 0) hostcuda_nccl_break();
    return agreed(par_rank() ? fail_here() : sum_and_wait());
}

static Err prepare(void)
{
    TRY(device_open(par_rank(), &device));
    TRY(par_device_open(device));
    TRY(device_alloc_managed(device, &x, 4 * (int64_t)sizeof *x));
    for (int i = 0; i < 4; i++) x[i] = 1 + par_rank();
    return OK;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(void);
    } cases[] = {{"waits", waits}, {"sits", sits}, {"leaves", leaves}, {"goes_on", goes_on}, {"breaks", breaks}, {"blames", blames}};
    if (argc != 2 || par_init(&argc, &argv) != OK || prepare() != OK) return fprintf(stderr, "%s\n", err_message()), 1;
    for (const auto &c : cases) {
        if (strcmp(c.name, argv[1])) continue;
        const int bad = c.run();
        device_free(device, x);
        par_device_close();
        device_close(device);
        if (bad) par_abort(1);
        par_finish();
        return 0;
    }
    return 64;
}
