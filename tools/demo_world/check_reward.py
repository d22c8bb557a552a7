# SPDX-License-Identifier: Apache-2.0
"""How good is the demo's reward model on real samples? Uses the generator's checker, which the pipeline never does.

    python3 check_reward.py RUN_DIR      per kind, and over all kinds (their mean):
                                         accuracy on pairs of samples, and on pairs of different texts: samples repeat each other,
                                         so that an easy fault many samples share fills the first number
                                         true quality of the best of a prompt's samples by score, and of a random one
                                         their difference with its 95 % interval (bootstrap over prompts within each kind)
"""
import collections
import itertools
import random
import sys

import label
import make_data
import world

RESAMPLES = 2000


def load(run_dir):
    """kind -> a list of prompts, each a list of (score, true quality, text), one a sample"""
    known = {i.question: i for i in make_data.items(make_data.PROMPTS, "pipeline", "pipeline")}
    item = {id: known[d["messages"][-1]["content"]] for id, d in label.records(run_dir, "prompts")}
    score = {d["sample"]: d["score"] for _, d in label.records(run_dir, "scores") if "score" in d}
    answers = {id: [] for id in sorted(item)}
    for id, d in label.records(run_dir, "samples"):
        answers[d["prompt"]].append((score[id], world.grade(item[d["prompt"]], d["text"]), d["text"]))
    kinds = collections.defaultdict(list)
    for id, of_prompt in answers.items():
        kinds[item[id].kind].append(of_prompt)
    return kinds


def pairs(prompts, counts=lambda worse: True):
    """(right, n) over all pairs of a prompt's answers whose quality differs; equal scores are wrong"""
    right = n = 0
    for answers in prompts:
        for x, y in itertools.combinations(answers, 2):
            worse = min(x, y, key=lambda a: a[1])
            if x[1] != y[1] and counts(worse[2]):
                n += 1
                right += (x[0] - y[0]) * (x[1] - y[1]) > 0
    return right, n


def has_both_sums(text):
    return text.count("=") >= 2


def print_pairs(kind, prompts):
    for what, of_kind in ("samples", prompts), ("texts", [sorted(set(a)) for a in prompts]):
        kinds_of_pair = {"": lambda text: True}
        if kind == "math":
            kinds_of_pair[", wrong one with both sums"] = has_both_sums
            kinds_of_pair[", wrong one stops before"] = lambda text: not has_both_sums(text)
        for which, counts in kinds_of_pair.items():
            right, n = pairs(of_kind, counts)
            print(f"{kind}: {100 * right / n:.1f} % of {n} pairs of {what}{which}")


def mean(values):
    return sum(values) / len(values)


def best(answers):
    """Quality of the answer with the highest score; several with one score count by their mean."""
    top = max(a[0] for a in answers)
    return mean([a[1] for a in answers if a[0] == top])


def interval(kinds, r):
    """95 % interval of the mean over kinds of the mean over prompts"""
    draws = sorted(mean([mean(r.choices(gains, k=len(gains))) for gains in kinds]) for _ in range(RESAMPLES))
    return draws[RESAMPLES * 25 // 1000], draws[RESAMPLES * 975 // 1000 - 1]


def line(name, of_best, of_random, gains):
    low, high = interval(gains, random.Random("bootstrap"))
    return (f"{name}: best of n {100 * of_best:.1f} %, random {100 * of_random:.1f} %, "
            f"difference {100 * (of_best - of_random):+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]")


def main(run_dir):
    kinds = load(run_dir)
    bests, randoms, gains = [], [], []
    for kind in world.KINDS:
        prompts = kinds[kind]
        print_pairs(kind, prompts)
        bests.append([best(a) for a in prompts])
        randoms.append([mean([x[1] for x in a]) for a in prompts])
        gains.append([b - m for b, m in zip(bests[-1], randoms[-1])])
        print(line(kind, mean(bests[-1]), mean(randoms[-1]), gains[-1:]))
    print(line("all", mean([mean(b) for b in bests]), mean([mean(m) for m in randoms]), gains))


if __name__ == "__main__":
    main(*sys.argv[1:])
