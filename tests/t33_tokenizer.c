// SPDX-License-Identifier: Apache-2.0
// Tokenizer: ids equal those of the crate `tokenizers` (hashes by tools/reference/tokenizer.py) on the small corpus for four
// small tokenizers that together use every feature; PRS-4: broken files are refused with file and key, patterns have limits.
// The same comparison with the real tokenizers on 1 MB: tests/real/t33_tokenizer.sh.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "tests/text_support.h"
#include "text/pretok.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

static char dir[] = "/tmp/imf-t33-XXXXXX";

static int make_dir(void **state)
{
    (void)state;
    log_quiet(true);
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return io_remove_tree(dir) == OK ? 0 : -1;
}

// --- ids ---------------------------------------------------------------------------------------------------------------

// Documents of the corpus whose ids differ from the hashes in `key` of the file.
static int64_t count_wrong(const Tokenizer *t, const char *hashes, const char *key, bool specials)
{
    int64_t wrong = 0, k = 0, n;
    Str corpus = {0};
    char *want = hash_line(hashes, key);
    assert_int_equal(io_read(TINY "corpus.txt", &corpus, 1 << 20), OK);
    for (const char *p = corpus.p, *end = p + corpus.len; p < end; p += n, k++) {
        Ids ids = {0};
        n = strtoll(p, NULL, 10);
        p = strchr(p, '\n') + 1;
        assert_int_equal(tok_encode(t, p, n, specials, &ids), OK);
        wrong += !hash_matches(want, k, &ids);
        ids_free(&ids);
    }
    assert_int_equal(strlen(want), 8 * k);
    assert_true(k > 200);
    mem_free(want);
    str_free(&corpus);
    return wrong;
}

static void ids_equal_those_of_tokenizers(void **state)
{
    (void)state;
    for (int i = 0; i < TINY_KINDS; i++) {
        Tokenizer *t = load_tiny(tiny_kinds[i]);
        char path[IO_PATH];
        snprintf(path, sizeof path, TINY "tiny-%s.hash", tiny_kinds[i]);
        assert_int_equal(count_wrong(t, path, "text ", true), 0);
        assert_int_equal(count_wrong(t, path, "plain ", false), 0);
        tok_free(t);
    }
}

static char *tiny_json(const char *kind)
{
    Str s = {0};
    char path[IO_PATH];
    snprintf(path, sizeof path, TINY "%s/tokenizer.json", kind);
    assert_int_equal(io_read(path, &s, 1 << 20), OK);
    return s.p;
}

static void write_file(const char *name, const char *text, int64_t n)
{
    char path[IO_PATH];
    assert_int_equal(io_join(path, dir, name), OK);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, (size_t)n, f), n);
    assert_int_equal(fclose(f), 0);
}

// `text` with its first `from` replaced; the caller frees it.
static char *replaced(const char *text, const char *from, const char *to)
{
    Str s = {0};
    const char *at = strstr(text, from);
    if (!at) fail_msg("the fixture has no %s", from);
    assert_int_equal(str_add(&s, text, at - text), OK);
    assert_int_equal(str_puts(&s, to), OK);
    assert_int_equal(str_puts(&s, at + strlen(from)), OK);
    return s.p;
}

static void one_missing_merge_is_seen(void **state)
{
    (void)state;
    char *json = tiny_json("odd"), *bad = replaced(json, "\"e r\",", "");
    Tokenizer *t;
    write_file("tokenizer.json", bad, (int64_t)strlen(bad));
    assert_int_equal(tok_load(dir, &t), OK);
    assert_true(count_wrong(t, TINY "tiny-odd.hash", "text ", true) > 0);
    tok_free(t);
    mem_free(json);
    mem_free(bad);
}

static void decoding_gives_the_text_back(void **state)
{
    (void)state;
    static const char *const kinds[] = {"smollm2", "llama"};  // the others normalise
    const char text[] = "a\0b \t\n d\xc3\xa9j\xc3\xa0 \xf0\x9f\x98\x80<|im_end|> x e\xcc\x81 \xef\xbf\xbd 12345 \xe2\x80\xa8";
    for (int i = 0; i < 2; i++) {
        Tokenizer *t = load_tiny(kinds[i]);
        Ids ids = {0};
        Str back = {0};
        assert_int_equal(tok_encode(t, text, sizeof text - 1, true, &ids), OK);
        assert_int_equal(tok_decode(t, ids.id, ids.n, false, &back), OK);
        assert_int_equal(back.len, sizeof text - 1);
        assert_memory_equal(back.p, text, sizeof text - 1);
        str_clear(&back);
        assert_int_equal(tok_decode(t, ids.id, ids.n, true, &back), OK);
        assert_int_equal(back.len, sizeof text - 1 - strlen("<|im_end|>"));
        ids_free(&ids), str_free(&back), tok_free(t);
    }
}

// A piece of 5,000 letters takes the heap, the same letters with the merges done by hand in rank order the definition.
static void long_and_short_pieces_merge_alike(void **state)
{
    (void)state;
    Tokenizer *t = load_tiny("smollm2");
    Ids whole = {0}, parts = {0};
    Str text = {0};
    // "q" is in no merge of this small vocabulary's letters after it ("qe" etc.), so that a q ends whatever comes before it
    for (int i = 0; i < 400; i++) assert_int_equal(str_puts(&text, i % 3 ? "thereqq" : "tokenizationqq"), OK);
    assert_int_equal(tok_encode(t, text.p, text.len, true, &whole), OK);
    for (int i = 0; i < 400; i++) {
        const char *w = i % 3 ? "thereqq" : "tokenizationqq";
        assert_int_equal(tok_encode(t, w, (int64_t)strlen(w), true, &parts), OK);
    }
    assert_int_equal(whole.n, parts.n);
    assert_memory_equal(whole.id, parts.id, (size_t)whole.n * sizeof *whole.id);
    ids_free(&whole), ids_free(&parts), str_free(&text), tok_free(t);
}

// --- UTF-8 -------------------------------------------------------------------------------------------------------------

// tools/reference/tokenizer.py lossy: the same strings through Python.
static void replacement_is_pythons(void **state)
{
    (void)state;
    static const unsigned char edges[] = {0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0,
                                          0xC2, 0xDF, 0xE0, 0xE1, 0xED, 0xEF, 0xF0, 0xF4, 0xF5};
    uint64_t h = FNV_START;
    Str out = {0};
    int64_t count = 1;
    for (int n = 1; n <= 4; n++) {
        count *= 18;
        for (int64_t k = 0; k < count; k++) {
            char s[4];
            int64_t rest = k;
            for (int i = 0; i < n; i++, rest /= 18) s[i] = (char)edges[rest % 18];
            str_clear(&out);
            assert_int_equal(utf8_add_lossy(&out, s, n), OK);
            h = fnv_add(h, out.p, out.len);
        }
    }
    assert_true(h == 0xc5c16b0f404dd551u);
    str_free(&out);
}

static void text_that_is_not_utf8_is_refused(void **state)
{
    (void)state;
    Tokenizer *t = load_tiny("qwen");
    Ids ids = {0};
    assert_int_equal(tok_encode(t, "abc\xed\xa0\x80", 6, true, &ids), ERR_DATA);
    assert_non_null(strstr(err_message(), "byte 3"));
    tok_free(t);
    ids_free(&ids);
}

static void trimming_is_pythons_strip(void **state)
{
    (void)state;
    const char *p = "\x1c \xc2\x85\xe3\x80\x80" "a \xe2\x80\x8b" "\xe2\x80\xa9\n", *all = " \n\t";
    int64_t n = (int64_t)strlen(p), m = 3;
    utf8_trim(&p, &n);
    assert_int_equal(n, 5);  // U+200B is no white space
    assert_memory_equal(p, "a \xe2\x80\x8b", 5);
    utf8_trim(&all, &m);
    assert_int_equal(m, 0);
}

static void copies_end_with_a_whole_character(void **state)
{
    (void)state;
    static const char *const text = "a\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80";  // 1, 2, 3 and 4 bytes
    static const int64_t kept[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 10};      // in a buffer of 1, 2 ... bytes
    for (int i = 0; i < 12; i++) {
        char to[12];
        utf8_copy(to, (size_t)i + 1, text);
        assert_int_equal(strlen(to), kept[i]);
        assert_memory_equal(to, text, (size_t)kept[i]);
    }
}

// --- files -------------------------------------------------------------------------------------------------------------

static const struct { const char *kind, *from, *to, *key; } broken[] = {
    {"qwen", "{", "", "not JSON"},
    {"qwen", "\"type\":\"BPE\"", "\"type\":\"Unigram\"", "model: type"},
    {"qwen", "\"byte_fallback\":false", "\"byte_fallback\":true", "model: byte_fallback"},
    {"qwen", "\"byte_fallback\":false", "\"byte_fallback\":0", "model: byte_fallback"},
    {"qwen", "\"dropout\":null", "\"dropout\":0.1", "model: dropout"},
    {"qwen", "\"continuing_subword_prefix\":null", "\"continuing_subword_prefix\":\"##\"", "model: continuing_subword_prefix"},
    {"qwen", "\"unk_token\":null", "\"unk_token\":\"<none>\"", "model: unk_token"},
    {"qwen", "\"vocab\":{", "\"vocab\":{\"zzz\":0,", "model.vocab: tokens '<|endoftext|>' and 'zzz'"},
    {"qwen", "\"vocab\":{", "\"vocab\":{\"zzz\":-1,", "model.vocab"},
    {"qwen", "\"vocab\":{", "\"vocab\":{\"zzz\":4194304,", "model.vocab"},
    {"qwen", "\"vocab\":{", "\"vocab\":{\"zzz\":1.5,", "model.vocab: 'zzz'"},
    {"qwen", "\"vocab\":{", "\"vocab\":{\"zzz\":99999999999999999999,", "not JSON"},
    {"qwen", "\"vocab\":{", "\"vocab\":{\"\":5000,", "model.vocab"},
    {"qwen", "\"vocab\":{", "\"vocab\":[],\"x\":{", "model.vocab: not an object"},
    {"qwen", "\"merges\":[", "\"merges\":[[\"a\",\"@@\"],", "model.merges[0]"},
    {"qwen", "\"merges\":[", "\"merges\":[[\"a\"],", "model.merges[0]"},
    {"qwen", "\"merges\":[", "\"merges\":[7,", "model.merges[0]"},
    {"qwen", "\"merges\":[", "\"merges\":[\"a b c\",", "model.merges[0]"},
    {"qwen", "\"merges\":[", "\"merges\":[\"ab\",", "model.merges[0]"},
    {"qwen", "\"merges\":[", "\"merges\":3,\"x\":[", "model.merges: not an array"},
    {"qwen", "\"type\":\"NFC\"", "\"type\":\"Lowercase\"", "normalizer: type"},
    {"qwen", "\"type\":\"Split\"", "\"type\":\"Punctuation\"", "pre_tokenizer: pretokenizers[0]: type"},
    {"qwen", "\"behavior\":\"Isolated\"", "\"behavior\":\"Sideways\"", "pre_tokenizer: pretokenizers[0]: behavior"},
    {"qwen", "\"Regex\":\"", "\"Regex\":\"(", "pre_tokenizer: pretokenizers[0]: pattern"},
    {"qwen", "\"Regex\":\"", "\"Regex\":\"\\\\h|", "pre_tokenizer: pretokenizers[0]: pattern"},
    {"qwen", "\"Regex\":\"", "\"Regex\":\"^|", "pre_tokenizer: pretokenizers[0]: pattern"},
    {"qwen", "\"Regex\":\"", "\"Regex\":\"[a&&b]|", "pre_tokenizer: pretokenizers[0]: pattern"},
    {"qwen", "\"Regex\":\"", "\"Regex\":\"[\\\\S]|", "pre_tokenizer: pretokenizers[0]: pattern"},
    {"qwen", "\"add_prefix_space\":false", "\"add_prefix_space\":\"no\"", "add_prefix_space"},
    {"qwen", "{\"type\":\"ByteLevel\"", "{\"type\":\"Digits\"", "pre_tokenizer: has no ByteLevel"},
    {"qwen", "\"pretokenizers\":[", "\"pretokenizers\":[{\"type\":\"ByteLevel\",\"add_prefix_space\":false},", "pretokenizers[1]: type"},
    {"qwen", "\"decoder\":{\"type\":\"ByteLevel\"", "\"decoder\":{\"type\":\"WordPiece\"", "decoder: type"},
    {"qwen", "\"id\":0", "\"id\":1", "added_tokens[0]: content"},
    {"qwen", "\"id\":0", "\"id\":\"0\"", "added_tokens[0]: id"},
    {"qwen", "\"content\":\"<|im_start|>\"", "\"content\":\"\"", "added_tokens[1]"},
    {"qwen", "\"content\":\"<|im_start|>\"", "\"content\":null", "added_tokens[1]: content"},
    {"qwen", "\"special\":true", "\"special\":1", "added_tokens[0]: special"},
    {"qwen", "\"added_tokens\":[", "\"added_tokens\":{},\"x\":[", "added_tokens: not an array"},
    {"qwen", "\"version\":\"1.0\"", "\"version\":\"1.0\",\"version\":\"1.0\"", "duplicate"},
    {"qwen", "\"version\":\"1.0\"",
     "\"version\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
     "nested deeper"},
};

static void prs4_broken_files_are_refused_with_file_and_key(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        char *json = tiny_json(broken[i].kind), *bad = replaced(json, broken[i].from, broken[i].to);
        Tokenizer *t = NULL;
        write_file("tokenizer.json", bad, (int64_t)strlen(bad));
        Err err = tok_load(dir, &t);
        if (err != ERR_DATA) fail_msg("%s: exit %d", broken[i].to, (int)err);
        assert_null(t);
        if (!strstr(err_message(), "tokenizer.json") || !strstr(err_message(), broken[i].key))
            fail_msg("%s: message is: %s", broken[i].to, err_message());
        mem_free(json);
        mem_free(bad);
    }
}

static void prs4_a_long_token_is_refused(void **state)
{
    (void)state;
    char *json = tiny_json("qwen"), *bad;
    Str entry = {0};
    Tokenizer *t;
    assert_int_equal(str_puts(&entry, "\"vocab\":{\""), OK);
    for (int i = 0; i < 65537; i++) assert_int_equal(str_puts(&entry, "x"), OK);
    assert_int_equal(str_puts(&entry, "\":9000,"), OK);
    bad = replaced(json, "\"vocab\":{", entry.p);
    write_file("tokenizer.json", bad, (int64_t)strlen(bad));
    assert_int_equal(tok_load(dir, &t), ERR_DATA);
    str_free(&entry);
    mem_free(json);
    mem_free(bad);
}

// Nothing but success or ERR_DATA, whatever byte is wrong and wherever the file ends.
static void prs4_damaged_files_do_no_harm(void **state)
{
    (void)state;
    char *json = tiny_json("odd");
    int64_t n = (int64_t)strlen(json), before = mem_now();
    for (int i = 0; i < 400; i++) {
        int64_t at = (int64_t)((uint64_t)i * 2654435761u % (uint64_t)n);
        char kept = json[at];
        Tokenizer *t;
        if (i % 4) json[at] = "\"}x0"[i % 4];
        write_file("tokenizer.json", json, i % 4 ? n : at);
        Err err = tok_load(dir, &t);
        if (err == OK) tok_free(t);
        else assert_int_equal(err, ERR_DATA);
        json[at] = kept;
    }
    assert_int_equal(mem_now(), before);
    mem_free(json);
}

static void missing_file_says_which(void **state)
{
    (void)state;
    Tokenizer *t;
    assert_int_equal(tok_load("/nonexistent", &t), ERR_NOINPUT);
    assert_non_null(strstr(err_message(), "/nonexistent/tokenizer.json"));
}

static void configs_name_bos_eos_and_template(void **state)
{
    (void)state;
    static const char config[] = "{\"bos_token\": {\"content\": \"<|bos|>\"}, \"eos_token\": null, \"model_max_length\": "
                                 "1000000000000000019884624838656, \"chat_template\": [{\"name\": \"tool\", \"template\": \"T\"}, "
                                 "{\"name\": \"default\", \"template\": \"D\"}]}";
    static const char map[] = "{\"bos_token\": \"<|pad|>\", \"eos_token\": \"<|end|>\"}";
    static const char other[] = "{\"bos_token\": \"<|nowhere|>\"}";
    char *json = tiny_json("qwen");
    Tokenizer *t;
    write_file("tokenizer.json", json, (int64_t)strlen(json));
    write_file("tokenizer_config.json", config, sizeof config - 1);
    write_file("special_tokens_map.json", map, sizeof map - 1);
    assert_int_equal(tok_load(dir, &t), OK);
    assert_int_equal(tok_bos(t), tok_id(t, "<|bos|>"));
    assert_int_equal(tok_eos(t), tok_id(t, "<|end|>"));
    assert_string_equal(tok_chat_template(t), "D");
    assert_true(tok_is_special(t, tok_bos(t)));
    assert_false(tok_is_special(t, tok_id(t, "<tool_call>")));
    assert_int_equal(tok_id(t, "<tool_call>") + 2, tok_vocab(t));
    assert_string_equal(tok_text(t, tok_eos(t)), "<|end|>");
    assert_null(tok_text(t, tok_vocab(t)));
    Id before = tok_fingerprint(t);
    tok_free(t);
    write_file("chat_template.jinja", "J", 1);
    assert_int_equal(tok_load(dir, &t), OK);
    assert_string_equal(tok_chat_template(t), "J");
    assert_false(id_equal(before, tok_fingerprint(t)));
    tok_free(t);
    write_file("special_tokens_map.json", other, sizeof other - 1);
    write_file("tokenizer_config.json", "{}", 2);
    assert_int_equal(tok_load(dir, &t), ERR_DATA);
    assert_non_null(strstr(err_message(), "special_tokens_map.json: bos_token"));
    mem_free(json);
}

// Law 7: as the crate does it, but counted; unk_token takes their place where the file names one.
static void bytes_without_a_token_are_counted(void **state)
{
    (void)state;
    char *json = tiny_json("qwen"), *bad = replaced(json, "\"\xc4\x93\":", "\"zzzz\":");  // U+0113: the byte 0x13
    char *unk = replaced(bad, "\"unk_token\":null", "\"unk_token\":\"zzzz\"");
    static const char *const configs[] = {"tokenizer_config.json", "special_tokens_map.json"};
    Tokenizer *t;
    Ids ids = {0}, clean = {0};
    for (int i = 0; i < 2; i++) write_file(configs[i], "{}", 2);
    write_file("tokenizer.json", bad, (int64_t)strlen(bad));
    assert_int_equal(tok_load(dir, &t), OK);
    assert_int_equal(tok_encode(t, "\x01\x02", 2, true, &clean), OK);
    assert_int_equal(tok_encode(t, "\x01\x13\x02\x13", 4, true, &ids), OK);
    assert_int_equal(ids.n, clean.n);
    assert_memory_equal(ids.id, clean.id, (size_t)ids.n * sizeof *ids.id);
    assert_int_equal(tok_lost(t), 2);
    tok_free(t);
    write_file("tokenizer.json", unk, (int64_t)strlen(unk));
    assert_int_equal(tok_load(dir, &t), OK);
    ids.n = 0;
    assert_int_equal(tok_encode(t, "\x01\x13\x02", 3, true, &ids), OK);
    assert_int_equal(ids.n, 3);
    assert_int_equal(ids.id[1], tok_id(t, "zzzz"));
    assert_int_equal(tok_lost(t), 0);
    tok_free(t);
    ids_free(&ids), ids_free(&clean);
    mem_free(json), mem_free(bad), mem_free(unk);
}

// --- patterns ----------------------------------------------------------------------------------------------------------

static Err count_piece(void *user, const char *p, int64_t n)
{
    (void)p;
    return n > 0 ? (++*(int64_t *)user, OK) : ERR_INTERNAL;
}

static Err run_pattern(const char *pattern, const char *text, int64_t n, int64_t *pieces)
{
    Pretok p = {0};
    PretokRun *run;
    *pieces = 0;
    assert_int_equal(pretok_add_split(&p, pattern, (int64_t)strlen(pattern), false, PRE_ISOLATED, false), OK);
    assert_int_equal(pretok_open(&run), OK);
    Err err = pretok_run(&p, run, text, n, count_piece, pieces);
    pretok_close(run);
    pretok_free(&p);
    return err;
}

static void prs4_patterns_have_limits(void **state)
{
    (void)state;
    enum { N = 300000 };
    char *text;
    int64_t pieces;
    assert_int_equal(MEM_ARRAY(&text, N), OK);
    memset(text, 'a', N);
    double start = time_now();
    assert_int_equal(run_pattern("(a+)+[bc]", text, 60, &pieces), ERR_DATA);
    assert_non_null(strstr(err_message(), "too many steps"));
    memset(text, ' ', N);  // a long run is no crime
    assert_int_equal(run_pattern("\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", text, N, &pieces), OK);
    assert_int_equal(pieces, 1);
    assert_true(time_now() - start < 10);  // without limits the first one takes 2^60 steps
    mem_free(text);
}

static void white_space_is_unicodes(void **state)
{
    (void)state;
    int64_t pieces;
    // U+0085 is white space, U+180E is not (any more), whatever the library's age
    assert_int_equal(run_pattern("\\s+", "a\xc2\x85" "b\xe1\xa0\x8e" "c", 8, &pieces), OK);
    assert_int_equal(pieces, 3);
    assert_int_equal(run_pattern("\\S+", "a\xc2\x85" "b\xe1\xa0\x8e" "c", 8, &pieces), OK);
    assert_int_equal(pieces, 3);
    assert_int_equal(run_pattern("x*", "axxb", 4, &pieces), OK);  // empty matches cut nothing
    assert_int_equal(pieces, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_equal_those_of_tokenizers),
        cmocka_unit_test(one_missing_merge_is_seen),
        cmocka_unit_test(decoding_gives_the_text_back),
        cmocka_unit_test(long_and_short_pieces_merge_alike),
        cmocka_unit_test(replacement_is_pythons),
        cmocka_unit_test(text_that_is_not_utf8_is_refused),
        cmocka_unit_test(copies_end_with_a_whole_character),
        cmocka_unit_test(trimming_is_pythons_strip),
        cmocka_unit_test(prs4_broken_files_are_refused_with_file_and_key),
        cmocka_unit_test(prs4_a_long_token_is_refused),
        cmocka_unit_test(prs4_damaged_files_do_no_harm),
        cmocka_unit_test(missing_file_says_which),
        cmocka_unit_test(configs_name_bos_eos_and_template),
        cmocka_unit_test(bytes_without_a_token_are_counted),
        cmocka_unit_test(prs4_patterns_have_limits),
        cmocka_unit_test(white_space_is_unicodes),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
