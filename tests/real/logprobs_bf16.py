# SPDX-License-Identifier: Apache-2.0
"""logprobs_bf16.py IMF MODEL FP32.json BF16.json: the error of `imf logprobs --dtype bfloat16` against transformers in fp32 is at
most twice that of transformers' own bf16 model on the same rows (tools/reference/real.py): of the five largest logits behind a
prompt and of the log-probabilities of its greedy continuation, root mean square and largest.
"""
import json
import math
import subprocess
import sys

TIMES, TOP = 2, 200  # TOP: among so many of our largest logits are the five
imf, model, *files = sys.argv[1:]
fp32, bf16 = (json.load(open(path, encoding="utf-8")) for path in files)


def logprobs(sequences):
    stdin = "".join(json.dumps({"ids": ids}) + "\n" for ids in sequences)
    run = subprocess.run([imf, "logprobs", model, "--dtype", "bfloat16", "--top", str(TOP)], input=stdin, text=True,
                         capture_output=True)
    if run.returncode:
        sys.exit(f"imf logprobs: exit {run.returncode}: {run.stderr}")
    return [json.loads(line) for line in run.stdout.splitlines()]


def sizes(errors):
    return {"rms": math.sqrt(sum(e * e for e in errors) / len(errors)), "largest": max(map(abs, errors))}


answers = logprobs([row["ids"] for row in fp32] + [row["ids"] + row["greedy"] for row in fp32])
assert len(answers) == 2 * len(fp32) and len(bf16) == len(fp32)
errors = {"logits": ([], []), "log-probabilities": ([], [])}  # ours, torch's
for row, half, prompt, whole in zip(fp32, bf16, answers, answers[len(fp32):]):
    top = dict(map(tuple, prompt["top"]))
    errors["logits"][0].extend(top[t] - x for t, x in row["top"])
    errors["logits"][1].extend(a - x for a, (_, x) in zip(half["top"], row["top"]))
    errors["log-probabilities"][0].extend(a - b for a, b in zip(whole["logprobs"][len(row["ids"]):], row["logp"]))
    errors["log-probabilities"][1].extend(a - b for a, b in zip(half["logp"], row["logp"]))
worst = 0
for what, (own, torch) in errors.items():
    own, torch = sizes(own), sizes(torch)
    for size in own:
        worst = max(worst, own[size] / torch[size])
        print(f"{what}, {size}: {own[size]:.4f}, torch {torch[size]:.4f}: {own[size] / torch[size]:.2f} times (bound {TIMES})")
sys.exit(0 if worst <= TIMES else 1)
