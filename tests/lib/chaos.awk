# chaos.awk -v seed=N: the combination of a seed, the same with every awk. First line: order of the inputs and dtype. Then a
# line a start of the program: ranks, threads, rows of a micro-batch, nodes, and how it ends:
#   fault STAGE POINT:N[:RANK]   (src/base/fault.h)
#   kill STAGE MS PICK           kill -9 of one of the ranks, MS after the stage began
#   end
# The first kill goes through a list of all points of all stages, so that consecutive seeds reach each of them; more are drawn.
#
# Random numbers are counted, not iterated: hash(seed, counter) by rounds of x(x + a) + b modulo a prime below 2^26, whose
# products are exact in double precision.
function hash(counter,    x, i) {
    x = (seed % P * 40503 + counter * 9973 + 1) % P
    for (i = 1; i <= 4; i++) x = (x * ((x + i * 7919 + counter) % P) + i * 104729 + seed % P) % P
    return x
}
function draw(n) { return int(hash(++drawn) / P * n) }
function pick(list,    word, n) { n = split(list, word, " "); return word[draw(n) + 1] }

# A passage that comes for certain, also when few records fall to a rank.
function passage(stage, point) {
    if (point ~ /^(item|journal)-/) return 1 + draw(5)
    if (point ~ /^step-/) return 1 + draw(4)
    if (point == "shard-write") return 1 + draw(12)
    if (point ~ /^(shard-close|manifest|checkpoint-)/) return 1 + draw(3)
    if (point ~ /^file-/) return 1 + draw(2)
    if (point ~ /^compact-/ && stage ~ /^(select|sample|pair|eval)$/) return 1 + draw(2)  # they write several sets
    return 1
}
# Points that every rank passes.
function anywhere(point) { return point ~ /^(item-finished|journal-|shard-|compact-(begin|files|done)|refs-)/ }

function ending(cell, certain,    part, text) {
    split(cell, part, ":")
    text = "kill " part[1] " " draw(MS[part[1]])
    if (part[2] == "kill") return text " " draw(1000)
    text = part[2] ":" passage(part[1], part[2])
    if (!certain && anywhere(part[2]) && draw(2)) text = text ":" draw(ranks)
    return "fault " part[1] " " text
}

function layout(    old, text) {
    old = ranks
    do ranks = 1 + draw(4); while (ranks == old)
    text = ranks " " (1 + draw(2))
    text = text " " pick("1 2 4")
    return text " " (1 + draw(2))
}

function stage_of(cell) { return index(STAGES, substr(cell, 1, index(cell, ":") - 1)) }

function add_cells(stages, points,    s, p, i, j, n, m) {
    n = split(stages, s, " ")
    m = split(points, p, " ")
    for (i = 1; i <= n; i++)
        for (j = 1; j <= m; j++) cell[cells++] = s[i] ":" p[j]
}

BEGIN {
    P = 67108859
    STAGES = "select sample score verify pair sft dpo eval"
    split("150 700 500 1500 150 1200 1500 1500", ms, " ")
    for (i = split(STAGES, stage, " "); i; i--) MS[stage[i]] = ms[i]
    add_cells("select sample score verify pair eval",
              "item-finished journal-write journal-line journal-index compact-begin compact-text compact-file compact-files " \
              "compact-done compact-remove file-rename file-renamed")
    add_cells("sft dpo",
              "step-finished step-line shard-write shard-close manifest checkpoint-rename checkpoint-renamed prune " \
              "export-rename export-removed export-renamed file-rename file-renamed")
    add_cells("dpo", "refs-computed refs-written")
    add_cells(STAGES, "kill")
    first = cell[(seed * 29) % cells]
    chosen[n = 1] = first
    for (more = draw(3); more; more--) {
        at = cell[draw(cells)]
        for (i = n++; i && stage_of(chosen[i]) > stage_of(at); i--) chosen[i + 1] = chosen[i]  # in order of the stages
        chosen[i + 1] = at
    }
    order = draw(3) ? 1 + draw(1000) : 0
    dtype = pick("float32 bfloat16")
    print order, dtype
    for (i = 1; i <= n; i++) {
        text = layout()
        print text, ending(chosen[i], chosen[i] == first)
    }
    print layout(), "end"
}
