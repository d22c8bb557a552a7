// SPDX-License-Identifier: Apache-2.0
// The tokenizer's use: encode (added tokens, NFC, pre-tokenizer, BPE in this order) and decode. Nothing here is changed by
// use, so one Tokenizer serves any number of threads; each call brings its own working space.
#include "text/tokenizer.h"

#include <string.h>
#include <utf8proc.h>

#include "base/io.h"
#include "base/mem.h"
#include "text/tokenizer_parts.h"
#include "text/utf8.h"

enum { TEXT_BYTES = 1 << 30, TEMPLATE_BYTES = 1 << 20 };

Err ids_push(Ids *ids, int32_t id)
{
    if (ids->n == ids->cap) TRY(MEM_GROW(&ids->id, ids->n, &ids->cap, ids->n + 1));
    ids->id[ids->n++] = id;
    return OK;
}

void ids_free(Ids *ids)
{
    mem_free(ids->id);
    *ids = (Ids){0};
}

// --- loading -----------------------------------------------------------------------------------------------------------

// A token's text in a config: "text", {"content": "text"} or null. NULL when it is not there.
static const char *config_token(const json_t *config, const char *key)
{
    const json_t *v = json_object_get(config, key);
    return json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
}

static Err read_special(Tokenizer *t, const json_t *config, const char *key, int32_t *id)
{
    const char *text = config_token(config, key);
    if (!text || *id >= 0) return OK;
    *id = tok_id(t, text);
    CHECK(*id >= 0, ERR_DATA, "%s: '%.60s' is not in tokenizer.json: is this the tokenizer of another model?", key, text);
    return OK;
}

// A string, or a list of {"name", "template"} of which "default" counts.
static Err read_template(Tokenizer *t, const json_t *config)
{
    const json_t *v = json_object_get(config, "chat_template"), *one;
    size_t i;
    if (json_is_string(v)) return mem_strdup(&t->chat_template, json_string_value(v));
    json_array_foreach(v, i, one) {
        const char *name = json_string_value(json_object_get(one, "name"));
        const char *text = json_string_value(json_object_get(one, "template"));
        CHECK(name && text, ERR_DATA, "chat_template[%zu]: wants name and template", i);
        if (!strcmp(name, "default")) return mem_strdup(&t->chat_template, text);
    }
    return OK;
}

// tokenizer_config.json or special_tokens_map.json, when it is there; what is known already stays.
static Err read_config(Tokenizer *t, const char *dir, const char *name)
{
    char path[IO_PATH];
    json_t *config = NULL;
    Err err = OK;
    TRY(io_join(path, dir, name));
    if (!io_exists(path)) return OK;
    // model_max_length may be 1e30, written as an integer
    TRY(tok_parse_file(path, JSON_DECODE_INT_AS_REAL, &config, NULL));
    CHECK_DONE(json_is_object(config), ERR_DATA, "not an object; copy or download the file again");
    TRY_DONE(read_special(t, config, "bos_token", &t->bos));
    TRY_DONE(read_special(t, config, "eos_token", &t->eos));
    if (!t->chat_template) TRY_DONE(read_template(t, config));
done:
    json_decref(config);
    return err == OK ? OK : err_context(err, "%s", path);
}

static Err read_jinja(Tokenizer *t, const char *dir)
{
    char path[IO_PATH];
    Str text = {0};
    Err err = OK;
    TRY(io_join(path, dir, "chat_template.jinja"));
    if (!io_exists(path)) return OK;
    TRY_DONE(io_read(path, &text, TEMPLATE_BYTES));
    TRY_DONE(mem_strdup(&t->chat_template, str_text(&text)));
done:
    str_free(&text);
    return err;
}

static Err load(Tokenizer *t, const char *dir)
{
    char path[IO_PATH];
    Hash *h;
    TRY(io_join(path, dir, "tokenizer.json"));
    TRY(tok_read_json(t, path));
    TRY(read_jinja(t, dir));
    TRY(read_config(t, dir, "tokenizer_config.json"));
    TRY(read_config(t, dir, "special_tokens_map.json"));
    TRY(hash_new(&h));
    hash_add_id(h, t->fingerprint);
    hash_add_text(h, t->chat_template ? t->chat_template : "");
    t->fingerprint = hash_end(h);
    return OK;
}

Err tok_load(const char *dir, Tokenizer **out)
{
    *out = NULL;
    Tokenizer *t;
    TRY(MEM_ARRAY(&t, 1));
    t->bos = t->eos = -1;
    Err err = load(t, dir);
    if (err != OK) {
        tok_free(t);
        return err_frame(err, __func__, __FILE__, __LINE__);
    }
    *out = t;
    return OK;
}

void tok_free(Tokenizer *t)
{
    if (!t) return;
    bpe_free(&t->bpe);
    pretok_free(&t->pretok);
    added_free(&t->raw);
    added_free(&t->normalized);
    vocab_free(&t->vocab);
    mem_free(t->chat_template);
    mem_free(t);
}

// --- encoding ----------------------------------------------------------------------------------------------------------

// Below U+0300 every character is its own NFC and nothing composes.
static bool is_nfc_for_sure(const char *p, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if ((unsigned char)p[i] >= 0xCC) return false;
    return true;
}

Err tok_normalize(const char *p, int64_t n, Str *out)
{
    if (is_nfc_for_sure(p, n)) return str_add(out, p, n);
    const utf8proc_option_t form = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    utf8proc_ssize_t count = utf8proc_decompose((const uint8_t *)p, n, NULL, 0, form), again;
    utf8proc_int32_t *buffer;
    CHECK(count >= 0, ERR_DATA, "text has no NFC form: %s", utf8proc_errmsg(count));
    TRY(MEM_ARRAY(&buffer, count + 1));  // reencode writes bytes in place and a NUL
    again = utf8proc_decompose((const uint8_t *)p, n, buffer, count, form);
    Err err = OK;
    CHECK_DONE(again == count, ERR_INTERNAL, "utf8proc counted %lld, then %lld characters", (long long)count, (long long)again);
    count = utf8proc_reencode(buffer, count, form);
    CHECK_DONE(count >= 0, ERR_INTERNAL, "utf8proc: %s", utf8proc_errmsg(count));
    TRY_DONE(str_add(out, (const char *)buffer, count));
done:
    mem_free(buffer);
    return err;
}

typedef struct Encoder {  // one call of tok_encode
    const Tokenizer *t;
    bool specials;
    Ids *out;
    PretokRun *run;
    BpeScratch scratch;
    Str normal;
} Encoder;

static Err encode_piece(void *user, const char *p, int64_t n)
{
    Encoder *e = user;
    return bpe_encode(&e->t->bpe, p, n, &e->scratch, e->out);
}

// Normalised text between added tokens.
static Err encode_plain(void *user, int32_t id, const char *p, int64_t n)
{
    Encoder *e = user;
    return id >= 0 ? ids_push(e->out, id) : pretok_run(&e->t->pretok, e->run, p, n, encode_piece, e);
}

// Text as given, between added tokens that are sought there.
static Err encode_given(void *user, int32_t id, const char *p, int64_t n)
{
    Encoder *e = user;
    if (id >= 0) return ids_push(e->out, id);
    if (e->t->nfc && !is_nfc_for_sure(p, n)) {
        str_clear(&e->normal);
        TRY(tok_normalize(p, n, &e->normal));
        p = e->normal.p, n = e->normal.len;
    }
    return added_split(&e->t->normalized, p, n, e->specials, encode_plain, e);
}

Err tok_encode(const Tokenizer *t, const char *text, int64_t n, bool specials, Ids *out)
{
    Encoder e = {.t = t, .specials = specials, .out = out};
    CHECK(n <= TEXT_BYTES, ERR_DATA, "a text of %lld bytes is too long to encode (at most %d)", (long long)n, TEXT_BYTES);
    int64_t good = utf8_check(text, n);
    CHECK(good == n, ERR_DATA, "the text is not UTF-8 at byte %lld (0x%02X)", (long long)good, (unsigned char)text[good]);
    TRY(pretok_open(&e.run));
    Err err = added_split(&t->raw, text, n, specials, encode_given, &e);
    pretok_close(e.run);
    bpe_scratch_free(&e.scratch);
    str_free(&e.normal);
    return err == OK ? OK : err_frame(err, __func__, __FILE__, __LINE__);
}

// --- decoding and looking ----------------------------------------------------------------------------------------------

static const VocabToken *token_of(const Tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->vocab.n && t->vocab.token[id].text ? &t->vocab.token[id] : NULL;
}

Err tok_decode(const Tokenizer *t, const int32_t *id, int64_t n, bool skip_special, Str *out)
{
    Str bytes = {0};
    Err err = OK;
    for (int64_t i = 0; i < n; i++) {
        const VocabToken *token = token_of(t, id[i]);
        CHECK_DONE(id[i] >= 0, ERR_DATA, "token id %d is negative", id[i]);
        if (!token) TRY_DONE(str_add(&bytes, "\xEF\xBF\xBD", 3));
        else if (!token->special || !skip_special) TRY_DONE(str_add(&bytes, token->bytes, token->bytes_n));
    }
    TRY_DONE(utf8_add_lossy(out, str_text(&bytes), bytes.len));
done:
    str_free(&bytes);
    return err;
}

int32_t tok_vocab(const Tokenizer *t) { return (int32_t)t->vocab.n; }

int32_t tok_last_plain(const Tokenizer *t)
{
    int32_t id = (int32_t)t->vocab.n - 1;
    while (id >= 0 && (!t->vocab.token[id].model || t->vocab.token[id].added)) id--;
    return id;
}

int32_t tok_id(const Tokenizer *t, const char *token) { return vocab_find(&t->vocab, token, (int64_t)strlen(token)); }

const char *tok_text(const Tokenizer *t, int32_t id)
{
    const VocabToken *token = token_of(t, id);
    return token ? token->text : NULL;
}

bool tok_is_special(const Tokenizer *t, int32_t id)
{
    const VocabToken *token = token_of(t, id);
    return token && token->special;
}

int32_t tok_bos(const Tokenizer *t) { return t->bos; }
int32_t tok_eos(const Tokenizer *t) { return t->eos; }
const char *tok_chat_template(const Tokenizer *t) { return t->chat_template; }
int64_t tok_lost(const Tokenizer *t) { return *t->bpe.lost; }
Id tok_fingerprint(const Tokenizer *t) { return t->fingerprint; }
