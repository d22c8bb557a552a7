// SPDX-License-Identifier: Apache-2.0
// base: errors and their trace, memory, arena, strings, hashes, random numbers, files.
#include <fcntl.h>
#include <signal.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/hash.h"
#include "base/io.h"
#include "base/lease.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"

// Under SANITIZE=address an impossible size shall fail as it does without.
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "allocator_may_return_null=1"; }

static char dir[] = "/tmp/imf-t10-XXXXXX";

// ---- err -------------------------------------------------------------------------------------------------------------

static Err inner(int n)
{
    CHECK(n < 3, ERR_DATA, "n is %d, at most 2", n);
    return OK;
}

static Err outer(int n)
{
    TRY(inner(n));
    ASSERT(n != 2);
    return OK;
}

static void test_errors_carry_message_and_trace(void **state)
{
    (void)state;
    assert_int_equal(outer(1), OK);
    assert_int_equal(outer(5), ERR_DATA);
    assert_string_equal(err_message(), "n is 5, at most 2");
    assert_non_null(strstr(err_trace(), "at inner"));
    assert_non_null(strstr(err_trace(), "at outer"));
    assert_int_equal(err_context(ERR_DATA, "file %s", "x"), ERR_DATA);
    assert_string_equal(err_message(), "file x: n is 5, at most 2");
    assert_int_equal(outer(2), ERR_INTERNAL);
    assert_non_null(strstr(err_message(), "n != 2"));
    assert_null(strstr(err_trace(), "at inner"));  // the old trace is gone
}

static void test_long_messages_and_deep_traces_are_cut(void **state)
{
    (void)state;
    char text[9000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_int_equal(err_raise(ERR_IO, "f", "f.c", 1, "%s", text), ERR_IO);
    assert_true(strlen(err_message()) < 4096);
    for (int i = 0; i < 1000; i++) assert_int_equal(err_frame(ERR_IO, "function", "file.c", i), ERR_IO);
    assert_true(strlen(err_trace()) < 4096);
}

// ---- mem, arena, str -------------------------------------------------------------------------------------------------

static void test_memory_is_counted_zeroed_aligned(void **state)
{
    (void)state;
    int64_t before = mem_now(), cap = 0;
    double *p, *grown = NULL;
    assert_int_equal(MEM_ARRAY(&p, 1000), OK);
    assert_true((uintptr_t)p % 64 == 0 && mem_now() >= before + 8000 && mem_peak() >= mem_now());
    for (int i = 0; i < 1000; i++) assert_true(p[i] == 0);
    mem_free(p);
    assert_int_equal(mem_now(), before);
    assert_int_equal(MEM_ARRAY(&p, 0), OK);
    assert_non_null(p);
    mem_free(p);
    for (int i = 0; i < 3000; i++) {
        assert_int_equal(MEM_GROW(&grown, i, &cap, i + 1), OK);
        assert_true(grown[i] == 0);
        grown[i] = i;
    }
    for (int i = 0; i < 3000; i++) assert_true(grown[i] == i);
    mem_free(grown);
    mem_free(NULL);
    assert_int_equal(mem_now(), before);
}

static void test_impossible_sizes_fail(void **state)
{
    (void)state;
    char *p = NULL;
    assert_int_equal(mem_alloc(&p, INT64_MAX / 2, 8), ERR_DATA);
    assert_int_equal(mem_alloc(&p, INT64_MAX / 2, 1), ERR_UNAVAILABLE);
    assert_true(strlen(err_message()) > 0);
}

static void test_arena_rewinds_and_reuses(void **state)
{
    (void)state;
    Arena a = {0};
    char *x, *y;
    int64_t before = mem_now();
    assert_int_equal(ARENA_ARRAY(&a, &x, 100), OK);
    ArenaMark mark = arena_mark(&a);
    assert_int_equal(ARENA_ARRAY(&a, &y, 5000000), OK);
    assert_true((uintptr_t)x % 64 == 0 && (uintptr_t)y % 64 == 0);
    memset(y, 1, 5000000);
    int64_t used = mem_now();
    arena_rewind(&a, mark);
    char *again;
    assert_int_equal(ARENA_ARRAY(&a, &again, 5000000), OK);
    assert_ptr_equal(again, y);
    for (int turn = 0; turn < 10; turn++) {
        arena_reset(&a);
        assert_int_equal(ARENA_ARRAY(&a, &x, 100), OK);
        assert_int_equal(ARENA_ARRAY(&a, &y, 5000000), OK);
    }
    assert_true(mem_now() <= used);  // no memory after the first turn
    assert_int_equal(arena_strndup(&a, &x, "hello", 4), OK);
    assert_string_equal(x, "hell");
    arena_free(&a);
    assert_int_equal(mem_now(), before);
}

// A step's scratch is now larger, now smaller: what is kept is the largest of each block, not one of every size.
static void test_arena_replaces_blocks_that_are_too_small(void **state)
{
    (void)state;
    enum { TURNS = 20, REQUESTS = 5, STEP = 70000 };
    Arena a = {0};
    char *x;
    int64_t before = mem_now();
    for (int turn = 1; turn <= TURNS; turn++) {
        arena_reset(&a);
        for (int i = 0; i < REQUESTS; i++) assert_int_equal(ARENA_ARRAY(&a, &x, turn * STEP), OK);
    }
    // The block of the turn before, and what did not fit into it: not a block of every size, which would be TURNS / 2 times that.
    assert_true(mem_now() - before < (TURNS - 1) * REQUESTS * STEP + 2 * TURNS * STEP);
    for (int turn = 0; turn < TURNS; turn++) {  // one block holds them all
        char *end = NULL;
        arena_reset(&a);
        for (int i = 0; i < REQUESTS; i++) {
            int64_t n = (turn * i % 7 + 1) * STEP / 64 * 64;
            assert_int_equal(ARENA_ARRAY(&a, &x, n), OK);
            if (end) assert_ptr_equal(x, end);
            end = x + n;
        }
    }
    arena_free(&a);
    assert_int_equal(mem_now(), before);
}

static void test_strings(void **state)
{
    (void)state;
    Str s = {0};
    assert_string_equal(str_text(&s), "");
    for (int i = 0; i < 1000; i++) assert_int_equal(str_printf(&s, "%d,", i), OK);
    assert_true(str_starts(str_text(&s), "0,1,2,") && str_ends(str_text(&s), ",999,"));
    assert_int_equal(s.len, 10 * 2 + 90 * 3 + 900 * 4);
    assert_int_equal(str_add(&s, "a\0b", 3), OK);
    assert_int_equal(s.p[s.len], '\0');
    str_clear(&s);
    assert_string_equal(str_text(&s), "");
    str_free(&s);
    assert_int_equal(str_distance("kitten", "sitting"), 3);
    assert_int_equal(str_distance("", "abc"), 3);
    assert_int_equal(str_distance("same", "same"), 0);
    assert_false(str_ends("b", "ab"));
}

// ---- hash, rng -------------------------------------------------------------------------------------------------------

static void test_hash(void **state)
{
    (void)state;
    char text[ID_TEXT];
    Id id = hash_text(""), back;  // XXH3-128 of nothing, from its specification
    id_print(id, text);
    assert_string_equal(text, "99aa06d3014798d86001c324468d497f");
    assert_true(id_parse(text, &back) && id_equal(id, back));
    assert_false(id_parse("99aa", &back));
    assert_false(id_parse("99AA06d3014798d86001c324468d497f", &back));
    Hash *h;
    assert_int_equal(hash_new(&h), OK);
    hash_add(h, "ab", 2);
    hash_add(h, "c", 1);
    assert_true(id_equal(hash_end(h), hash_text("abc")));
    assert_true(id_compare((Id){1, 9}, (Id){2, 0}) < 0 && id_compare((Id){1, 2}, (Id){1, 1}) > 0);
    char path[IO_PATH];
    assert_int_equal(io_join(path, dir, "abc"), OK);
    assert_int_equal(io_write(path, "abc", 3), OK);
    assert_int_equal(hash_file(path, &back), OK);
    assert_true(id_equal(back, hash_text("abc")));
}

// Known answers that Random123 publishes for philox4x32-10 (counter, key, result).
static void test_philox_known_answers(void **state)
{
    (void)state;
    static const uint32_t kat[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        rng_philox(out, kat[i], kat[i] + 4);
        assert_memory_equal(out, kat[i] + 6, sizeof out);
    }
}

static void test_random_numbers(void **state)
{
    (void)state;
    enum { N = 20000 };
    RngKey k = rng_key(1, 2);
    double sum = 0, squares = 0, normal = 0, normal2 = 0;
    int64_t count[7] = {0};
    for (uint64_t i = 0; i < N; i++) {
        double u = rng_uniform(k, i), z = rng_normal(k, i);
        assert_true(u >= 0 && u < 1);
        sum += u, squares += u * u, normal += z, normal2 += z * z;
        count[rng_below(k, i, 7)]++;
    }
    // Five standard errors of each mean: uniform 0.2887/sqrt(N), its square 0.298/sqrt(N), normal 1/sqrt(N), square 1.414.
    assert_true(fabs(sum / N - 0.5) < 5 * 0.2887 / sqrt(N) && fabs(squares / N - 1.0 / 3) < 5 * 0.298 / sqrt(N));
    assert_true(fabs(normal / N) < 5 / sqrt(N) && fabs(normal2 / N - 1) < 5 * 1.4143 / sqrt(N));
    double chi = 0;
    for (int i = 0; i < 7; i++) chi += pow((double)count[i] - N / 7.0, 2) / (N / 7.0);
    assert_true(chi < 30);  // 6 degrees of freedom: p < 4e-5
    assert_true(rng_uniform(k, 3) == rng_uniform(rng_key(1, 2), 3) && rng_uniform(k, 3) != rng_uniform(rng_key(1, 3), 3));
}

static void test_permutation(void **state)
{
    (void)state;
    int64_t order[100], other[100];
    bool seen[100] = {false};
    rng_permutation(rng_key(7, 0), order, 100);
    rng_permutation(rng_key(8, 0), other, 100);
    for (int i = 0; i < 100; i++) seen[order[i]] = true;
    for (int i = 0; i < 100; i++) assert_true(seen[i]);
    assert_memory_not_equal(order, other, sizeof order);
}

// ---- io --------------------------------------------------------------------------------------------------------------

static void test_files(void **state)
{
    (void)state;
    char path[IO_PATH], copy[IO_PATH], sub[IO_PATH], **name;
    Str text = {0};
    int64_t n;
    assert_int_equal(io_join(sub, dir, "x/y/z"), OK);
    assert_int_equal(io_mkdirs(sub), OK);
    assert_int_equal(io_mkdirs(sub), OK);
    assert_int_equal(io_join(path, sub, "file"), OK);
    assert_int_equal(io_join(copy, sub, "copy"), OK);
    assert_int_equal(io_write(path, "hello", 5), OK);
    assert_int_equal(io_write(path, "again", 5), OK);
    assert_int_equal(io_copy(path, copy), OK);
    assert_int_equal(io_read(copy, &text, 5), OK);
    assert_string_equal(str_text(&text), "again");
    assert_int_equal(io_read(copy, &text, 4), ERR_DATA);
    assert_int_equal(io_size(path), 5);
    assert_int_equal(io_list(sub, &name, &n), OK);
    assert_int_equal(n, 2);  // no temporary file is left
    assert_string_equal(name[0], "copy");
    io_list_free(name, n);
    assert_string_equal(io_basename(path), "file");
    assert_true(io_is_dir(sub) && !io_is_dir(path) && io_exists(path));
    assert_int_equal(io_join(sub, dir, "x"), OK);
    assert_int_equal(io_remove_tree(sub), OK);
    assert_false(io_exists(sub));
    assert_int_equal(io_remove_tree(sub), OK);
    str_free(&text);
}

static void test_file_errors_name_the_path(void **state)
{
    (void)state;
    FileMap map;
    Str text = {0};
    char path[IO_PATH], sub[IO_PATH], *longer;
    assert_int_equal(io_map("/nowhere/x", &map), ERR_NOINPUT);
    assert_non_null(strstr(err_message(), "/nowhere/x"));
    assert_int_equal(io_map("/tmp", &map), ERR_NOINPUT);
    assert_int_equal(io_write("/nowhere/x", "", 0), ERR_CREATE);
    assert_int_equal(io_join(path, dir, "plain"), OK);
    assert_int_equal(io_write(path, "", 0), OK);
    assert_int_equal(io_read(path, &text, 0), OK);
    assert_int_equal(io_join(sub, path, "sub"), OK);
    assert_int_equal(io_mkdirs(sub), ERR_CREATE);
    assert_non_null(strstr(err_message(), "plain"));
    assert_int_equal(mem_alloc(&longer, 5000, 1), OK);
    memset(longer, 'x', 4999);
    assert_int_equal(io_join(path, dir, longer), ERR_DATA);
    mem_free(longer);
    str_free(&text);
}

static void test_full_disk(void **state)
{
    (void)state;
    int fd = open("/dev/full", O_WRONLY);
    if (fd < 0) skip();
    assert_int_equal(io_write_all(fd, "/dev/full", "x", 1), ERR_IO);
    assert_non_null(strstr(err_message(), "/dev/full"));
    assert_non_null(strstr(err_message(), "No space left"));
    close(fd);
}

// ---- lease -----------------------------------------------------------------------------------------------------------

static void write_lease(const char *text)
{
    char path[IO_PATH];
    assert_int_equal(io_join(path, dir, "lease"), OK);
    assert_int_equal(io_write(path, text, (int64_t)strlen(text)), OK);
}

static void test_lease(void **state)
{
    (void)state;
    char path[IO_PATH];
    Str mine = {0};
    assert_int_equal(io_join(path, dir, "lease"), OK);
    log_quiet(true);
    assert_int_equal(lease_take(dir, "here"), OK);
    lease_renew();
    assert_int_equal(io_read(path, &mine, 1000), OK);
    assert_int_equal(lease_take(dir, "here"), ERR_CREATE);  // this process lives
    assert_non_null(strstr(err_message(), "remove"));
    lease_drop();
    assert_false(io_exists(path));
    write_lease("7 here 999999999 12345\n");                // no such process
    assert_int_equal(lease_take(dir, "here"), OK);
    lease_drop();
    write_lease("7 elsewhere 1 1\n");                       // renewed just now
    assert_int_equal(lease_take(dir, "here"), ERR_CREATE);
    assert_non_null(strstr(err_message(), "elsewhere"));
    struct timespec old[2] = {{.tv_sec = 1000000}, {.tv_sec = 1000000}};
    assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
    assert_int_equal(lease_take(dir, "here"), OK);
    lease_drop();
    str_free(&mine);
}

// In a child: takes the lease when the pipe `go` closes, says how it went, and keeps it until it is killed.
static void take_and_stay(int go, int done)
{
    char byte;
    while (read(go, &byte, 1) > 0) continue;
    byte = lease_take(dir, "here") == OK ? 'y' : 'n';
    if (write(done, &byte, 1) == 1) pause();
    _exit(0);
}

static void test_one_of_many_gets_the_lease(void **state)
{
    (void)state;
    enum { JOBS = 6, ROUNDS = 20 };
    log_quiet(true);
    for (int round = 0; round < ROUNDS; round++) {
        int go[2], done[2], taken = 0;
        pid_t pid[JOBS];
        if (round % 2) write_lease("7 here 999999999 12345\n");  // a dead one's
        assert_int_equal(pipe2(go, O_CLOEXEC) | pipe2(done, O_CLOEXEC), 0);
        for (int i = 0; i < JOBS; i++) {
            pid[i] = fork();
            if (pid[i]) continue;
            close(go[1]);
            close(done[0]);
            take_and_stay(go[0], done[1]);
        }
        close(go[0]), close(go[1]), close(done[1]);
        for (int i = 0; i < JOBS; i++) {
            char byte = 0;
            assert_int_equal(read(done[0], &byte, 1), 1);
            taken += byte == 'y';
        }
        for (int i = 0; i < JOBS; i++) kill(pid[i], SIGKILL), waitpid(pid[i], NULL, 0);
        close(done[0]);
        assert_int_equal(taken, 1);
    }
    assert_int_equal(lease_take(dir, "here"), OK);
    lease_drop();
}

static int remove_dir(void **state)
{
    (void)state;
    return io_remove_tree(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors_carry_message_and_trace), cmocka_unit_test(test_long_messages_and_deep_traces_are_cut),
        cmocka_unit_test(test_memory_is_counted_zeroed_aligned), cmocka_unit_test(test_impossible_sizes_fail),
        cmocka_unit_test(test_arena_rewinds_and_reuses), cmocka_unit_test(test_arena_replaces_blocks_that_are_too_small),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_hash), cmocka_unit_test(test_philox_known_answers),
        cmocka_unit_test(test_random_numbers), cmocka_unit_test(test_permutation),
        cmocka_unit_test(test_files), cmocka_unit_test(test_file_errors_name_the_path),
        cmocka_unit_test(test_full_disk), cmocka_unit_test(test_lease),
        cmocka_unit_test(test_one_of_many_gets_the_lease),
    };
    if (!mkdtemp(dir)) return 1;
    return cmocka_run_group_tests(tests, NULL, remove_dir);
}
