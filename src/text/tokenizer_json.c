// SPDX-License-Identifier: Apache-2.0
// Reading tokenizer.json (format of the crate `tokenizers`): byte-level BPE in all its spellings, nothing else. What this
// program would compute differently from the file's author is refused with the key's name, never ignored.
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "text/tokenizer_parts.h"

enum { FILE_BYTES = 256 << 20, DEPTH = 64, SEQUENCE_DEPTH = 4 };  // PRS-4

// The pattern of a ByteLevel step with use_regex (GPT-2's).
static const char gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

#define TRY_AT(call, ...)                                      \
    do {                                                       \
        Err at_err_ = (call);                                  \
        if (at_err_ != OK) return err_context(at_err_, __VA_ARGS__); \
    } while (0)

static bool depth_within(const char *p, int64_t n, int most)
{
    bool in_text = false;
    int depth = 0;
    for (int64_t i = 0; i < n; i++) {
        char c = p[i];
        if (in_text) {
            if (c == '\\') i++;
            in_text = c != '"';
        } else if (c == '"') {
            in_text = true;
        } else if (c == '{' || c == '[') {
            if (++depth > most) return false;
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return true;
}

Err tok_parse_file(const char *path, size_t flags, json_t **out, Id *hash)
{
    FileMap map;
    json_error_t e;
    Err err = OK;
    TRY(io_map(path, &map));
    CHECK_DONE(map.size <= FILE_BYTES, ERR_DATA, "%s: %lld bytes; at most %d are allowed: is it a tokenizer's file?", path,
               (long long)map.size, FILE_BYTES);
    CHECK_DONE(depth_within(map.p, map.size, DEPTH), ERR_DATA, "%s: nested deeper than %d; is it a tokenizer's file?", path,
               DEPTH);
    *out = json_loadb(map.p, (size_t)map.size, JSON_REJECT_DUPLICATES | flags, &e);
    CHECK_DONE(*out, ERR_DATA, "%s:%d:%d: not JSON: %s; copy or download the file again", path, e.line, e.column, e.text);
    if (hash) *hash = hash_bytes(map.p, map.size);
done:
    io_unmap(&map);
    return err;
}

// --- values ------------------------------------------------------------------------------------------------------------

static bool absent(const json_t *v) { return !v || json_is_null(v); }

static Err get_bool(const json_t *o, const char *key, bool preset, bool *out)
{
    const json_t *v = json_object_get(o, key);
    *out = absent(v) ? preset : json_is_true(v);
    CHECK(absent(v) || json_is_boolean(v), ERR_DATA, "%s: not true or false", key);
    return OK;
}

static Err get_text(const json_t *o, const char *key, const char **text, int64_t *n)
{
    const json_t *v = json_object_get(o, key);
    *text = "";
    *n = 0;
    CHECK(json_is_string(v), ERR_DATA, "%s: %s", key, v ? "not a string" : "missing");
    *text = json_string_value(v);
    *n = (int64_t)json_string_length(v);
    return OK;
}

static Err get_type(const json_t *o, const char **type)
{
    int64_t n;
    *type = "";
    CHECK(json_is_object(o), ERR_DATA, "not an object; copy or download the file again");
    return get_text(o, "type", type, &n);
}

// --- vocabulary and merges ---------------------------------------------------------------------------------------------

static Err check_model(const json_t *m)
{
    static const char *const wanted_empty[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const json_t *type = json_object_get(m, "type"), *dropout = json_object_get(m, "dropout");
    CHECK(json_is_object(m), ERR_DATA, "not an object; copy or download the file again");
    CHECK(!type || (json_is_string(type) && !strcmp(json_string_value(type), "BPE")), ERR_DATA,
          "type: only byte-level BPE is supported");
    CHECK(absent(dropout) || json_number_value(dropout) == 0, ERR_DATA, "dropout: must be null");
    for (int i = 0; i < 2; i++) {
        const json_t *v = json_object_get(m, wanted_empty[i]);
        CHECK(absent(v) || (json_is_string(v) && json_string_length(v) == 0), ERR_DATA, "%s: must be empty", wanted_empty[i]);
    }
    bool fallback;
    TRY(get_bool(m, "byte_fallback", false, &fallback));
    CHECK(!fallback, ERR_DATA, "byte_fallback: only byte-level BPE is supported, not SentencePiece's");
    return OK;
}

static Err count_vocab(const json_t *vocab, const json_t *added, int64_t *tokens, int64_t *bytes)
{
    const char *key;
    const json_t *v;
    size_t i;
    CHECK(json_is_object(vocab), ERR_DATA, "model.vocab: not an object; copy or download the file again");
    CHECK(absent(added) || json_is_array(added), ERR_DATA, "added_tokens: not an array");
    *tokens = (int64_t)json_object_size(vocab) + (int64_t)json_array_size(added);
    CHECK(*tokens >= 1 && *tokens <= VOCAB_LARGEST, ERR_DATA, "model.vocab: %lld tokens (1 to %d)", (long long)*tokens,
          VOCAB_LARGEST);
    *bytes = 0;
    json_object_foreach((json_t *)vocab, key, v) *bytes += (int64_t)strlen(key);
    json_array_foreach(added, i, v) *bytes += (int64_t)json_string_length(json_object_get(v, "content"));
    return OK;
}

static Err read_vocab(Tokenizer *t, const json_t *vocab)
{
    const char *key;
    const json_t *v;
    json_object_foreach((json_t *)vocab, key, v) {
        CHECK(json_is_integer(v), ERR_DATA, "'%.60s': its id is no integer", key);
        TRY(vocab_add(&t->vocab, key, (int64_t)strlen(key), json_integer_value(v), false));
    }
    return OK;
}

// "left right" or ["left", "right"].
static Err read_merge(Bpe *b, const json_t *v, int32_t rank)
{
    if (json_is_string(v)) {
        const char *text = json_string_value(v), *gap = strchr(text, ' ');
        CHECK(gap && gap > text && gap[1] && !strchr(gap + 1, ' '), ERR_DATA, "'%.60s' is not two tokens", text);
        return bpe_add_merge(b, text, gap - text, gap + 1, (int64_t)strlen(gap + 1), rank);
    }
    const json_t *left = json_array_get(v, 0), *right = json_array_get(v, 1);
    CHECK(json_array_size(v) == 2 && json_is_string(left) && json_is_string(right), ERR_DATA, "not a pair of tokens");
    return bpe_add_merge(b, json_string_value(left), (int64_t)json_string_length(left), json_string_value(right),
                         (int64_t)json_string_length(right), rank);
}

// unk_token stands for bytes that have none.
static Err read_unknown(Tokenizer *t, const json_t *model)
{
    const char *text;
    int64_t n;
    TRY(get_bool(model, "ignore_merges", false, &t->bpe.ignore_merges));
    TRY(get_bool(model, "fuse_unk", false, &t->bpe.fuse_unk));
    if (absent(json_object_get(model, "unk_token"))) return OK;
    TRY(get_text(model, "unk_token", &text, &n));
    t->bpe.unk = vocab_find(&t->vocab, text, n);
    CHECK(t->bpe.unk >= 0, ERR_DATA, "unk_token: '%.60s' is not in model.vocab", text);
    return OK;
}

static Err read_merges(Tokenizer *t, const json_t *merges)
{
    const json_t *v;
    size_t i;
    CHECK(json_is_array(merges), ERR_DATA, "model.merges: not an array");
    CHECK(json_array_size(merges) <= VOCAB_LARGEST, ERR_DATA, "model.merges: more than %d", VOCAB_LARGEST);
    TRY(bpe_init(&t->bpe, &t->vocab, (int64_t)json_array_size(merges)));
    json_array_foreach(merges, i, v) TRY_AT(read_merge(&t->bpe, v, (int32_t)i), "model.merges[%zu]", i);
    return OK;
}

// --- added tokens ------------------------------------------------------------------------------------------------------

// Its place in the vocabulary: there already under the same id, or new.
static Err place_added(Vocab *v, const char *text, int64_t n, int64_t id, bool special)
{
    int32_t there = n > 0 ? vocab_find(v, text, n) : -1;
    CHECK(there < 0 || there == id, ERR_DATA, "content: '%.60s' has id %d in model.vocab", text, there);
    if (there < 0) TRY(vocab_add(v, text, n, id, true));
    VocabToken *token = &v->token[id];
    CHECK(!token->added, ERR_DATA, "id: %lld is there twice", (long long)id);
    token->bytes = token->text, token->bytes_n = token->text_n;
    token->added = true, token->special = special;
    return OK;
}

static Err read_added(Tokenizer *t, const json_t *o)
{
    const char *text;
    int64_t n;
    bool normalized;
    AddedToken token = {0};
    const json_t *id = json_object_get(o, "id");
    CHECK(json_is_integer(id), ERR_DATA, "id: not an integer");
    TRY(get_text(o, "content", &text, &n));
    TRY(get_bool(o, "special", false, &token.special));
    TRY(get_bool(o, "lstrip", false, &token.lstrip));
    TRY(get_bool(o, "rstrip", false, &token.rstrip));
    TRY(get_bool(o, "single_word", false, &token.single_word));
    TRY(get_bool(o, "normalized", !token.special, &normalized));
    TRY(place_added(&t->vocab, text, n, json_integer_value(id), token.special));
    token.id = (int32_t)json_integer_value(id);
    if (!normalized) return added_put(&t->raw, text, n, token);
    Str form = {0};
    Err err = OK;
    if (t->nfc) TRY_DONE(tok_normalize(text, n, &form));
    else TRY_DONE(str_add(&form, text, n));
    TRY_DONE(added_put(&t->normalized, form.p, form.len, token));
done:
    str_free(&form);
    return err;
}

// --- normaliser and pre-tokenizer --------------------------------------------------------------------------------------

static Err read_normalizer(Tokenizer *t, const json_t *o, int depth)
{
    const char *type;
    if (absent(o)) return OK;
    CHECK(depth < SEQUENCE_DEPTH, ERR_DATA, "nested too deeply");
    TRY(get_type(o, &type));
    if (!strcmp(type, "Sequence")) {
        const json_t *list = json_object_get(o, "normalizers"), *v;
        size_t i;
        CHECK(json_is_array(list), ERR_DATA, "normalizers: not an array");
        json_array_foreach(list, i, v) TRY_AT(read_normalizer(t, v, depth + 1), "normalizers[%zu]", i);
        return OK;
    }
    CHECK(!strcmp(type, "NFC"), ERR_DATA, "type: '%.40s' is not supported (NFC or null)", type);
    t->nfc = true;
    return OK;
}

static Err read_behavior(const json_t *o, PretokBehavior *out)
{
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *name;
    int64_t n;
    TRY(get_text(o, "behavior", &name, &n));
    for (int i = 0; i < 5; i++)
        if (!strcmp(name, names[i])) return *out = (PretokBehavior)i, OK;
    FAIL(ERR_DATA, "behavior: '%.40s' is not known", name);
}

static Err read_split(Pretok *p, const json_t *o)
{
    const json_t *pattern = json_object_get(o, "pattern");
    bool invert, literal = json_object_get(pattern, "String") != NULL;
    PretokBehavior behavior = PRE_ISOLATED;
    const char *text;
    int64_t n;
    CHECK(json_is_object(pattern), ERR_DATA, "pattern: not an object; copy or download the file again");
    TRY_AT(get_text(pattern, literal ? "String" : "Regex", &text, &n), "pattern");
    TRY(read_behavior(o, &behavior));
    TRY(get_bool(o, "invert", false, &invert));
    TRY_AT(pretok_add_split(p, text, n, literal, behavior, invert), "pattern");
    return OK;
}

static Err read_byte_level(Pretok *p, const json_t *o)
{
    bool prefix, regex;
    CHECK(json_object_get(o, "add_prefix_space"), ERR_DATA, "add_prefix_space: missing");
    TRY(get_bool(o, "add_prefix_space", false, &prefix));
    TRY(get_bool(o, "use_regex", true, &regex));
    if (prefix) TRY(pretok_add_prefix_space(p));
    return regex ? pretok_add_split(p, gpt2_pattern, sizeof gpt2_pattern - 1, false, PRE_ISOLATED, false) : OK;
}

static Err read_digits(Pretok *p, const json_t *o)
{
    bool each;
    TRY(get_bool(o, "individual_digits", false, &each));
    return pretok_add_split(p, "\\p{N}", 5, false, each ? PRE_ISOLATED : PRE_CONTIGUOUS, false);
}

// bytes: a ByteLevel step was seen; it must be the last one, because what follows it would see the byte alphabet.
static Err read_pretok(Pretok *p, const json_t *o, int depth, bool *bytes)
{
    const char *type;
    CHECK(depth < SEQUENCE_DEPTH, ERR_DATA, "nested too deeply");
    TRY(get_type(o, &type));
    CHECK(!*bytes, ERR_DATA, "type: '%.40s' after ByteLevel is not supported", type);
    if (!strcmp(type, "Sequence")) {
        const json_t *list = json_object_get(o, "pretokenizers"), *v;
        size_t i;
        CHECK(json_is_array(list), ERR_DATA, "pretokenizers: not an array");
        json_array_foreach(list, i, v) TRY_AT(read_pretok(p, v, depth + 1, bytes), "pretokenizers[%zu]", i);
        return OK;
    }
    if (!strcmp(type, "Split")) return read_split(p, o);
    if (!strcmp(type, "Digits")) return read_digits(p, o);
    CHECK(!strcmp(type, "ByteLevel"), ERR_DATA, "type: '%.40s' is not supported (Sequence, Split, Digits, ByteLevel)", type);
    *bytes = true;
    return read_byte_level(p, o);
}

static Err check_decoder(const json_t *o)
{
    const char *type;
    if (absent(o)) return OK;
    TRY(get_type(o, &type));
    CHECK(!strcmp(type, "ByteLevel"), ERR_DATA, "type: '%.40s' is not supported (ByteLevel)", type);
    return OK;
}

// --- the file ----------------------------------------------------------------------------------------------------------

static Err read_root(Tokenizer *t, const json_t *root)
{
    const json_t *model = json_object_get(root, "model"), *added = json_object_get(root, "added_tokens"), *v;
    int64_t tokens = 0, bytes = 0;
    bool byte_level = false;
    size_t i;
    TRY_AT(check_model(model), "model");
    TRY_AT(read_normalizer(t, json_object_get(root, "normalizer"), 0), "normalizer");
    TRY_AT(read_pretok(&t->pretok, json_object_get(root, "pre_tokenizer"), 0, &byte_level), "pre_tokenizer");
    CHECK(byte_level, ERR_DATA, "pre_tokenizer: has no ByteLevel; only byte-level BPE is supported");
    TRY_AT(check_decoder(json_object_get(root, "decoder")), "decoder");
    TRY(count_vocab(json_object_get(model, "vocab"), added, &tokens, &bytes));
    TRY(vocab_init(&t->vocab, tokens, bytes));
    TRY_AT(read_vocab(t, json_object_get(model, "vocab")), "model.vocab");
    TRY(read_merges(t, json_object_get(model, "merges")));
    TRY_AT(read_unknown(t, model), "model");
    json_array_foreach(added, i, v) TRY_AT(read_added(t, v), "added_tokens[%zu]", i);
    return OK;
}

Err tok_read_json(Tokenizer *t, const char *path)
{
    json_t *root = NULL;
    TRY(tok_parse_file(path, 0, &root, &t->fingerprint));
    Err err = json_is_object(root)
                  ? read_root(t, root)
                  : err_raise(ERR_DATA, __func__, __FILE__, __LINE__, "not an object; copy or download the file again");
    json_decref(root);
    return err == OK ? OK : err_context(err, "%s", path);
}
