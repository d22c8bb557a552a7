# SPDX-License-Identifier: Apache-2.0
"""Rows for `imf judge code` from HumanEval.jsonl or MbppPlus-*.jsonl: every reference solution (expect right) and one mutant of
each that fails its own tests when run plainly here (expect wrong). Of MbppPlus-v0.1.0 the 378 tasks of v0.2.0.

    python3 tools/reference/code_rows.py FILE.jsonl > rows.jsonl
"""
import ast, copy, json, signal, sys

SWAP = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
        ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.And: ast.Or, ast.Or: ast.And}

# What v0.2.0 of MBPP+ took out of the 399 tasks of v0.1.0 because prompt, tests or solution are broken (evalplus,
# tools/mbpp/fix_v011.py, after its issue 147).
MBPP_REMOVED = {"Mbpp/%d" % i for i in (83, 115, 117, 143, 164, 229, 249, 295, 396, 400, 407, 431, 438, 442, 461, 574, 582, 595,
                                        640, 746, 783)}


def mutants(source):
    """One change each: an operator, a constant; at last every return gives None."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    for i, node in enumerate(nodes):
        changed = copy.deepcopy(tree)
        n = list(ast.walk(changed))[i]
        if isinstance(n, ast.Compare) and type(n.ops[0]) in SWAP:
            n.ops[0] = SWAP[type(n.ops[0])]()
        elif isinstance(n, (ast.BinOp, ast.BoolOp)) and type(n.op) in SWAP:
            n.op = SWAP[type(n.op)]()
        elif isinstance(n, ast.Constant) and type(n.value) is int:
            n.value += 1
        else:
            continue
        yield ast.unparse(ast.fix_missing_locations(changed))
    for n in nodes:
        if isinstance(n, ast.Return):
            n.value = ast.Constant(None)
    yield ast.unparse(ast.fix_missing_locations(tree))


def fails(source, tests):
    """True when the tests raise something soon; a mutant that does not end is not taken."""
    def late(*_):
        raise TimeoutError
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 1)
    try:
        ns = {"__name__": "solution"}
        exec(source, ns)
        for t in tests:
            exec(t, ns)
        return False
    except TimeoutError:
        return False
    except BaseException:
        return True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def main():
    for line in open(sys.argv[1]):
        r = json.loads(line)
        if r["task_id"] in MBPP_REMOVED:
            continue
        source = r["prompt"] + r["canonical_solution"]
        if "test" in r:
            tests = [r["test"] + "\ncheck(" + r["entry_point"] + ")"]
        else:
            tests = [t for t in r["assertion"].split("\n") if t.strip()] if isinstance(r["assertion"], str) else r["assertion"]
        print(json.dumps({"id": r["task_id"], "program": source, "tests": tests, "expect": "right", "cpu_s": 4}))
        for m in mutants(source):
            if fails(m, tests):
                print(json.dumps({"id": r["task_id"] + " mutant", "program": m, "tests": tests, "expect": "wrong", "cpu_s": 4}))
                break
        else:
            print("no mutant of", r["task_id"], file=sys.stderr)


main()
