"""How good is the demo's reward model on real samples? Uses the generator's checker, which the pipeline never does.

    python3 check_reward.py RUN_DIR      pairwise accuracy, and true quality of the best of all samples by score and of a random one
"""
import collections
import itertools
import sys

import label
import make_data
import world


def main(run_dir):
    known = {i.question: i for i in make_data.items(make_data.PROMPTS, "pipeline", "pipeline")}
    item = {id: known[d["messages"][-1]["content"]] for id, d in label.records(run_dir, "prompts")}
    score = {d["sample"]: d["score"] for _, d in label.records(run_dir, "scores") if "score" in d}
    answers = collections.defaultdict(list)
    for id, d in label.records(run_dir, "samples"):
        answers[d["prompt"]].append((score[id], world.grade(item[d["prompt"]], d["text"])))
    for kind in world.KINDS:
        of_kind = [a for p, a in answers.items() if item[p].kind == kind]
        pairs = [(x, y) for a in of_kind for x, y in itertools.combinations(a, 2) if x[1] != y[1]]
        right = sum((x[0] > y[0]) == (x[1] > y[1]) for x, y in pairs) / len(pairs)
        best = sum(max(a)[1] for a in of_kind) / len(of_kind)
        mean = sum(g for a in of_kind for _, g in a) / sum(map(len, of_kind))
        print(f"{kind}: {100 * right:.1f} % of {len(pairs)} pairs; best of n {100 * best:.1f} %, random {100 * mean:.1f} %")


if __name__ == "__main__":
    main(*sys.argv[1:])
