// SPDX-License-Identifier: Apache-2.0
// Every key of a recipe. The order is that of the pipeline; keys of one section stand together.
#include <float.h>
#include <stddef.h>

#include "base/deck.h"

#define BIG 9e15  // whole numbers without an upper limit

#define STR(path, preset, help) {path, DECK_STR, "", 0, 0, preset, NULL, help, false}
#define ONE_OF(path, preset, choices, help) {path, DECK_STR, "", 0, 0, preset, choices, help, false}
#define BOOL(path, preset, help) {path, DECK_BOOL, "", 0, 1, preset, NULL, help, false}
#define I64(path, unit, min, max, preset, help) {path, DECK_I64, unit, min, max, preset, NULL, help, false}
#define F64(path, unit, min, max, preset, help) {path, DECK_F64, unit, min, max, preset, NULL, help, false}
// Layout keys say where or how: they change no result and do not enter the recipe's hash.
#define ONE_OF_LAYOUT(path, preset, choices, help) {path, DECK_STR, "", 0, 0, preset, choices, help, true}
#define STR_LAYOUT(path, preset, help) {path, DECK_STR, "", 0, 0, preset, NULL, help, true}
#define BOOL_LAYOUT(path, preset, help) {path, DECK_BOOL, "", 0, 1, preset, NULL, help, true}
#define I64_LAYOUT(path, unit, min, max, preset, help) {path, DECK_I64, unit, min, max, preset, NULL, help, true}

// Keys that sft and dpo share; the defaults that differ are arguments.
#define TRAIN(s, lr, epochs, data_help)                                                                                             \
    F64(s ".learning_rate", "", 0, 1, lr, "peak learning rate of AdamW"),                                                            \
    F64(s ".num_train_epochs", "", 0, 1e6, epochs, "passes over the rows"),                                                          \
    I64(s ".max_steps", "steps", 0, BIG, "0", "optimiser steps in all (the schedule ends there); 0: num_train_epochs decides"),     \
    I64(s ".global_batch", "rows", 1, 1e9, "128", "examples of one optimiser step; loss: mean over its target tokens (dpo: over its pairs)"), \
    I64(s ".max_length", "tokens", 8, 1e7, "2048", "longest example; longer ones are treated as truncation says"),                   \
    ONE_OF(s ".truncation", "drop", "drop|keep_start", "over-long examples: drop them or keep their start (counted, listed)"),       \
    I64(s ".row_tokens", "tokens", 0, 1e7, "0", "examples are packed into rows of that many tokens; 0: about one row a chain"),     \
    I64_LAYOUT(s ".micro_rows", "rows", 1, 1e6, "1", "rows computed together; changes speed and memory, no result"),                \
    I64(s ".grad_chains", "", 1, 1e6, "8", "gradient sums are kept in that many chains: the largest useful number of ranks"),        \
    F64(s ".warmup_ratio", "", 0, 1, "0.1", "share of the steps with rising learning rate"),                                        \
    ONE_OF(s ".lr_scheduler_type", "cosine", "cosine|linear|constant", "schedule after the warm-up"),                                \
    F64(s ".weight_decay", "", 0, 10, "0", "AdamW weight decay"),                                                                    \
    F64(s ".adam_beta1", "", 0, 1, "0.9", "AdamW first-moment decay"),                                                               \
    F64(s ".adam_beta2", "", 0, 1, "0.999", "AdamW second-moment decay"),                                                            \
    F64(s ".adam_epsilon", "", 0, 1, "1e-08", "AdamW epsilon"),                                                                      \
    F64(s ".max_grad_norm", "", 0, 1e9, "1", "gradients are clipped to this norm; 0: never"),                                       \
    I64_LAYOUT(s ".logging_steps", "steps", 1, BIG, "1", "write a line of metrics.jsonl every so many steps"),                      \
    I64_LAYOUT(s ".save_steps", "steps", 0, BIG, "0", "checkpoint every so many steps; 0: by save_seconds and at the end only"),     \
    I64_LAYOUT(s ".save_seconds", "s", 0, 1e9, "1800", "checkpoint when the last one is so old; 0: never for that reason"),          \
    I64_LAYOUT(s ".save_total_limit", "", 1, 1e6, "2", "newest checkpoints kept"),                                                   \
    I64_LAYOUT(s ".save_keep_every", "steps", 0, BIG, "0", "checkpoints of steps that are a multiple of it stay for ever; 0: none"), \
    I64_LAYOUT(s ".ranks_per_file", "ranks", 0, 1e6, "0", "ranks that write one checkpoint file together; 0: those of a node"),      \
    I64_LAYOUT(s ".eval_steps", "steps", 0, BIG, "0", "measure the held-out loss every so many steps; 0: never"),                   \
    F64(s ".val_size", "", 0, 1e9, "0", "rows held out: a share below 1, or a number of rows"),                                     \
    ONE_OF(s ".export_dtype", "auto", "auto|float32|bfloat16|float16", "number format of the written model; auto: the base model's"),\
    STR(s ".data", "", data_help)

const DeckKey deck_schema[] = {
    STR_LAYOUT("run_dir", "runs/default", "directory of everything that this recipe writes"),
    I64("seed", "", 0, BIG, "42", "decides sampling, splits and training order"),
    I64_LAYOUT("threads", "", 1, 1024, "1", "threads of a rank"),
    ONE_OF("dtype", "float32", "float32|bfloat16", "number format of weights and activations"),
    ONE_OF("device", "cpu", "cpu|cuda", "where sample, score, sft, dpo, eval, reward compute; cuda: a GPU a rank, dtype bfloat16"),
    ONE_OF_LAYOUT("shard", "states", "states|grads",
           "device cuda: what ranks share out in training: the optimiser's state, or gradients too"),
    ONE_OF("render", "clean", "clean",
           "conversations to tokens: header in the prompt, one BOS, one stop token, nothing after it"),
    BOOL("exact", "true", "keep the promise that layout changes no bit; false: a gradient chain a rank, not grad_chains"),
    BOOL_LAYOUT("tensorboard", "false", "sft and dpo write their curves as event files for TensorBoard too, in sft/ and dpo/ of run_dir"),

    STR("prompts[].path", NULL, "JSONL file of prompts"),
    ONE_OF("prompts[].kind", "auto", "auto|math|code|if", "what the prompts ask for; auto: the rows say it"),
    STR("prompts[].dataset", "", "name of the data set in records; empty: what a row says, else the file's name"),
    I64("prompts[].limit", "prompts", 0, BIG, "0", "take only so many, drawn by id and seed; 0: all"),
    I64("select.max_prompts", "prompts", 0, BIG, "0", "keep only so many of all data sets, drawn by id and seed; 0: all"),
    STR("select.exclude[].path", NULL, "JSONL file of held-out prompts that must not be taken (those of eval.sets never are)"),

    STR("sources[].name", "", "name in records; empty: the directory's name"),
    STR("sources[].path", NULL, "Hugging Face model directory of a source model"),
    STR("sources[].template", "", "chat template by name; empty: by the model's own template"),
    F64("sources[].temperature", "", 0, 100, "0.8", "sampling temperature; 0: greedy"),
    F64("sources[].top_p", "", 0, 1, "0.95", "keep the smallest set of tokens with this probability"),
    I64("sources[].top_k", "tokens", 0, 1e9, "0", "keep that many most likely tokens; 0: all"),
    F64("sources[].repetition_penalty", "", 0.01, 100, "1", "divides the logits of tokens that are already there"),
    I64("sources[].n", "samples", 1, 1e6, "5", "answers a prompt"),
    I64("sources[].max_new_tokens", "tokens", 1, 1e7, "512", "longest answer"),
    I64_LAYOUT("sample.slots", "", 1, 1e6, "64", "answers a rank computes at a time; changes speed and memory, no result"),

    STR("samples.path", "", "a user's JSONL of (prompt, source, answer) that takes the place of select and sample"),

    STR("reward.path", "", "directory of the reward model"),
    STR("reward.template", "", "chat template by name; empty: by the model's own template"),
    I64("reward.max_length", "tokens", 8, 1e7, "4096", "longer conversations are marked unscored"),

    STR("reward_train.base", "", "directory of the model that becomes the reward model"),
    STR("reward_train.data[].path", NULL, "JSONL file of preference rows"),
    I64("reward_train.data[].limit", "rows", 0, BIG, "0", "take only so many, drawn by id; 0: all"),
    STR("reward_train.template", "", "chat template by name; empty: by the base model's own template"),
    I64("reward_train.max_length", "tokens", 8, 1e7, "4096", "longer conversations are dropped (counted, listed)"),
    F64("reward_train.min_gap", "", 0, 1e9, "0", "two answers are a preference pair when their scores differ by more"),
    F64("reward_train.val_size", "", 0, 0.9, "0.1", "share of the prompts held out to measure accuracy"),
    ONE_OF("reward_train.backbone", "none", "none|bt|regression|both",
           "train the backbone first: on preferences (Bradley-Terry), on the objectives, or on both"),
    F64("reward_train.learning_rate", "", 0, 1, "1e-05", "backbone: peak learning rate of AdamW"),
    F64("reward_train.num_train_epochs", "", 0, 1e6, "1", "backbone: passes over the pairs"),
    I64("reward_train.max_steps", "steps", 0, BIG, "0", "backbone: optimiser steps in all; 0: num_train_epochs decides"),
    I64("reward_train.global_batch", "pairs", 1, 1e9, "64", "backbone: pairs of one optimiser step, over all ranks"),
    I64("reward_train.row_tokens", "tokens", 0, 1e7, "0",
        "backbone: pairs are packed into rows of that many tokens; 0: about one row a chain"),
    I64_LAYOUT("reward_train.micro_rows", "rows", 1, 1e6, "1",
               "backbone: rows computed together; changes speed and memory, no result"),
    I64("reward_train.grad_chains", "", 1, 1e6, "8", "backbone: chains of gradient sums: the largest useful number of ranks"),
    F64("reward_train.warmup_ratio", "", 0, 1, "0.1", "backbone: share of the steps with rising learning rate"),
    F64("reward_train.max_grad_norm", "", 0, 1e9, "1", "backbone: gradients are clipped to this norm; 0: never"),
    I64_LAYOUT("reward_train.logging_steps", "steps", 1, BIG, "10", "backbone: print a line every so many steps"),
    I64("reward_train.gate_hidden", "", 1, 1e6, "64", "gate: width of the hidden layers (ArmoRM: 1024)"),
    I64("reward_train.gate_layers", "", 1, 16, "2", "gate: linear layers (ArmoRM: 4)"),
    I64("reward_train.gate_steps", "steps", 0, 1e9, "1000", "gate: steps of AdamW on the Bradley-Terry loss (ArmoRM: 2000)"),
    I64("reward_train.gate_batch", "pairs", 1, 1e6, "256", "gate: pairs of a step (ArmoRM: 1024)"),
    F64("reward_train.gate_learning_rate", "", 0, 1, "0.001", "gate: peak learning rate, cosine to 0"),
    F64("reward_train.gate_dropout", "", 0, 0.9, "0", "gate: share of hidden units switched off in training (ArmoRM: 0.2)"),
    F64("reward_train.gate_temperature", "", 0.001, 1e6, "10", "gate: softmax temperature"),
    STR("reward_train.verbosity", "", "objective whose correlation is taken out of the others; empty: none"),
    F64("reward_train.span", "", 0, 1e9, "0.15", "width of the middle 90 % of the scores (ArmoRM: about 0.15); 0: leave them"),

    F64("verify.cpu_s", "s", 0.05, 3600, "2", "CPU time of a candidate program"),
    I64("verify.memory_mb", "MiB", 16, 1e7, "1024", "memory of a candidate program"),

    F64("pair.sft_fraction", "", 0, 1, "0.4", "if: share of a data set's prompts that become SFT rows, the others pairs"),
    F64("pair.margin_min", "", 0, 1e9, "0.01", "smallest difference of scores in a pair, inclusive"),
    F64("pair.margin_max", "", 0, 1e9, "0.1", "largest difference of scores in a pair, inclusive"),
    BOOL("pair.window_code", "false", "code: apply the window of differences too"),
    F64("pair.math_dpo_fraction", "", 0, 1, "1",
        "math: share of the prompts with a valid pair that become pairs, the others SFT rows"),
    F64("pair.code_dpo_fraction", "", 0, 1, "1", "code: share of the prompts with a valid pair that become pairs"),
    BOOL("pair.code_overlap", "true", "code: a prompt may give an SFT row and a pair (the published counts need it)"),
    BOOL("pair.one_per_prompt", "true", "math, code: only the best source's pair; false: one of every source that has one"),
    BOOL("pair.allow_weak", "false", "use verdicts of tests that ran in the candidate's own process"),
    BOOL("pair.allow_cut", "false", "answers that were cut by length may be chosen too (no stop token is trained behind them)"),

    STR("target.path", "", "Hugging Face directory of the model to be fine-tuned"),
    STR("target.template", "", "chat template by name; empty: by the model's own template"),
    ONE_OF("target.init", "load", "load|random",
           "random: target.path has config.json and tokenizer only, weights are drawn by seed"),
    TRAIN("sft", "5e-06", "3", "a user's file of rows that takes the place of the pair stage's"),
    TRAIN("dpo", "1e-06", "1", "a user's file of pairs that takes the place of the pair stage's"),
    STR("dpo.base", "", "model to start from; empty: the run's SFT model when there is one, else target.path"),
    F64("dpo.beta", "", 0, 1e6, "0.1", "strength of the tie to the reference model"),
    ONE_OF("dpo.loss_type", "sigmoid", "sigmoid|sigmoid_norm", "DPO, or DPO with length-normalised log-probabilities (LN-DPO)"),
    F64("dpo.label_smoothing", "", 0, 0.5, "0", "probability that a pair is the wrong way round"),

    STR("eval.models", "target,sft,dpo",
        "which models, separated by commas: target, sft, dpo, or NAME=DIRECTORY for any other"),
    STR("eval.sets[].path", NULL, "JSONL file of held-out prompts"),
    STR("eval.sets[].name", "", "name in records; empty: the file's name"),
    ONE_OF("eval.sets[].kind", "auto", "auto|math|code|if", "what the prompts ask for; auto: the rows say it"),
    STR("eval.sets[].protocol", "", "gsm8k: FuseEval's prompt, greedy decoding and rules; empty: as in training"),
    I64("eval.sets[].limit", "prompts", 0, BIG, "0", "take only so many, drawn by id and eval.seed; 0: all"),
    F64("eval.temperature", "", 0, 100, "0.6", "sampling temperature; 0: greedy"),
    F64("eval.top_p", "", 0, 1, "0.9", "keep the smallest set of tokens with this probability"),
    I64("eval.max_new_tokens", "tokens", 1, 1e7, "512", "longest answer"),
    I64("eval.seed", "", 0, BIG, "42", "seed of the evaluation's samples and its bootstrap"),
};
const int deck_schema_size = sizeof deck_schema / sizeof deck_schema[0];
