# SPDX-License-Identifier: Apache-2.0
"""export.py IMF MODEL: what transformers reads in an exported directory besides the weights. Runs under a Python that has it.

Chat template: apply_chat_template gives the ids of `imf tokens --chat`. generation_config.json: generate() stops by itself
where `imf generate --greedy` stops, after the same tokens.
"""
import json
import subprocess
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

imf, path = sys.argv[1:]
TURN = {"role": "user", "content": "What is the capital of France?"}
CHATS = [
    [TURN],
    [{"role": "system", "content": "Be brief."}, TURN],
    [TURN, {"role": "assistant", "content": " Paris.\n"}, {"role": "user", "content": "日本 😀\n\n  x = {'a': 1}"}],
    [{"role": "user", "content": ""}],
]


def ask(command, row, *options):
    run = subprocess.run([imf, command, path, *options], input=json.dumps(row) + "\n", text=True, capture_output=True)
    if run.returncode:
        sys.exit(f"imf {command}: exit {run.returncode}: {run.stderr}")
    return json.loads(run.stdout)


tokenizer = AutoTokenizer.from_pretrained(path)
for chat in CHATS:
    for header in (True, False):
        want = list(tokenizer.apply_chat_template(chat, add_generation_prompt=header, return_dict=True)["input_ids"])
        got = ask("tokens", {"messages": chat, "add_generation_prompt": header}, "--chat")["ids"]
        if got != want:
            sys.exit(f"{chat}: apply_chat_template gives {want}, imf tokens {got}")

stops = GenerationConfig.from_pretrained(path).eos_token_id
stops = stops if isinstance(stops, list) else [stops]
model = AutoModelForCausalLM.from_pretrained(path, torch_dtype=torch.float32, attn_implementation="eager")
ids = torch.tensor([ask("tokens", {"messages": [TURN], "add_generation_prompt": True}, "--chat")["ids"]])
out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=64, synced_gpus=False)
out = out[0, ids.shape[1]:].tolist()
answer = ask("generate", {"messages": [TURN]}, "--greedy", "--max-new-tokens", "64")
if answer["finish"] != "stop" or out[-1] not in stops or out[:-1] != answer["ids"]:
    sys.exit(f"generate gives {out} (stops at {stops}), imf generate {answer}")
print(f"{len(CHATS)} conversations, one answer of {len(out)} tokens that stops")
