// SPDX-License-Identifier: Apache-2.0
// Chat renderer: ids equal apply_chat_template's on 200 conversations a template (hashes by tools/reference/tokenizer.py);
// R-TOK2: the start-up contract holds for every template, and each violation of it is caught; law 3: one renderer.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "tests/text_support.h"
#include "text/chat.h"
#include "text/prompt.h"
#include "text/record.h"

static const struct { const char *kind, *template; } pairs[] = {
    {"smollm2", "smollm2"}, {"smollm2", "imf-demo"}, {"qwen", "qwen2.5"}, {"llama", "llama3"},
    {"llama", "llama3.1"},  {"llama", "imf-demo"},   {"odd", "imf-demo"},
};
enum { PAIRS = sizeof pairs / sizeof pairs[0] };

static const ChatTemplate *get_template(const Tokenizer *t, const char *name)
{
    const ChatTemplate *c = NULL;
    if (chat_template(t, name, &c) != OK) fail_msg("%s", err_message());
    return c;
}

// --- apply_chat_template -----------------------------------------------------------------------------------------------

typedef struct Compare {
    const Tokenizer *t;
    const ChatTemplate *c;
    const char *want;
    int64_t k, wrong;
} Compare;

static Err compare_one(void *user, const json_t *row, const char *where)
{
    Compare *x = user;
    Message *m;
    int64_t n;
    assert_int_equal(prompt_messages(row, where, &m, &n), OK);
    for (int header = 0; header < 2; header++) {
        Ids ids = {0};
        assert_int_equal(chat_conversation(x->c, x->t, m, n, header, &ids), OK);
        x->wrong += !hash_matches(x->want, x->k++, &ids);
        ids_free(&ids);
    }
    mem_free(m);
    return OK;
}

static int64_t count_wrong(const char *kind, const char *template, const char *hashes)
{
    Tokenizer *t = load_tiny(kind);
    char path[IO_PATH], key[64];
    snprintf(path, sizeof path, TINY "tiny-%s.hash", kind);
    snprintf(key, sizeof key, "chat:%s ", hashes);
    char *want = hash_line(path, key);
    assert_non_null(want);
    Compare x = {t, get_template(t, template), want, 0, 0};
    assert_int_equal(jsonl_each(TINY "chats.jsonl", compare_one, &x), OK);
    assert_int_equal(x.k, 400);
    mem_free(want);
    tok_free(t);
    return x.wrong;
}

static void ids_equal_those_of_apply_chat_template(void **state)
{
    (void)state;
    for (int i = 0; i < PAIRS; i++) assert_int_equal(count_wrong(pairs[i].kind, pairs[i].template, pairs[i].template), 0);
}

static void another_template_is_seen(void **state)
{
    (void)state;
    assert_true(count_wrong("llama", "llama3", "llama3.1") > 300);
    assert_true(count_wrong("smollm2", "qwen2.5", "smollm2") > 100);
}

// --- choosing ----------------------------------------------------------------------------------------------------------

static void the_demo_template_is_known_by_its_hash(void **state)
{
    (void)state;
    static const char *const endings[] = {"", "\n"};  // Jinja drops one line break at the end
    for (int i = 0; i < 2; i++) {
        char dir[] = "/tmp/imf-t34-XXXXXX", path[IO_PATH];
        Str jinja = {0};
        Tokenizer *t;
        assert_non_null(mkdtemp(dir));
        assert_int_equal(io_read("tests/data/text/imf_demo_template.jinja", &jinja, 4096), OK);
        assert_int_equal(str_puts(&jinja, endings[i]), OK);
        assert_int_equal(io_join(path, dir, "chat_template.jinja"), OK);
        assert_int_equal(io_write(path, jinja.p, jinja.len), OK);
        assert_int_equal(io_join(path, dir, "tokenizer.json"), OK);
        assert_int_equal(io_copy(TINY "qwen/tokenizer.json", path), OK);
        assert_int_equal(tok_load(dir, &t), OK);
        assert_string_equal(chat_template_name(get_template(t, NULL)), "imf-demo");
        assert_string_equal(chat_template_name(get_template(t, "auto")), "imf-demo");
        tok_free(t);
        str_free(&jinja);
        assert_int_equal(io_remove_tree(dir), OK);
    }
}

static void unknown_templates_name_the_key_and_its_choices(void **state)
{
    (void)state;
    Tokenizer *t = load_tiny("qwen");
    const ChatTemplate *c;
    assert_int_equal(chat_template(t, NULL, &c), ERR_DATA);
    assert_non_null(strstr(err_message(), "template:"));
    assert_non_null(strstr(err_message(), "smollm2, qwen2.5, llama3, llama3.1, imf-demo"));
    assert_int_equal(chat_template(t, "chatml", &c), ERR_DATA);
    assert_non_null(strstr(err_message(), "template: 'chatml'"));
    tok_free(t);
}

static void a_tokenizer_without_the_templates_tokens_is_refused(void **state)
{
    (void)state;
    char dir[] = "/tmp/imf-t34-XXXXXX", path[IO_PATH];
    Str json = {0};
    Tokenizer *t;
    const ChatTemplate *c;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(io_read(TINY "qwen/tokenizer.json", &json, 1 << 20), OK);
    for (char *at = json.p; (at = strstr(at, "<|eot_id|>")); at++) at[2] = 'E';
    assert_int_equal(io_join(path, dir, "tokenizer.json"), OK);
    assert_int_equal(io_write(path, json.p, json.len), OK);
    assert_int_equal(tok_load(dir, &t), OK);
    assert_int_equal(chat_template(t, "llama3", &c), ERR_DATA);
    assert_non_null(strstr(err_message(), "<|eot_id|>"));
    tok_free(t);
    str_free(&json);
    assert_int_equal(io_remove_tree(dir), OK);
}

static void wrong_messages_are_refused(void **state)
{
    (void)state;
    Tokenizer *t = load_tiny("qwen");
    const ChatTemplate *c = get_template(t, "qwen2.5");
    const Message tool = {"tool", "x"}, broken = {"user", "a\xff"};
    Ids ids = {0}, mask = {0};
    assert_int_equal(chat_prompt(c, t, &tool, 1, &ids), ERR_DATA);
    assert_non_null(strstr(err_message(), "'tool'"));
    assert_int_equal(chat_prompt(c, t, &broken, 1, &ids), ERR_DATA);
    assert_int_equal(chat_prompt(c, t, &tool, 0, &ids), ERR_DATA);
    assert_int_equal(chat_masked(c, t, &tool, 0, &ids, &mask), ERR_DATA);
    ids_free(&ids), ids_free(&mask), tok_free(t);
}

// --- examples and masks ------------------------------------------------------------------------------------------------

static const Message talk[] = {{"system", "Be short."}, {"user", "What is 2 + 3?"}, {"assistant", "Five."},
                               {"user", "And 4 + 4?"},  {"assistant", "Eight."}};

static bool begins_with(const Ids *all, const Ids *first)
{
    return first->n <= all->n && memcmp(all->id, first->id, (size_t)first->n * sizeof *all->id) == 0;
}

static void an_example_is_prompt_answer_and_one_stop(void **state)
{
    (void)state;
    for (int i = 0; i < PAIRS; i++) {
        Tokenizer *t = load_tiny(pairs[i].kind);
        const ChatTemplate *c = get_template(t, pairs[i].template);
        Ids prompt = {0}, plain = {0}, text = {0}, known = {0}, sampled = {0}, stopped = {0};
        int64_t answer = 0;
        assert_int_equal(chat_prompt(c, t, talk, 2, &prompt), OK);
        assert_int_equal(chat_example(c, t, talk, 2, "Five.", NULL, &text, &answer), OK);
        assert_true(begins_with(&text, &prompt));
        assert_int_equal(answer, prompt.n);
        assert_int_equal(text.id[text.n - 1], chat_stop(c, t));
        assert_int_equal(tok_encode(t, "Five.", 5, true, &plain), OK);
        assert_int_equal(text.n, prompt.n + plain.n + 1);
        // sampled ids are kept as they are, even where the tokenizer would have cut the text in another way
        for (const char *p = "Five."; *p; p++) assert_int_equal(tok_encode(t, p, 1, true, &sampled), OK);
        assert_int_equal(chat_example(c, t, talk, 2, NULL, &sampled, &known, &answer), OK);
        assert_int_equal(known.n, prompt.n + sampled.n + 1);
        assert_memory_equal(known.id + prompt.n, sampled.id, (size_t)sampled.n * sizeof *known.id);
        assert_int_equal(ids_push(&sampled, chat_stop(c, t)), OK);
        assert_int_equal(chat_example(c, t, talk, 2, NULL, &sampled, &stopped, &answer), OK);
        assert_int_equal(stopped.n, known.n);
        ids_free(&prompt), ids_free(&plain), ids_free(&text), ids_free(&known), ids_free(&sampled), ids_free(&stopped);
        tok_free(t);
    }
}

// The conversation with its mask has the ids of the whole conversation, less what follows the last stop token.
static void targets_are_every_answer_and_its_stop(void **state)
{
    (void)state;
    for (int i = 0; i < PAIRS; i++) {
        Tokenizer *t = load_tiny(pairs[i].kind);
        const ChatTemplate *c = get_template(t, pairs[i].template);
        Ids ids = {0}, mask = {0}, whole = {0}, targets = {0};
        Str text = {0};
        assert_int_equal(chat_masked(c, t, talk, 5, &ids, &mask), OK);
        assert_int_equal(ids.n, mask.n);
        assert_int_equal(chat_conversation(c, t, talk, 5, false, &whole), OK);
        assert_true(begins_with(&whole, &ids) && whole.n <= ids.n + 1);
        for (int64_t k = 0; k < ids.n; k++)
            if (mask.id[k]) assert_int_equal(ids_push(&targets, ids.id[k]), OK);
        assert_int_equal(tok_decode(t, targets.id, targets.n, true, &text), OK);
        assert_string_equal(str_text(&text), strcmp(pairs[i].kind, "odd") ? "Five.Eight." : " Five. Eight.");
        assert_int_equal(targets.id[targets.n - 1], chat_stop(c, t));
        assert_int_equal(mask.id[ids.n - 1], 1);
        ids_free(&ids), ids_free(&mask), ids_free(&whole), ids_free(&targets), str_free(&text);
        tok_free(t);
    }
}

static void llama_strips_messages_and_chatml_does_not(void **state)
{
    (void)state;
    const Message m = {"user", " \xc2\xa0 hi\n\t"}, bare = {"user", "hi"};
    static const struct { const char *kind, *template; bool strips; } cases[] = {
        {"llama", "llama3", true}, {"llama", "llama3.1", true}, {"qwen", "qwen2.5", false}, {"qwen", "imf-demo", false}};
    for (int i = 0; i < 4; i++) {
        Tokenizer *t = load_tiny(cases[i].kind);
        const ChatTemplate *c = get_template(t, cases[i].template);
        Ids a = {0}, b = {0};
        int64_t answer;
        assert_int_equal(chat_example(c, t, &m, 1, " yes ", NULL, &a, &answer), OK);
        assert_int_equal(chat_example(c, t, &bare, 1, "yes", NULL, &b, &answer), OK);
        assert_int_equal(a.n == b.n && begins_with(&a, &b), cases[i].strips);
        ids_free(&a), ids_free(&b), tok_free(t);
    }
}

// --- contract ----------------------------------------------------------------------------------------------------------

static void r_tok2_every_template_keeps_the_contract(void **state)
{
    (void)state;
    for (int i = 0; i < PAIRS; i++) {
        Tokenizer *t = load_tiny(pairs[i].kind);
        const ChatTemplate *c = get_template(t, pairs[i].template);
        if (chat_contract(c, t) != OK) fail_msg("%s", err_message());
        tok_free(t);
    }
}

typedef struct Case {
    Tokenizer *t;
    const ChatTemplate *c;
    Ids prompt, example, mask;
} Case;

static void make_case(Case *x, const char *kind, const char *template)
{
    *x = (Case){.t = load_tiny(kind)};
    x->c = get_template(x->t, template);
    assert_int_equal(chat_prompt(x->c, x->t, talk, 2, &x->prompt), OK);
    assert_int_equal(chat_masked(x->c, x->t, talk, 3, &x->example, &x->mask), OK);
    assert_int_equal(chat_check(x->c, x->t, &x->prompt, &x->example, &x->mask, false), OK);
}

static void expect_violation(Case *x, bool cut, const char *words)
{
    if (words) {
        assert_int_equal(chat_check(x->c, x->t, &x->prompt, &x->example, &x->mask, cut), ERR_DATA);
        if (!strstr(err_message(), words)) fail_msg("message is: %s", err_message());
    } else {
        assert_int_equal(chat_check(x->c, x->t, &x->prompt, &x->example, &x->mask, cut), OK);
    }
    ids_free(&x->prompt), ids_free(&x->example), ids_free(&x->mask);
    tok_free(x->t);
}

static void push_front(Ids *ids, int32_t id)
{
    assert_int_equal(ids_push(ids, 0), OK);
    memmove(ids->id + 1, ids->id, (size_t)(ids->n - 1) * sizeof *ids->id);
    ids->id[0] = id;
}

static void r_tok2_each_violation_is_caught(void **state)
{
    (void)state;
    Case x;
    make_case(&x, "llama", "llama3");  // two BOS
    push_front(&x.prompt, x.prompt.id[0]), push_front(&x.example, x.example.id[0]), push_front(&x.mask, 0);
    expect_violation(&x, false, "2 BOS");
    make_case(&x, "llama", "imf-demo");  // no BOS
    x.prompt.id[0] = x.example.id[0] = 300;
    expect_violation(&x, false, "0 BOS");
    make_case(&x, "qwen", "qwen2.5");  // a prompt that is not a prefix
    x.prompt.id[x.prompt.n - 1]++;
    expect_violation(&x, false, "not the beginning");
    make_case(&x, "qwen", "qwen2.5");  // no target
    for (int64_t i = 0; i < x.mask.n; i++) x.mask.id[i] = 0;
    expect_violation(&x, false, "mask is empty");
    make_case(&x, "qwen", "qwen2.5");  // a target inside of the prompt
    x.mask.id[x.prompt.n - 1] = 1;
    expect_violation(&x, false, "of the prompt is a target");
    make_case(&x, "qwen", "qwen2.5");  // the stop token is not trained
    x.mask.id[x.mask.n - 1] = 0;
    expect_violation(&x, false, "not the stop token");
    make_case(&x, "qwen", "qwen2.5");  // cut off before the stop token, and said so
    x.example.n--, x.mask.n--;
    expect_violation(&x, true, NULL);
    make_case(&x, "qwen", "qwen2.5");  // something follows the stop token
    assert_int_equal(ids_push(&x.example, 300), OK);
    assert_int_equal(ids_push(&x.mask, 0), OK);
    expect_violation(&x, false, "follow the stop token");
    make_case(&x, "qwen", "qwen2.5");  // mask of another length
    x.mask.n--;
    expect_violation(&x, false, "masked or not");
}

int main(void)
{
    log_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_equal_those_of_apply_chat_template),
        cmocka_unit_test(another_template_is_seen),
        cmocka_unit_test(the_demo_template_is_known_by_its_hash),
        cmocka_unit_test(unknown_templates_name_the_key_and_its_choices),
        cmocka_unit_test(a_tokenizer_without_the_templates_tokens_is_refused),
        cmocka_unit_test(wrong_messages_are_refused),
        cmocka_unit_test(an_example_is_prompt_answer_and_one_stop),
        cmocka_unit_test(targets_are_every_answer_and_its_stop),
        cmocka_unit_test(llama_strips_messages_and_chatml_does_not),
        cmocka_unit_test(r_tok2_every_template_keeps_the_contract),
        cmocka_unit_test(r_tok2_each_violation_is_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
