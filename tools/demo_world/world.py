# SPDX-License-Identifier: Apache-2.0
"""The demo's closed world: generated prompts of three kinds, their right answers, and the habits of weak models.

A prompt's text decides by its hash which split it belongs to, so that no two splits can share a prompt:
pretraining, reward (training of the reward model), pipeline (select .. dpo) and held-out (evaluation only).

Kinds
  math  two-step word problems; the answer reasons and ends in \\boxed{}; record field "gold"
  code  small Python functions; record field "tests" (assert lines of the form f(args) == literal)
  if    a short task on words plus 3 to 5 conditions; record field "checks" (judge/checks.h), graded
Only tools use this file; imf itself never sees an answer of the generator, except in held-out and reward data.
"""
import hashlib
import random
import re

NAMES = "Tom Ann Bob Eve Sam Kim Max Liz Jon Amy".split()
THINGS = "apples pens cards coins books cups stones eggs".split()
WORDS = "cat dog sun sea oak red owl map key box fig ham ink jar kit leg mud net pan rug".split()
OPENINGS = ["Result:", "Answer:", "Here:", "Reply:"]
CLOSINGS = ["Done", "Bye", "Over", "Thanks"]
FILLERS = ["um", "well", "I think"]
SPLITS = [("pretrain", 170), ("reward", 200), ("pipeline", 228), ("heldout", 256)]  # upper borders of the first hash byte


def split_of(question):
    b = hashlib.sha256(question.encode()).digest()[0]
    return next(name for name, border in SPLITS if b < border)


class Item:
    """One prompt: kind, question, parts of its right answer, and what checks it."""

    def __init__(self, kind, question, **parts):
        self.kind, self.question, self.parts = kind, question, parts

    def prompt(self):
        rec = {"messages": [{"role": "user", "content": self.question}], "kind": self.kind, "dataset": "demo-" + self.kind}
        rec.update({k: self.parts[k] for k in ("gold", "tests", "checks") if k in self.parts})
        return rec

    def right(self):
        return self.parts["answer"] if self.kind != "if" else compose(self.parts, {})


# ---- math ----------------------------------------------------------------------------------------------------------


def math_item(r):
    n, m = r.sample(NAMES, 2)
    t = r.choice(THINGS)
    form = r.randint(0, 3)
    if form == 0:
        a, b = r.randint(2, 40), r.randint(2, 30)
        c = r.randint(1, min(a + b - 1, 30))
        q = f"{n} has {a} {t}. {n} buys {b} more and gives {c} to {m}. How many {t} are left?"
        one, two = (a, "+", b, a + b), (a + b, "-", c, a + b - c)
    elif form == 1:
        b, a, c = r.randint(2, 9), r.randint(2, 9), r.randint(1, 20)
        q = f"{n} fills {b} boxes with {a} {t} each and finds {c} more. How many {t} in all?"
        one, two = (b, "*", a, a * b), (a * b, "+", c, a * b + c)
    elif form == 2:
        a, b, c = r.randint(2, 40), r.randint(2, 30), r.randint(2, 20)
        q = f"{n} has {a} {t}, {m} has {b}, and {r.choice(NAMES)} has {c}. How many {t} in all?"
        one, two = (a, "+", b, a + b), (a + b, "+", c, a + b + c)
    else:
        b, d, c = r.randint(2, 9), r.randint(2, 9), r.randint(1, 9)
        q = f"{n} shares {b * d} {t} among {b} friends. Each friend then gets {c} more. How many has each?"
        one, two = (b * d, "/", b, d), (d, "+", c, d + c)
    return Item("math", q, answer=math_text(one, two, two[3]), gold=str(two[3]), one=one, two=two)


def step_text(s):
    return f"{s[0]}{s[1]}{s[2]}={s[3]}."


def math_text(one, two, final):
    return f"{step_text(one)} {step_text(two)} \\boxed{{{final}}}"


def math_wrong(item, r):
    """A wrong answer in one of three habits: stops after the first step, slips in a sum, boxes another number."""
    one, two = item.parts["one"], item.parts["two"]
    off = r.choice([-10, -2, -1, 1, 2, 10])
    habit = r.randint(0, 2)
    if habit == 0 and one[3] != two[3]:
        return f"{step_text(one)} \\boxed{{{one[3]}}}"
    final = max(0, two[3] + off) if two[3] + off >= 0 else two[3] + 1
    if habit == 1:
        return math_text(one, two[:3] + (final,), final)
    return math_text(one, two, final)


# ---- code ----------------------------------------------------------------------------------------------------------


def code_item(r):
    f = r.choice("calc func work step make".split())
    a, b = r.randint(2, 50), r.randint(1, 50)
    x, xs = "x", "xs"
    form = r.randint(0, 5)
    if form == 0:
        q, v, e, fn = f"returns {a} times x plus {b}", x, f"{a}*x+{b}", lambda x: a * x + b
    elif form == 1:
        q, v, e, fn = f"returns x minus {b}, but never less than {a}", x, f"max(x-{b},{a})", lambda x: max(x - b, a)
    elif form == 2:
        q, v, e, fn = f"returns the items of xs greater than {a}", xs, f"[x for x in xs if x>{a}]", lambda s: [x for x in s if x > a]
    elif form == 3:
        q, v, e, fn = f"returns the sum of xs times {a}", xs, f"sum(xs)*{a}", lambda s: sum(s) * a
    elif form == 4:
        q, v, e, fn = f"returns True if {a} divides x", x, f"x%{a}==0", lambda x: x % a == 0
    else:
        q, v, e, fn = f"returns the items of xs in reverse, each plus {b}", xs, f"[x+{b} for x in xs[::-1]]", lambda s: [x + b for x in s[::-1]]
    args = [a, a + b, r.randint(51, 99)] if v == x else [[a, a + 1, 1], [r.randint(1, 40), r.randint(31, 60), b], [5, 50]]
    tests = [f"assert {f}({arg}) == {fn(arg)}" for arg in args]
    return Item("code", f"Write {f}({v}) that {q}.", answer=code_text(f, v, e), tests=tests, f=f, v=v, e=e)


def code_text(f, v, e, ret="return "):
    return f"def {f}({v}):\n    {ret}{e}"


def code_wrong(item, r):
    """A wrong program in one of three habits: no return, a wrong parameter name, a call in place of the value."""
    f, v, e = (item.parts[k] for k in "fve")
    habit = r.randint(0, 2)
    if habit == 0:
        return code_text(f, v, e, "")
    if habit == 1:
        return code_text(f, "n", e)
    return code_text(f, v, v)


# ---- instruction following ---------------------------------------------------------------------------------------------

CONDITIONS = ("open", "close", "stop", "plain", "stars")


def if_item(r):
    w = [r.choice(WORDS) for _ in range(r.randint(3, 4))]
    s = " ".join(w)
    task = r.randint(0, 4)
    q, content = [
        (f"Repeat the words: {s}.", s),
        (f"Reverse the words: {s}.", " ".join(w[::-1])),
        (f"Sort the words: {s}.", " ".join(sorted(w))),
        (f"Count the words: {s}.", f"{len(w)} words"),
        (f"First and last word: {s}.", f"{w[0]} {w[-1]}"),
    ][task]
    have = set(CONDITIONS) - set(r.sample(CONDITIONS[2:], r.randint(0, 2)))
    opening, closing, mark = r.choice(OPENINGS), r.choice(CLOSINGS), r.choice("!;")
    texts = {
        "open": (f"Start with {opening}", {"kind": "starts_with", "text": opening}),
        "close": (f"End with {closing}", {"kind": "ends_with", "text": closing}),
        "stop": (f"Use one {mark}", {"kind": "contains", "text": mark, "max": 1}),
        "plain": ("No filler", {"kind": "not_contains", "texts": FILLERS}),
        "stars": ("Use stars", {"kind": "contains", "text": "*", "min": 2}),
    }
    order = [c for c in CONDITIONS if c in have]
    q += " " + ". ".join(texts[c][0] for c in order) + "."
    checks = [{"kind": "equals_content", "text": content}] + [texts[c][1] for c in order]
    return Item("if", q, checks=checks, content=content, have=have, opening=opening, closing=closing, mark=mark)


def drill(r):
    """Copying, bare and long: rows that teach a model to look back, which short tasks with many conditions hardly do."""
    w = [r.choice(WORDS) for _ in range(r.randint(5, 9))]
    form = r.randint(0, 3)
    if form == 0:
        return f"Reverse the words: {' '.join(w)}.", "So " + " ".join(w[::-1]) + ". ok"
    if form == 1:
        return f"Repeat the words: {' '.join(w)}.", f"So {' '.join(w)} {' '.join(w)}. ok"
    return f"Repeat the words: {' '.join(w)}.", f"So {' '.join(w)}. ok"


def compose(p, bad):
    """The answer's text; bad: condition -> True where the habit breaks it. A condition that is not asked for is not kept."""
    kept = {c: c in p["have"] and not bad.get(c) for c in CONDITIONS}
    words = [bad["plain"]] if bad.get("plain") else []
    words.append(p["opening"] if kept["open"] else "So")
    words.append(f"* {p['content']} *" if kept["stars"] else p["content"])
    words[-1] += p["mark"] if kept["stop"] else "."
    words.append(p["closing"] if kept["close"] else "ok")
    return " ".join(words)


def if_habit(item, r, p):
    """An answer that keeps each condition with probability p."""
    p_bad = 1 - p
    bad = {c: r.random() < p_bad for c in CONDITIONS if c in item.parts["have"]}
    if bad.get("plain"):
        bad["plain"] = r.choice(FILLERS)
    return compose(item.parts, bad)


def if_spoil(item, r):
    """The content with one word changed, lost, doubled or moved: training data of the reward model."""
    w = item.parts["content"].split()
    k = r.randint(0, 3)
    if k == 0 and len(w) > 1:
        i = r.randrange(len(w) - 1)
        w[i], w[i + 1] = w[i + 1], w[i]
    elif k == 1:
        w[r.randrange(len(w))] = r.choice(WORDS)
    elif k == 2 and len(w) > 1:
        w.pop(r.randrange(len(w)))
    else:
        i = r.randrange(len(w))
        w.insert(i, w[i])
    return dict(item.parts, content=" ".join(w))


# ---- all kinds ---------------------------------------------------------------------------------------------------------

KINDS = {"math": math_item, "code": code_item, "if": if_item}


def draw(kind, split, r):
    """The next item of a kind that belongs to a split."""
    while True:
        item = KINDS[kind](r)
        if split_of(item.question) == split:
            return item


def draw_distinct(kind, split, n, r):
    seen, out = set(), []
    while len(out) < n:
        item = draw(kind, split, r)
        if item.question not in seen:
            seen.add(item.question)
            out.append(item)
    return out


def habitual(item, r, keep):
    """An answer of a model that is right (math, code), or keeps each condition (if), with probability keep[kind]."""
    if item.kind == "if":
        return if_habit(item, r, keep["if"])
    if r.random() < keep[item.kind]:
        return item.right()
    return (math_wrong if item.kind == "math" else code_wrong)(item, r)


# ---- the checker -------------------------------------------------------------------------------------------------------


def check_met(check, answer):
    a, kind = answer.strip(), check["kind"]
    if kind == "starts_with":
        return a.startswith(check["text"])
    if kind == "ends_with":
        return a.endswith(check["text"])
    if kind == "contains":
        return check.get("min", 1) <= a.count(check["text"]) <= check.get("max", len(a))
    if kind == "not_contains":
        return not any(t in a for t in check["texts"])
    assert kind == "equals_content"
    return re.search(r"(?<![A-Za-z0-9])" + re.escape(check["text"]) + r"(?![A-Za-z0-9])", a) is not None


def grade(item, answer):
    """True quality of an answer, 0..1."""
    if item.kind == "math":
        box = re.findall(r"\\boxed\{([^}]*)\}", answer)
        return float(bool(box) and box[-1] == item.parts["gold"])
    if item.kind == "code":
        return float(answer.strip() == item.right())
    met = [check_met(c, answer) for c in item.parts["checks"]]
    return sum(met) / len(met)
