# SPDX-License-Identifier: Apache-2.0
"""logprobs.py IMF MODEL EXPECTED.json: compares `imf logprobs` with recorded logits and log-probabilities of transformers
(fp32, eager; tools/reference/real.py).

Bound: 3e-4 absolute on logits (asked for; two fp32 implementations of this model differ by about 1e-4), the same on
log-probabilities. Of the five largest logits the ids must agree where neighbours are further apart than twice the bound.
"""
import json
import subprocess
import sys

BOUND = 3e-4
imf, model, expected = sys.argv[1:]
rows = json.load(open(expected, encoding="utf-8"))


def logprobs(sequences):
    stdin = "".join(json.dumps({"ids": ids}) + "\n" for ids in sequences)
    run = subprocess.run([imf, "logprobs", model, "--top", "5"], input=stdin, text=True, capture_output=True)
    if run.returncode:
        sys.exit(f"imf logprobs: exit {run.returncode}: {run.stderr}")
    return [json.loads(line) for line in run.stdout.splitlines()]


def top_differs(got, want):
    worst = max(abs(g[1] - w[1]) for g, w in zip(got, want))
    order = any(g[0] != w[0] and min(abs(w[1] - v[1]) for v in want if v is not w) > 2 * BOUND for g, w in zip(got, want))
    return worst, order


worst_logit = worst_logp = 0
answers = logprobs([row["ids"] for row in rows] + [row["ids"] + row["greedy"] for row in rows])  # one call: loads once
if len(answers) != 2 * len(rows):
    sys.exit(f"{len(answers)} answers to {2 * len(rows)} rows")
prompts, whole = answers[:len(rows)], answers[len(rows):]
for i, (row, p, w) in enumerate(zip(rows, prompts, whole)):
    off, order = top_differs(p["top"], row["top"])
    worst_logit = max(worst_logit, off)
    if order:
        sys.exit(f"row {i}: the five largest logits are {p['top']}, recorded {row['top']}")
    tail = w["logprobs"][len(row["ids"]):]
    worst_logp = max(worst_logp, max(abs(a - b) for a, b in zip(tail, row["logp"])))
print(f"{len(rows)} rows: logits within {worst_logit:.2e}, log-probabilities within {worst_logp:.2e} (bound {BOUND})")
sys.exit(0 if worst_logit <= BOUND and worst_logp <= BOUND else 1)
