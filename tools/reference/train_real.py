#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Examples for train.py on a real model: short instructions and answers as token ids, rendered by the model's own template.

usage: train_real.py MODEL_DIR ALPACA.json OUT.json sft|pairs
       then: train.py MODEL_DIR tests/data/train/smollm2 OUT.json sft (or dpo,ln)

A rejected answer is another instruction's answer. Rows are short so that 50 steps of a 135 M model take minutes on one core:
SFT takes prompts of up to 48 tokens (the template's own system message is 20 of them) and answers cut to 5 .. 24, pairs take an
empty system message, prompts of up to 30 and answers cut to 5 .. 16.
"""
import json
import sys

from transformers import AutoTokenizer

model_dir, source, target, kind = sys.argv[1:]
system, longest, spread = {"sft": ([], 48, 20), "pairs": ([{"role": "system", "content": ""}], 30, 12)}[kind]
tok = AutoTokenizer.from_pretrained(model_dir)
rows = []
for r in json.load(open(source)):
    if r["input"]:
        continue
    prompt = tok.apply_chat_template(system + [{"role": "user", "content": r["instruction"]}], add_generation_prompt=True,
                                     tokenize=True, return_dict=False)
    answer = tok(r["output"], add_special_tokens=False)["input_ids"][: 4 + 7 * len(rows) % spread]
    if len(prompt) <= longest:
        rows.append((list(prompt), answer + [tok.convert_tokens_to_ids("<|im_end|>")]))
rows = rows[:40]
assert len(rows) == 40, len(rows)
out = [{"prompt": p, "chosen": a, "rejected": rows[(i + 1) % 40][1]} for i, (p, a) in enumerate(rows)]
json.dump(out, open(target, "w"))
