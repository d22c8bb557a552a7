# SPDX-License-Identifier: Apache-2.0
"""Measured against planned memory: runs a stage in several layouts and prints a row of docs/plan.md for each.

    python3 tools/plan_measure.py --imf build/imf --work DIR --model DIR --data ROWS --stage sft [--layouts 1,2] [--dtypes float32,bfloat16]
        [--set KEY=VALUE ...]

ROWS: of sft and dpo their data; of sample prompts; of score (prompt, source, answer).

Measured: the most that the ranks together held of their own (/proc/PID/statm, every 3 ms: a checkpoint's buffers live for 50) and, counted
once, their shared memory and the pages of files (/proc/PID/smaps, every 0.1 s). Nothing else on the machine changes it, but a reading
that comes late misses a peak: what lies below the plan by more than the tolerance is measured up to three times. Planned: what `imf
plan` says of a node. stdout: | stage | format | ranks | planned | measured | difference |, in MiB; exit 1 when a difference is larger than
--tolerance percent.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench"))
from ours import MPI, descendants  # noqa: E402


PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024


def own_kb(pid):
    """Neither files nor shared."""
    try:
        with open(f"/proc/{pid}/statm") as f:
            _, resident, shared = map(int, f.read().split()[:3])
            return (resident - shared) * PAGE_KB
    except (OSError, ValueError):
        return 0


def shared_kb(pid):
    """Shared memory: a share's other holders are ranks of the same job."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            return sum(int(line.split()[1]) for line in f if line.startswith("Pss_Shmem:"))
    except OSError:
        return 0


def files_kb(pids, run_dir, model_dir):
    """Pages of mapped files. Of libraries the largest part that a rank has, since a share would depend on other programs that use them; of the
    model, which ranks read in parts, the sum of shares. Pages that a rank has written to are anonymous; those of a checkpoint that is being
    read back make way, as they do for reads without a mapping."""
    most, model = {}, 0
    for pid in pids:
        mapping = None
        try:
            with open(f"/proc/{pid}/smaps") as f:
                for line in f:
                    words = line.split()
                    if not words[0].endswith(":"):
                        name = words[5] if len(words) > 5 else ""
                        mapping = (name, words[2]) if name.startswith("/") and not name.startswith(("/dev/", "/SYSV", "/memfd:", run_dir)) else None
                    elif mapping and words[0] == "Rss:":
                        rss = int(words[1])
                    elif mapping and words[0] == "Pss:" and mapping[0].startswith(model_dir):
                        model += int(words[1])
                        mapping = None
                    elif mapping and words[0] == "Anonymous:":
                        most[mapping] = max(most.get(mapping, 0), rss - int(words[1]))
        except OSError:
            pass
    return sum(most.values()) + model


def peak(argv, run_dir, model_dir):
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, **MPI})
    most = own = once = rounds = 0
    pids = []
    while process.poll() is None:
        if rounds % 20 == 0:  # a file that was let go between two readings does not count with what came after it
            pids, before = descendants(process.pid), once
            once = files_kb(pids, run_dir, model_dir) + sum(map(shared_kb, pids))
            most, own = max(most, own + min(before, once)), 0
        own = max(own, sum(map(own_kb, pids)))
        rounds += 1
        time.sleep(0.003)
    most = max(most, own + once)
    text = process.stderr.read()
    if process.returncode:
        sys.exit(f"{' '.join(argv)}: exit {process.returncode}\n{text}")
    return most / 1024


def planned(a, recipe, ranks, sets):
    argv = [a.imf, "plan", recipe, "--ranks", str(ranks), "--stage", a.stage, "--speed", "1000"] + sets
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^  (?:all|while loading) +([0-9.]+) MiB +([0-9.]+) MiB", text, re.M)
    return max(float(node) for _, node in found)


def recipe_of(a, dtype):
    recipe = {"run_dir": f"{a.work}/run", "dtype": dtype, "seed": 42, "target": {"path": a.model}}
    if a.stage in ("sft", "dpo"):
        recipe[a.stage] = {"data": a.data}
    elif a.stage == "score":
        recipe.update(samples={"path": a.data}, reward={"path": a.model})
    else:
        recipe.update(prompts=[{"path": a.data, "kind": "if"}], sources=[{"path": a.model}])
    path = f"{a.work}/recipe.yaml"
    with open(path, "w", encoding="ascii") as f:
        json.dump(recipe, f)  # JSON is YAML
    return path


def prepare(a, recipe, sets):
    shutil.rmtree(f"{a.work}/run", ignore_errors=True)
    if a.stage == "sample":
        subprocess.run([a.imf, "select", recipe, "--quiet"] + sets, check=True, stderr=subprocess.DEVNULL)


def measured(a, recipe, ranks, sets):
    prepare(a, recipe, sets)
    mpirun = ["mpirun", "-n", str(ranks)] if ranks > 1 else []
    got = peak(mpirun + [a.imf, a.stage, recipe, "--quiet"] + sets, os.path.abspath(f"{a.work}/run"), os.path.realpath(a.model))
    shutil.rmtree(f"{a.work}/run", ignore_errors=True)
    return got


def row(a, dtype, ranks):
    sets = [word for text in a.set for word in ("--set", text)]
    recipe = recipe_of(a, dtype)
    prepare(a, recipe, sets)
    want = planned(a, recipe, ranks, sets)
    got = measured(a, recipe, ranks, sets)
    for _ in range(2):  # what is read now and then can miss the most, and only that
        if want / got - 1 > a.tolerance / 100:
            got = max(got, measured(a, recipe, ranks, sets))
    print(f"| {a.stage} | {dtype} | {ranks} | {want:.0f} | {got:.0f} | {100 * (want / got - 1):+.1f} % |", flush=True)
    return abs(want / got - 1) * 100


def main():
    p = argparse.ArgumentParser()
    for name in ("imf", "work", "model", "data", "stage"):
        p.add_argument(f"--{name}", required=True)
    p.add_argument("--layouts", default="1,2")
    p.add_argument("--dtypes", default="float32,bfloat16")
    p.add_argument("--tolerance", type=float, default=5)
    p.add_argument("--set", action="append", default=[])
    a = p.parse_args()
    os.makedirs(a.work, exist_ok=True)
    worst = max(row(a, dtype, int(ranks)) for dtype in a.dtypes.split(",") for ranks in a.layouts.split(","))
    sys.exit(worst > a.tolerance)


main()
