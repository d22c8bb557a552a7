#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What transformers (fp32, eager) computes with real weights -> tests/data/real/<name>.json.

    real.py MODEL_DIR OUT.json [--prompts GSM8K.jsonl]        needs torch, transformers (4.46 or later)
    real.py MODEL_DIR OUT.json --bf16 FP32.json               what the model computes in bf16, for the rows of FP32.json

--rows of 50 prompts (evenly taken): 20 questions of GSM8K test (without --prompts: 20 short ones), 15 messages, 15 pieces of
text. A row: ids of the prompt; top: the 5 largest logits behind it; greedy: --tokens (64) of greedy continuation (fewer when
it stops); logp: their log-probabilities; gap: distance from the largest to the second largest logit at each of them, so that
a different choice can be explained as a near-tie.
With --bf16 a row holds top and logp only: the logits of the same five tokens, the log-probabilities of the same continuation.
"""
import argparse
import json

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.set_num_threads(1)
MESSAGES = [
    "What is the capital of France?", "Write a haiku about rain.", "Sort these numbers: 9, 3, 27, 1.",
    "Translate 'good morning' to German and Spanish.", "Why is the sky blue?", "Name three prime numbers above 50.",
    "def add(a, b): complete this Python function.", "Give me a short recipe for pancakes.", "日本の首都はどこですか？",
    "Summarise in one sentence: the cat sat on the mat because it was warm.", "What's 17 * 23?", "Tell me a joke 😀",
    "List the planets in order.", "Explain recursion to a child.", "Reverse the word 'stressed'."]
QUESTIONS = [
    "What is %d plus %d?" % (7 * i + 3, 11 * i + 5) if i % 2 else
    "A box holds %d eggs. How many eggs are in %d boxes?" % (i + 4, 3 * i + 2) for i in range(20)]
TEXTS = [
    "The quick brown fox", "import numpy as np\n\ndef mean(x):\n", "Once upon a time, in a village by the sea,", "1 2 3 4 5 6",
    "Water boils at", "The president of the United States in 1990 was", "E = mc", "<html>\n<head>\n<title>", "SELECT name FROM",
    "Dear Sir or Madam,\n\nI am writing to", "In mathematics, a group is", "The three laws of robotics are: 1.",
    "for (int i = 0; i < n; i++) {", "Paris is to France as Rome is to", "Der schnelle braune Fuchs"]


def prompts(tokenizer, path):
    questions = QUESTIONS
    if path:
        with open(path) as f:
            questions = [json.loads(line)["question"] for line in f][:20]
    for text in questions + MESSAGES:
        yield tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True,
                                            return_dict=True)["input_ids"]
    for text in TEXTS:
        yield tokenizer(text, add_special_tokens=False)["input_ids"]


@torch.no_grad()
def row(model, ids, stops, tokens):
    past, step, out = None, torch.tensor([ids]), {"ids": ids, "greedy": [], "logp": [], "gap": []}
    for i in range(tokens):
        r = model(step, past_key_values=past, use_cache=True)
        past, logits = r.past_key_values, r.logits[0, -1]
        top = logits.topk(5)
        if i == 0:
            out["top"] = [[int(t), round(float(v), 6)] for t, v in zip(top.indices, top.values)]
        token = int(top.indices[0])
        out["greedy"].append(token)
        out["logp"].append(round(float(logits.log_softmax(-1)[token]), 6))
        out["gap"].append(round(float(top.values[0] - top.values[1]), 6))
        if token in stops:
            break
        step = torch.tensor([[token]])
    return out


@torch.no_grad()
def row_bf16(model, row):
    n = len(row["ids"])
    logits = model(torch.tensor([row["ids"] + row["greedy"]])).logits[0].float()
    logp = logits[n - 1:-1].log_softmax(-1).gather(1, torch.tensor(row["greedy"])[:, None])[:, 0]
    return {"top": [round(float(logits[n - 1, t]), 6) for t, _ in row["top"]], "logp": [round(float(x), 6) for x in logp]}


def write(path, rows):
    with open(path, "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(r, separators=(",", ":")) for r in rows) + "\n]\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--prompts")
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--bf16", metavar="FP32.json")
    args = parser.parse_args()
    if args.bf16:
        model = AutoModelForCausalLM.from_pretrained(args.model, torch_dtype=torch.bfloat16, attn_implementation="eager")
        return write(args.out, [row_bf16(model, r) for r in json.load(open(args.bf16))])
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, torch_dtype=torch.float32, attn_implementation="eager")
    eos = model.generation_config.eos_token_id
    stops = set(eos if isinstance(eos, list) else [eos])
    every = list(prompts(tokenizer, args.prompts))
    rows = [row(model, list(every[i * len(every) // args.rows]), stops, args.tokens) for i in range(args.rows)]
    write(args.out, rows)


if __name__ == "__main__":
    main()
