# SPDX-License-Identifier: Apache-2.0
"""Runs imf by its own commands and reads times off its log lines, which are stamped as they arrive.

A layout is (ranks, threads of a rank). Nothing is asked of the program but what it prints to everyone.
"""
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time

MPI = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1",
       "OMPI_MCA_hwloc_base_binding_policy": "none", "OMPI_MCA_btl_vader_single_copy_mechanism": "none"}
SEED = 42


class NotSupported(Exception):
    """This build refuses the recipe (exit 78)."""


class Failed(Exception):
    """imf ended with an error, or did not say what it should."""


class TooShort(Exception):
    """A run took hardly longer than its start: the machine is too busy, or the work too little, to be measured."""


class Run:
    """One run of imf: its log lines with arrival times, its wall time."""

    def __init__(self, imf, layout, command, recipe, dtype, until=None, watch=False):
        ranks, threads = layout
        recipe = dict(recipe, threads=threads, dtype=dtype, seed=SEED)
        self.dir = recipe["run_dir"]
        if command != "sample":  # which goes on from select's
            shutil.rmtree(self.dir, ignore_errors=True)
        path = self.dir.rstrip("/") + ".yaml"
        with open(path, "w") as f:
            json.dump(recipe, f)  # JSON is YAML
        argv = (["mpirun", "-n", str(ranks)] if ranks > 1 else []) + [imf, command, path]
        self.line, self.pss_mb = [], 0.0
        began = time.monotonic()
        self.process = subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                                        env={**os.environ, **MPI, "OMP_NUM_THREADS": str(threads)})
        watcher = threading.Thread(target=self.watch)
        if watch:
            watcher.start()
        stopped = self.read(until)
        code = self.process.wait()
        self.seconds = time.monotonic() - began
        if watch:
            watcher.join()
        os.unlink(path)
        text = "".join(t for _, t in self.line)
        if code == 78 and dtype != "float32":
            raise NotSupported(text.strip())
        if code and not stopped:
            raise Failed(f"{' '.join(argv)}: exit {code}\n{text}")

    def read(self, until):
        """Until the program ends, or stops it behind the line that matches `until`: what follows (checkpoint, export) is not
        timed, and its writing would disturb the next measurement."""
        for text in self.process.stderr:
            self.line.append((time.monotonic(), text))
            if until and re.search(until, text):
                self.process.send_signal(signal.SIGTERM)
                self.process.stderr.read()
                return True
        return False

    def watch(self):
        """Peak of the sum of all ranks' proportional set sizes: memory that ranks share counts once."""
        while self.process.poll() is None:
            self.pss_mb = max(self.pss_mb, sum(map(pss_mb, descendants(self.process.pid))))
            time.sleep(0.2)

    def at(self, pattern, last=False):
        """Arrival of the first (last) line that matches."""
        times = [t for t, text in self.line if re.search(pattern, text)]
        if not times:
            raise Failed(f"imf printed no line like '{pattern}':\n" + "".join(t for _, t in self.line))
        return times[-1 if last else 0]

    def drop(self):
        shutil.rmtree(self.dir, ignore_errors=True)
        return self


def descendants(pid):
    """pid and its children, theirs, ... that are imf."""
    parent = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as f:
                head, tail = f.read().rsplit(")", 1)
        except OSError:
            continue
        parent[int(name)] = (int(tail.split()[1]), head.split("(", 1)[1])
    family = {pid}
    while True:
        more = {p for p, (up, _) in parent.items() if up in family} - family
        if not more:
            return [p for p in family if parent.get(p, (0, ""))[1] == "imf"]
        family |= more


def pss_mb(pid):
    try:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("Pss:")) / 1024
    except (OSError, StopIteration):
        return 0.0


def difference(spent, base):
    if spent - base < 0.5 * base:  # what is left would be the noise of two starts
        raise TooShort(f"{spent:.2f} s, of which the start takes {base:.2f} s: too short to be measured")
    return spent - base


def result(what, layout, dtype, value, unit, tokens, seconds, rss_mb=None):
    return {"what": what, "peer": f"imf {layout[0]} x {layout[1]}", "dtype": dtype, "threads": layout[0] * layout[1],
            "value": value, "unit": unit, "tokens": tokens, "seconds": seconds, "rss_mb": rss_mb}


def sft(imf, model, work, layout, dtype, step, width, rows, steps):
    """One step warms up, as for torch: from the line of step 1 to the line of the last."""
    recipe = {"run_dir": f"{work}/run", "target": {"path": model},
              "sft": {"data": step["path"], "global_batch": step["examples"], "max_steps": steps + 1, "max_length": width,
                      "row_tokens": width, "grad_chains": rows, "learning_rate": 1e-6}}
    run = Run(imf, layout, "sft", recipe, dtype, until=rf"step {steps + 1}/{steps + 1} ").drop()
    seconds = run.at(r"sft: step \d+/", last=True) - run.at(r"sft: step 1/")
    return result("sft", layout, dtype, steps * step["tokens"] / seconds, "tokens/s", steps * step["tokens"], seconds)


def dpo_recipe(model, work, job):
    """job: `device` and `dpo` (more keys of that section) may be in it."""
    return {"run_dir": f"{work}/run", "target": {"path": model}, "device": job.get("device", "cpu"),
            "dpo": {"data": job["path"], "global_batch": job["batch"], "max_length": job["max_length"],
                    "truncation": "keep_start", "grad_chains": 2, "learning_rate": 1e-6, "beta": 0.1, **job.get("dpo", {})}}


def dpo_references(imf, model, work, job, layout=(2, 1), dtype="float32"):
    """Runs as far as the reference log-probabilities; returns their file."""
    Run(imf, layout, "dpo", dpo_recipe(model, work, job), dtype, until=r"gradient in \d+ chains")
    return f"{work}/run/dpo/ref_logps.bin"


def dpo(imf, model, work, layout, dtype, job):
    """[with the reference pass, without it]. With: from the line behind reading the data, so loading the model counts too."""
    steps = -(-len(job["pairs"]) // job["batch"])
    run = Run(imf, layout, "dpo", dpo_recipe(model, work, job), dtype, until=rf"step {steps}/{steps} ").drop()
    end = run.at(r"dpo: step \d+/", last=True)
    return [result(what, layout, dtype, len(job["pairs"]) / (end - began), "pairs/s", job["tokens"], end - began)
            for what, began in (("dpo, reference inside", run.at(r"pairs of \d+ rows")),
                                ("dpo, reference before", run.at(r"gradient in \d+ chains")))]


def exactness(imf, model, work, layout, dtype, stage, job, exact, steps):
    """SFT or DPO with the default number of gradient chains; exact: false makes it one a rank. One step warms up."""
    section = {"data": job["path"], "global_batch": job["examples"], "max_steps": steps + 1, "max_length": job["longest"],
               "truncation": "keep_start", "num_train_epochs": steps + 1, "learning_rate": 1e-6}
    recipe = {"run_dir": f"{work}/run", "target": {"path": model}, "exact": exact, stage: section}
    run = Run(imf, layout, stage, recipe, dtype, until=rf"step {steps + 1}/{steps + 1} ").drop()
    seconds = run.at(rf"{stage}: step \d+/", last=True) - run.at(rf"{stage}: step 1/")
    told = result(f"exact, {stage}", layout, dtype, steps * job["tokens"] / seconds, "tokens/s", steps * job["tokens"], seconds)
    return dict(told, peer=f"imf {layout[0]} x {layout[1]}, exact: {str(exact).lower()}")


def dpo_memory(imf, model, work, layout, dtype, job):
    """To the program's end, with checkpoint and export."""
    run = Run(imf, layout, "dpo", dpo_recipe(model, work, job), dtype, watch=True).drop()
    return result("memory", layout, dtype, run.pss_mb, "MB", job["tokens"], run.seconds, run.pss_mb)


def sampled(imf, model, work, layout, dtype, prompts, n, new, temperature, top_p, slots):
    """(tokens, wall seconds) of select and sample; the wall time is that of sample."""
    recipe = {"run_dir": f"{work}/run", "prompts": [{"path": prompts, "kind": "if"}], "sample": {"slots": slots},
              "sources": [{"name": "bench", "path": model, "temperature": temperature, "top_p": top_p, "n": n,
                           "max_new_tokens": new}]}
    Run(imf, (1, 1), "select", recipe, "float32")
    run = Run(imf, layout, "sample", recipe, dtype).drop()
    count = [re.search(r"samples, (\d+) tokens", text) for _, text in run.line]
    return int([m for m in count if m][-1].group(1)), run.seconds


def sample(imf, model, work, layout, dtype, job, n, new):
    """Start and loading are taken off by a run of one short prompt and one token."""
    slots = max(1, len(job["prompts"]) * n // layout[0])
    options = (job["temperature"], job["top_p"], slots)
    _, base = sampled(imf, model, work, layout, dtype, job["short"], 1, 1, *options)
    tokens, spent = sampled(imf, model, work, layout, dtype, job["path"], n, new, *options)
    seconds = difference(spent, base)
    return result("sample", layout, dtype, tokens / seconds, "tokens/s", tokens, seconds)


def one(imf, model, work, layout, dtype, job, new):
    """One sequence at a time, some of them one after the other; a run of one token each takes prompts and loading off."""
    few, base = sampled(imf, model, work, layout, dtype, job["few"], 1, 1, 1.0, 1.0, 1)
    tokens, spent = sampled(imf, model, work, layout, dtype, job["few"], 1, new, 1.0, 1.0, 1)
    seconds = difference(spent, base)
    return result("one", layout, dtype, (tokens - few) / seconds, "tokens/s", tokens - few, seconds)


def reward_model(imf, model, work, preferences):
    """A reward model on the model at hand (heads and gate from a few rows): what `imf score` needs. Made once."""
    out = f"{work}/reward"
    if not os.path.exists(f"{out}/reward/model/config.json"):
        recipe = {"run_dir": out, "reward_train": {"base": model, "data": [{"path": preferences, "limit": 12}],
                                                   "max_length": 512, "val_size": 0.25, "gate_steps": 10, "gate_batch": 8}}
        Run(imf, (2, 1), "reward", recipe, "float32")
    return f"{out}/reward/model"


def scored(imf, work, layout, dtype, reward, rows, length):
    recipe = {"run_dir": f"{work}/run", "samples": {"path": rows}, "reward": {"path": reward, "max_length": length}}
    run = Run(imf, layout, "score", recipe, dtype).drop()
    text = "".join(t for _, t in run.line)
    told = re.search(r"score: \d+ samples scored, (?:(\d+) unscored.*?, )?(\d+) tokens", text)
    if not told or told.group(1) not in (None, "0"):
        raise Failed(f"imf score left rows out, or told no number of tokens:\n{text}")
    return run.seconds, int(told.group(2))


def score(imf, work, layout, dtype, job):
    """Start and loading are taken off by a run of one row a rank."""
    base, few = scored(imf, work, layout, dtype, job["reward"], job["few"], job["length"])
    spent, all_rows = scored(imf, work, layout, dtype, job["reward"], job["path"], job["length"])
    tokens = all_rows - few
    seconds = difference(spent, base)
    return result("score", layout, dtype, tokens / seconds, "tokens/s", tokens, seconds)


def gemm_peak(bench_ops, threads):
    """Largest GFLOP/s of any gemm that bench_ops times, by number format."""
    text = subprocess.run([bench_ops, str(threads)], text=True, capture_output=True, check=True).stdout
    best = {}
    for line in text.splitlines():
        if line.lstrip().startswith("gemm"):
            dtype = "bfloat16" if re.search("bf16|bfloat16", line) else "float32"
            values = [float(v) for v in re.findall(r"(?:forward|dx|dw)[ :]+([0-9.]+)", line)]
            best[dtype] = max([best.get(dtype, 0.0)] + values)
    return best
