#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make bench-cpu: imf and its peers side by side on this machine, in turns in one run.

usage: bench_cpu.py [options]          (Python's standard library alone; from the repository's root)
  --imf build/imf                      the program
  --bench-ops build/tests/bench/bench_ops   its gemm timings (row peak)
  --models build/models                tools/fetch_models.sh makes it
  --data DIR                           alpaca_en_demo.json and dpo_en_demo.json, in the shapes of LLaMA-Factory's demo data
  --peers DIR                          made by tools/bench/peers.sh DIR; without it our rows alone are printed
  --rows sft,dpo,sample,one,score,peak,memory,exact    only these
  --which smollm2,qwen-coder           only these models
  --dtypes float32,bfloat16            only these number formats
  --layouts 2x1,1x2                    ranks x threads of imf; the better median stands in the table
  --repeat 3                           runs of everything (qwen-coder: one less, at least one)
  --quick                              smallest sizes, one run: shows that each row works, its numbers mean nothing
  --only imf|peers                     one side
  --work build/bench                   converted models and data are kept there
  --out FILE                           the report goes there too

How each number is counted: docs/performance.md. Progress goes to stderr, one line a measurement; the report to stdout.
"""
import argparse
import datetime
import json
import os
import re
import statistics
import subprocess
import sys

import data
import ours

HERE = os.path.dirname(os.path.abspath(__file__))
ROWS = ("sft", "dpo", "sample", "one", "score", "peak", "memory", "exact")
# Sizes of a model's rows. new: output tokens a sample; long: rows of `length` tokens to score.
SIZES = {
    "smollm2": {"width": 1024, "sft_rows": 2, "steps": 4, "pairs": 12, "prompts": 16, "n": 8, "new": 128, "prompt": 142,
                "long": 10, "length": 2048, "rows": ROWS},
    "qwen-coder": {"width": 512, "sft_rows": 2, "steps": 2, "pairs": 0, "prompts": 16, "n": 8, "new": 32, "prompt": 142,
                   "long": 4, "length": 2048, "rows": ("sft", "sample", "one", "score", "peak")},
}
QUICK = {"width": 256, "steps": 1, "pairs": 4, "prompts": 2, "n": 2, "new": 16, "length": 512, "long": 2}
# Bars of the table: row -> (factor with AMX bf16, factor in fp32 without); None: no bar.
BARS = {"sft": (3.0, 1.3), "dpo, reference inside": (8.0, 2.5), "sample": (8.0, 2.0), "one": (1.0, 1.0), "score": (5.0, 1.0),
        "peak": (0.5, 0.75), "ranks": (1.9, 1.9), "memory": (0.5, 0.5), "exact, sft": (0.95, 0.95), "exact, dpo": (0.95, 0.95)}
TITLES = {"sft": "SFT, rows of {width} tokens", "dpo, reference inside": "DPO, 4 pairs a step, reference pass counted",
          "dpo, reference before": "DPO, 4 pairs a step, reference pass not counted",
          "sample": "sampling, {prompts} prompts x {n} x {new} new tokens", "one": "one sequence alone, decode",
          "score": "prefill and scoring, rows of {length} tokens", "peak": "share of the measured gemm peak in the SFT step",
          "ranks": "2 ranks against 1 rank, DPO step", "memory": "resident memory, DPO on 2 ranks",
          "exact, sft": "SFT against exact: false, 8 gradient chains", "exact, dpo": "DPO against exact: false, 8 gradient chains"}
BYTES_A_WEIGHT = 16  # training: fp32 weight, gradient and two moments


def say(text):
    print(text, file=sys.stderr, flush=True)


def arguments():
    p = argparse.ArgumentParser(usage=__doc__, add_help=False)
    for name, value in (("imf", "build/imf"), ("bench-ops", "build/tests/bench/bench_ops"), ("models", "build/models"),
                        ("data", ""), ("peers", ""), ("rows", ",".join(ROWS)), ("which", "smollm2,qwen-coder"),
                        ("dtypes", "float32,bfloat16"), ("layouts", "2x1,1x2"), ("only", ""), ("work", "build/bench"),
                        ("out", "")):
        p.add_argument("--" + name, default=value)
    p.add_argument("--repeat", type=int, default=3)
    p.add_argument("--quick", action="store_true")
    p.add_argument("--help", action="help")
    a = p.parse_args()
    a.imf, a.work = os.path.abspath(a.imf), os.path.abspath(a.work)
    a.rows, a.which, a.dtypes = a.rows.split(","), a.which.split(","), a.dtypes.split(",")
    a.layouts = [tuple(map(int, t.split("x"))) for t in a.layouts.split(",")]
    if not a.data:
        raise SystemExit("--data DIR is missing: alpaca_en_demo.json and dpo_en_demo.json (make bench-cpu DATA=DIR)")
    return a


class Bench:
    """One model's rows: what there is to run, and what came of it."""

    def __init__(self, a, name):
        self.a, self.name = a, name
        self.model = os.path.join(os.path.abspath(a.models), name)
        self.size = dict(SIZES[name], **(QUICK if a.quick else {}))
        self.rows = [r for r in self.size["rows"] if r in a.rows]
        self.work = os.path.join(a.work, name + ("-quick" if a.quick else ""))
        self.peers = "" if a.only == "imf" else a.peers
        self.results, self.notes, self.flops, self.gone = {}, [], {}, set()
        os.makedirs(self.work, exist_ok=True)

    # --- data, made once -----------------------------------------

    def prepare(self):
        a, s, out = self.a, self.size, os.path.join(self.work, "data")
        chat, alpaca = os.path.join(a.data, "dpo_en_demo.json"), os.path.join(a.data, "alpaca_en_demo.json")
        if {"sft", "peak"} & set(self.rows):
            self.step = data.sft_step(a.imf, self.model, alpaca, s["sft_rows"], s["width"], out)
            self.step["path"] = out + ".rows.json"
            self.flops = {"step": data.sft_flops(self.model, self.step), "tokens": self.step["tokens"]}
        if {"dpo", "memory"} & set(self.rows):
            self.prepare_pairs(chat, out)
        if {"sample", "one"} & set(self.rows):
            ids = data.sample_prompts(a.imf, self.model, chat, s["prompts"], s["prompt"], out)
            few = open(out + ".prompts.jsonl").read().splitlines(True)[:4]
            self.prompts = {"prompts": ids, "temperature": 0.8, "top_p": 1.0, "path": out + ".prompts.jsonl",
                            "few": data.write(out + ".few.jsonl", "".join(few)),
                            "short": data.write(out + ".short.jsonl", data.lines([{"prompt": "Hi."}]))}
            data.write(out + ".prompts.json", self.prompts)
        if "exact" in self.rows:
            self.prepare_exact(alpaca, chat, out + ".exact")
        if "score" in self.rows:
            self.prepare_long(alpaca, chat, out)

    def prepare_pairs(self, chat, out):
        pairs = data.dpo_pairs(self.a.imf, self.model, chat, self.size["pairs"], 512, out)
        self.pairs = {"path": out + ".pairs.json", "pairs": pairs, "batch": 4, "max_length": 512,
                      "tokens": sum(map(data.pair_tokens, pairs))}
        refs = ours.dpo_references(self.a.imf, self.model, self.work, self.pairs)
        self.pairs["pairs"] = data.in_training_order(pairs, refs, ours.SEED)
        data.write(out + ".order.json", self.pairs)

    def prepare_exact(self, alpaca, chat, out):
        """Steps of four times as much as the rows sft and dpo have: a few examples a chain."""
        s = self.size
        rows = data.sft_step(self.a.imf, self.model, alpaca, 4 * s["sft_rows"], s["width"], out)
        pairs = data.dpo_pairs(self.a.imf, self.model, chat, s["pairs"], 512, out)
        self.exact = [("sft", dict(rows, path=out + ".rows.json", longest=s["width"])),
                      ("dpo", {"path": out + ".pairs.json", "examples": len(pairs), "longest": 512,
                               "tokens": sum(map(data.pair_tokens, pairs))})]

    def prepare_long(self, alpaca, chat, out):
        few = 2  # one a rank
        sizes = data.long_rows(self.a.imf, self.model, alpaca, self.size["long"] + few, self.size["length"], out)
        rows = open(out + ".long.jsonl").read().splitlines(True)
        self.long = {"path": out + ".long.jsonl", "sizes": sizes, "length": self.size["length"], "few_rows": few,
                     "few": data.write(out + ".longfew.jsonl", "".join(rows[:few])),
                     "reward": ours.reward_model(self.a.imf, self.model, self.work, chat)}

    # --- contenders: (label, function), each function gives one result, a list of them, or None ------------

    def contenders(self, row, dtype):
        own = [] if self.a.only == "peers" else self.our_runs(row, dtype)
        return own + (self.peer_runs(row, dtype) if self.peers else [])

    def our_runs(self, row, dtype):
        a, s, model, work = self.a, self.size, self.model, self.work

        def each(function, layouts=a.layouts):
            return [(f"imf {r} x {t}", lambda layout=(r, t): function(layout)) for r, t in layouts]

        if row == "sft":
            if not self.fits("imf"):
                return []
            return each(lambda l: ours.sft(a.imf, model, work, l, dtype, self.step, s["width"], s["sft_rows"], s["steps"]))
        if row == "dpo":
            return each(lambda l: ours.dpo(a.imf, model, work, l, dtype, self.pairs), list(dict.fromkeys(a.layouts + [(1, 1)])))
        if row == "sample":
            return each(lambda l: ours.sample(a.imf, model, work, l, dtype, self.prompts, s["n"], s["new"]))
        if row == "one":
            return each(lambda l: ours.one(a.imf, model, work, l, dtype, self.prompts, s["new"]), [(1, 2)])
        if row == "score":
            return each(lambda l: ours.score(a.imf, work, l, dtype, self.long))
        if row == "exact":
            return [(f"imf 2 x 1, {stage}, exact: {exact}", lambda stage=stage, job=job, exact=exact: ours.exactness(
                a.imf, model, work, (2, 1), dtype, stage, job, exact, max(1, s["steps"] // 2))) for stage, job in self.exact
                for exact in (True, False)]
        if row == "memory":
            return each(lambda l: ours.dpo_memory(a.imf, model, work, l, dtype, self.pairs), [(2, 1)])
        return []

    def peer_runs(self, row, dtype):
        s, out = self.size, os.path.join(self.work, "data")
        if row == "sft":
            return [("torch", lambda: self.peer("peer_sft.py", self.model, out + ".step.json", dtype, 2, s["steps"]))] \
                if self.fits("torch") else []
        if row == "dpo":
            pairs = out + ".order.json"
            return [(f"TRL, {' '.join(how)}", lambda how=how: self.peer("peer_dpo.py", self.model, pairs, dtype, 2, *how))
                    for how in (("inside", "kept"), ("inside", "recomputed"), ("before", "kept"))]
        if row == "sample":
            return [("transformers", lambda: self.peer("peer_generate.py", self.model, out + ".prompts.json", dtype, 2, s["n"],
                                                       s["new"])),
                    ("llama.cpp", lambda: self.llama(dtype, "sample", self.prompt_length(), s["new"], s["prompts"], s["n"]))]
        if row == "one":
            return [("llama.cpp", lambda: self.llama(dtype, "one", self.prompt_length(), s["new"]))]
        if row == "score":
            return [("llama.cpp", lambda: self.llama(dtype, "score", s["length"], s["long"]))]
        return []

    def fits(self, who):
        """Can fp32 training state of the whole model be held?"""
        need = BYTES_A_WEIGHT * data.config(self.model)["parameters"]
        have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if need < 0.92 * have:
            return True
        note = (f"SFT is not measured: weights, gradients and moments in fp32 take {need / 1e9:.1f} GB, this machine has "
                f"{have / 1e9:.1f} GB")
        if note not in self.notes:
            self.notes.append(note)
            say(f"{self.name}: {note}")
        return False

    def prompt_length(self):
        return round(statistics.mean(map(len, self.prompts["prompts"])))

    def peer(self, script, *options):
        python = os.path.join(os.path.abspath(self.peers), "venv/bin/python")
        return self.json_of([python, os.path.join(HERE, script), *map(str, options)])

    def llama(self, dtype, what, *options):
        peers = os.path.abspath(self.peers)
        gguf = os.path.join(self.a.work, f"{self.name}-{dtype}.gguf")
        if not os.path.exists(gguf):
            kind = "bf16" if dtype == "bfloat16" else "f32"
            convert = [f"{peers}/venv/bin/python", f"{peers}/llama/source/convert_hf_to_gguf.py", self.model, "--outtype", kind,
                       "--outfile", gguf + ".part"]
            subprocess.run(convert, check=True, capture_output=True)
            os.rename(gguf + ".part", gguf)
        return self.json_of([sys.executable, os.path.join(HERE, "peer_llama.py"), f"{peers}/llama/build/bin", gguf, dtype, "2",
                             what, *map(str, options)])

    def json_of(self, argv):
        env = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
        run = subprocess.run(argv, text=True, capture_output=True, env=env)
        lines = [line for line in run.stdout.splitlines() if line.startswith("{")]
        if run.returncode or not lines:
            note = f"{os.path.basename(argv[1])} {argv[-1]}: exit {run.returncode}"
            say(f"{note}\n{run.stderr[-2000:]}")
            self.notes.append(note)
            return None
        return json.loads(lines[-1])

    # --- running -----------------------------------------

    def turn(self):
        for row in self.rows:
            if row == "peak":
                for dtype, gflops in ours.gemm_peak(self.a.bench_ops, 2).items():
                    self.add({"what": "gemm", "peer": "imf", "dtype": dtype, "threads": 2, "value": gflops, "unit": "GFLOP/s"})
                continue
            for dtype in self.a.dtypes:
                for label, function in self.contenders(row, dtype):
                    self.try_one(row, dtype, label, function)

    def try_one(self, row, dtype, label, function):
        if (row, dtype, label) in self.gone:
            return
        try:
            got = function()
        except ours.NotSupported:
            got = None
            self.notes.append(f"{row}, {dtype}, {label}: not supported by this build")
        except ours.Failed as e:
            got = None
            self.notes.append(f"{row}, {dtype}, {label}: failed")
            say(str(e))
        except ours.TooShort as e:
            say(f"{self.name} {row} {dtype} {label}: {e}")
            return
        if got is None:
            self.gone.add((row, dtype, label))
            say(f"{self.name} {row} {dtype} {label}: not supported, or failed")
        for r in got if isinstance(got, list) else [got] if got else []:
            self.add(r)

    def add(self, r):
        self.results.setdefault((r["what"], r["dtype"], r["peer"]), []).append(r)
        say(json.dumps(dict({"model": self.name}, **r)))

    # --- what came of it -----------------------------------------

    def values(self, what, dtype, peer):
        return sorted(r["value"] for r in self.results.get((what, dtype, peer), []))

    def best(self, what, dtype, own, layouts=None):
        """(program, its values) with the best median among ours or the peers'."""
        names = [p for w, d, p in self.results if (w, d) == (what, dtype) and p.startswith("imf") == own]
        names = [p for p in names if not layouts or p in layouts]
        return max(((p, self.values(what, dtype, p)) for p in names), key=lambda x: statistics.median(x[1]), default=(None, []))

    def derived(self, dtype):
        """Rows that are ratios of ours: [(what, ours, the other, ratio)]."""
        rows = []
        _, sft = self.best("sft", dtype, True)
        peak = self.values("gemm", dtype, "imf")
        if sft and peak and self.flops:
            used = [v / self.flops["tokens"] * self.flops["step"] / 1e9 for v in sft]
            share = statistics.median(used) / statistics.median(peak)
            rows.append(("peak", ("imf, GFLOP/s", used), ("gemm, GFLOP/s", peak), share))
        two, single = (self.values("dpo, reference before", dtype, f"imf {n} x 1") for n in (2, 1))
        if two and single:
            ratio = statistics.median(two) / statistics.median(single)
            rows.append(("ranks", ("imf 2 x 1", two), ("imf 1 x 1", single), ratio))
        for what in ("exact, sft", "exact, dpo"):
            exact, fast = (self.values(what, dtype, f"imf 2 x 1, exact: {v}") for v in ("true", "false"))
            if exact and fast:
                ratio = statistics.median(exact) / statistics.median(fast)
                rows.append((what, ("imf 2 x 1, tokens/s", exact), ("exact: false", fast), ratio))
        memory = self.values("memory", dtype, "imf 2 x 1")
        trl = self.trl_memory(dtype)
        if memory:
            rows.append(("memory", ("imf 2 x 1, MB", memory), ("TRL, MB" if trl else None, trl),
                         statistics.median(memory) / statistics.median(trl) if trl else None))
        return rows

    def trl_memory(self, dtype):
        """Of the thriftier of TRL's configurations that hold both models."""
        peaks = [sorted(r["rss_mb"] for r in rs) for (w, d, p), rs in self.results.items()
                 if w == "dpo, reference inside" and d == dtype and p.startswith("TRL")]
        return min(peaks, key=statistics.median, default=[])

    def table(self, amx):
        out = ["| what | format | imf | min / median / max | against | min / median / max | ratio | bar |", "|" + "---|" * 8]
        for dtype in self.a.dtypes:
            for what in ("sft", "dpo, reference inside", "dpo, reference before", "sample", "one", "score"):
                mine, other = self.best(what, dtype, True, self.two_cores()), self.best(what, dtype, False)
                if mine[1] or other[1]:
                    ratio = statistics.median(mine[1]) / statistics.median(other[1]) if mine[1] and other[1] else None
                    out.append(self.line(what, dtype, mine, other, ratio, amx))
            out += [self.line(what, dtype, mine, other, ratio, amx) for what, mine, other, ratio in self.derived(dtype)]
        return out

    def two_cores(self):
        return [p for p in {p for _, _, p in self.results if " x " in p} if cores_of(p) == 2]

    def line(self, what, dtype, mine, other, ratio, amx):
        cells = [TITLES[what].format(**self.size), dtype, mine[0] or "-", spread(mine[1]), other[0] or "-",
                 spread(other[1]), f"{ratio:.2f}" if ratio else "-", bar(what, dtype, amx)]
        return "| " + " | ".join(cells) + " |"

    def details(self):
        out = ["| what | format | program | threads | runs | min | median | max | unit | tokens | seconds | resident MB |",
               "|" + "---|" * 12]
        for (what, dtype, peer), rs in sorted(self.results.items()):
            v, last = self.values(what, dtype, peer), rs[-1]
            rss = max((r.get("rss_mb") or 0) for r in rs)
            cells = [what, dtype, peer, last["threads"], len(v), number(v[0]), number(statistics.median(v)), number(v[-1]),
                     last["unit"], last.get("tokens", "-"), number(last["seconds"]) if "seconds" in last else "-",
                     f"{rss:.0f}" if rss else "-"]
            out.append("| " + " | ".join(map(str, cells)) + " |")
        return out


def number(v):
    return f"{v:.3f}" if v < 10 else f"{v:.1f}" if v < 1000 else f"{v:.0f}"


def cores_of(peer):
    ranks, threads = re.search(r"(\d+) x (\d+)", peer).groups()
    return int(ranks) * int(threads)


def spread(values):
    return " / ".join(map(number, (values[0], statistics.median(values), values[-1]))) if values else "-"


def bar(what, dtype, amx):
    if what not in BARS:
        return "shown"
    with_amx, without = BARS[what]
    sign = "<=" if what == "memory" else ">="
    if dtype == "float32":
        return f"{sign} {without:g}"
    return f"{sign} {with_amx:g}" if amx else f"{sign} {with_amx:g} with AMX: not measured"


# --- the machine -----------------------------------------


def output(*argv):
    try:
        return subprocess.run(argv, text=True, capture_output=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def cpu():
    info = open("/proc/cpuinfo").read()
    flags = set(re.search(r"^flags\s*:(.*)$", info, re.M).group(1).split())
    model = re.search(r"^model name\s*:\s*(.*)$", info, re.M).group(1)
    wanted = ["avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8"]
    return model, [f for f in wanted if f in flags], "amx_bf16" in flags


def versions(a):
    out = [line for line in output(a.imf, "--version").splitlines()]
    if a.peers and a.only != "imf":
        python = os.path.join(a.peers, "venv/bin/python")
        out.append(output(python, "-c", "import importlib.metadata as m; print(', '.join(f'{p} {m.version(p)}' for p in "
                                        "('torch', 'transformers', 'trl', 'tokenizers', 'accelerate')))"))
        out.append("llama.cpp " + (llama_version(a) or "unknown"))
    return out


def llama_version(a):
    build = os.path.join(a.peers, "llama/build/common/build-info.cpp")
    found = re.search(r'LLAMA_COMMIT\s*=\s*"([^"]*)"', open(build).read()) if os.path.exists(build) else None
    return found and found.group(1)


def report(a, benches, began):
    model, flags, amx = cpu()
    out = [f"Measured {began:%Y-%m-%d %H:%M} .. {datetime.datetime.now():%H:%M} by `tools/bench/bench_cpu.py "
           f"{' '.join(sys.argv[1:])}`.", "",
           f"- CPU: {model}, {os.cpu_count()} cores; {' '.join(flags)}; load at the start {os.getloadavg()[0]:.2f}"]
    out += [f"- {v}" for v in versions(a)]
    if a.quick:
        out.append("- --quick: these numbers show that the rows work and nothing else")
    for b in benches:
        out += ["", f"### {b.name}", "", *b.table(amx), "", *b.details()]
        if b.flops:
            out += ["", f"SFT step: {b.flops['tokens']} tokens, {b.flops['step'] / 1e12:.3f} TFLOP."]
        out += [f"- {n}" for n in dict.fromkeys(b.notes)]
    return "\n".join(out) + "\n"


def main():
    a, began = arguments(), datetime.datetime.now()
    benches = [Bench(a, name) for name in a.which]
    for b in benches:
        if not os.path.exists(os.path.join(b.model, "config.json")):
            raise SystemExit(f"{b.model} is not there; tools/fetch_models.sh {a.models} makes it")
        say(f"{b.name}: preparing data")
        b.prepare()
        for i in range(1 if a.quick else max(1, a.repeat - (b.name != "smollm2"))):
            say(f"{b.name}: run {i + 1}")
            b.turn()
    text = report(a, benches, began)
    print(text, end="")
    if a.out:
        data.write(a.out, text)


if __name__ == "__main__":
    main()
