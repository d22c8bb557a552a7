# SPDX-License-Identifier: Apache-2.0
"""Labels answers for the reward model with the generator's checker: reward_train's data.

    python3 label.py RUN_DIR OUT.jsonl

RUN_DIR: where imf select and imf sample left the sources' answers to prompts of the split "reward". Besides these answers a
row gets some with planted faults, so that every fault is seen next to its absence.
"""
import glob
import json
import random
import sys

import make_data
import world


def objectives(item, answer):
    g = world.grade(item, answer)
    if item.kind != "if":
        return {"overall": g, item.kind: g}
    met = [world.check_met(c, answer) for c in item.parts["checks"]]
    return {"overall": g, "if-content": float(met[0]), "if-conditions": sum(met[1:]) / len(met[1:])}


def planted(item, r):
    if item.kind == "math":
        return [item.right()] + [world.math_wrong(item, r) for _ in range(3)]
    if item.kind == "code":
        return [item.right(), world.code_wrong(item, r)]
    spoilt = world.Item("if", item.question, **world.if_spoil(item, r))
    return [world.if_habit(item, r, 0.8), world.if_habit(spoilt, r, 0.8)]


def records(run_dir, name):
    for path in sorted(glob.glob(f"{run_dir}/{name}/*.jsonl")):
        with open(path) as f:
            for line in f:
                record = json.loads(line)
                if "data" in record:
                    yield record["id"], record["data"]


def items_by_question():
    return {i.question: i for i in make_data.items(make_data.REWARD_PROMPTS, "reward", "reward")}


def main(run_dir, out):
    known, r = items_by_question(), random.Random("label")
    question = {id: data["messages"][-1]["content"] for id, data in records(run_dir, "prompts")}
    answers = {id: [] for id in question}
    for _, data in records(run_dir, "samples"):
        answers[data["prompt"]].append(data["text"])
    with open(out, "w") as f:
        for id in sorted(question):
            item = known[question[id]]
            texts = list(dict.fromkeys(answers[id] + planted(item, r)))
            labelled = [{"text": t, "objectives": objectives(item, t), "score": world.grade(item, t)} for t in texts]
            f.write(json.dumps({"prompt": question[id], "answers": labelled}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
