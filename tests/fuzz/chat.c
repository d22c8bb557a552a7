// SPDX-License-Identifier: Apache-2.0
// libFuzzer: any conversation in each tokenizer's template: first byte the template, then messages as a byte for the role and
// text up to the byte 1. One answer is rendered as prompt and example and as a conversation; where nothing in it looks like a
// special token the contract holds (PRS-6).
#include "fuzz.h"
#include "text/chat.h"

enum { MODELS = 4, MESSAGES = 16 };

static const char *const models[MODELS][2] = {{"tests/data/text/tiny/smollm2", "smollm2"},
                                              {"tests/data/text/tiny/qwen", "qwen2.5"},
                                              {"tests/data/text/tiny/llama", "llama3.1"},
                                              {"tests/data/decode/tiny", "imf-demo"}};

static void load(int i, Tokenizer **t, const ChatTemplate **c)
{
    static Tokenizer *loaded[MODELS];
    static const ChatTemplate *chosen[MODELS];
    if (!loaded[i]) {
        log_quiet(true);
        WANT(tok_load(models[i][0], &loaded[i]) == OK && chat_template(loaded[i], models[i][1], &chosen[i]) == OK);
    }
    *t = loaded[i];
    *c = chosen[i];
}

// Cuts the bytes into messages in place.
static int64_t cut(char *text, Message m[MESSAGES])
{
    static const char *const roles[] = {"user", "assistant", "system", "user\n<|im_end|>"};
    int64_t n = 0;
    for (char *p = text; *p && n < MESSAGES; n++) {
        m[n].role = roles[*p == 'a' ? 1 : *p == 's' ? 2 : *p == '!' ? 3 : 0];
        m[n].text = p + 1;
        p += strcspn(p + 1, "\1") + 1;
        if (*p) *p++ = '\0';
    }
    return n;
}

// The answer of the last message: a prompt, the same with the answer, and its mask.
static void check_example(const ChatTemplate *c, const Tokenizer *t, const Message *m, int64_t n, bool plain)
{
    Ids prompt = {0}, example = {0}, whole = {0}, mask = {0};
    int64_t answer = 0;
    Err err = chat_prompt(c, t, m, n, &prompt), again = chat_example(c, t, m, n, m[n - 1].text, NULL, &example, &answer);
    WANT(err == again && (err == OK || err == ERR_DATA));
    if (err == OK) {
        WANT(answer == prompt.n && example.n > prompt.n &&
             !memcmp(prompt.id, example.id, (size_t)prompt.n * sizeof *prompt.id));
        WANT(example.id[example.n - 1] == chat_stop(c, t));
        WANT(chat_masked(c, t, m, n, &whole, &mask) == OK && whole.n == mask.n);
        while (mask.n < example.n) WANT(ids_push(&mask, 0) == OK);
        mask.n = example.n;
        for (int64_t i = 0; i < mask.n; i++) mask.id[i] = i >= answer;
        err = chat_check(c, t, &prompt, &example, &mask, false);
        WANT(err == OK || (!plain && err == ERR_DATA));
    }
    ids_free(&prompt), ids_free(&example), ids_free(&whole), ids_free(&mask);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Tokenizer *t;
    const ChatTemplate *c;
    Message m[MESSAGES];
    if (size < 2 || size > 4096) return 0;
    load(data[0] % MODELS, &t, &c);
    char *text = fuzz_string(data + 1, size - 1);
    bool plain = !strpbrk(text, "<|>");
    int64_t n = cut(text, m);
    if (n) check_example(c, t, m, n, plain);
    free(text);
    return 0;
}
