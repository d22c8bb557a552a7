# SPDX-License-Identifier: Apache-2.0
"""Makes tests/data/decode/tiny: a random Llama of 20,000 parameters with a byte-level tokenizer and the demo's template.

Its text is noise; what tests look at is which tokens come, when they stop, and that nothing changes them.

usage: python tools/reference/tiny_model.py tests/data/decode/tiny
"""
import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, decoders

LAYERS, H, N, K, D, F, V = 2, 32, 2, 1, 16, 48, 264
SPECIALS = ["<|bos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]


def tokenizer(out):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {c: i for i, c in enumerate(alphabet)}
    vocab.update({"he": 256, "\u0120t": 257, "in": 258})
    t = Tokenizer(models.BPE(vocab=vocab, merges=[("h", "e"), ("\u0120", "t"), ("i", "n")]))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens(SPECIALS)
    t.save(str(out / "tokenizer.json"))
    template = pathlib.Path("tests/data/text/imf_demo_template.jinja").read_text().rstrip("\n")
    config = {"bos_token": SPECIALS[0], "eos_token": SPECIALS[4], "chat_template": template,
              "tokenizer_class": "PreTrainedTokenizerFast"}
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    return {s: t.token_to_id(s) for s in SPECIALS}


def model(out, special):
    g = torch.Generator().manual_seed(3)

    def draw(*shape, std=0.3):
        return (torch.randn(*shape, generator=g) * std).to(torch.bfloat16)

    w = {"model.embed_tokens.weight": draw(V, H, std=0.5), "model.norm.weight": torch.ones(H, dtype=torch.bfloat16)}
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        w.update({p + "input_layernorm.weight": torch.ones(H, dtype=torch.bfloat16),
                  p + "post_attention_layernorm.weight": torch.ones(H, dtype=torch.bfloat16),
                  p + "self_attn.q_proj.weight": draw(N * D, H), p + "self_attn.k_proj.weight": draw(K * D, H),
                  p + "self_attn.v_proj.weight": draw(K * D, H), p + "self_attn.o_proj.weight": draw(H, N * D),
                  p + "mlp.gate_proj.weight": draw(F, H), p + "mlp.up_proj.weight": draw(F, H),
                  p + "mlp.down_proj.weight": draw(H, F)})
    save_file(w, out / "model.safetensors", metadata={"format": "pt"})
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": H, "num_hidden_layers": LAYERS,
              "num_attention_heads": N, "num_key_value_heads": K, "head_dim": D, "intermediate_size": F, "vocab_size": V,
              "max_position_embeddings": 192, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
              "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
              "bos_token_id": special["<|bos|>"], "eos_token_id": special["<|end|>"]}
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")


out = pathlib.Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
model(out, tokenizer(out))
