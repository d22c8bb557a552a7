# The formulas of docs/scaling.md, for tests/scale/check.sh and for the table of that page:
#   awk -f tests/scale/formulas.awk NAME key=value ...      prints one number (default: one node)
# ranks, nodes; elements of the model; shares = ranks that own a tile (ranks, or the number of tiles when there are fewer);
# nodes_held = subtrees of the gradient that all ranks hold together (ranks, when every rank has one chain); samples; step =
# collective calls of one optimiser step; few = the same number on 8 ranks.
function step_bytes() { return 4 * v["elements"] * (v["nodes_held"] - 1) + 4 * v["elements"] * (v["nodes"] - 1) }
function step_messages() { return v["nodes_held"] * v["shares"] - v["shares"] + v["shares"] * (v["nodes"] - 1) }
function step_collectives() { return 16 }
function sample_messages() { return 2 * (v["samples"] + v["ranks"] - 1) }
function rank_memory() { return v["few"] + 4096 * v["ranks"] }
function stage_files() { return 2 * v["ranks"] + 20 }
function ended_files() { return 2 * 64 + 1 }
BEGIN {
    v["nodes"] = 1
    for (i = 2; i < ARGC; i++) { split(ARGV[i], kv, "="); v[kv[1]] = kv[2] }
    if (!("shares" in v)) v["shares"] = v["ranks"]
    if (!("nodes_held" in v)) v["nodes_held"] = v["ranks"]
    if (ARGV[1] == "step_bytes") x = step_bytes()
    else if (ARGV[1] == "step_messages") x = step_messages()
    else if (ARGV[1] == "step_collectives") x = step_collectives()
    else if (ARGV[1] == "sample_messages") x = sample_messages()
    else if (ARGV[1] == "rank_memory") x = rank_memory()
    else if (ARGV[1] == "stage_files") x = stage_files()
    else if (ARGV[1] == "ended_files") x = ended_files()
    else { print "no formula is called " ARGV[1] > "/dev/stderr"; exit 1 }
    printf "%.0f\n", x
    exit
}
