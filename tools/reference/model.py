#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tiny random models and what transformers (float64) computes with them -> tests/data/model/<name>/.

    model.py OUT_DIR          needs torch, transformers, safetensors, numpy
    model.py OUT_DIR --bf16   what is there stays; bf16.txt is written

Each directory is a Hugging Face model directory plus expect.safetensors (f32):
  ids.S [n]        three sequences: a alone; b and c share their first `shared` tokens (a preference pair's prompt)
  logits.S [n][V]  of transformers in float64
  coef.S [n-1]     loss = sum over sequences and positions t of coef[t] * log p(ids[t+1] | ids[..t]); 0 in the prompt of b, c
  loss [1]
  grad.NAME        gradient of the loss with respect to each tensor on disk

The softmax and the norms of transformers run in fp32 whatever the model's type; here they are replaced by float64 ones. RoPE
angles stay fp32: that is how the models are defined.

bf16.txt: the errors of torch's own bf16 against expect.safetensors, one line:
  root mean square and largest error of all logits (the model in bf16); ||g - g64|| / ||g64|| over all tensors, and the largest of
  one tensor (fp32 weights, bf16 autocast)
"""
import json
import os
import sys

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama import modeling_llama
from transformers.models.qwen2 import modeling_qwen2

torch.set_num_threads(1)
SHARED = 7
SIZES = dict(vocab_size=72, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=16, max_position_embeddings=128, bos_token_id=1, eos_token_id=2)
MODELS = {
    "llama3": (LlamaConfig(**SIZES, rms_norm_eps=1e-5, tie_word_embeddings=False,
                           rope_parameters=dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0,
                                                high_freq_factor=4.0, original_max_position_embeddings=64)),
               torch.bfloat16, "5GB"),
    "llama-tied": (LlamaConfig(**SIZES, rms_norm_eps=1e-5, tie_word_embeddings=True,
                               rope_parameters=dict(rope_type="default", rope_theta=100000.0)), torch.float16, "5GB"),
    "qwen2": (Qwen2Config(**{k: v for k, v in SIZES.items() if k != "head_dim"} | dict(hidden_size=64), rms_norm_eps=1e-6,
                          tie_word_embeddings=False, use_sliding_window=False,
                          rope_parameters=dict(rope_type="default", rope_theta=1000000.0)), torch.float32, "60KB"),
}


def norm_f64(self, x):
    return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


def attention_f64(module, query, key, value, attention_mask, scaling, **kwargs):
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    n = query.shape[2]
    score = (query @ key.transpose(2, 3)) * scaling
    score = score.masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf)
    return (score.softmax(-1) @ value).transpose(1, 2).contiguous(), None


def randomise(model, generator):
    """Weights large enough that attention is not flat."""
    for name, p in model.named_parameters():
        r = torch.randn(p.shape, generator=generator)
        with torch.no_grad():
            p.copy_(1 + 0.2 * r if "norm" in name else 0.3 * r if "bias" in name or "embed" in name else 0.15 * r)


def old_style(path):
    """config.json as transformers 4 wrote it: rope_theta, rope_scaling, torch_dtype at the top."""
    with open(path) as f:
        c = json.load(f)
    rope = c.pop("rope_parameters")
    c.update(rope_theta=rope["rope_theta"], rope_scaling=None, torch_dtype=c.pop("dtype"))
    with open(path, "w") as f:
        json.dump(c, f, indent=2)


def make(name, out):
    config, dtype, shard = MODELS[name]
    g = torch.Generator().manual_seed(len(name))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    randomise(model, g)
    model = model.to(dtype)
    model.save_pretrained(out, max_shard_size=shard)
    if name == "llama-tied":
        old_style(os.path.join(out, "config.json"))
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).double()  # .to(bf16) would round inv_freq too
    model.config._attn_implementation = "f64"
    model.set_attn_implementation("f64")
    rand = lambda n: torch.randint(3, config.vocab_size, (n,), generator=g)
    prompt = rand(SHARED)
    seqs = {"a": rand(19), "b": torch.cat([prompt, rand(9)]), "c": torch.cat([prompt, rand(6)])}
    expect, loss = {"shared": torch.tensor([float(SHARED)])}, 0
    for s, ids in seqs.items():
        logits = model(ids[None]).logits[0]
        coef = torch.randn(len(ids) - 1, generator=g, dtype=torch.float64)
        if s != "a":
            coef[: SHARED - 1] = 0
        coef = coef.float().double()  # what the file will hold
        logp = logits.log_softmax(-1)[:-1].gather(1, ids[1:, None])[:, 0]
        loss = loss + (coef * logp).sum()
        expect.update({f"ids.{s}": ids.float(), f"logits.{s}": logits.detach(), f"coef.{s}": coef})
    loss.backward()
    expect["loss"] = loss.detach()[None]
    for n, p in model.named_parameters():
        expect[f"grad.{n}"] = p.grad
    save_file({k: v.float().contiguous() for k, v in expect.items()}, os.path.join(out, "expect.safetensors"))


def loss_of(model, expect, s):
    ids = expect[f"ids.{s}"].long()
    logp = model(ids[None]).logits[0].float().log_softmax(-1)[:-1].gather(1, ids[1:, None])[:, 0]
    return (expect[f"coef.{s}"] * logp).sum()


def budget(path):
    expect = load_file(os.path.join(path, "expect.safetensors"))
    load = lambda dtype: AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="eager")
    half, master = load(torch.bfloat16), load(torch.float32)
    with torch.no_grad():
        off = torch.cat([(half(expect[f"ids.{s}"].long()[None]).logits[0].float() - expect[f"logits.{s}"]).flatten() for s in "abc"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = sum(loss_of(master, expect, s) for s in "abc")
    loss.backward()
    want = {n: expect[f"grad.{n}"].double() for n, _ in master.named_parameters()}
    diff = {n: (p.grad.double() - want[n]).norm() for n, p in master.named_parameters()}
    norm = lambda x: torch.stack([v.norm() for v in x.values()]).norm()
    with open(os.path.join(path, "bf16.txt"), "w") as f:
        f.write(f"{off.square().mean().sqrt():.6f} {off.abs().max():.6f} {norm(diff) / norm(want):.6f} "
                f"{max(diff[n] / want[n].norm() for n in diff):.6f}\n")


def main():
    if sys.argv[2:] == ["--bf16"]:
        for name in MODELS:
            budget(os.path.join(sys.argv[1], name))
        return
    modeling_llama.LlamaRMSNorm.forward = norm_f64
    modeling_qwen2.Qwen2RMSNorm.forward = norm_f64
    ALL_ATTENTION_FUNCTIONS.register("f64", attention_f64)
    for name in MODELS:
        make(name, os.path.join(sys.argv[1], name))


if __name__ == "__main__":
    main()
