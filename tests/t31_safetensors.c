// SPDX-License-Identifier: Apache-2.0
// PRS-1, PRS-2, PRS-3, PRS-10: every rule of the format broken once; all refused with 65, nothing big allocated. Number formats
// at their borders. One good file is accepted, and one flipped bit in it is seen.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/io.h"
#include "base/mem.h"
#include "model/model.h"
#include "model/safetensors.h"

static char dir[] = "/tmp/imf-t31-XXXXXX";

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return io_remove_tree(dir) == OK ? 0 : -1;
}

static void put(const char *name, uint64_t length, const char *header, int64_t data)
{
    char path[IO_PATH];
    Str s = {0};
    for (int i = 0; i < 8; i++) {
        char byte = (char)(length >> 8 * i & 255);
        assert_int_equal(str_add(&s, &byte, 1), OK);
    }
    assert_int_equal(str_puts(&s, header), OK);
    for (int64_t i = 0; i < data; i++) assert_int_equal(str_add(&s, "\0", 1), OK);
    assert_int_equal(io_join(path, dir, name), OK);
    assert_int_equal(io_write(path, s.p, s.len), OK);
    str_free(&s);
}

static Err open_it(const char *name, StDir *st)
{
    char path[IO_PATH];
    assert_int_equal(io_join(path, dir, name), OK);
    return st_open_file(path, st);
}

static const struct { const char *why, *header; int64_t data; } hostile[] = {
    {"not JSON", "{\"a\":", 0},
    {"not an object", "[1,2,3]", 0},
    {"leading blank", " {}", 0},
    {"trailing text", "{} {}", 0},
    {"bad UTF-8", "{\"\xff\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4},
    {"duplicate key", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                      "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4},
    {"metadata not strings", "{\"__metadata__\":{\"a\":1}}", 0},
    {"metadata not an object", "{\"__metadata__\":[]}", 0},
    {"tensor not an object", "{\"a\":7}", 0},
    {"no dtype", "{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4},
    {"no shape", "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4},
    {"no offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4},
    {"unknown key", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4},
    {"unknown dtype", "{\"a\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4},
    {"dtype not text", "{\"a\":{\"dtype\":4,\"shape\":[1],\"data_offsets\":[0,4]}}", 4},
    {"negative dimension", "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4},
    {"real dimension", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4},
    {"shape wraps 64 bit", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4194305,4194305,211106198978564],\"data_offsets\":[0,4]}}", 4},
    {"bytes wrap 64 bit", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0},
    {"nine dimensions", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4},
    {"size differs from shape", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4},
    {"end before begin", "{\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[4,0]}}", 4},
    {"negative begin", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-4,4]}}", 4},
    {"three offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4},
    {"beyond the file", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4},
    {"offset over 64 bit", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,99999999999999999999]}}", 4},
    {"trailing bytes", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 5},
    {"hole", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
             "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}", 12},
    {"overlap", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12},
    {"hole at the front", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8},
    {"NUL in a name", "{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4},
};

static void test_hostile_headers(void **state)  // PRS-1, PRS-2
{
    (void)state;
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
        StDir st;
        int64_t before = mem_now();
        put("x", strlen(hostile[i].header), hostile[i].header, hostile[i].data);
        Err err = open_it("x", &st);
        if (err != ERR_DATA) fail_msg("%s: accepted or wrong code %d", hostile[i].why, (int)err);
        assert_non_null(strstr(err_message(), "/x"));
        assert_int_equal(mem_now(), before);
    }
    assert_true(mem_peak() < 64 << 20);
}

static void test_hostile_lengths(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {0, 1, 3, 1000, 100000001, UINT64_MAX, (uint64_t)1 << 63, UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        StDir st;
        put("x", lengths[i], "{}", 0);
        assert_int_equal(open_it("x", &st), ERR_DATA);
    }
    char path[IO_PATH];
    StDir st;
    assert_int_equal(io_join(path, dir, "short"), OK);
    assert_int_equal(io_write(path, "1234567", 7), OK);
    assert_int_equal(st_open_file(path, &st), ERR_DATA);
    assert_int_equal(io_write(path, "", 0), OK);
    assert_int_equal(st_open_file(path, &st), ERR_DATA);
}

static void test_good_ones(void **state)
{
    (void)state;
    static const struct { const char *header; int64_t data, tensors; } good[] = {
        {"{}", 0, 0},
        {"{}      ", 0, 0},
        {"{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, 1},
        {"{\"b\":{\"dtype\":\"I64\",\"shape\":[2,1],\"data_offsets\":[4,20]},"
         "\"e\":{\"dtype\":\"F16\",\"shape\":[0,7],\"data_offsets\":[4,4]},"
         "\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]}}", 20, 3},
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        StDir st;
        put("x", strlen(good[i].header), good[i].header, good[i].data);
        if (open_it("x", &st) != OK) fail_msg("%s: %s", good[i].header, err_message());
        assert_int_equal(st.tensors, good[i].tensors);
        st_close(&st);
    }
}

static void test_nan_and_inf(void **state)  // PRS-10
{
    (void)state;
    static const char header[] = "{\"w\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]}}";
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        char bytes[8 + sizeof header - 1 + 12] = {0}, path[IO_PATH];
        float w[3] = {1, 2, bad[i]}, out[3];
        StDir st;
        bytes[0] = (char)(sizeof header - 1);
        memcpy(bytes + 8, header, sizeof header - 1);
        memcpy(bytes + 8 + sizeof header - 1, w, 12);
        assert_int_equal(io_join(path, dir, "nan"), OK);
        assert_int_equal(io_write(path, bytes, sizeof bytes), OK);
        assert_int_equal(st_open_file(path, &st), OK);
        assert_int_equal(st_read(st_find(&st, "w"), 0, 2, out), OK);
        assert_int_equal(st_read(st_find(&st, "w"), 1, 2, out), ERR_DATA);
        assert_non_null(strstr(err_message(), "'w', element 2"));
        st_close(&st);
    }
}

// --- indexes ---------------------------------------------------------------------------------------------------------

static Err open_index(const char *text)
{
    char path[IO_PATH];
    StDir st;
    assert_int_equal(io_join(path, dir, "model.safetensors.index.json"), OK);
    assert_int_equal(io_write(path, text, (int64_t)strlen(text)), OK);
    Err err = st_open(dir, &st);
    if (err == OK) st_close(&st);
    return err;
}

static void test_index(void **state)  // PRS-3
{
    (void)state;
    static const char a[] = "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}";
    static const char ab[] = "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                             "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}";
    put("one.safetensors", sizeof a - 1, a, 4);
    put("two.safetensors", sizeof ab - 1, ab, 8);
    StDir st;
    assert_int_equal(st_open(dir, &st), ERR_NOINPUT);
    assert_int_equal(open_index("{\"weight_map\":{\"a\":\"one.safetensors\"}}"), OK);
    assert_int_equal(open_index("{\"weight_map\":{\"a\":\"two.safetensors\",\"b\":\"two.safetensors\"}}"), OK);
    assert_int_equal(open_index("{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}"), ERR_DATA);
    assert_int_equal(open_index("{\"weight_map\":{\"b\":\"one.safetensors\"}}"), ERR_DATA);
    assert_int_equal(open_index("{\"weight_map\":{\"a\":\"../one.safetensors\"}}"), ERR_DATA);
    assert_int_equal(open_index("{\"weight_map\":{\"a\":\"/etc/passwd\"}}"), ERR_DATA);
    assert_int_equal(open_index("{\"weight_map\":{\"a\":\"\"}}"), ERR_DATA);
    assert_int_equal(open_index("{\"weight_map\":{\"a\":3}}"), ERR_DATA);
    assert_int_equal(open_index("{\"weight_map\":[]}"), ERR_DATA);
    assert_int_equal(open_index("{}"), ERR_DATA);
    assert_int_equal(open_index("{"), ERR_DATA);
    assert_int_equal(open_index("{\"weight_map\":{\"a\":\"missing.safetensors\"}}"), ERR_NOINPUT);
}

// --- numbers ---------------------------------------------------------------------------------------------------------

static void test_f16_is_exact(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {  // every finite half survives the way there and back
        uint16_t in = (uint16_t)h, out;
        float f;
        if ((h >> 10 & 31) == 31) continue;
        st_decode(&in, 1, DT_F16, &f);
        st_encode(&f, 1, DT_F16, &out);
        assert_int_equal(in, out);
    }
    static const struct { float x; uint16_t h; } border[] = {
        {65519.0f, 0x7bff}, {65520.0f, 0x7c00}, {0x1p-25f, 0}, {0x1.8p-25f, 1}, {0x1p-24f, 1}, {0x1.8p-24f, 2},
        {1.0f + 0x1p-11f, 0x3c00}, {1.0f + 0x1.8p-10f, 0x3c02}, {0x1.ffap-15f, 0x3ff}, {0x1.ffcp-15f, 0x400}};
    for (size_t i = 0; i < sizeof border / sizeof border[0]; i++) {
        uint16_t out;
        st_encode(&border[i].x, 1, DT_F16, &out);
        assert_int_equal(out, border[i].h);
    }
}

static void test_bf16_rounds_to_even(void **state)
{
    (void)state;
    static const struct { float x; uint16_t h; } cases[] = {
        {1.0f, 0x3f80}, {1.0f + 0x1p-8f, 0x3f80}, {1.0f + 0x1.8p-7f, 0x3f82}, {1.0f + 0x1.02p-8f, 0x3f81}, {-0.0f, 0x8000}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint16_t out;
        float back;
        st_encode(&cases[i].x, 1, DT_BF16, &out);
        assert_int_equal(out, cases[i].h);
        st_decode(&out, 1, DT_BF16, &back);
        assert_true(fabsf(back - cases[i].x) <= 0x1p-8f);
    }
}

// --- a whole model ---------------------------------------------------------------------------------------------------

static ModelConfig small_config(void)
{
    return (ModelConfig){.family = FAMILY_QWEN2, .layers = 2, .H = 32, .N = 2, .K = 1, .D = 16, .F = 24, .V = 40,
                         .max_positions = 32, .eps = 1e-6f, .rope_theta = 1e6f, .qkv_bias = true, .storage = DT_F32,
                         .bos = -1, .stop = {3, 5}, .stops = 2};
}

static void in_dir(char path[IO_PATH], const char *name) { assert_int_equal(io_join(path, dir, name), OK); }

static void test_export_and_load(void **state)
{
    (void)state;
    static const DType types[] = {DT_F32, DT_F16, DT_BF16};
    ModelConfig c = small_config();
    Model m, back;
    char path[IO_PATH];
    in_dir(path, "exported");
    assert_int_equal(model_init_random(&m, &c, 7, false), OK);
    for (int i = 0; i < 3; i++) {
        if (model_export(&m, NULL, path, types[i], "# card\n") != OK) fail_msg("%s", err_message());
        if (model_load(&back, path, false) != OK) fail_msg("%s", err_message());
        assert_int_equal(back.elements, m.elements);
        assert_int_equal(back.cfg.storage, types[i]);
        assert_int_equal(back.cfg.stops, 2);
        if (types[i] == DT_F32) assert_memory_equal(back.w, m.w, (size_t)m.elements * 4);
        for (int64_t e = 0; e < m.elements; e++) assert_true(fabsf(m.w[e] - back.w[e]) <= 0x1p-8f * fabsf(m.w[e]) + 1e-7f);
        model_free(&back);
    }
    // A second export from a directory takes its configuration over.
    char again[IO_PATH];
    in_dir(again, "again");
    assert_int_equal(model_export(&m, path, again, DT_F32, NULL), OK);
    assert_int_equal(model_load(&back, again, false), OK);
    assert_memory_equal(back.w, m.w, (size_t)m.elements * 4);
    model_free(&back);
    model_free(&m);
}

static Err load_changed(const char *name, int64_t at, const char *bytes, int64_t n, int64_t keep)
{
    char path[IO_PATH], weights[IO_PATH];
    Str s = {0};
    Model m;
    in_dir(path, name);
    assert_int_equal(io_join(weights, path, "model.safetensors"), OK);
    assert_int_equal(io_read(weights, &s, 1 << 24), OK);
    int64_t size = keep ? keep : s.len;
    memcpy(s.p + (at < 0 ? s.len + at : at), bytes, (size_t)n);
    assert_int_equal(io_write(weights, s.p, size), OK);
    Err err = model_load(&m, path, false);
    if (err == OK) model_free(&m);
    str_free(&s);
    return err;
}

static void test_damaged_models(void **state)
{
    (void)state;
    ModelConfig c = small_config();
    Model m;
    char path[IO_PATH];
    in_dir(path, "damaged");
    assert_int_equal(model_init_random(&m, &c, 7, false), OK);
    assert_int_equal(model_export(&m, NULL, path, DT_F32, NULL), OK);
    Id good = {0, 0};
    Model back;
    assert_int_equal(model_load(&back, path, false), OK);
    good = back.fingerprint;
    model_free(&back);
    assert_int_equal(load_changed("damaged", -3, "\x01", 1, 0), OK);  // a flipped bit changes the fingerprint
    assert_int_equal(model_load(&back, path, false), OK);
    assert_false(id_equal(good, back.fingerprint));
    model_free(&back);
    assert_int_equal(load_changed("damaged", -4, "\xff\xff\xff\x7f", 4, 0), ERR_DATA);  // NaN
    assert_non_null(strstr(err_message(), "lm_head.weight"));
    assert_int_equal(load_changed("damaged", 0, "", 0, 3000), ERR_DATA);  // cut off
    assert_int_equal(model_export(&m, NULL, path, DT_F32, NULL), OK);
    m.w[5] = NAN;
    assert_int_equal(model_export(&m, NULL, path, DT_F32, NULL), ERR_INTERNAL);  // refused, the old one stays
    assert_int_equal(model_load(&back, path, false), OK);
    model_free(&back);
    model_free(&m);
}

static void write_config(const char *name, const char *text)
{
    char path[IO_PATH], file[IO_PATH];
    in_dir(path, name);
    assert_int_equal(io_mkdirs(path), OK);
    assert_int_equal(io_join(file, path, "config.json"), OK);
    assert_int_equal(io_write(file, text, (int64_t)strlen(text)), OK);
}

#define SIZES "\"hidden_size\":32,\"intermediate_size\":24,\"num_hidden_layers\":2,\"num_attention_heads\":2," \
              "\"vocab_size\":40,\"max_position_embeddings\":32"

static void test_configs_refused(void **state)
{
    (void)state;
    static const struct { const char *text, *says; } bad[] = {
        {"{\"model_type\":\"gemma2\"," SIZES "}", "gemma2"},
        {"{" SIZES "}", "model_type"},
        {"{\"model_type\":\"llama\",\"hidden_act\":\"gelu\"," SIZES "}", "gelu"},
        {"{\"model_type\":\"llama\",\"attention_bias\":true," SIZES "}", "attention_bias"},
        {"{\"model_type\":\"llama\",\"mlp_bias\":true," SIZES "}", "mlp_bias"},
        {"{\"model_type\":\"qwen2\",\"use_sliding_window\":true," SIZES "}", "use_sliding_window"},
        {"{\"model_type\":\"llama\",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4}," SIZES "}", "yarn"},
        {"{\"model_type\":\"llama\",\"rope_scaling\":{\"rope_type\":\"llama3\"}," SIZES "}", "factor"},
        {"{\"model_type\":\"llama\",\"quantization_config\":{}," SIZES "}", "quantised"},
        {"{\"model_type\":\"llama\",\"num_key_value_heads\":3," SIZES "}", "cannot share"},
        {"{\"model_type\":\"llama\",\"hidden_size\":32}", "num_hidden_layers"},
        {"{\"model_type\":\"llama\",\"head_dim\":-8," SIZES "}", "head_dim"},
        {"{\"model_type\":\"llama\",\"torch_dtype\":\"int8\"," SIZES "}", "int8"},
        {"{\"model_type\":\"llama\",\"model_type\":\"llama\"," SIZES "}", "duplicate"},
        {"[]", "object"},
        {"{\"model_type\":", "config.json:1"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char path[IO_PATH];
        ModelConfig c;
        write_config("config", bad[i].text);
        in_dir(path, "config");
        if (model_config_load(path, &c) != ERR_DATA) fail_msg("accepted: %s", bad[i].text);
        if (!strstr(err_message(), bad[i].says)) fail_msg("'%s' does not say '%s'", err_message(), bad[i].says);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hostile_headers), cmocka_unit_test(test_hostile_lengths), cmocka_unit_test(test_good_ones),
        cmocka_unit_test(test_nan_and_inf),     cmocka_unit_test(test_index),           cmocka_unit_test(test_f16_is_exact),
        cmocka_unit_test(test_bf16_rounds_to_even), cmocka_unit_test(test_export_and_load),
        cmocka_unit_test(test_damaged_models),  cmocka_unit_test(test_configs_refused),
    };
    return cmocka_run_group_tests_name("t31_safetensors", tests, make_dir, remove_dir);
}
