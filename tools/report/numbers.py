#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""numbers.py RUNDIR: computes the numbers of RUNDIR/report.html anew from the run's JSONL and compares; says what differs.

Counts of the histograms, whose answers were taken, what was left out and why, what went in and came out, the results. Also: the page
is well formed, refers to nothing outside, has every section. Exit 0: all is equal."""
import collections, glob, html.parser, json, math, os, re, sys

run = sys.argv[1]
SECTIONS = "results flow dropped samples wins training lives answers time records".split()
VOID = {"meta", "br", "line", "circle", "polyline", "rect", "tr", "th", "td"}


def records(name):
    for path in sorted(glob.glob(f"{run}/{name}/data-*.jsonl")):
        for line in list(open(path, encoding="utf-8"))[1:]:
            yield json.loads(line)


def shown(text):
    """As the page shows names: characters that nobody sees by their number."""
    hidden = "\u200b\u200e\u200f\u061c\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"
    return "".join(f"[U+{ord(c):04X}]" if c in hidden or (c < " " and c not in "\t\n") or "\x7f" <= c < "\xa0" else c for c in text)


def lines(name):
    path = f"{run}/{name}"
    return [json.loads(x) for x in open(path, encoding="utf-8")] if os.path.exists(path) else []


class Page(html.parser.HTMLParser):
    """tables: {nearest id: [rows of cells]}; a table inside of details or a section is found under that id."""
    def __init__(self):
        super().__init__()
        self.stack, self.tables, self.ids, self.row, self.cell, self.text = [], collections.defaultdict(list), [], None, None, []

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        assert not any(k in ("src", "srcset", "data", "poster", "style") or k.startswith("on") for k in a), (tag, attrs)
        assert not any("http:" in (v or "") or "https:" in (v or "") for v in a.values()), (tag, attrs)
        assert tag not in ("script", "link", "img", "iframe", "object", "embed", "base", "form", "image", "use"), tag
        assert tag != "a" or a["href"].startswith("#"), attrs
        if "id" in a:
            self.ids.append(a["id"])
        if tag == "tr":
            self.row = []
            near = [i for t, i in self.stack if i]
            self.tables[near[-1]].append(self.row)
        if tag in ("td", "th"):
            self.row.append("")
            self.cell = True
        if tag not in VOID:
            self.stack.append((tag, a.get("id")))

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = False
        if tag in VOID:
            return
        assert self.stack and self.stack.pop()[0] == tag, (tag, self.getpos())
        if tag == "table":
            self.cell = False

    def handle_data(self, data):
        if self.cell and self.row:
            self.row[-1] += data
        self.text.append(data)


def number(text):
    return float(text.replace("\u00a0", "").replace("\u2212", "-"))


source = open(f"{run}/report.html", encoding="utf-8").read()
for style in re.findall(r"<style>(.*?)</style>", source, flags=re.S):
    assert not re.search(r"http|@import|url\(|@font-face|//", style)
assert len(source.encode()) < 3e6, len(source)
page = Page()
page.feed(source)
page.close()
assert not page.stack, page.stack
assert len(page.ids) == len(set(page.ids)), "an id twice"
for section in SECTIONS:
    assert section in page.ids, section
assert "Content-Security-Policy" in source and "default-src 'none'" in source

samples = {r["id"]: r["data"] for r in records("samples")}
prompts = {r["id"]: r["data"] for r in records("prompts")}
scores = {r["data"]["sample"]: r["data"] for r in records("scores")}
verdicts = [r["data"] for r in records("verdicts")]


def check_histogram(name, values):
    """values: [(source, number)]. Every bin of the page's table holds as many as fall into it, and none is left over."""
    rows = page.tables["counts-" + name]
    if not values:
        assert not rows, name
        return
    sources, left = rows[0][2:], list(values)
    step = number(rows[1][1]) - number(rows[1][0])
    for row in rows[1:]:
        low, high = number(row[0]) - 1e-7 * step, number(row[1]) - 1e-7 * step
        inside = [v for v in left if low <= v[1] < high]
        counts = collections.Counter(shown(s) for s, _ in inside)
        assert [counts[s] for s in sources] == [int(number(c)) for c in row[2:]], (name, row, counts)
        left = [v for v in left if not low <= v[1] < high]
    assert not left, (name, left[:5])


tokens = all(isinstance(s["ids"], list) for s in samples.values())
check_histogram("scores", [(samples[i]["source"], s["score"]) for i, s in scores.items() if s.get("score") is not None])
check_histogram("lengths", [(s["source"], len(s["ids"] if tokens else s["text"])) for s in samples.values()])

rows, pairs = collections.Counter(), collections.Counter()
for name, into in (("sft_rows", rows), ("pairs", pairs)):
    for r in records(name):
        into[shown(prompts[r["data"]["prompt"]].get("dataset") or "(no name)"), shown(r["data"]["source"])] += 1
said = {(d, s): (int(number(a)), int(number(b))) for d, s, a, b in page.tables["counts-wins"][1:]}
if rows or pairs:
    assert {k: v for k, v in said.items() if any(v)} == {k: (rows[k], pairs[k]) for k in rows | pairs}, (said, rows, pairs)

drops = collections.Counter()


def drop(stage, what, of, reason):
    drops[stage, what, shown(of), shown(re.sub(r"^\d+", "N", reason))] += 1


for name, stage in (("dropped_prompts", "select"), ("dropped_samples", "sample"), ("dropped", "pair")):
    for r in records(name):
        d = r["data"]
        drop(stage, d["what"], d.get("dataset") or d.get("source") or "", d["reason"])
for name, what in (("sft", "row"), ("dpo", "pair"), ("eval", "held-out prompt")):
    for d in lines(name + "/dropped.jsonl"):
        drop(name, d.get("what", what), d.get("set", ""), d["reason"])
for s in scores.values():
    if "unscored" in s:
        drop("score", "sample without a score", "", s["unscored"])
for v in verdicts:
    if v["outcome"] == "undecided":
        drop("verify", "sample, undecided", v.get("kind", ""), v["reason"])
said = {(r[0], r[1], r[2], r[4]): int(number(r[3])) for r in page.tables["dropped"][1:]}
assert said == dict(drops), set(said.items()) ^ set(drops.items())
stages = {r[0]: int(number(r[3])) for r in page.tables["flow"][1:]}
for stage, n in stages.items():
    assert n == sum(v for k, v in drops.items() if k[0] == stage), (stage, n)
flow = {r[0]: r[2].replace("\u00a0", "") for r in page.tables["flow"][1:]}
if samples:
    cut = sum(s.get("finish") == "length" for s in samples.values())
    assert flow["sample"] == f"{len(samples)} samples, {cut} of them cut by length", flow
if verdicts:
    n = collections.Counter(v["outcome"] for v in verdicts)
    assert flow["verify"] == f"{n['right']} right, {n['wrong']} wrong", flow

if os.path.exists(f"{run}/eval/summary.json"):
    text = "".join(page.text)
    for r in json.load(open(f"{run}/eval/summary.json"))["rows"]:
        interval = "%.1f [%.1f, %.1f]" % tuple(100 * r[k] for k in ("mean", "lo", "hi"))
        assert text.count(interval) >= 2, interval  # in the drawing and in the table
        if r.get("tokens_mean") is not None:
            assert "%.1f" % r["tokens_mean"] in text, r

best = collections.defaultdict(list)
for i, s in scores.items():
    if s.get("score") is not None:
        best[s["prompt"]].append((s["score"], i))
able = sorted(p for p, v in best.items() if min(v)[0] < max(v)[0])
on_page = re.findall(r'<article id="prompt-\d+">.*?<code>([0-9a-f]{32})</code></h3>', source)
by_set = collections.defaultdict(list)
for p in able:
    by_set[prompts[p].get("dataset") or "(no name)"].append(p)
assert len(on_page) == min(5, len(able)), (on_page, len(able))
for d, ids in by_set.items():  # the first ids of every data set
    mine = [p for p in on_page if p in ids]
    assert mine == ids[:len(mine)], (d, mine)
for part in re.findall(r'<article id="prompt-\d+">.*?</article>', source, flags=re.S):
    prompt, high, low = re.findall(r"<code>([0-9a-f]{32})</code>", part)[:3]
    assert scores[high]["score"] == max(best[prompt])[0] and scores[low]["score"] == min(best[prompt])[0], prompt
    assert part.count("<summary>Its life</summary>") == 2 and "  source: " in part
for p in re.findall(r'points="([^"]*)"', source):
    assert p.strip() and all(math.isfinite(float(x)) for x in re.split("[ ,]", p.strip())), p[:80]
