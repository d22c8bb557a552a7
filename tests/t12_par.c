// SPDX-License-Identifier: Apache-2.0
// Ranks. Run alone here and under mpirun with 1..4 ranks and pretended nodes by t12_par.sh. No cmocka: ranks must fail
// together. Says nothing and exits 0, or prints what is wrong.
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/stop.h"
#include "par/par.h"
#include "text/record.h"

#define WANT(cond) CHECK(cond, ERR_INTERNAL, "rank %d of %d: %s", par_rank(), par_size(), #cond)

// The lowest failing rank's code and message reach everybody; no error is no error.
static Err test_agree(void)
{
    WANT(par_agree(OK) == OK);
    for (int first = 0; first < par_size(); first++) {
        char said[64];
        Err mine = OK;
        snprintf(said, sizeof said, "rank %d is unhappy", first);
        if (par_rank() >= first) {
            mine = err_raise(par_rank() == first ? ERR_DATA : ERR_IO, "f", "f.c", 1, "rank %d is unhappy", par_rank());
        }
        Err all = par_agree(mine);
        WANT(all == ERR_DATA);
        WANT(!strcmp(err_message(), said));
    }
    return OK;
}

// Rank r gives r * 3 bytes of value r.
static Err test_allgather(void)
{
    char mine[64], *all;
    int64_t total, offset[65];
    memset(mine, par_rank(), sizeof mine);
    TRY(par_allgather(mine, par_rank() * 3, &all, &total, offset));
    int64_t size = par_size();
    WANT(total == 3 * size * (size - 1) / 2 && offset[size] == total);
    for (int r = 0; r < size; r++) {
        WANT(offset[r + 1] - offset[r] == 3 * r);
        for (int64_t i = offset[r]; i < offset[r + 1]; i++) WANT(all[i] == r);
    }
    mem_free(all);
    TRY(par_allgather(NULL, 0, &all, &total, NULL));
    WANT(total == 0 && all);
    mem_free(all);
    return OK;
}

static Err test_reductions(void)
{
    int64_t v[2] = {par_rank() + 1, -par_rank()}, most[1] = {par_rank() * 10}, sum = (int64_t)par_size() * (par_size() + 1) / 2;
    TRY(par_sum_i64(v, 2));
    TRY(par_max_i64(most, 1));
    WANT(v[0] == sum && v[1] == par_size() - sum && most[0] == (par_size() - 1) * 10);
    int root = par_rank() == par_size() - 1 ? 77 : 0;
    TRY(par_bcast(&root, sizeof root, par_size() - 1));
    WANT(root == 77);
    return OK;
}

// A ring, long enough not to be sent eagerly.
static Err test_messages(void)
{
    enum { N = 1 << 20 };
    if (par_size() == 1) return OK;
    int to = (par_rank() + 1) % par_size(), from = (par_rank() + par_size() - 1) % par_size();
    int32_t *out, *in;
    ParRequest *sent, *got;
    TRY(MEM_ARRAY(&out, N));
    TRY(MEM_ARRAY(&in, N));
    for (int i = 0; i < N; i++) out[i] = i * 3 + par_rank();
    TRY(par_irecv(in, N * 4, from, 5, &got));
    TRY(par_isend(out, N * 4, to, 5, &sent));
    TRY(par_wait(sent));
    TRY(par_wait(got));
    for (int i = 0; i < N; i++) WANT(in[i] == i * 3 + from);
    mem_free(out);
    mem_free(in);
    return par_wait(NULL);
}

// Every item is dealt once, to whoever asks; rank 0 serves between its own items.
static Err test_queue(int64_t items)
{
    ParQueue *q;
    int64_t *taken, item = 0;
    TRY(MEM_ARRAY(&taken, items + 1));
    TRY(par_queue_open(&q, items));
    while (item >= 0) {
        TRY(par_queue_next(q, &item));
        if (item >= 0) taken[item]++;
        TRY(par_queue_serve(q));
    }
    TRY(par_queue_next(q, &item));
    WANT(item == -1);
    TRY(par_queue_close(q));
    TRY(par_sum_i64(taken, (int)items));
    for (int64_t i = 0; i < items; i++) WANT(taken[i] == 1);
    mem_free(taken);
    return OK;
}

// A queue that is left early is closed all the same.
static Err test_queue_left_early(void)
{
    ParQueue *q;
    int64_t item;
    TRY(par_queue_open(&q, 50));
    TRY(par_queue_next(q, &item));
    return par_queue_close(q);
}

// One block a node: zeroed, seen by all ranks of the node and by no other node.
static Err test_shared_memory(void)
{
    int64_t n = 100000, *p, sum = 0;
    TRY(par_shared_alloc(n * 8, &p));
    for (int64_t i = 0; i < n; i++) WANT(p[i] == 0);
    TRY(par_node_barrier());
    for (int64_t i = par_node_rank(); i < n; i += par_node_size()) p[i] = par_node() + 1;
    TRY(par_node_barrier());
    for (int64_t i = 0; i < n; i++) sum += p[i];
    WANT(sum == n * (par_node() + 1));
    TRY(par_node_barrier());
    par_shared_free(p, n * 8);
    WANT(par_shared_alloc((int64_t)1 << 55, &p) == ERR_UNAVAILABLE);
    return OK;
}

static Err test_nodes(void)
{
    int64_t nodes[1] = {par_node() + 1}, firsts[1] = {par_node_rank() == 0};
    TRY(par_max_i64(nodes, 1));
    TRY(par_sum_i64(firsts, 1));
    WANT(nodes[0] == firsts[0]);
    WANT(par_node_rank() < par_node_size());
    return OK;
}

// Records written by all ranks end as one set with a digest that the caller compares between numbers of ranks.
static Err test_records(const char *dir)
{
    RecordWriter *w;
    RecordSet *s;
    json_t *header = json_pack("{s:s}", "recipe", "x");
    Id digest;
    char text[ID_TEXT];
    TRY(record_create(&w, dir, "set", header));
    for (int i = par_rank(); i < 500; i += par_size()) {
        json_t *data = json_pack("{s:i}", "number", i), *run = json_pack("{s:i}", "rank", par_rank());
        TRY(record_write(w, hash_bytes(&i, sizeof i), data, run));
        json_decref(data);
        json_decref(run);
    }
    TRY(record_close(w));
    TRY(record_finish(dir, "set", &digest));
    TRY(record_open(&s, dir, "set"));
    WANT(record_count(s) == 500);
    for (int64_t i = 0; i < 500; i++) {
        json_t *data;
        TRY(record_read(s, i, &data));
        int number = (int)json_integer_value(json_object_get(data, "number"));
        WANT(id_equal(record_id(s, i), hash_bytes(&number, sizeof number)));
        json_decref(data);
    }
    record_free(s);
    json_decref(header);
    id_print(digest, text);
    if (par_rank() == 0) puts(text);
    return OK;
}

// FT-4: the last rank alone gets a signal while the others work on their own; rank 0 has no work and waits in par_agree, where
// it passes the word. Everybody stops, and a graver error than the request is the one that is reported.
static Err work_until_word_comes(double limit)
{
    Err err = OK;
    for (double start = time_now(); err == OK && time_now() - start < limit;) err = par_stop_check("work");
    WANT(err == ERR_REQUEUE);
    return err;
}

static Err test_stop(void)
{
    stop_listen();
    TRY(par_stop_agree("nobody was asked"));
    par_stop_watch();
    Err err = par_stop_check("nobody was asked");
    WANT(par_agree(err) == OK);
    if (par_rank() == par_size() - 1) raise(SIGUSR1);
    par_stop_watch();
    if (par_rank() > 0 || par_size() == 1) err = work_until_word_comes(60);
    WANT(par_agree(err) == ERR_REQUEUE);
    if (par_rank() == par_size() - 1) err = err_raise(ERR_DATA, "f", "f.c", 1, "graver");
    WANT(par_agree(err) == ERR_DATA);
    WANT(par_stop_agree("asked") == ERR_REQUEUE);
    return OK;
}

static Err test_all(const char *dir)
{
    TRY(test_agree());
    TRY(test_allgather());
    TRY(test_reductions());
    TRY(test_messages());
    TRY(test_queue(1000));
    TRY(test_queue(0));
    TRY(test_queue(1));
    TRY(test_queue_left_early());
    TRY(test_nodes());
    TRY(test_shared_memory());
    if (dir) TRY(test_records(dir));
    return test_stop();
}

int main(int argc, char **argv)
{
    Err err = par_init(&argc, &argv);
    if (err == OK) err = test_all(argc > 1 ? argv[1] : NULL);
    if (err != OK) {
        printf("%s\n%s", err_message(), err_trace());
        fflush(stdout);
        par_abort(err);
    }
    par_finish();
    return 0;
}
