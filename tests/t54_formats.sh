#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# docs/formats.md against what the program writes: a small select, SFT and DPO, and every key of the JSON that they leave (done,
# metrics, profile, jobs, manifest) stands in the page; the layouts that it gives for the index, ref_logps.bin, the
# manifest's first line are those of the files.
set -u
imf=$1/imf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fail() { echo "$*"; exit 1; }
bytes() { wc -c <"$1" | tr -d ' '; }
u64() { od -An -t u8 -j "$2" -N 8 "$1" | tr -d ' '; }

awk -v dir="$dir" 'BEGIN { for (i = 0; i < 8; i++) {
    printf "{\"prompt\":\"say %d\",\"response\":\"%d!\"}\n", i, i >(dir "/rows")
    printf "{\"instruction\":\"say %d\",\"output\":\"%d!\"}\n", i, i >(dir "/sft")
    printf "{\"prompt\":\"say %d\",\"chosen\":\"%d!\",\"rejected\":\"no\"}\n", i, i >(dir "/dpo") } }'
cat >"$dir/r.yaml" <<END
run_dir: $dir/run
prompts: [{path: input/demo/prompts.jsonl, limit: 9}]
target: {path: input/demo/novice}
sft: {data: $dir/sft, global_batch: 2, max_length: 64, max_steps: 2, save_steps: 1, val_size: 2, eval_steps: 1}
dpo: {data: $dir/dpo, global_batch: 2, max_length: 64, max_steps: 2, val_size: 2, eval_steps: 1}
END
for stage in select sft dpo; do
    "$imf" $stage "$dir/r.yaml" --quiet >"$dir/log" 2>&1 || fail "imf $stage: $(cat "$dir/log")"
done
cd "$dir/run" || exit 1
manifest=$(ls sft/step_*/MANIFEST.json | tail -n 1)
for f in metrics.jsonl speed.jsonl sft/done.json profile.jsonl jobs.jsonl "$manifest" prompts/done; do
    [ -s "$f" ] || fail "no $f"
    grep -oE '"[a-z_/]+":' "$f" | tr -d '":' | sort -u | sed 's/^eval_//' >"$dir/keys"
    [ "$(wc -l <"$dir/keys")" -ge 4 ] || fail "$f has no keys"
    while read -r key; do
        grep -qE "\`$key\`|\"$key\"" "$OLDPWD/docs/formats.md" || fail "docs/formats.md does not know the key '$key' of $f"
    done <"$dir/keys"
done
for key in $(grep -oE '`(eval_)?[a-z_]+/[a-z]+`' "$OLDPWD/docs/formats.md" | tr -d '`' | grep '^rewards\|^logps'); do
    grep -q "\"$key\":" metrics.jsonl && grep -q "\"eval_$key\":" metrics.jsonl || fail "metrics.jsonl has no $key"
done

# Records: 40 bytes an entry, the second record begins where the index says, and is as long.
n=$(sed -n 's/.*"count":\([0-9]*\).*/\1/p' prompts/done)
[ "$(bytes prompts/data-00000.idx)" = $((40 * n)) ] || fail "the index of $n records has $(bytes prompts/data-00000.idx) bytes"
tail -c +$(($(u64 prompts/data-00000.idx 56) + 1)) prompts/data-00000.jsonl |
    head -c "$(u64 prompts/data-00000.idx 64)" >"$dir/record"
sed -n 3p prompts/data-00000.jsonl | cmp -s - "$dir/record" || fail "the index's offset and length are not at 16 and 24"
id=$(printf '%016x%016x' "$(u64 prompts/data-00000.idx 40)" "$(u64 prompts/data-00000.idx 48)")
grep -q "\"id\":\"$id\"" "$dir/record" || fail "the index's id is not at 0, high half first"
head -n 1 prompts/data-00000.jsonl | grep -q '"format":"imf-prompts".*"version":1' || fail "no header"

# ref_logps.bin: magic, n at 40, 40 bytes a pair.
[ "$(head -c 8 dpo/ref_logps.bin)" = IMFREF02 ] || fail "ref_logps.bin has another magic"
[ "$(bytes dpo/ref_logps.bin)" = $((48 + 40 * $(u64 dpo/ref_logps.bin 40))) ] || fail "ref_logps.bin has another size"
head -n 1 "$manifest" | grep -qE '^\{"check": "[0-9a-f]{32}",$' || fail "the manifest's first line is not its sum"
ls "$(dirname "$manifest")" | grep -qx 'shard-000.nc' || fail "no shard-000.nc"
[ ! -e lease ] || fail "a lease is left"
exit 0
