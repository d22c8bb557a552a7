#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make bench-gpu's second table: a training step, decoding and DPO of the whole program on one GPU, models of published shapes with random weights.

usage: bench_gpu.py [--imf build/cuda/imf] [--work DIR] [--flops F] [--bytes B] [--only NAME,...] [--peers DIR] [--tiny]   (standard library alone)
  --flops, --bytes   a product's FLOP/s and a copy's bytes/s of this GPU, from the first table: shares are of these
  --peers DIR        DIR/venv has torch for this GPU and TRL (tools/bench/peers.sh); without it DPO has nothing to be compared with
  --tiny             sizes that hostcuda can run, to try this script, with TRL on the CPU; its numbers say nothing

Training: SFT on rows of 8,192 tokens, one causal document each; the median step behind the first two. FLOP of a token: 6 a weight of the blocks
and the head, and attention's 6 x layers x N x D x (row + 1) (4 products of 2 in the forward, 10 in the backward, half of a row seen); what is
computed twice is not counted. Decoding: samples of one short prompt, all in flight at once; the least a step must read is the weights in bf16 and
the keys and values so far, and the share is that of a copy's rate. Both times are whole steps: the host's part is in them. DPO: pairs a second of the
same pairs in the same batches, the reference model's pass counted (imf: one sweep before, loading the model counts too; TRL: in every step)
and not counted; the steps' first one is in. TRL's activations kept or recomputed, whichever is faster.
"""
import argparse
import json
import os
import random
import re
import shutil
import statistics
import struct
import subprocess
import sys

import data
import ours

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
# H, F, layers, N, K, D, V, tied; what is measured
SHAPES = {"Llama-3.2-1B": (2048, 8192, 16, 32, 8, 64, 128256, True, "train decode dpo"), "Llama-3.2-3B": (3072, 8192, 28, 24, 8, 128, 128256, True, "train"),
          "Llama-3.1-8B": (4096, 14336, 32, 32, 8, 128, 128256, False, "decode")}
TINY = {"tiny": (128, 128, 1, 2, 1, 64, 512, True, "train decode dpo")}
BLOCK = 1 << 20  # random values; a tensor repeats them


def tensors(H, F, layers, N, K, D, V, tied):
    yield "model.embed_tokens.weight", [V, H]
    for l in range(layers):
        p = f"model.layers.{l}."
        yield p + "input_layernorm.weight", [H]
        for name, rows, cols in (("self_attn.q_proj", N * D, H), ("self_attn.k_proj", K * D, H), ("self_attn.v_proj", K * D, H), ("self_attn.o_proj", H, N * D)):
            yield p + name + ".weight", [rows, cols]
        yield p + "post_attention_layernorm.weight", [H]
        for name, rows, cols in (("gate_proj", F, H), ("up_proj", F, H), ("down_proj", H, F)):
            yield p + f"mlp.{name}.weight", [rows, cols]
    yield "model.norm.weight", [H]
    if not tied:
        yield "lm_head.weight", [V, H]


def size_of(shape):
    return shape[0] * (shape[1] if len(shape) > 1 else 1)


def products(shape):
    """Weights that are multiplied with every token: an embedding that is not the head as well is looked up."""
    return sum(size_of(dims) for name, dims in tensors(*shape) if len(dims) > 1) - (0 if shape[7] else shape[6] * shape[0])


def make_model(path, shape):
    """A Hugging Face directory; the tokenizer is the demo's, whose ids are the first of the vocabulary."""
    H, F, layers, N, K, D, V, tied = shape
    os.makedirs(path)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(os.path.join(ROOT, "input/demo/novice", name), path)
    with open(os.path.join(ROOT, "input/demo/novice/config.json"), encoding="utf-8") as f:
        config = json.load(f)
    config.update(hidden_size=H, intermediate_size=F, num_hidden_layers=layers, num_attention_heads=N, num_key_value_heads=K, head_dim=D, vocab_size=V,
                  tie_word_embeddings=tied, max_position_embeddings=16384)
    with open(os.path.join(path, "config.json"), "w", encoding="utf-8") as f:
        json.dump(config, f)
    rng = random.Random(1)
    values = struct.pack(f"<{BLOCK}f", *(rng.gauss(0, 0.02) for _ in range(BLOCK)))
    block = b"".join(values[i + 2:i + 4] for i in range(0, len(values), 4))  # the upper halves: bf16
    header, at = {}, 0
    for name, dims in tensors(*shape):
        n = 2 * size_of(dims)
        header[name] = {"dtype": "BF16", "shape": dims, "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header).encode()
    with open(os.path.join(path, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, dims in tensors(*shape):
            left = 2 * size_of(dims)
            source = struct.pack("<H", 0x3f80) * BLOCK if "norm" in name else block
            while left > 0:
                f.write(source[:min(left, len(source))])
                left -= len(source)


def run(imf, stage, recipe, out, options):
    done = subprocess.run([imf, stage, recipe, "--set", f"run_dir={out}", *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(f"bench_gpu.py: {stage} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def train(args, work, model, shape):
    """Tokens a second of the median step, and FLOP a token."""
    _, _, layers, N, _, D, _, _ = shape
    width, rows, steps = (128, 2, 3) if args.tiny else (8192, 4, 8)
    rng = random.Random(2)
    with open(f"{work}/rows.jsonl", "w", encoding="utf-8") as f:
        for _ in range(rows * steps):  # the demo's tokenizer knows digits one by one
            f.write(json.dumps({"prompt": "count", "completion": "".join(rng.choice("0123456789") for _ in range(width - 64))}) + "\n")
    recipe = f"{work}/train.yaml"
    with open(recipe, "w", encoding="utf-8") as f:
        f.write(f"""seed: 1
dtype: bfloat16
device: cuda
target: {{path: {model}}}
sft: {{data: {work}/rows.jsonl, global_batch: {rows}, max_steps: {steps}, max_length: {width}, row_tokens: {width}, grad_chains: 1, learning_rate: 0.00001,
  logging_steps: 1, export_dtype: bfloat16}}
""")
    run(args.imf, "sft", recipe, f"{work}/train", [])
    with open(f"{work}/train/speed.jsonl", encoding="utf-8") as f:
        steps = [json.loads(line) for line in f]
    steps = steps[2:]
    shutil.rmtree(f"{work}/train")
    weights = products(shape)
    flop = 6 * weights + 6 * layers * N * D * (width + 1)
    return statistics.median(s["tokens"] / s["seconds"] for s in steps), flop


def decode(args, work, model, shape):
    """Tokens a second of sampling, and bytes that a token's step must read at least, for each sample in flight."""
    _, _, layers, _, K, D, _, _ = shape
    slots, new = (4, 16) if args.tiny else (256, 512)
    with open(f"{work}/prompts.jsonl", "w", encoding="utf-8") as f:
        f.write(json.dumps({"id": "p", "prompt": "what is 1 plus 2?"}) + "\n")
    recipe = f"{work}/sample.yaml"
    with open(recipe, "w", encoding="utf-8") as f:
        f.write(f"""seed: 1
dtype: bfloat16
device: cuda
prompts: [{{path: {work}/prompts.jsonl}}]
sources: [{{name: x, path: {model}, temperature: 1, n: {slots}, max_new_tokens: {new}}}]
sample: {{slots: {slots}}}
""")
    run(args.imf, "select", recipe, f"{work}/sample", [])
    text = run(args.imf, "sample", recipe, f"{work}/sample", [])
    shutil.rmtree(f"{work}/sample")
    found = re.search(r"(\d+) tokens \(([0-9.]+) a sample\).* (\d+) tokens/s", text)
    if not found:
        sys.exit(f"bench_gpu.py: no speed in what sample said:\n{text}")
    length = float(found.group(2))
    return float(found.group(3)), 2 * products(shape) / slots + 4 * layers * K * D * length / 2


def make_pairs(args, work, model):
    """The job of ours.dpo and peer_dpo.py: pairs of digits, of about 800 tokens the prompt counted once, in imf's order of training."""
    count, batch, longest = (4, 2, 64) if args.tiny else (512, 8, 1024)
    rng = random.Random(3)

    def digits(low, high):
        return "".join(rng.choice("0123456789") for _ in range(rng.randint(low * longest // 100, high * longest // 100)))
    rows = [{"conversations": [{"from": "human", "value": digits(10, 30)}], "chosen": {"from": "gpt", "value": digits(10, 55)},
             "rejected": {"from": "gpt", "value": digits(10, 55)}} for _ in range(2 * count)]
    pairs = data.dpo_pairs(args.imf, model, data.write(f"{work}/source.json", rows), count, longest, f"{work}/dpo")
    job = {"path": f"{work}/dpo.pairs.json", "pairs": pairs, "batch": batch, "max_length": longest, "tokens": sum(map(data.pair_tokens, pairs)),
           "device": "cuda", "dpo": {"row_tokens": 128 if args.tiny else 8192, "grad_chains": 1}}
    job["pairs"] = data.in_training_order(pairs, ours.dpo_references(args.imf, model, work, job, (1, 1), "bfloat16"), ours.SEED)
    return job


def trl(args, model, pairs, how):
    """TRL's best of two on the same device: (pairs a second or None, what it is or why there is none)."""
    python = os.path.join(args.peers, "venv/bin/python") if args.peers else ""
    if not os.path.exists(python):
        return None, "no trl (PEERS=DIR)"
    best, said = None, ""
    for activations in ("kept", "recomputed"):
        done = subprocess.run([python, os.path.join(HERE, "peer_dpo.py"), model, pairs, "bfloat16", "2", how, activations] +
                              ([] if args.tiny else ["--device", "cuda"]), capture_output=True, text=True, check=False)
        if done.returncode:
            said = said or f"TRL ended with {done.returncode}: " + (done.stderr.strip().splitlines() or ["?"])[-1].replace("|", " ")[:120]
            continue
        row = json.loads(done.stdout.splitlines()[-1])
        if not best or row["value"] > best["value"]:
            best = row
    return (best["value"], best["peer"]) if best else (None, said)


def dpo(args, work, model, name):
    job = make_pairs(args, work, model)
    order = data.write(f"{work}/order.json", job)
    for row in ours.dpo(args.imf, model, work, (1, 1), "bfloat16", job):
        what = row["what"].replace("dpo, reference inside", "reference pass counted").replace("dpo, reference before", "steps alone")
        theirs, peer = trl(args, model, order, row["what"].split()[-1])
        print(f"| DPO, {name}, {what} | {row['tokens'] / row['seconds']:.0f} | {row['value']:.3g} pairs/s | {peer}" +
              (f", {theirs:.3g} pairs/s" if theirs else "") + f" | {verdict(row['value'] / theirs if theirs else None, 3, 5, 'x TRL')} |", flush=True)


def verdict(value, first, then, unit):
    if value is None:
        return f"{first} {unit}, then {then}: not judged"
    return f"{value:.2f}; {first} {unit}: {'met' if value >= first else 'NOT MET'}, then {then}: {'met' if value >= then else 'not met'}"


def percent(value, peak):
    return 100 * value / peak if peak else None


def share(value, peak):
    return f"{percent(value, peak):.1f}" if peak else "-"


def main():
    parser = argparse.ArgumentParser(usage=__doc__, add_help=False)
    parser.add_argument("--imf", default=os.path.join(ROOT, "build/cuda/imf"))
    parser.add_argument("--work", default=os.path.join(ROOT, "build/bench_gpu"))
    parser.add_argument("--flops", type=float, default=0)
    parser.add_argument("--bytes", type=float, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--peers", default="")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    print("| what | tokens/s | rate | % of peak, or the peer | bar |\n|---|---|---|---|---|")
    for name, (*shape, what) in (TINY if args.tiny else SHAPES).items():
        if args.only and name not in args.only.split(","):
            continue
        shutil.rmtree(args.work, ignore_errors=True)
        make_model(f"{args.work}/model", shape)
        if "train" in what:
            speed, flop = train(args, args.work, f"{args.work}/model", shape)
            print(f"| SFT step, {name} | {speed:.0f} | {speed * flop / 1e12:.1f} TFLOP/s | {share(speed * flop, args.flops)} | "
                  f"{verdict(percent(speed * flop, args.flops), 50, 60, '% of a product')} |", flush=True)
        if "decode" in what:
            speed, least = decode(args, args.work, f"{args.work}/model", shape)
            print(f"| decoding, {name} | {speed:.0f} | {speed * least / 1e9:.1f} GB/s | {share(speed * least, args.bytes)} | "
                  f"{verdict(percent(speed * least, args.bytes), 60, 75, '% of a copy')} |", flush=True)
        if "dpo" in what:
            dpo(args, args.work, f"{args.work}/model", name)
        shutil.rmtree(args.work)


main()
