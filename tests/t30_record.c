// SPDX-License-Identifier: Apache-2.0
// Records: writing, torn lines, lost index entries, damage, compaction, digest, headers of another recipe.
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/io.h"
#include "base/mem.h"
#include "text/record.h"

static char dir[] = "/tmp/imf-t30-XXXXXX";

static Id id_of(int i) { return hash_bytes(&i, sizeof i); }

static json_t *header(const char *recipe) { return json_pack("{s:s,s:{s:s}}", "recipe", recipe, "inputs", "prompts", "1"); }

// Writes records from..to-1 as one part.
static void write_part(const char *stage, int from, int to, const char *host)
{
    RecordWriter *w;
    json_t *h = header("a"), *run = json_pack("{s:s}", "host", host);
    assert_int_equal(record_create(&w, dir, stage, h), OK);
    for (int i = from; i < to; i++) {
        json_t *data = json_pack("{s:i,s:f,s:s}", "number", i, "third", i / 3.0, "text", "\xc3\xa4\n\"");
        assert_int_equal(record_write(w, id_of(i), data, run), OK);
        json_decref(data);
    }
    assert_int_equal(record_close(w), OK);
    json_decref(h);
    json_decref(run);
}

// The newest file of the stage whose name ends so.
static void file_of(const char *stage, const char *suffix, char path[IO_PATH])
{
    char **name, sub[IO_PATH];
    int64_t n;
    assert_int_equal(io_join(sub, dir, stage), OK);
    assert_int_equal(io_list(sub, &name, &n), OK);
    for (int64_t i = 0; i < n; i++)
        if (str_ends(name[i], suffix)) assert_int_equal(io_join(path, sub, name[i]), OK);
    io_list_free(name, n);
}

static int64_t count_of(const char *stage)
{
    RecordSet *s;
    assert_int_equal(record_open(&s, dir, stage), OK);
    int64_t n = record_count(s);
    for (int64_t i = 0; i < n; i++) {
        json_t *data;
        assert_int_equal(record_read(s, i, &data), OK);
        assert_true(id_equal(record_id(s, i), id_of((int)json_integer_value(json_object_get(data, "number")))));
        if (i > 0) assert_true(id_compare(record_id(s, i - 1), record_id(s, i)) < 0);
        assert_int_equal(record_find(s, record_id(s, i)), i);
        json_decref(data);
    }
    record_free(s);
    return n;
}

static void test_parts_unite(void **state)
{
    (void)state;
    assert_int_equal(count_of("never"), 0);
    write_part("unite", 0, 10, "x");
    write_part("unite", 5, 20, "y");
    assert_int_equal(count_of("unite"), 20);
    RecordSet *s;
    assert_int_equal(record_open(&s, dir, "unite"), OK);
    assert_int_equal(record_find(s, id_of(99)), -1);
    record_free(s);
}

static void test_torn_line_and_lost_index(void **state)
{
    (void)state;
    char path[IO_PATH];
    write_part("torn", 0, 10, "x");
    file_of("torn", ".jsonl", path);
    assert_int_equal(truncate(path, io_size(path) - 3), 0);  // the index still names the tenth line
    assert_int_equal(count_of("torn"), 9);
    write_part("lost", 0, 10, "x");
    file_of("lost", ".idx", path);
    assert_int_equal(truncate(path, 4 * 40 + 17), 0);
    assert_int_equal(count_of("lost"), 10);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(count_of("lost"), 10);
}

static void flip_byte(const char *path, off_t at)
{
    int fd = open(path, O_RDWR);
    char c;
    assert_int_equal(pread(fd, &c, 1, at), 1);
    c ^= 1;
    assert_int_equal(pwrite(fd, &c, 1, at), 1);
    close(fd);
}

static void test_damage_is_found(void **state)
{
    (void)state;
    char path[IO_PATH];
    RecordSet *s;
    json_t *data;
    write_part("damage", 0, 10, "x");
    file_of("damage", ".jsonl", path);
    flip_byte(path, io_size(path) - 40);
    assert_int_equal(record_open(&s, dir, "damage"), OK);
    int bad = 0;
    for (int i = 0; i < 10; i++) {
        Err err = record_read(s, i, &data);
        bad += err == ERR_DATA;
        if (err == OK) json_decref(data);
    }
    assert_int_equal(bad, 1);
    assert_non_null(strstr(err_message(), "checksum"));
    record_free(s);
    Id digest;
    assert_int_equal(record_finish(dir, "damage", &digest), ERR_DATA);
    assert_false(record_done(dir, "damage", NULL, NULL));
}

static void test_finish_and_digest(void **state)
{
    (void)state;
    Id a, b, c, again;
    int64_t n = 0;
    write_part("one", 0, 1000, "x");
    write_part("two", 300, 1000, "y");
    write_part("two", 0, 400, "z");
    write_part("less", 0, 999, "x");
    assert_int_equal(record_finish(dir, "one", &a), OK);
    assert_int_equal(record_finish(dir, "two", &b), OK);
    assert_int_equal(record_finish(dir, "less", &c), OK);
    assert_true(id_equal(a, b));   // law 1: parts, order and hosts do not enter
    assert_false(id_equal(a, c));
    assert_true(record_done(dir, "two", &again, &n));
    assert_true(id_equal(again, b) && n == 1000);
    assert_int_equal(count_of("two"), 1000);
    assert_int_equal(record_finish(dir, "two", &again), OK);
    assert_true(id_equal(again, b));
    char **name, path[IO_PATH];
    assert_int_equal(io_join(path, dir, "two"), OK);
    assert_int_equal(io_list(path, &name, &n), OK);
    assert_int_equal(n, 3);  // data, index, done
    io_list_free(name, n);
    RecordWriter *w;
    assert_int_equal(record_create(&w, dir, "two", NULL), ERR_CREATE);
}

static void test_empty_stage_ends(void **state)
{
    (void)state;
    Id digest;
    int64_t n = -1;
    RecordSet *s;
    assert_int_equal(record_require(&s, dir, "empty", "sample", NULL), ERR_NOINPUT);
    assert_non_null(strstr(err_message(), "imf sample"));
    assert_int_equal(record_finish(dir, "empty", &digest), OK);
    assert_true(record_done(dir, "empty", NULL, &n) && n == 0);
    assert_int_equal(record_require(&s, dir, "empty", "sample", &digest), OK);
    record_free(s);
}

static void test_crashed_compaction(void **state)
{
    (void)state;
    char path[IO_PATH];
    Id digest;
    write_part("crash", 0, 50, "x");
    assert_int_equal(io_join(path, dir, "crash/data-00000.jsonl"), OK);
    assert_int_equal(io_write(path, "rubbish\n", 8), OK);  // renamed, but `done` was never written
    assert_int_equal(count_of("crash"), 50);
    assert_int_equal(record_finish(dir, "crash", &digest), OK);
    assert_int_equal(count_of("crash"), 50);
}

static void test_other_recipe_is_refused(void **state)
{
    (void)state;
    Id digest;
    bool done;
    json_t *a = header("a"), *b = header("b");
    write_part("recipe", 0, 3, "x");
    assert_int_equal(record_begin(dir, "recipe", a, &done), OK);
    assert_false(done);
    assert_int_equal(record_begin(dir, "recipe", b, &done), ERR_RECIPE);
    assert_non_null(strstr(err_message(), "run_dir"));
    assert_int_equal(record_finish(dir, "recipe", &digest), OK);
    assert_int_equal(record_begin(dir, "recipe", a, &done), OK);
    assert_true(done);
    assert_int_equal(record_begin(dir, "recipe", b, &done), ERR_RECIPE);
    assert_int_equal(record_begin(dir, "absent", b, &done), OK);
    assert_false(done);
    json_decref(a);
    json_decref(b);
}

// On a disk of 256 KiB: the error names the file, what was written before stays whole, nothing is committed.
static void test_full_disk(void **state)
{
    (void)state;
    char disk[IO_PATH];
    RecordWriter *w;
    RecordSet *s;
    Id digest;
    Err err = OK;
    int written = 0;
    assert_int_equal(io_join(disk, dir, "disk"), OK);
    assert_int_equal(io_mkdirs(disk), OK);
    if (mount("tmpfs", disk, "tmpfs", 0, "size=256k") != 0) skip();
    json_t *h = header("a"), *data = json_pack("{s:s}", "text", "characters that fill the disk a little faster than none");
    assert_int_equal(record_create(&w, disk, "full", h), OK);
    while (err == OK && written < 10000) {
        err = record_write(w, id_of(written), data, NULL);
        written += err == OK;
    }
    assert_int_equal(err, ERR_IO);
    assert_non_null(strstr(err_message(), "/disk/full/part-"));
    assert_non_null(strstr(err_message(), "No space left"));
    assert_int_equal(record_write(w, id_of(written), data, NULL), ERR_IO);
    assert_int_equal(record_close(w), OK);
    assert_true(written > 100);
    assert_int_equal(record_finish(disk, "full", &digest), ERR_IO);
    assert_false(record_done(disk, "full", NULL, NULL));
    assert_int_equal(record_open(&s, disk, "full"), OK);
    assert_int_equal(record_count(s), written);
    record_free(s);
    json_decref(h);
    json_decref(data);
    assert_int_equal(umount(disk), 0);
}

typedef struct Rows {
    int n;
    char where[200];
} Rows;

static Err count_row(void *user, const json_t *row, const char *where)
{
    Rows *r = user;
    r->n++;
    snprintf(r->where, sizeof r->where, "%s", where);
    int64_t a;
    return json_get_i64(row, "a", where, &a);
}

static void check_jsonl(const char *text, Err wanted, int rows, const char *said)
{
    char path[IO_PATH];
    Rows r = {0};
    assert_int_equal(io_join(path, dir, "rows.jsonl"), OK);
    assert_int_equal(io_write(path, text, (int64_t)strlen(text)), OK);
    assert_int_equal(jsonl_each(path, count_row, &r), wanted);
    assert_int_equal(r.n, rows);
    if (wanted != OK) assert_non_null(strstr(err_message(), said));
}

static void test_jsonl(void **state)
{
    (void)state;
    check_jsonl("{\"a\":1}\n\n  \n{\"a\":2}", OK, 2, "");
    check_jsonl("\xef\xbb\xbf{\"a\":1}\r\n", OK, 1, "");
    check_jsonl("[{\"a\":1},\n{\"a\":2}]", OK, 2, "");
    check_jsonl("{\"a\":1}\n{\"a\":\n", ERR_DATA, 1, "rows.jsonl:2");
    check_jsonl("{\"a\":1}\n{\"a\":\"x\"}\n", ERR_DATA, 2, "rows.jsonl:2: \"a\" must be a whole number; it is text");
    check_jsonl("{\"a\":1,\"a\":2}\n", ERR_DATA, 0, "duplicate");
    check_jsonl("{}\n", ERR_DATA, 1, "missing");
    check_jsonl("{\"a\":1}\n{\"a\":\xe9}\n", ERR_DATA, 1, "rows.jsonl:2, column 5: not JSON: unable to decode byte 0xe9");
    check_jsonl("", OK, 0, "");
    check_jsonl("\n\n{\"a\":\n", ERR_DATA, 0, "rows.jsonl:3");
}

// Arrays: brackets and quotes in strings, every way to end too early or too late.
static void test_jsonl_array(void **state)
{
    (void)state;
    check_jsonl(" \n[ ]\n", OK, 0, "");
    check_jsonl("[{\"a\":1,\"b\":\"],[{\\\"],\\\\\"},{\"a\":2,\"b\":[[1,2],{\"c\":[3]}]}]\n", OK, 2, "");
    check_jsonl("[{\"a\":1},\n{\"a\":", ERR_DATA, 1, "rows.jsonl: entry 2: the file ends inside of its array");
    check_jsonl("[", ERR_DATA, 0, "entry 1: the file ends");
    check_jsonl("[{\"a\":1},]", ERR_DATA, 1, "entry 2, column 0: not JSON");
    check_jsonl("[{\"a\":1} {\"a\":2}]", ERR_DATA, 0, "entry 1, column 9: not JSON");
    check_jsonl("[{\"a\":1}]\n[{\"a\":2}]\n", ERR_DATA, 1, "something stands behind the array");
    check_jsonl("[{\"a\":1]}", ERR_DATA, 0, "entry 1");
}

// Rows and arrays longer than the blocks they are read in; every length around a block's end.
static void test_jsonl_blocks(void **state)
{
    (void)state;
    Str s = {0};
    for (int array = 0; array < 2; array++) {
        str_clear(&s);
        int rows = 0;
        if (array) assert_int_equal(str_puts(&s, "["), OK);
        for (int n = 65500; n < 65560; n += 3, rows++)
            assert_int_equal(str_printf(&s, "%s{\"a\":%d,\"b\":\"%*s\"}%s", array && rows ? "," : "", n, n, "", array ? "" : "\n"), OK);
        if (array) assert_int_equal(str_puts(&s, "]"), OK);
        check_jsonl(str_text(&s), OK, rows, "");
    }
    str_free(&s);
}

// 1 GB without a line end, or of brackets that never close: refused after JSONL_ROW bytes, in little memory. A pipe is not waited for.
static void test_jsonl_endless(void **state)
{
    (void)state;
    static const char *const begins[] = {"", "[", "[{\"a\":\"", "{\"a\": 1}\n[", "\n\n"};
    char path[IO_PATH];
    Rows r = {0};
    assert_int_equal(io_join(path, dir, "rows.jsonl"), OK);
    for (size_t i = 0; i < sizeof begins / sizeof begins[0]; i++) {
        assert_int_equal(io_write(path, begins[i], (int64_t)strlen(begins[i])), OK);
        assert_int_equal(truncate(path, 1000000000), 0);  // sparse: NUL bytes
        int64_t before = mem_peak();
        assert_int_equal(jsonl_each(path, count_row, &r), ERR_DATA);
        assert_non_null(strstr(err_message(), "this row is longer than 64 MiB"));
        assert_true(mem_peak() <= before + 6 * (int64_t)JSONL_ROW);
    }
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(jsonl_each(path, count_row, &r), ERR_NOINPUT);
    assert_non_null(strstr(err_message(), "name a regular file"));
    FileMap map;
    assert_int_equal(io_map(path, &map), ERR_NOINPUT);
    assert_int_equal(unlink(path), 0);
}

static void test_canonical(void **state)
{
    (void)state;
    Str text = {0};
    json_t *v;
    const char *in = "{\"b\": [1, 2.50, true], \"a\": \"\\u00e4\"}";
    assert_int_equal(json_parse(in, (int64_t)strlen(in), "test", &v), OK);
    assert_int_equal(json_canonical(v, &text), OK);
    assert_string_equal(str_text(&text), "{\"a\":\"\xc3\xa4\",\"b\":[1,2.5,true]}");
    json_decref(v);
    str_free(&text);
}

static int remove_dir(void **state)
{
    (void)state;
    return io_remove_tree(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_unite),
        cmocka_unit_test(test_torn_line_and_lost_index),
        cmocka_unit_test(test_damage_is_found),
        cmocka_unit_test(test_finish_and_digest),
        cmocka_unit_test(test_empty_stage_ends),
        cmocka_unit_test(test_crashed_compaction),
        cmocka_unit_test(test_other_recipe_is_refused),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_jsonl), cmocka_unit_test(test_jsonl_array), cmocka_unit_test(test_jsonl_blocks),
        cmocka_unit_test(test_jsonl_endless),
        cmocka_unit_test(test_canonical),
    };
    if (!mkdtemp(dir)) return 1;
    return cmocka_run_group_tests(tests, NULL, remove_dir);
}
