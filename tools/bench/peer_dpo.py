#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""TRL's DPOTrainer: pairs a second over the steps of one epoch.

usage: peer_dpo.py MODEL PAIRS.json DTYPE THREADS inside|before kept|recomputed [--device cuda]

PAIRS.json (written by bench_cpu.py): {"pairs": [{"prompt_ids", "chosen_ids", "rejected_ids"}], "batch", "max_length"}, in the
order of training. inside: TRL's default, the reference model runs in every step, and its time counts; before: reference
log-probabilities were computed in advance, and their time does not count. bfloat16 is autocast with fp32 master weights.
recomputed: TRL's default, gradient_checkpointing=True, which takes less memory; kept: False. Without --device on the CPU. Prints one JSON
line; memory is the process's, on a device torch's allocations there.
"""
import json
import os
import resource
import sys
import tempfile
import time

work = tempfile.TemporaryDirectory()
os.environ["HF_HOME"] = work.name

import torch
import transformers
import trl
from datasets import Dataset
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer

model_dir, path, dtype, threads, reference, activations = sys.argv[1:7]
cuda = sys.argv[7:] == ["--device", "cuda"]
if sys.argv[7:] and not cuda:
    sys.exit(__doc__)
torch.set_num_threads(int(threads))
job = json.load(open(path))
pairs, batch, longest = job["pairs"], job["batch"], job["max_length"]


class Dpo(DPOTrainer):
    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset  # ids already, rendered as imf renders them

    def _get_train_sampler(self, *args, **kwargs):
        return torch.utils.data.SequentialSampler(self.train_dataset)


class Clock(TrainerCallback):
    began = ended = 0.0

    def on_train_begin(self, *args, **kwargs):
        Clock.began = now()

    def on_step_end(self, *args, **kwargs):
        Clock.ended = now()


def now():
    if cuda:
        torch.cuda.synchronize()
    return time.monotonic()


def load():
    return transformers.AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)


options = dict(output_dir=work.name, per_device_train_batch_size=batch, gradient_accumulation_steps=1, num_train_epochs=1,
               learning_rate=1e-6, beta=0.1, max_length=longest, save_strategy="no", report_to=[], use_cpu=not cuda,
               bf16=dtype == "bfloat16", gradient_checkpointing=activations == "recomputed", logging_steps=1000,
               remove_unused_columns=False, disable_tqdm=True, precompute_ref_log_probs=reference == "before")
trainer = Dpo(load(), None if reference == "before" else load(), DPOConfig(**options), train_dataset=Dataset.from_list(pairs),
              processing_class=transformers.AutoTokenizer.from_pretrained(model_dir), callbacks=[Clock()])
trainer.train()
seconds = Clock.ended - Clock.began
rss = torch.cuda.max_memory_allocated() / 2**20 if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"what": f"dpo, reference {reference}", "peer": f"TRL {trl.__version__}, activations {activations}",
                  "dtype": dtype, "threads": int(threads), "value": len(pairs) / seconds, "unit": "pairs/s",
                  "tokens": job["tokens"], "seconds": seconds, "rss_mb": rss}))
