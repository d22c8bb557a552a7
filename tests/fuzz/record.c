// SPDX-License-Identifier: Apache-2.0
// libFuzzer: any bytes as lines of a user's file (first byte not 'P'), or as a part with its index as a killed job leaves them
// ('P', the index' length in two bytes, index, part). Rows are refused with file and line or imported as a prompt whose
// canonical text reads back; a part opens, each record reads or says that it is damaged, and compacting it keeps every record
// (PRS-6).
#include "base/mem.h"
#include "fuzz.h"
#include "text/prompt.h"
#include "text/record.h"

static Err take_row(void *user, const json_t *row, const char *where)
{
    (void)user;
    json_t *data, *again;
    Id id;
    const char *unfit;
    Str text = {0};
    Err err = prompt_import(row, "auto", "", where, &data, &id, &unfit);
    WANT_GOOD_ERROR(err, where);
    if (err != OK) return OK;
    Message *m;
    int64_t n;
    WANT(prompt_messages(data, where, &m, &n) == OK && n > 0);
    mem_free(m);
    WANT(json_canonical(data, &text) == OK && json_parse(str_text(&text), text.len, where, &again) == OK);
    WANT(json_equal(data, again));
    json_decref(data);
    json_decref(again);
    str_free(&text);
    return OK;
}

// 0 when the directory is refused; else the records that could be read.
static int64_t read_all(void)
{
    RecordSet *s;
    int64_t good = 0;
    Err err = record_open(&s, fuzz_place(), "set");
    WANT_GOOD_ERROR(err, "set");
    if (err != OK) return -1;
    for (int64_t i = 0; i < record_count(s); i++) {
        json_t *data;
        err = record_read(s, i, &data);
        WANT_GOOD_ERROR(err, "set");
        WANT(record_find(s, record_id(s, i)) == i);
        good += err == OK;
        if (err == OK) json_decref(data);
    }
    good = good == record_count(s) ? good : -1;
    record_free(s);
    return good;
}

static void take_part(const uint8_t *data, size_t size)
{
    char dir[IO_PATH];
    size_t index = size < 2 ? 0 : (size_t)data[0] << 8 | data[1];
    if (size < 2 || index > size - 2) return;
    WANT(io_join(dir, fuzz_place(), "set") == OK && io_remove_tree(dir) == OK && io_mkdirs(dir) == OK);
    fuzz_write("set/part-00000000000001-local-000000.idx", data + 2, index);
    fuzz_write("set/part-00000000000001-local-000000.jsonl", data + 2 + index, size - 2 - index);
    int64_t before = read_all();
    if (before < 0) return;
    Id digest;
    Err err = record_finish(fuzz_place(), "set", &digest);
    WANT(err == OK || err == ERR_DATA);
    if (err == OK) WANT(read_all() == before);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_place();
    if (size && data[0] == 'P') {
        take_part(data + 1, size - 1);
        return 0;
    }
    Err err = jsonl_each(fuzz_write("rows.jsonl", data, size), take_row, NULL);
    WANT_GOOD_ERROR(err, "rows.jsonl");
    return 0;
}
