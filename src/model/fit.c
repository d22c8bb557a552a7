// SPDX-License-Identifier: Apache-2.0
#include "model/fit.h"

#include <stdio.h>

typedef struct Fit {
    const char *dir;
    ModelConfig cfg;
    const Tokenizer *tok;
} Fit;

#define APART "tokenizer and model in %s do not belong together: "
#define ADVICE "put the model's own tokenizer.json and tokenizer_config.json there"

static const char *text_of(const Fit *f, int32_t id)
{
    const char *text = tok_text(f->tok, id);
    return text ? text : "no token";
}

static Err check_plain(const Fit *f)
{
    int32_t last = tok_last_plain(f->tok);
    CHECK(last < f->cfg.V, ERR_DATA, APART "tokenizer.json gives plain text ids up to %d, vocab_size in config.json is %lld; "
          ADVICE, f->dir, (int)last, (long long)f->cfg.V);
    return OK;
}

static Err check_used(const Fit *f, int32_t id, const char *user)
{
    CHECK(id < f->cfg.V, ERR_DATA, APART "%s is token %d ('%.40s'), vocab_size in config.json is %lld; " ADVICE, f->dir, user,
          (int)id, text_of(f, id), (long long)f->cfg.V);
    return OK;
}

// Every token that the template itself writes.
static Err check_template(const Fit *f, const ChatTemplate *chat)
{
    static const Message talk[] = {{"user", "a"}, {"assistant", "a"}};
    char user[96];
    Ids ids = {0};
    Err err = OK;
    snprintf(user, sizeof user, "a part of the chat template %s", chat_template_name(chat));
    TRY_DONE(chat_conversation(chat, f->tok, talk, 2, false, &ids));
    for (int64_t i = 0; i < ids.n; i++) TRY_DONE(check_used(f, ids.id[i], user));
done:
    ids_free(&ids);
    return err;
}

static bool is_special(const Fit *f, int32_t id)
{
    return tok_is_special(f->tok, id) || id == tok_bos(f->tok) || id == tok_eos(f->tok);
}

static bool has_specials(const Tokenizer *t)
{
    for (int32_t id = 0; id < tok_vocab(t); id++)
        if (tok_is_special(t, id)) return true;
    return false;
}

// One of several is enough: published models keep a base model's eos_token_id beside the right one, or a default.
static Err check_stops(const Fit *f)
{
    const ModelConfig *c = &f->cfg;
    for (int32_t i = 0; i < c->stops; i++)
        if (is_special(f, c->stop[i])) return OK;
    CHECK(c->stops == 0 || !has_specials(f->tok), ERR_DATA, APART "config.json says eos_token_id %d, which is no special token of "
          "tokenizer.json ('%.40s'); " ADVICE ", or correct eos_token_id", f->dir, (int)c->stop[0], text_of(f, c->stop[0]));
    return OK;
}

// A tokenizer without BOS (Qwen) says nothing about the model's.
static Err check_bos(const Fit *f)
{
    int32_t bos = f->cfg.bos, own = tok_bos(f->tok);
    CHECK(bos < 0 || own < 0 || is_special(f, bos), ERR_DATA, APART "config.json says bos_token_id %d, which is no special token of "
          "tokenizer.json ('%.40s'; its BOS is %d); " ADVICE ", or correct bos_token_id", f->dir, (int)bos, text_of(f, bos), (int)own);
    return OK;
}

Err model_check_tokenizer(const char *dir, const Tokenizer *t, const ChatTemplate *chat)
{
    Fit f = {.dir = dir, .tok = t};
    TRY(model_config_load(dir, &f.cfg));
    TRY(check_plain(&f));
    TRY(check_used(&f, tok_bos(t), "the tokenizer's BOS"));
    TRY(check_used(&f, tok_eos(t), "the tokenizer's EOS"));
    if (chat) TRY(check_template(&f, chat));
    TRY(check_stops(&f));
    return check_bos(&f);
}
