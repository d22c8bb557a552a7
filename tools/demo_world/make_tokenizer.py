# SPDX-License-Identifier: Apache-2.0
"""Trains the demo's byte-level BPE (512 ids) on generated text. Needs the package `tokenizers`; its result is committed.

    python3 make_tokenizer.py OUT_DIR
"""
import json
import os
import random
import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import world

SPECIAL = ["<|pad|>", "<|bos|>", "<|user|>", "<|assistant|>", "<|end|>"]


def texts(n=30000):
    r = random.Random(1)
    for _ in range(n):
        item = world.draw(r.choice(list(world.KINDS)), "pretrain", r)
        yield item.question
        yield world.habitual(item, r, {"math": 0.8, "code": 0.8, "if": 0.7})


def main(out):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    t.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    t.train_from_iterator(texts(), trainers.BpeTrainer(vocab_size=512, special_tokens=SPECIAL, initial_alphabet=alphabet))
    assert t.get_vocab_size() == 512, t.get_vocab_size()
    os.makedirs(out, exist_ok=True)
    t.save(os.path.join(out, "tokenizer.json"))


if __name__ == "__main__":
    main(sys.argv[1])
