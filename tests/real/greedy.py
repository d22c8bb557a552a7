# SPDX-License-Identifier: Apache-2.0
"""greedy.py IMF MODEL EXPECTED.json [EVERY]: compares `imf generate --greedy` with recorded continuations; prints what differs.
EVERY 5 takes every fifth row.

Bounds: logits agree to 3e-4 (the bound of the logits test), so two candidates further apart than 6e-4 cannot change places:
a gap of at most 1e-3 in the recording explains a difference. The summed log-probability of a continuation is off by at most
64 x 2 x 3e-4 = 0.04; 5e-3 is what is asked of it.
"""
import json
import subprocess
import sys

NEAR_TIE, LOGP = 1e-3, 5e-3
imf, model, expected = sys.argv[1:4]
rows = json.load(open(expected, encoding="utf-8"))[::int(sys.argv[4]) if len(sys.argv) > 4 else 1]
stdin = "".join(json.dumps({"ids": row["ids"]}) + "\n" for row in rows)
tokens = max(len(row["greedy"]) for row in rows)
run = subprocess.run([imf, "generate", model, "--greedy", "--max-new-tokens", str(tokens), "--slots", "16"], input=stdin,
                     text=True, capture_output=True)
if run.returncode:
    sys.exit(f"imf generate: exit {run.returncode}: {run.stderr}")
answers = [json.loads(line) for line in run.stdout.splitlines()]
if len(answers) != len(rows):
    sys.exit(f"{len(answers)} answers to {len(rows)} prompts")
agree, unexplained = 0, 0
for i, (row, answer) in enumerate(zip(rows, answers)):
    want = row["greedy"]
    if answer["finish"] == "stop" and want[:-1] == answer["ids"] and len(want) <= tokens:
        want = want[:-1]  # the recording ends with the stop token, an answer does not hold it
    if answer["ids"] == want:
        agree += 1
        if abs(answer["logp"] - sum(row["logp"])) > LOGP:
            sys.exit(f"prompt {i}: log-probability {answer['logp']}, {sum(row['logp'])} recorded")
        continue
    at = next((j for j, (a, b) in enumerate(zip(answer["ids"], want)) if a != b), min(len(answer["ids"]), len(want) - 1))
    print(f"prompt {i} differs at token {at}; the recorded gap there is {row['gap'][at]}")
    unexplained += row["gap"][at] > NEAR_TIE
print(f"{agree} of {len(rows)} continuations agree; {unexplained} differences are not near-ties")
sys.exit(0 if agree >= len(rows) - 2 and not unexplained else 1)
