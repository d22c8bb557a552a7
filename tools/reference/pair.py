#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Transcription of the pair rules (FuseChat-3.0 data construction) and random cases for tests/t52_pair.c.

usage: pair.py > tests/data/pair/cases.json
Scores are multiples of 1/256, so that margins and the window's ends are exact in binary.
"""
import json
import math
import random

REASONS = dict(no="no answer", unscored="no scored answer", right="no right answer", same="all answers of the source are identical",
               low="margin below margin_min", high="margin above margin_max", identical="best and worst answer are identical",
               cut_if="every scored answer is cut by length", cut="every right answer is cut by length")
NOT_CHOSEN = "cut by length, not to be chosen"


def left_out(rules, kind, a):
    if not a["scored"]:
        return "unscored"
    if kind == "if":
        return None
    if a["verdict"] == "unjudged":
        return "no verdict"
    if a["verdict"] == "undecided":
        return "undecided"
    if a["weak"] and not rules["allow_weak"]:
        return "weak verdict"
    return None


def reason(rules, kind, a):
    """What is listed of an answer."""
    return left_out(rules, kind, a) or (NOT_CHOSEN if a["cut"] and not rules["allow_cut"] else None)


def usable(rules, kind, answers, verdict):
    return [a for a in answers if left_out(rules, kind, a) is None and (kind == "if" or a["verdict"] == verdict)]


def choosable(rules, kind, answers):
    return [a for a in usable(rules, kind, answers, "right") if rules["allow_cut"] or not a["cut"]]


def source_pair(rules, kind, answers):
    """answers: of one source, by k. Returns (chosen, rejected) or the reason why not."""
    if len({a["text"] for a in answers}) == 1:
        return REASONS["same"]
    good, bad = choosable(rules, kind, answers), usable(rules, kind, answers, "wrong")
    if not good or not bad:
        return "none"
    chosen = max(good, key=lambda a: a["score"])      # max and min give the first of equals
    rejected = min(bad, key=lambda a: a["score"])
    if chosen["text"] == rejected["text"]:
        return REASONS["identical"]
    margin = chosen["score"] - rejected["score"]
    if kind != "code" or rules["window_code"]:
        if margin < rules["margin_min"]:
            return REASONS["low"]
        if margin > rules["margin_max"]:
            return REASONS["high"]
    return chosen, rejected


def by_source(answers):
    out = {}
    for a in answers:
        out.setdefault(a["source"], []).append(a)
    return out


def candidates(rules, p):
    """(reason or None, SFT answer, pairs)"""
    kind, answers = p["kind"], p["answers"]
    if not answers:
        return REASONS["no"], None, []
    good = choosable(rules, kind, answers)
    if not good:
        if usable(rules, kind, answers, "right"):
            return REASONS["cut_if" if kind == "if" else "cut"], None, []
        return REASONS["unscored" if kind == "if" else "right"], None, []
    best = max(good, key=lambda a: a["score"])
    groups = by_source(answers)
    if kind == "if":
        pair = source_pair(rules, kind, groups[best["source"]])
        return (pair, best, []) if isinstance(pair, str) else (None, best, [pair])
    pairs = [q for q in (source_pair(rules, kind, g) for g in groups.values()) if not isinstance(q, str)]
    if rules["one_per_prompt"] and pairs:
        pairs = [max(pairs, key=lambda q: q[0]["score"])]
    return None, best, pairs


def apply(rules, prompts):
    out = [dict(zip(("dropped", "best", "pairs"), candidates(rules, p)), sft=False, dpo=False) for p in prompts]
    groups = {}
    for i, (p, o) in enumerate(zip(prompts, out)):
        if o["dropped"]:
            continue
        if not o["pairs"]:
            o["sft"] = True
        else:
            groups.setdefault((p["dataset"], p["kind"]), []).append(i)
    for (_, kind), members in groups.items():
        members.sort(key=lambda i: (prompts[i]["draw"], i))
        n = len(members)
        if kind == "if":
            sft = math.floor(rules["sft_fraction"] * n + 1e-9)
        else:
            sft = n - math.floor(rules[kind + "_dpo_fraction"] * n + 1e-9)
        for rank, i in enumerate(members):
            out[i]["dpo"] = rank >= sft
            out[i]["sft"] = rank < sft or (kind == "code" and rules["code_overlap"])
    return out


def random_answers(rng, sources):
    answers = []
    for s in range(sources):
        texts = rng.choice([1, 3, 100])
        for k in range(rng.randint(0, 5)):
            answers.append(dict(source=s, k=k, score=rng.randint(20, 60) / 256, scored=rng.random() > 0.07,
                                verdict=rng.choices(["wrong", "right", "undecided", "unjudged"], [5, 5, 1, 1])[0],
                                weak=rng.random() < 0.1, cut=rng.random() < 0.25, text=rng.randrange(texts)))
    return answers


def case(rng):
    rules = dict(sft_fraction=rng.choice([0, 0.29, 0.4, 1]), margin_min=rng.choice([0, 3, 5]) / 256,
                 margin_max=rng.choice([15, 25, 100]) / 256, math_dpo_fraction=rng.choice([0, 0.5, 1]),
                 code_dpo_fraction=rng.choice([0.5, 1]), window_code=rng.random() < 0.5, code_overlap=rng.random() < 0.5,
                 one_per_prompt=rng.random() < 0.6, allow_weak=rng.random() < 0.3, allow_cut=rng.random() < 0.3)
    prompts = [dict(kind=rng.choice(["if", "math", "code"]), dataset=rng.randrange(3), draw=rng.randrange(20),
                    answers=random_answers(rng, rng.randint(0, 4))) for _ in range(25)]
    out = apply(rules, prompts)
    key = lambda a: [a["source"], a["k"]]
    expect = [dict(dropped=o["dropped"], sft=key(o["best"]) if o["sft"] else None,
                   pairs=[key(c) + key(r) for c, r in o["pairs"]] if o["dpo"] else [],
                   left_out=[reason(rules, p["kind"], a) for a in p["answers"]]) for p, o in zip(prompts, out)]
    return dict(rules=rules, prompts=prompts, expect=expect)


if __name__ == "__main__":
    generator = random.Random(20260)
    print(json.dumps([case(generator) for _ in range(10)], separators=(",", ":")))
