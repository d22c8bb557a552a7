# SPDX-License-Identifier: Apache-2.0
"""Rows for `imf judge math` from the gold answers of GSM8K (test) and MATH (train, test): each against itself (expect right) and
against perturbed ones (expect wrong or undecided, never right).

    python3 tools/reference/math_rows.py DATA_DIR > rows.jsonl
"""
import json, re, sys


def golds(root):
    for line in open(root + "/gsm8k/test.jsonl"):
        yield json.loads(line)["answer"].split("####")[1].strip()
    for name in ("test", "train"):
        for line in open(root + "/math/%s.jsonl" % name):
            yield json.loads(line)["answer"]


def perturbed(gold):
    """Another value: the last number one larger, the sign changed, one digit more."""
    m = list(re.finditer(r"\d+", gold))
    if m:
        a, b = m[-1].span()
        yield gold[:a] + str(int(gold[a:b]) + 1) + gold[b:]
        a, b = m[0].span()
        yield gold[:a] + gold[a:b] + "7" + gold[b:]
    if not gold.startswith("0,") and re.fullmatch(r"[\d.,]*[1-9][\d.]*|\\d?frac\{\d+\}\{\d+\}", gold):
        yield "-" + gold
    if re.fullmatch(r"[A-Za-z]", gold):
        yield chr((ord(gold) - 96) % 26 + 97)


for number, gold in enumerate(golds(sys.argv[1])):
    if not gold.strip():
        continue  # one MATH row has no answer
    row = {"id": number, "gold": gold, "answer": "So we get\n$\\boxed{" + gold + "}$.", "expect": "right"}
    print(json.dumps(row))
    for p in perturbed(gold):
        print(json.dumps(dict(row, answer="\\boxed{" + p + "}", expect="wrong|undecided")))
