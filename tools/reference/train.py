#!/usr/bin/env python3
"""Loss and gradient norm of 50 fp32 steps of TRL's SFTTrainer and DPOTrainer, on the same ids in the same order as imf.

usage: train.py MODEL_DIR OUT_PREFIX [EXAMPLES.json]

Writes OUT_PREFIX-{sft,dpo,ln}.txt:
  "run KIND STEPS BATCH SEED LR WARMUP_RATIO BETA EXAMPLES", one line an example ("PROMPT CHOSEN N id ...": SFT has
  CHOSEN = N - PROMPT), one line a step ("LOSS GRAD_NORM"). Examples are numbered from 0; each epoch takes them in the order of
  imf's dataset_order (Philox, ported below). Without EXAMPLES.json (a list of {"prompt","chosen","rejected"} id lists)
  they are drawn here.
"""
import json
import random
import struct
import sys
import tempfile

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

torch.set_num_threads(1)
MASK = 0xFFFFFFFF
SEED, STEPS, BATCH = 7, 50, 4


def philox(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & MASK, (p0 >> 32) ^ c[3] ^ k[1], p0 & MASK]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return c


def order(seed, epoch, n):
    stream, out = 102 << 32 | epoch, list(range(n))
    for i in range(n - 1, 0, -1):
        x = philox([i & MASK, i >> 32, stream & MASK, stream >> 32], [seed & MASK, seed >> 32])
        j = ((x[0] << 32 | x[1]) * (i + 1)) >> 64
        out[i], out[j] = out[j], out[i]
    return out


def draw_examples(vocab, n=40):
    r, out = random.Random(3), []
    for _ in range(n):
        word = lambda low, high: [r.randrange(3, vocab) for _ in range(r.randint(low, high))]
        out.append({"prompt": word(1, 14), "chosen": word(1, 12) + [2], "rejected": word(1, 12) + [2]})
    return out


def in_order(examples):
    rows, epoch = [], 0
    while len(rows) < STEPS * BATCH:
        rows += [examples[i] for i in order(SEED, epoch, len(examples))]
        epoch += 1
    assert len(examples) % BATCH == 0
    return rows[: STEPS * BATCH]


class Record:
    """Sequential order, exact losses and norms."""

    def _get_train_sampler(self, *args, **kwargs):
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.losses.append(loss.item())
        return loss

    def log(self, logs, *args, **kwargs):
        if "grad_norm" in logs:
            self.norms.append(float(logs["grad_norm"]))
            print(len(self.norms), self.losses[-1], self.norms[-1], flush=True)
        return super().log(logs, *args, **kwargs)


class Sft(Record, SFTTrainer):
    pass


class Dpo(Record, DPOTrainer):
    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset  # ids already


def tokenizer(vocab):
    t = Tokenizer(models.WordLevel({f"t{i}": i for i in range(vocab)}, unk_token="t0"))
    return PreTrainedTokenizerFast(tokenizer_object=t, pad_token="t0", eos_token="t2", unk_token="t0")


def load(model_dir):
    """transformers makes the embedding with padding_idx = pad_token_id: torch then drops that token's lookup gradient, although
    SmolLM2's pad token is its stop token, which stands in every row. The reference computes the whole gradient."""
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="eager")
    model.get_input_embeddings().padding_idx = None
    return model


def run(kind, model_dir, examples, lr, ratio, beta, out):
    model = load(model_dir)
    rows = in_order(examples)
    common = dict(output_dir=tempfile.mkdtemp(), per_device_train_batch_size=BATCH, gradient_accumulation_steps=1,
                  learning_rate=lr, warmup_steps=ratio, lr_scheduler_type="cosine", max_steps=STEPS, logging_steps=1,
                  save_strategy="no", report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False,
                  max_length=None, remove_unused_columns=False, disable_tqdm=True, max_grad_norm=1.0, weight_decay=0.0)
    tok = tokenizer(model.config.vocab_size)
    if kind == "sft":
        data = Dataset.from_list([{"input_ids": r["prompt"] + r["chosen"],
                                   "completion_mask": [0] * len(r["prompt"]) + [1] * len(r["chosen"])} for r in rows])
        trainer = Sft(model, SFTConfig(**common, completion_only_loss=True), train_dataset=data, processing_class=tok)
    else:
        data = Dataset.from_list([{f"{k}_ids": r[k] for k in ("prompt", "chosen", "rejected")} for r in rows])
        loss = "sigmoid" if kind == "dpo" else "sigmoid_norm"
        ref = load(model_dir)
        trainer = Dpo(model, ref, DPOConfig(**common, beta=beta, loss_type=[loss]), train_dataset=data, processing_class=tok)
    trainer.losses, trainer.norms = [], []
    trainer.train()
    assert len(trainer.losses) == STEPS and len(trainer.norms) == STEPS
    with open(f"{out}-{kind}.txt", "w") as f:
        f.write(f"run {kind} {STEPS} {BATCH} {SEED} {lr!r} {ratio!r} {beta!r} {len(examples)}\n")
        for e in examples:
            ids = e["prompt"] + e["chosen"] + (e["rejected"] if kind != "sft" else [])
            f.write(" ".join(map(str, [len(e["prompt"]), len(e["chosen"]), len(ids)] + ids)) + "\n")
        for loss, norm in zip(trainer.losses, trainer.norms):
            f.write(f"{loss!r} {norm!r}\n")


def main():
    model_dir, out = sys.argv[1:3]
    vocab = json.load(open(f"{model_dir}/config.json"))["vocab_size"]
    real = len(sys.argv) > 3
    examples = json.load(open(sys.argv[3])) if real else draw_examples(vocab)
    kinds = sys.argv[4].split(",") if len(sys.argv) > 4 else ("sft", "dpo", "ln")
    for kind in kinds:
        lr = (2e-5 if kind == "sft" else 1e-6) if real else 1e-3
        run(kind, model_dir, examples, lr, 0.1, 10.0 if kind == "ln" else 0.1, out)


main()
