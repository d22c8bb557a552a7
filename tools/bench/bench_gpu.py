#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make bench-gpu's second table: a training step and decoding of the whole program on one GPU, models of published shapes with random weights.

usage: bench_gpu.py [--imf build/cuda/imf] [--work DIR] [--flops F] [--bytes B] [--only NAME,...] [--tiny]     (standard library alone)
  --flops, --bytes   a product's FLOP/s and a copy's bytes/s of this GPU, from the first table: shares are of these
  --tiny             sizes that hostcuda can run, to try this script; its numbers say nothing

Training: SFT on rows of 8,192 tokens, one causal document each; the median step behind the first two. FLOP of a token: 6 a weight of the blocks
and the head, and attention's 6 x layers x N x D x (row + 1) (4 products of 2 in the forward, 10 in the backward, half of a row seen); what is
computed twice is not counted. Decoding: samples of one short prompt, all in flight at once; the least a step must read is the weights in bf16 and
the keys and values so far, and the share is that of a copy's rate. Both times are whole steps: the host's part is in them.
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

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
# H, F, layers, N, K, D, V, tied; what is measured
SHAPES = {"Llama-3.2-1B": (2048, 8192, 16, 32, 8, 64, 128256, True, "train decode"), "Llama-3.2-3B": (3072, 8192, 28, 24, 8, 128, 128256, True, "train"),
          "Llama-3.1-8B": (4096, 14336, 32, 32, 8, 128, 128256, False, "decode")}
TINY = {"tiny": (128, 128, 1, 2, 1, 64, 512, True, "train decode")}
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


def share(value, peak):
    return f"{100 * value / peak:.1f}" if peak else "-"


def main():
    parser = argparse.ArgumentParser(usage=__doc__, add_help=False)
    parser.add_argument("--imf", default=os.path.join(ROOT, "build/cuda/imf"))
    parser.add_argument("--work", default=os.path.join(ROOT, "build/bench_gpu"))
    parser.add_argument("--flops", type=float, default=0)
    parser.add_argument("--bytes", type=float, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    print("| what | tokens/s | rate | % of peak | bar |\n|---|---|---|---|---|")
    for name, (*shape, what) in (TINY if args.tiny else SHAPES).items():
        if args.only and name not in args.only.split(","):
            continue
        shutil.rmtree(args.work, ignore_errors=True)
        make_model(f"{args.work}/model", shape)
        if "train" in what:
            speed, flop = train(args, args.work, f"{args.work}/model", shape)
            print(f"| SFT step, {name} | {speed:.0f} | {speed * flop / 1e12:.1f} TFLOP/s | {share(speed * flop, args.flops)} | 50, then 60 |", flush=True)
        if "decode" in what:
            speed, least = decode(args, args.work, f"{args.work}/model", shape)
            print(f"| decoding, {name} | {speed:.0f} | {speed * least / 1e9:.1f} GB/s | {share(speed * least, args.bytes)} | 60, then 75 |", flush=True)
        shutil.rmtree(args.work)


main()
