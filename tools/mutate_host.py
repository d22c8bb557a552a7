# SPDX-License-Identifier: Apache-2.0
"""Breaks what the host does with devices, one call at a time, and sees whether training, sampling and scoring on hostcuda notice.

    python3 tools/mutate_host.py [--build build] [--only N] [--write tests/hostcuda/mutants_host.txt]

Mutants: every call below CALLS in FILES deleted (its result is success). Each is built in a copy of the tree and must change the
weights of three steps on 2 ranks (shard: grads), of going on from their checkpoint (shard: states), greedy samples or their scores; or end in
an error, or take PATIENCE times as long and a minute. stdout: a line a mutant; exit 1 when fewer than 95 % are noticed, equivalent ones (EQUIVALENT) aside.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import time

FILES = ["src/model/forward.c", "src/train/compute.c", "src/train/optim.c", "src/train/step.c", "src/train/loop.c", "src/decode/step.c", "src/model/on_device.c", "src/model/reward.c",
         "src/par/nccl/par_nccl.c", "kernels/cuda/device.cu"]
CALLS = (r"device_(?:put|get|copy|zero|wait|record|recorded|replay|mark|after)|par_device_(?:open|sum_i64|share|wait)|compute_(?:wait|refresh|sum_absent)|see_whether_ended|ctx_wait|op_fixed_(?:add|get)|"
         r"begin_on_device|step_sum_begin|exchange|optim_(?:fetch|put)|ncclGroupStart|ncclGroupEnd|ncclReduce|ncclBroadcast|ncclCommInitRankConfig|cudaStreamSynchronize|"
         r"cudaMemcpyAsync|cudaStreamBeginCapture|cudaStreamEndCapture|cudaGraphLaunch|cudaMemsetAsync|part_there|send|compute_send_(?:vectors|part)|compute_wait_weights|compute_sum_share")
PATIENCE = 4  # of the slowest step's usual time
EQUIVALENT = {  # lines of code; changes that other tests notice were tried by hand
    "if (first == last) TRY(compute_wait_weights(j->on));  // it waits for the other ranks soon, and they for these weights": "here every rank has rows; t28_train.sh hangs, where one has none",
    "return see_whether_ended(d);": "for the watchdog; noticed by t29_watch.sh",
    "TRY(ctx_wait(ctx));": "hidden states for training a reward model; noticed by t28_score.sh, which trains one",
    "return ctx_wait(s->ctx);": "behind a prompt: its first token is drawn next, which waits as well",
    "TRY(part_there(ctx, m, 0));": "here the head is the embedding, and norms travel first; noticed by t28_train.sh, where it is not",
    "TRY(compute_wait_weights(o->on));": "for the watchdog: a save of ten minutes would be taken for a collective that does not end",
    "return par_device_wait(d);": "what comes next waits as well; this wait looks after the other ranks meanwhile",
    "return compute_refresh(o->on);": "the host's path",
    "TRY(device_zero(out->device, out->bf16, m->elements * 2));  // what lies between matrices travels with them": "nobody reads what lies between",
    "TRY(device_zero(out->device, out->vectors, m->vector_elements * 4));": "nobody reads what lies between",
}
ENV = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1",
       "OMPI_MCA_hwloc_base_binding_policy": "none", "OMPI_MCA_btl_vader_single_copy_mechanism": "none"}


def calls_in(text):
    """(start, end) of every call, parentheses balanced; declarations and definitions are left out."""
    for m in re.finditer(rf"(?<![\w.>])(?:{CALLS})\(", text):
        line = text[text.rfind("\n", 0, m.start()) + 1:m.start()]
        if re.match(r"(static )?Err |#define|//", line):
            continue
        depth, at = 1, m.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(text[at], 0)
            at += 1
        yield m.start(), at


def mutants(root):
    for path in FILES:
        with open(os.path.join(root, path), encoding="utf-8") as f:
            text = f.read()
        for start, end in calls_in(text):
            call = text[start:end]
            success = "ncclSuccess" if call.startswith("nccl") else "cudaSuccess" if call.startswith("cuda") else "OK"
            line = text.count("\n", 0, start) + 1
            source = text.split("\n")[line - 1].strip()
            yield path, line, source, text[:start] + success + text[end:]


def run(argv, cwd, seconds):
    with subprocess.Popen(argv, cwd=cwd, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as p:
        try:
            return p.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(p.pid, 9)
            return None


def read(path):
    """A file's bytes, or the token ids and scores of a record set, sorted."""
    if not os.path.isdir(path):
        with open(path, "rb") as f:
            return f.read()
    ids = []
    for name in os.listdir(path):
        if name.endswith(".jsonl"):
            with open(f"{path}/{name}", "rb") as f:
                ids += re.findall(rb'"ids":\[[0-9,]*\]|"score":[-0-9.e]*', f.read())
    return b"".join(sorted(ids))


def forget_the_end(stage):
    """As if the run had ended behind its checkpoint of step 2."""
    os.remove(f"{stage}/done.json")
    shutil.rmtree(f"{stage}/model")
    shutil.rmtree(f"{stage}/step_000000003")


def outcome(work, imf, limit):
    """What the program makes: bytes to compare, or a word for how it ended; and the seconds of its slowest step."""
    shutil.rmtree(f"{work}/run", ignore_errors=True)
    result, slowest = b"", 0
    common = ["--set", f"run_dir={work}/run", "--quiet"]
    model = "sft/model/model.safetensors"
    steps = [(["mpirun", "-n", "2", imf, "sft", f"{work}/r.yaml", "--set", "shard=grads"] + common, model),
             (["mpirun", "-n", "2", imf, "sft", f"{work}/r.yaml", "--set", "shard=states"] + common, model),
             (["mpirun", "-n", "1", imf, "sft", f"{work}/r.yaml", "--set", "shard=states"] + common, model),
             (["mpirun", "-n", "1", imf, "select", f"{work}/r.yaml"] + common, None),
             (["mpirun", "-n", "1", imf, "sample", f"{work}/r.yaml"] + common, "samples"),
             (["mpirun", "-n", "1", imf, "score", f"{work}/r.yaml"] + common, "scores")]
    for i, (argv, made) in enumerate(steps):
        start = time.monotonic()
        code = run(argv, ".", limit)
        slowest = max(slowest, time.monotonic() - start)
        if code is None:
            return b"it hangs", slowest
        if code:
            return b"it ends with an error", slowest
        result += read(f"{work}/run/{made}") if made else b""
        if i < 2:
            forget_the_end(f"{work}/run/sft")
    return result, slowest


RECIPE = """seed: 5
dtype: bfloat16
device: cuda
prompts: [{{path: {root}/input/demo/prompts.jsonl}}]
select: {{max_prompts: 2}}
sources: [{{name: abacus, path: {root}/input/demo/abacus, temperature: 0, n: 1, max_new_tokens: 4}}]
reward: {{path: {root}/input/demo/reward}}
target: {{path: {root}/input/demo/novice}}
sft: {{data: {work}/rows.jsonl, global_batch: 3, max_steps: 3, learning_rate: 0.001, max_length: 64, grad_chains: 2, row_tokens: 32, save_steps: 2, lr_scheduler_type: constant, warmup_ratio: 0}}
"""


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--build", default="build")
    p.add_argument("--only", type=int)
    p.add_argument("--write")
    a = p.parse_args()
    root = os.getcwd()
    copy, work = os.path.abspath(f"{a.build}/mutate_host/tree"), os.path.abspath(f"{a.build}/mutate_host")
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(copy)
    for name in ("src", "kernels", "tools", "Makefile", "config.mk"):
        if os.path.exists(name):
            subprocess.run(["cp", "-a", name, copy], check=True)
    os.makedirs(f"{copy}/build")
    for name in ("src", "kernels", "hostcuda", "version"):
        subprocess.run(["cp", "-a", f"{a.build}/{name}", f"{copy}/build/"], check=True)
    with open(f"{work}/rows.jsonl", "w", encoding="ascii") as f:
        for i in range(9):
            f.write(f'{{"prompt":"what is {i} plus 3?","chosen":"it is {i + 3}, I say"}}\n')
    with open(f"{work}/r.yaml", "w", encoding="utf-8") as f:
        f.write(RECIPE.format(root=root, work=work))
    make = ["make", "-s", "-C", copy, "CUDA=host"]
    if run(make, ".", 600):
        sys.exit("the tree does not build")
    imf = f"{copy}/build/hostcuda/imf"
    want, slowest = outcome(work, imf, 600)
    limit = 60 + PATIENCE * slowest
    if want.startswith(b"it ") or want != outcome(work, imf, limit)[0]:
        sys.exit(f"the program itself does not do it: {want[:40]}")
    lines, noticed, counted = [], 0, 0
    for n, (path, line, source, text) in enumerate(mutants(root), 1):
        if a.only and n != a.only:
            continue
        target = f"{copy}/{path}"
        with open(f"{root}/{path}", encoding="utf-8") as f:
            whole = f.read()
        with open(target, "w", encoding="utf-8") as f:
            f.write(text)
        built = run(make, ".", 600)
        got = b"it does not build" if built else outcome(work, imf, limit)[0]
        with open(target, "w", encoding="utf-8") as f:
            f.write(whole)
        how = got.decode() if got.startswith(b"it ") else "it makes something else" if got != want else "NOT NOTICED"
        if how == "NOT NOTICED" and source in EQUIVALENT:
            how = "equivalent: " + EQUIVALENT[source]
        else:
            counted += 1
            noticed += how != "NOT NOTICED"
        lines.append(f"{path}:{line}\t{source}\t{how}")
        print(lines[-1], flush=True)
    print(f"{len(lines)} mutants, {len(lines) - counted} equivalent, {noticed} of {counted} noticed")
    if a.write:
        with open(a.write, "w", encoding="utf-8") as f:
            f.write("\n".join(lines) + f"\n{len(lines)} mutants, {len(lines) - counted} equivalent, {noticed} of {counted} noticed\n")
    sys.exit(noticed < 0.95 * counted)


main()
