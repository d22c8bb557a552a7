#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A tiny random reward model of ArmoRM's shape and its scores of 200 conversations (torch, float64) -> tests/data/reward/.

    reward.py OUT_DIR TEMPLATE.jinja         needs torch, transformers, safetensors

The class below transcribes ArmoRM's modeling_custom.py (spec 1.7): regression_layer, gating MLP, logit_scale,
reward_transform_matrix; gating position = first token of the last occurrence of the pattern; scoring position = last token.
A byte-level tokenizer without merges and the chat template make it a directory for imf score too (tests/t51_score.sh).
expect.safetensors: n [200], ids [sum n], objectives [200][K], gate [200][K], score [200].
"""
import json
import os
import sys

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama import modeling_llama

from model import attention_f64, norm_f64

torch.set_num_threads(1)
K, HIDDEN, N_HIDDEN, TEMPERATURE = 5, 24, 3, 10.0
PATTERN = [9, 6, 31, 7, 21]


class Gating(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        sizes = [width] + [HIDDEN] * N_HIDDEN + [K]
        self.layers = torch.nn.ModuleList(torch.nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))
        self.logit_scale = torch.nn.Parameter(torch.tensor([1.3]))

    def forward(self, x):
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i < len(self.layers) - 1:
                x = torch.relu(x)
        return torch.softmax(x / TEMPERATURE, dim=-1) * self.logit_scale[0]


class Reward(torch.nn.Module):
    def __init__(self, config, generator):
        super().__init__()
        self.model = LlamaModel(config)
        self.regression_layer = torch.nn.Linear(config.hidden_size, K, bias=False)
        self.gating = Gating(config.hidden_size)
        self.register_buffer("reward_transform_matrix", torch.eye(K))
        self.reward_transform_matrix[2] -= torch.rand(K, generator=generator)
        with torch.no_grad():
            for name, p in self.named_parameters():
                r = torch.randn(p.shape, generator=generator)
                if name != "gating.logit_scale":
                    p.copy_(1 + 0.2 * r if "norm" in name else 0.4 * r if "gating" in name else 0.2 * r)

    def forward(self, ids):
        hidden = self.model(ids[None]).last_hidden_state[0]
        places = [i for i in range(len(ids) - len(PATTERN) + 1) if ids[i : i + len(PATTERN)].tolist() == PATTERN]
        rewards = self.regression_layer(hidden[-1])
        gate = self.gating(hidden[places[-1]])
        return rewards, gate, (gate * (rewards @ self.reward_transform_matrix)).sum()


def conversation(g):
    """Random ids with the pattern once or twice, sometimes at the very end."""
    rand = lambda n: torch.randint(40, 72, (n,), generator=g).tolist()
    size = lambda low, high: int(torch.randint(low, high, (1,), generator=g))
    ids = [3] + rand(size(1, 12))
    for _ in range(size(1, 3)):
        ids += PATTERN + rand(size(0, 14))
    return torch.tensor(ids)


def byte_alphabet():
    """byte -> character of byte-level BPE."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(other)}


def write_tokenizer(out, template):
    specials = ["<|bos|>", "<|user|>", "<|assistant|>", "<|end|>"]
    vocab = {t: i for i, t in enumerate(specials)} | {c: 4 + b for b, c in sorted(byte_alphabet().items())}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    added = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for i, t in enumerate(specials)]
    with open(os.path.join(out, "tokenizer.json"), "w") as f:
        json.dump({"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
                   "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
                   "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocab,
                             "merges": []}}, f, ensure_ascii=False)
    with open(template) as f:
        text = f.read()
    with open(os.path.join(out, "tokenizer_config.json"), "w") as f:
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|bos|>", "eos_token": "<|end|>",
                   "chat_template": text}, f, indent=1)


def main():
    out = sys.argv[1]
    modeling_llama.LlamaRMSNorm.forward = norm_f64
    ALL_ATTENTION_FUNCTIONS.register("f64", attention_f64)
    config = LlamaConfig(vocab_size=264, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, head_dim=16, max_position_embeddings=64, rms_norm_eps=1e-5,
                         tie_word_embeddings=False, rope_parameters=dict(rope_type="default", rope_theta=500000.0))
    g = torch.Generator().manual_seed(17)
    model = Reward(config, g)
    os.makedirs(out, exist_ok=True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, os.path.join(out, "model.safetensors"))
    value = config.to_dict() | dict(architectures=["LlamaForRewardModelWithGating"], num_objectives=K,
                                    gating_temperature=TEMPERATURE, gating_hidden_dim=HIDDEN, gating_n_hidden=N_HIDDEN,
                                    imf_gating_pattern=PATTERN, dtype="float32")
    with open(os.path.join(out, "config.json"), "w") as f:
        json.dump({k: v for k, v in value.items() if k not in ("id2label", "label2id")}, f, indent=1)
    write_tokenizer(out, sys.argv[2])
    model = model.double()
    model.model.set_attn_implementation("f64")
    rows = [conversation(g) for _ in range(200)]
    with torch.no_grad():
        results = [model(ids) for ids in rows]
    save_file({"n": torch.tensor([float(len(r)) for r in rows]), "ids": torch.cat(rows).float(),
               "objectives": torch.stack([r[0] for r in results]).float(),
               "gate": torch.stack([r[1] for r in results]).float(),
               "score": torch.stack([r[2] for r in results]).float()}, os.path.join(out, "expect.safetensors"))


if __name__ == "__main__":
    main()
