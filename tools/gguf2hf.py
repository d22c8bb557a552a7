#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""GGUF file -> Hugging Face directory (bf16 safetensors, config, tokenizer, chat template), without torch.

    gguf2hf.py MODEL.gguf OUT_DIR [--shard-gb 2]

Needs the packages gguf and numpy. Handles the architectures llama and qwen2 with a gpt2 (byte-level BPE) vocabulary
whose pre-tokenizer is "smollm", "qwen2" or "llama-bpe"; says what it does not know and stops.

Weights are de-quantised and rounded once to bf16 (nearest, ties to even). Drawback: a quantised model is a new model;
its de-quantised weights are the reference for every comparison, not the originals.

GGUF files of the architecture llama hold q and k with their rows permuted for interleaved RoPE (pairs 2i, 2i+1);
Hugging Face pairs i with i + D/2, so the rows are put back here. qwen2 files are not permuted.
"""
import argparse
import json
import os
import sys

import numpy as np
from gguf import GGUFReader, GGUFValueType
from gguf.quants import dequantize

NAMES = {  # GGUF -> Hugging Face, {n} = layer
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "blk.{n}.attn_norm.weight": "model.layers.{n}.input_layernorm.weight",
    "blk.{n}.ffn_norm.weight": "model.layers.{n}.post_attention_layernorm.weight",
    "blk.{n}.attn_q.weight": "model.layers.{n}.self_attn.q_proj.weight",
    "blk.{n}.attn_k.weight": "model.layers.{n}.self_attn.k_proj.weight",
    "blk.{n}.attn_v.weight": "model.layers.{n}.self_attn.v_proj.weight",
    "blk.{n}.attn_q.bias": "model.layers.{n}.self_attn.q_proj.bias",
    "blk.{n}.attn_k.bias": "model.layers.{n}.self_attn.k_proj.bias",
    "blk.{n}.attn_v.bias": "model.layers.{n}.self_attn.v_proj.bias",
    "blk.{n}.attn_output.weight": "model.layers.{n}.self_attn.o_proj.weight",
    "blk.{n}.ffn_gate.weight": "model.layers.{n}.mlp.gate_proj.weight",
    "blk.{n}.ffn_up.weight": "model.layers.{n}.mlp.up_proj.weight",
    "blk.{n}.ffn_down.weight": "model.layers.{n}.mlp.down_proj.weight",
}
REGEX_QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
               r"\s+(?!\S)|\s+")
REGEX_LLAMA3 = REGEX_QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
CONTROL, USER_DEFINED, UNUSED = 3, 4, 5  # tokenizer.ggml.token_type


class Source:
    """Typed access to the key-value part of a GGUF file."""

    def __init__(self, path):
        self.reader = GGUFReader(path)
        self.arch = self.get("general.architecture")
        if self.arch not in ("llama", "qwen2"):
            sys.exit(f"{path}: architecture {self.arch!r} is not handled (llama, qwen2)")

    def get(self, key, default=None):
        field = self.reader.fields.get(key)
        if field is None:
            return default
        return field.contents()

    def model(self, key, default=None):
        return self.get(f"{self.arch}.{key}", default)


def to_bf16(x):
    """fp32 -> bf16 bits, to nearest, ties to even."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def unpermute(w, heads):
    """Rows back from interleaved to half-split RoPE."""
    rows, cols = w.shape
    half = rows // heads // 2
    return w.reshape(heads, half, 2, cols).swapaxes(1, 2).reshape(rows, cols)


def hf_name(name):
    if name in NAMES:
        return NAMES[name]
    parts = name.split(".")
    if parts[0] == "blk":
        pattern = ".".join(["blk", "{n}"] + parts[2:])
        if pattern in NAMES:
            return NAMES[pattern].format(n=parts[1])
    sys.exit(f"tensor {name} has no Hugging Face name here (rope_freqs and mixture-of-experts models are not handled)")


def read_tensor(source, tensor):
    shape = [int(n) for n in reversed(tensor.shape)]
    w = dequantize(tensor.data, tensor.tensor_type).reshape(shape)
    if not np.isfinite(w).all():
        sys.exit(f"tensor {tensor.name}: NaN or Inf")
    if source.arch == "llama" and tensor.name.endswith("attn_q.weight"):
        w = unpermute(w, source.model("attention.head_count"))
    if source.arch == "llama" and tensor.name.endswith("attn_k.weight"):
        w = unpermute(w, source.model("attention.head_count_kv"))
    return to_bf16(w)


def write_shard(path, source, tensors):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for t in tensors:
        size = 2 * int(t.n_elements)
        shape = [int(n) for n in reversed(t.shape)]
        header[hf_name(t.name)] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for t in tensors:
            out.write(read_tensor(source, t).tobytes())


def write_weights(source, out_dir, shard_bytes):
    shards, size = [[]], 0
    for t in source.reader.tensors:
        if shards[-1] and size + 2 * int(t.n_elements) > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(t)
        size += 2 * int(t.n_elements)
    if len(shards) == 1:
        return write_shard(os.path.join(out_dir, "model.safetensors"), source, shards[0])
    weight_map = {}
    for i, tensors in enumerate(shards):
        name = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        write_shard(os.path.join(out_dir, name), source, tensors)
        weight_map.update({hf_name(t.name): name for t in tensors})
    total = sum(2 * int(t.n_elements) for t in source.reader.tensors)
    write_json(out_dir, "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def write_json(out_dir, name, value):
    with open(os.path.join(out_dir, name), "w", encoding="utf-8") as out:
        json.dump(value, out, ensure_ascii=False, indent=2)
        out.write("\n")


def config(source):
    heads, hidden = source.model("attention.head_count"), source.model("embedding_length")
    tokens = len(source.get("tokenizer.ggml.tokens"))
    tied = not any(t.name == "output.weight" for t in source.reader.tensors)
    value = {
        "architectures": ["LlamaForCausalLM" if source.arch == "llama" else "Qwen2ForCausalLM"],
        "model_type": source.arch,
        "vocab_size": tokens,
        "hidden_size": hidden,
        "intermediate_size": source.model("feed_forward_length"),
        "num_hidden_layers": source.model("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": source.model("attention.head_count_kv"),
        "hidden_act": "silu",
        "max_position_embeddings": source.model("context_length"),
        "rms_norm_eps": float(f"{source.model('attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_theta": float(source.model("rope.freq_base")),
        "rope_scaling": None,
        "tie_word_embeddings": tied,
        "attention_dropout": 0.0,
        "bos_token_id": source.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": source.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": source.get("tokenizer.ggml.padding_token_id"),
        "torch_dtype": "bfloat16",
    }
    if source.arch == "llama":
        value.update({"attention_bias": False, "mlp_bias": False, "head_dim": hidden // heads})
    else:
        value.update({"use_sliding_window": False})
    return value


def pre_tokenizer(name):
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": name == "smollm"}
    if name == "smollm":
        first = {"type": "Digits", "individual_digits": True}
        byte_level["use_regex"] = True
    elif name in ("qwen2", "llama-bpe"):
        regex = REGEX_QWEN2 if name == "qwen2" else REGEX_LLAMA3
        first = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
        byte_level["use_regex"] = False
    else:
        sys.exit(f"pre-tokenizer {name!r} is not handled (smollm, qwen2, llama-bpe)")
    return {"type": "Sequence", "pretokenizers": [first, byte_level]}


def write_tokenizer(source, out_dir):
    if source.get("tokenizer.ggml.model") != "gpt2":
        sys.exit(f"tokenizer model {source.get('tokenizer.ggml.model')!r} is not handled (gpt2)")
    tokens = source.get("tokenizer.ggml.tokens")
    kinds = source.get("tokenizer.ggml.token_type")
    pre = source.get("tokenizer.ggml.pre")
    added = [i for i, k in enumerate(kinds) if k in (CONTROL, USER_DEFINED)]
    last_plain = max(i for i, k in enumerate(kinds) if k not in (CONTROL, USER_DEFINED, UNUSED))
    added_tokens = [{"id": i, "content": tokens[i], "single_word": False, "lstrip": False, "rstrip": False,
                     "normalized": False, "special": kinds[i] == CONTROL} for i in added]
    byte_level = {"type": "ByteLevel", "add_prefix_space": pre == "smollm", "trim_offsets": pre == "smollm",
                  "use_regex": pre == "smollm"}
    write_json(out_dir, "tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added_tokens,
        "normalizer": {"type": "NFC"} if pre == "qwen2" else None,
        "pre_tokenizer": pre_tokenizer(pre), "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False,
                  "ignore_merges": pre == "llama-bpe",
                  "vocab": {t: i for i, t in enumerate(tokens) if i <= last_plain},
                  "merges": [m.split(" ") for m in source.get("tokenizer.ggml.merges")]}})
    text = lambda key: None if source.get(key) is None else tokens[source.get(key)]
    bos = text("tokenizer.ggml.bos_token_id") if source.arch == "llama" else None
    write_json(out_dir, "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast" if source.arch == "llama" else "Qwen2Tokenizer",
        "add_bos_token": False, "add_prefix_space": False, "clean_up_tokenization_spaces": False,
        "bos_token": bos, "eos_token": text("tokenizer.ggml.eos_token_id"),
        "pad_token": text("tokenizer.ggml.padding_token_id"), "unk_token": None,
        "model_max_length": source.model("context_length"),
        "chat_template": source.get("tokenizer.chat_template")})


def generation_config(source):
    eos = [source.get("tokenizer.ggml.eos_token_id")]
    pad = source.get("tokenizer.ggml.padding_token_id")
    if source.arch == "qwen2" and pad not in eos:
        eos.append(pad)  # Qwen stops on <|endoftext|> too
    return {"bos_token_id": source.get("tokenizer.ggml.bos_token_id"), "pad_token_id": pad,
            "eos_token_id": eos if len(eos) > 1 else eos[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf")
    parser.add_argument("out_dir")
    parser.add_argument("--shard-gb", type=float, default=2)
    args = parser.parse_args()
    source = Source(args.gguf)
    os.makedirs(args.out_dir, exist_ok=True)
    write_tokenizer(source, args.out_dir)
    write_json(args.out_dir, "generation_config.json", generation_config(source))
    write_weights(source, args.out_dir, int(args.shard_gb * 2**30))
    write_json(args.out_dir, "config.json", config(source))  # last: marks the directory as complete


if __name__ == "__main__":
    main()
