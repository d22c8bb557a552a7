#!/usr/bin/env python3
"""Examples for train.py on a real model: short instructions and answers as token ids, rendered by the model's own template.

usage: train_real.py MODEL_DIR ALPACA.json OUT.json   (then: train.py MODEL_DIR tests/data/train/smollm2 OUT.json)

A rejected answer is another instruction's answer. Rows are short (prompt up to 48 tokens, answers cut to 5 .. 24) so that 50
steps of a 135 M model take minutes on one core.
"""
import json
import sys

from transformers import AutoTokenizer

tok = AutoTokenizer.from_pretrained(sys.argv[1])
rows = []
for r in json.load(open(sys.argv[2])):
    if r["input"]:
        continue
    prompt = tok.apply_chat_template([{"role": "user", "content": r["instruction"]}], add_generation_prompt=True, tokenize=True,
                                     return_dict=False)
    answer = tok(r["output"], add_special_tokens=False)["input_ids"][: 4 + 7 * len(rows) % 20]
    if len(prompt) <= 48:
        rows.append((list(prompt), answer + [tok.convert_tokens_to_ids("<|im_end|>")]))
rows = rows[:40]
assert len(rows) == 40, len(rows)
out = [{"prompt": p, "chosen": a, "rejected": rows[(i + 1) % 40][1]} for i, (p, a) in enumerate(rows)]
json.dump(out, open(sys.argv[3], "w"))
