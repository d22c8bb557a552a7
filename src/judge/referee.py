# SPDX-License-Identifier: Apache-2.0
# The referee: takes tests apart and judges what came out. It runs no candidate; it is the only process that knows the
# expected values. Frames on stdin/stdout: 4 bytes length (big endian), a JSON header line, then raw bytes.
#   {"op": "plan", "tests": [...]}  ->  {"steps": [[kind, source], ...], "weak": bool}     or {"error": text}
#   {"op": "judge", "class": ...}, raw  ->  {"outcome": 0|1, "reason": text}
# Steps: "setup" and "weak" are run as they are in the candidate's process; "call" is an expression whose value comes back.
# A test is strong when, with its calls of the candidate replaced by the values that came back, it is an expression of
# literals and a few harmless builtins, which is evaluated here.
import sys
sys.path[:] = [p for p in sys.path if p]
import ast, json, math, os, struct

SAFE = {"abs": abs, "len": len, "set": set, "sorted": sorted, "tuple": tuple, "list": list, "dict": dict, "round": round,
        "sum": sum, "min": min, "max": max, "all": all, "any": any, "float": float, "int": int, "str": str, "bool": bool,
        "frozenset": frozenset, "complex": complex, "range": range, "isclose": math.isclose, "bytes": bytes}
OPS = (ast.Compare, ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.Subscript, ast.Slice, ast.Tuple, ast.List, ast.Set, ast.Dict,
       ast.Constant, ast.operator, ast.unaryop, ast.cmpop, ast.boolop, ast.Load)
TOO_BIG = 1 << 16


class NotStrong(Exception):
    pass


def unparse(node):
    return ast.unparse(node)


def own_literal(node):
    """True when the node holds no name but safe builtins (an argument or an expected value)."""
    return all(not isinstance(n, ast.Name) or n.id in SAFE or n.id == "math" for n in ast.walk(node))


class Calls(ast.NodeTransformer):
    """Replaces each call of a candidate's function by the placeholder of the value that will come back."""

    def __init__(self, defined):
        self.sources, self.defined = [], defined

    def visit_Call(self, node):
        f = node.func
        if isinstance(f, ast.Attribute) and isinstance(f.value, ast.Name) and f.value.id == "math" and f.attr == "isclose":
            f = node.func = ast.Name("isclose", ast.Load())
        if isinstance(f, ast.Name) and f.id in SAFE and f.id not in self.defined:
            return self.generic_visit(node)
        if not isinstance(f, ast.Name) and not self.method(f):
            raise NotStrong("a call that is no function of the program")
        self.sources.append(unparse(node))
        return ast.Name("v%d" % (len(self.sources) - 1), ast.Load())

    @staticmethod
    def method(f):  # Solution().solve(...)
        return isinstance(f, ast.Attribute) and isinstance(f.value, ast.Call) and isinstance(f.value.func, ast.Name)


def strong(node, defined):
    """(placeholder expression, sources of the calls); NotStrong when it is none."""
    calls = Calls(defined)
    expr = calls.visit(ast.parse(unparse(node), mode="eval").body)
    if not calls.sources:
        raise NotStrong("no call")
    names = {"v%d" % i for i in range(len(calls.sources))}
    for n in ast.walk(expr):
        if isinstance(n, ast.Name):
            if n.id not in names and n.id not in SAFE:
                raise NotStrong("a variable")
        elif isinstance(n, ast.Call):
            if not isinstance(n.func, ast.Name) or n.func.id not in SAFE:
                raise NotStrong("a call that is not known")
        elif isinstance(n, ast.keyword):
            if n.arg not in ("rel_tol", "abs_tol", "reverse"):
                raise NotStrong("a keyword")
        elif not isinstance(n, OPS):
            raise NotStrong(type(n).__name__)
        if isinstance(n, ast.Compare):
            for op, right in zip(n.ops, n.comparators):
                singleton = isinstance(right, ast.Constant) and (right.value is None or isinstance(right.value, bool))
                if isinstance(op, (ast.Is, ast.IsNot)) and not singleton:
                    raise NotStrong("identity of values")
        if isinstance(n, ast.BinOp) and isinstance(n.op, (ast.Pow, ast.LShift)):
            if not (isinstance(n.right, ast.Constant) and isinstance(n.right.value, (int, float)) and abs(n.right.value) < 4096):
                raise NotStrong("a large power")
        if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Mult):
            for side in (n.left, n.right):
                if isinstance(side, ast.Constant) and isinstance(side.value, int) and abs(side.value) > TOO_BIG:
                    if not own_literal(n) or any(isinstance(m, (ast.List, ast.Tuple, ast.Constant)) and
                                                 not isinstance(getattr(m, "value", 0), (int, float)) for m in ast.walk(n)):
                        raise NotStrong("a large repetition")
    ast.fix_missing_locations(expr)
    return compile(ast.Expression(expr), "test", "eval"), calls.sources


def expected_exception(node, defined):
    """try: f(x) [; assert False] except E: pass   and   with pytest.raises(E): f(x)   ->  (call source, names)"""
    if isinstance(node, ast.With) and len(node.items) == 1 and len(node.body) == 1:
        c = node.items[0].context_expr
        if isinstance(c, ast.Call) and unparse(c.func) in ("pytest.raises", "self.assertRaises") and len(c.args) == 1:
            body, kinds = node.body, c.args[0]
        else:
            raise NotStrong("with")
    elif isinstance(node, ast.Try) and len(node.handlers) == 1 and node.handlers[0].type is not None and not node.finalbody:
        h = node.handlers[0]
        if not all(isinstance(s, ast.Pass) or unparse(s) == "assert True" for s in h.body):
            raise NotStrong("handler")
        rest = node.body[1:] + node.orelse
        if len(rest) != 1 or not (isinstance(rest[0], (ast.Assert, ast.Raise))) or isinstance(rest[0], ast.Assert) and \
                not (isinstance(rest[0].test, ast.Constant) and not rest[0].test.value):
            raise NotStrong("no failing statement after the call")
        body, kinds = node.body[:1], h.type
    else:
        raise NotStrong("statement")
    names = [unparse(k) for k in (kinds.elts if isinstance(kinds, ast.Tuple) else [kinds])]
    call = body[0].value if isinstance(body[0], (ast.Expr, ast.Assign)) else None
    if not isinstance(call, ast.Call):
        raise NotStrong("no call")
    strong(call, defined)
    if any(n in ("AssertionError", "Exception", "BaseException") for n in names):
        raise NotStrong("an exception that is too general")
    return unparse(call), names


class Rename(ast.NodeTransformer):
    def __init__(self, old, new):
        self.old, self.new = old, new

    def visit_Name(self, node):
        if node.id == self.old:
            node.id = self.new
        return node


def statements(tests):
    """All statements; def check(candidate) followed by check(f) is opened: its body with f for candidate."""
    out, functions = [], {}
    for test in tests:
        for s in ast.parse(test).body:
            call = s.value if isinstance(s, ast.Expr) and isinstance(s.value, ast.Call) else None
            if isinstance(s, ast.FunctionDef) and len(s.args.args) == 1 and not any(isinstance(n, (ast.Return, ast.Yield)) for n in ast.walk(s)):
                functions[s.name] = s
            elif call and isinstance(call.func, ast.Name) and call.func.id in functions and len(call.args) == 1 and \
                    isinstance(call.args[0], ast.Name) and not call.keywords:
                f = functions.pop(call.func.id)
                for b in f.body:
                    if not (isinstance(b, ast.Expr) and isinstance(b.value, ast.Constant)):
                        out.append(Rename(f.args.args[0].arg, call.args[0].id).visit(b))
            else:
                out.append(s)
    return list(functions.values()) + out


def unroll(s):
    """for x in <literals>: asserts   ->  the asserts; anything else stays."""
    if not isinstance(s, ast.For) or s.orelse or not isinstance(s.target, ast.Name) or not own_literal(s.iter):
        return [s]
    if not all(isinstance(b, ast.Assert) for b in s.body):
        return [s]
    try:
        values = list(eval(compile(ast.Expression(s.iter), "loop", "eval"), {"__builtins__": {}}, dict(SAFE)))
    except Exception:
        return [s]
    if len(values) > 1000:
        return [s]
    out = []
    for v in values:
        for b in s.body:
            text = ast.parse(unparse(b))
            for n in ast.walk(text):
                for field, child in ast.iter_fields(n):
                    if isinstance(child, ast.Name) and child.id == s.target.id:
                        setattr(n, field, ast.Constant(v))
                    elif isinstance(child, list):
                        child[:] = [ast.Constant(v) if isinstance(c, ast.Name) and c.id == s.target.id else c for c in child]
            out.append(ast.fix_missing_locations(text).body[0])
    return out


class Plan:
    """steps: what the candidate's process is told; checks: (kind, first step, data) that stay here."""

    def __init__(self, tests):
        self.steps, self.checks, self.weak, defined = [], [], False, set()
        flat = [u for s in statements(tests) for u in unroll(s)]
        for s in flat:
            for n in ast.walk(s):
                if isinstance(n, ast.FunctionDef):
                    defined.add(n.name)
        for s in flat:
            self.add(s, defined)
        if not self.checks:
            raise SyntaxError("the tests hold no check")

    def add(self, s, defined):
        at = len(self.steps)
        if isinstance(s, ast.Assert) and isinstance(s.test, ast.Constant) and s.test.value or \
                isinstance(s, ast.Expr) and isinstance(s.value, (ast.Constant, ast.Name)):
            return  # says nothing
        if isinstance(s, (ast.Import, ast.ImportFrom, ast.Pass)) or (isinstance(s, ast.Assign) and own_literal(s.value)) or \
                isinstance(s, (ast.FunctionDef, ast.ClassDef)):
            self.steps.append(["setup", unparse(s)])
            return
        try:
            if isinstance(s, ast.Assert):
                code, sources = strong(s.test, defined)
                self.checks.append(("value", at, code, len(sources), unparse(s.test)))
                self.steps += [["call", x] for x in sources]
            else:
                source, names = expected_exception(s, defined)
                self.checks.append(("raises", at, names, 1, source))
                self.steps.append(["call", source])
        except NotStrong:
            self.weak = True
            self.checks.append(("weak", at, None, 1, unparse(s)))
            self.steps.append(["weak", unparse(s)])


class Opaque:
    """Stands for an object that is no plain data: equal to nothing, true or false as it said."""

    def __init__(self, truth):
        self.truth = truth

    def __bool__(self):
        return self.truth

    def __eq__(self, other):
        return False

    def __ne__(self, other):
        return False

    __hash__ = None

    def __repr__(self):
        return "an object that is no plain data"


def decode(e, depth=0):
    if depth > 200:
        raise ValueError("nested too deeply")
    if e is None or isinstance(e, (bool, int, str)):
        return e
    (kind, v), = e.items()
    if kind == "o":
        return Opaque(v is True)
    if kind == "i":
        return int(v, 16)
    if kind == "f":
        return float.fromhex(v)
    if kind == "c":
        return complex(float.fromhex(v[0]), float.fromhex(v[1]))
    if kind == "b":
        return bytes.fromhex(v)
    if kind == "d":
        return {decode(k, depth + 1): decode(x, depth + 1) for k, x in v}
    make = {"l": list, "t": tuple, "s": set, "z": frozenset}[kind]
    return make(decode(x, depth + 1) for x in v)


def short(text):
    text = "".join(c if c.isprintable() else "\\x%02x" % ord(c) for c in text)
    return text if len(text) <= 60 else text[:57] + "..."


def one(check, results):
    """None when the check is met, else the reason."""
    kind, at, data, n, source = check
    values = []
    for i in range(at, at + n):
        r = results.get(i)
        if r is None:
            return "the program ended before it"
        if r[0] == "x" and kind != "raises":
            return "raised " + short(str(r[1][0]))
        values.append(r)
    if kind == "weak":
        return None if values[0][0] == "w" else "failed"
    if kind == "raises":
        r = values[0]
        return None if r[0] == "x" and any(x in r[1] for x in data) else "raised " + (short(str(r[1][0])) if r[0] == "x" else "nothing")
    try:
        got = [decode(r[1]) for r in values]
    except Exception:
        return "returned something that is no plain data"
    names = dict(SAFE)
    names.update(("v%d" % i, v) for i, v in enumerate(got))
    try:
        ok = bool(eval(data, {"__builtins__": {}}, names))
    except Exception as e:
        return "comparing raised " + type(e).__name__
    return None if ok else "got " + short(repr(got[0])) if n == 1 else "failed"


def judge(plan, head, raw):
    results = {}
    for line in raw.split(b"\n"):
        try:
            i, *r = json.loads(line)
            if isinstance(i, int) and i not in results and r and r[0] in ("v", "x", "w", "f"):
                if r[0] == "x" and not (isinstance(r[1], list) and r[1] and all(isinstance(t, str) for t in r[1])):
                    continue
                results[i] = r
        except Exception:
            continue
    if -1 in results and results[-1][0] == "x":
        return {"outcome": 0, "reason": "the program raised " + short(results[-1][1][0])}
    for i, kind in enumerate(plan.steps):
        if kind[0] == "setup" and i in results and results[i][0] == "x":
            return {"outcome": 0, "reason": "a line of the tests raised " + short(results[i][1][0])}
    for number, check in enumerate(plan.checks):
        why = one(check, results)
        if why:
            if head["class"] != "ok":
                return {"outcome": 0, "reason": head["class"]}
            return {"outcome": 0, "reason": "test %d: %s: %s" % (number + 1, why, short(check[4]))}
    if head["class"] != "ok":
        return {"outcome": 0, "reason": head["class"]}
    return {"outcome": 1, "reason": "all %d tests pass" % len(plan.checks)}


def read_exact(n):
    data = b""
    while len(data) < n:
        piece = os.read(0, n - len(data))
        if not piece:
            sys.exit(0)
        data += piece
    return data


def main():
    sys.setrecursionlimit(5000)
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(20000)
    plan = None
    while True:
        frame = read_exact(struct.unpack(">I", read_exact(4))[0])
        head, _, raw = frame.partition(b"\n")
        head = json.loads(head)
        try:
            if head["op"] == "plan":
                plan = Plan(head["tests"])
                reply = {"steps": plan.steps, "weak": plan.weak}
            else:
                reply = judge(plan, head, raw)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
            reply = {"error": "the tests cannot be read: " + type(e).__name__ + ": " + short(str(e))}
        body = json.dumps(reply).encode() + b"\n"
        frame = struct.pack(">I", len(body)) + body
        while frame:
            frame = frame[os.write(1, frame):]


main()
