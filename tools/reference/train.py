#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Loss and gradient norm of 50 fp32 steps of TRL's SFTTrainer and DPOTrainer, on the same ids in the same order as imf.

usage: train.py MODEL_DIR OUT_PREFIX [EXAMPLES.json [KIND,...]]
       train.py MODEL_DIR OUT_PREFIX --bf16 BATCH ORDERS [KIND,... [off]]

Writes OUT_PREFIX-{sft,dpo,ln}.txt:
  "run KIND STEPS BATCH SEED LR WARMUP_RATIO BETA EXAMPLES", one line an example ("PROMPT CHOSEN N id ...": SFT has
  CHOSEN = N - PROMPT), one line a step ("LOSS GRAD_NORM"). Examples are numbered from 0; each epoch takes them in the order of
  imf's dataset_order (Philox, ported below). Without EXAMPLES.json (a list of {"prompt","chosen","rejected"} id lists)
  they are drawn here.

With --bf16 the examples and rates of OUT_PREFIX-KIND.txt are trained on again in steps of BATCH examples, in fp32 and in torch's
own bf16 (fp32 master weights, bf16 autocast), ORDERS times: seeds SEED, SEED + 1, ... OUT_PREFIX-KIND-bf16-BATCH.txt is written:
"bf16 KIND STEPS BATCH ORDERS", one line a step ("LOSS_FP32 LOSS_BF16"). MODEL_DIR need not be the model of OUT_PREFIX-KIND.txt:
for tiny it is tests/data/model/llama3, whose weights are stored in bf16 like those of released models.

With off (OUT_PREFIX-KIND-bf16-BATCH-off.txt) both begin at weights that lie anywhere between two values of bf16. A released model's
weights lie on such values, and 50 steps at 2e-5 move few of them by half a step of bf16: the rounded copy stands still while the
fp32 weights move. Of SmolLM2's SFT that is nearly the whole distance, whoever computes; off shows the arithmetic's part.
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
KINDS = ("sft", "dpo", "ln")
OFF = sys.argv[7:] == ["off"]


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


def in_order(examples, batch, seed):
    rows, epoch = [], 0
    while len(rows) < STEPS * batch:
        rows += [examples[i] for i in order(seed, epoch, len(examples))]
        epoch += 1
    assert len(examples) % batch == 0
    return rows[: STEPS * batch]


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
    if OFF:
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(between(p))
    return model


def between(w):
    """bf16 values moved by -1/2 .. 1/2 of their last place, a function of the value's bits alone (tests/t46_reference.c has it too)."""
    bits = w.contiguous().view(torch.int32)
    high = bits >> 16 & 0xFFFF
    return torch.where(w == 0, w, (bits + (high * 40503 & 0xFFFF) - 0x8000).view(torch.float32))


def train(kind, model_dir, examples, lr, ratio, beta, batch=BATCH, seed=SEED, bf16=False):
    """Losses and gradient norms of STEPS steps."""
    model = load(model_dir)
    rows = in_order(examples, batch, seed)
    common = dict(output_dir=tempfile.mkdtemp(), per_device_train_batch_size=batch, gradient_accumulation_steps=1,
                  learning_rate=lr, warmup_steps=ratio, lr_scheduler_type="cosine", max_steps=STEPS, logging_steps=1,
                  save_strategy="no", report_to=[], use_cpu=True, bf16=bf16, gradient_checkpointing=False,
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
    assert next(model.parameters()).dtype == torch.float32
    return trainer.losses, trainer.norms


def run(kind, model_dir, examples, lr, ratio, beta, out):
    losses, norms = train(kind, model_dir, examples, lr, ratio, beta)
    with open(f"{out}-{kind}.txt", "w") as f:
        f.write(f"run {kind} {STEPS} {BATCH} {SEED} {lr!r} {ratio!r} {beta!r} {len(examples)}\n")
        for e in examples:
            ids = e["prompt"] + e["chosen"] + (e["rejected"] if kind != "sft" else [])
            f.write(" ".join(map(str, [len(e["prompt"]), len(e["chosen"]), len(ids)] + ids)) + "\n")
        for loss, norm in zip(losses, norms):
            f.write(f"{loss!r} {norm!r}\n")


def read_run(path):
    """Examples and (learning rate, warm-up ratio, beta) of a file that run() wrote."""
    with open(path) as f:
        head = f.readline().split()
        assert (int(head[2]), int(head[4])) == (STEPS, SEED)
        examples = []
        for _ in range(int(head[8])):
            prompt, chosen, n, *ids = map(int, f.readline().split())
            examples.append({"prompt": ids[:prompt], "chosen": ids[prompt:prompt + chosen], "rejected": ids[prompt + chosen:]})
    return examples, tuple(map(float, head[5:8]))


def run_bf16(kind, model_dir, out, batch, orders):
    examples, rates = read_run(f"{out}-{kind}.txt")
    with open(f"{out}-{kind}-bf16-{batch}{'-off' * OFF}.txt", "w") as f:
        f.write(f"bf16 {kind} {STEPS} {batch} {orders}\n")
        for seed in range(SEED, SEED + orders):
            for fp32, bf16 in zip(*(train(kind, model_dir, examples, *rates, batch, seed, half)[0] for half in (False, True))):
                f.write(f"{fp32!r} {bf16!r}\n")


def main():
    model_dir, out = sys.argv[1:3]
    if sys.argv[3:4] == ["--bf16"]:
        for kind in sys.argv[6].split(",") if len(sys.argv) > 6 else KINDS:
            run_bf16(kind, model_dir, out, *map(int, sys.argv[4:6]))
        return
    vocab = json.load(open(f"{model_dir}/config.json"))["vocab_size"]
    real = len(sys.argv) > 3
    examples = json.load(open(sys.argv[3])) if real else draw_examples(vocab)
    for kind in sys.argv[4].split(",") if len(sys.argv) > 4 else KINDS:
        lr = (2e-5 if kind == "sft" else 1e-6) if real else 1e-3
        run(kind, model_dir, examples, lr, 0.1, 10.0 if kind == "ln" else 0.1, out)


main()
