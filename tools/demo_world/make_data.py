# SPDX-License-Identifier: Apache-2.0
"""Writes what the demo's models are trained on, and the prompts of input/demo.

    python3 make_data.py train OUT_DIR       rows for imf sft: base, the sources, the target; prompts for the reward model
    python3 make_data.py prompts OUT_DIR     prompts.jsonl (pipeline) and heldout_{math,code,if}.jsonl
    python3 make_data.py models OUT_DIR      empty model directory: config.json, tokenizer_config.json, generation_config.json
"""
import json
import os
import random
import sys

import world

# The base model learns in three rounds; "keep": how often its instruction answers keep a condition. Drills in copying make
# the second round work: without them the contents of instructions stayed near chance. In the third the contents are right
# in answers of every style, so that the habits below change style alone.
ROUNDS = {
    "base": {"math": 25000, "code": 7000, "if": 44000, "drill": 0, "keep": 1.0},
    "more": {"math": 7000, "code": 2000, "if": 18000, "drill": 13000, "keep": 1.0},
    "last": {"math": 36000, "code": 3000, "if": 36000, "drill": 5000, "keep": 0.75},
}
# Then each model gets its habits: how often its answers are right (math, code), how often it keeps a condition (if). Sampling
# below temperature 1 favours the commoner branch, so programs come out right more often than they were in training.
HABITS = {
    "abacus": {"math": 0.60, "code": 0.36, "if": 0.35},
    "byte": {"math": 0.38, "code": 0.58, "if": 0.38},
    "clerk": {"math": 0.40, "code": 0.36, "if": 0.46},
    "novice": {"math": 0.25, "code": 0.22, "if": 0.20},
}
HABIT_ROWS = {"math": 1600, "code": 1600, "if": 3200}
PROMPTS = {"math": 120, "code": 90, "if": 500}
HELD_OUT = {"math": 600, "code": 500, "if": 600}
REWARD_PROMPTS = {"math": 2200, "code": 400, "if": 1600}

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 512, "hidden_size": 128,
    "intermediate_size": 352, "num_hidden_layers": 5, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
    "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False, "initializer_range": 0.02,
    "bos_token_id": 1, "eos_token_id": 4, "pad_token_id": 0, "torch_dtype": "bfloat16",
}
TEMPLATE = (
    "{{ '<|bos|>' }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|bos|>", "eos_token": "<|end|>", "pad_token": "<|pad|>",
    "clean_up_tokenization_spaces": False, "model_max_length": 256, "chat_template": TEMPLATE,
}
GENERATION = {"bos_token_id": 1, "eos_token_id": 4, "pad_token_id": 0}


def write_rows(path, rows):
    with open(path, "w") as f:
        for row in rows:
            f.write(json.dumps(row) + "\n")


def write_json(path, value):
    with open(path, "w") as f:
        json.dump(value, f, indent=1)
        f.write("\n")


def chat(question, answer):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def items(counts, split, seed):
    r = random.Random(seed)
    return [item for kind, n in counts.items() for item in world.draw_distinct(kind, split, n, r)]


def write_train(out):
    for name, round in ROUNDS.items():
        r = random.Random("drills")
        kinds = {k: round[k] for k in world.KINDS}
        keep = {"math": 1.0, "code": 1.0, "if": round["keep"]}
        rows = [chat(i.question, world.habitual(i, r, keep)) for i in items(kinds, "pretrain", name)]
        r = random.Random("drills")
        write_rows(f"{out}/{name}.jsonl", rows + [chat(*world.drill(r)) for _ in range(round["drill"])])
    for name, keep in HABITS.items():
        r = random.Random("habits " + name)
        write_rows(f"{out}/{name}.jsonl", (chat(i.question, world.habitual(i, r, keep)) for i in items(HABIT_ROWS, "pretrain", name)))
    write_rows(f"{out}/reward_prompts.jsonl", (i.prompt() for i in items(REWARD_PROMPTS, "reward", "reward")))


def write_prompts(out):
    write_rows(f"{out}/prompts.jsonl", (i.prompt() for i in items(PROMPTS, "pipeline", "pipeline")))
    for kind, n in HELD_OUT.items():
        write_rows(f"{out}/heldout_{kind}.jsonl", (i.prompt() for i in items({kind: n}, "heldout", "heldout")))


def write_models(out):
    write_json(f"{out}/config.json", CONFIG)
    write_json(f"{out}/tokenizer_config.json", TOKENIZER)
    write_json(f"{out}/generation_config.json", GENERATION)


def main(what, out):
    os.makedirs(out, exist_ok=True)
    {"train": write_train, "prompts": write_prompts, "models": write_models}[what](out)


if __name__ == "__main__":
    main(*sys.argv[1:])
