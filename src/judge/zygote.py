# SPDX-License-Identifier: Apache-2.0
# The warm parent: imported once, it forks one child a run. It never runs a candidate itself and never learns an expected
# value. Frames as in referee.py:
#   {"program", "steps", "cpu", "memory", "output"}  ->  {"class", "cpu", "output"}, raw results
# class: ok, cpu, wall, memory, output, "killed by signal N", "exit N". Arguments: file descriptor of the seccomp program.
# The child: pipes, rlimits, then seccomp (Landlock, uid, no_new_privs and namespaces are inherited from this process).
import sys
sys.path[:] = [p for p in sys.path if p]
import array, ast, bisect, builtins, cmath, collections, copy, ctypes, datetime, decimal, enum, fractions, functools, gc, hashlib
import heapq, itertools, json, math, numbers, operator, os, random, re, resource, select, signal, statistics, string, struct
import textwrap, time, typing, abc, dataclasses, types

libc = ctypes.CDLL(None)
RESULTS = 1 << 20
IDLE = 0.05  # share of the time below which a program that reached the wall limit is idle


class Program(ctypes.Structure):
    _fields_ = [("n", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def load_filter(fd):
    data = b""
    while True:
        piece = os.read(fd, 65536)
        if not piece:
            break
        data += piece
    os.close(fd)
    buffer = ctypes.create_string_buffer(data, len(data))
    return Program(len(data) // 8, ctypes.cast(buffer, ctypes.c_void_p)), buffer


def encode(v, depth=0):
    """Plain data only: exact values of builtin types (subclasses by their base), so nothing of the candidate crosses."""
    if depth > 150:
        return {"o": True}
    if v is None or v is True or v is False:
        return v
    if isinstance(v, int):
        v = int.__index__(v)
        v = v + 0 if type(v) is int else int.__add__(v, 0)
        return v if -(1 << 53) < v < 1 << 53 else {"i": hex(v)}
    if isinstance(v, float):
        return {"f": float.hex(v)}
    if isinstance(v, str):
        return str.__str__(v) if type(v) is str else str.__add__(v, "")
    if isinstance(v, complex):
        return {"c": [float.hex(v.real), float.hex(v.imag)]}
    if isinstance(v, (bytes, bytearray)):
        return {"b": bytes(v).hex()}
    for kind, t in (("l", list), ("t", tuple), ("s", set), ("z", frozenset)):
        if isinstance(v, t):
            return {kind: [encode(x, depth + 1) for x in t.__iter__(v)]}
    if isinstance(v, dict):
        return {"d": [[encode(k, depth + 1), encode(x, depth + 1)] for k, x in dict.items(v)]}
    return {"o": bool(v)}  # no data; whether it counts as true is all that a test may ask


def names(e):
    return [t.__name__ for t in type(e).__mro__]


def candidate(program, steps, fd):
    """In the child, confined: runs the program and the steps, writes one line a result."""
    def put(*row):
        data = json.dumps(row).encode() + b"\n"
        while data:
            data = data[os.write(fd, data):]

    ns = {"__name__": "solution", "__builtins__": builtins}
    try:
        exec(compile(program, "solution", "exec"), ns)
    except BaseException as e:
        put(-1, "x", names(e))
        return
    for i, (kind, source) in enumerate(steps):
        try:
            if kind == "call":
                put(i, "v", encode(eval(compile(source, "test", "eval"), ns)))
            else:
                exec(compile(source, "test", "exec"), ns)
                put(i, "w")
        except BaseException as e:
            put(i, "x", names(e))


def limit(kind, soft, hard=None):
    have = resource.getrlimit(kind)[1]
    hard = soft if hard is None else hard
    if have != resource.RLIM_INFINITY:
        soft, hard = min(soft, have), min(hard, have)
    resource.setrlimit(kind, (soft, hard))


def child(r, filter, results, output):
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.dup2(results, 3)
    os.closerange(4, 1024)
    second = int(2 * r["cpu"]) + 2
    limit(resource.RLIMIT_CPU, second, second + 1)
    limit(resource.RLIMIT_AS, r["memory"])
    limit(resource.RLIMIT_FSIZE, 0)
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_NOFILE, 64)
    limit(resource.RLIMIT_STACK, 8 << 20)
    random.seed(0)
    os.umask(0o777)
    if libc.prctl(22, 2, ctypes.byref(filter), 0, 0) != 0:  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        os._exit(99)
    candidate(r["program"], r["steps"], 3)


def kill_all(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    if os.getpid() == 1:  # init of our own pid namespace: everything in it but ourselves
        try:
            os.kill(-1, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


def cpu_used(pid):
    try:
        return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3)
    except OSError:
        return 0.0


def watch(pid, r, results, output):
    """Reads both pipes until the child ends or breaks a limit."""
    poll = select.poll()
    poll.register(results, select.POLLIN)
    poll.register(output, select.POLLIN)
    open_fds, raw, printed, broken = 2, bytearray(), 0, None
    start = time.monotonic()

    def over():
        """A program that others keep from the processor is not idle: it ends by the CPU limit, however long that takes."""
        used, spent = cpu_used(pid), time.monotonic() - start
        if used > 2 * r["cpu"]:
            return "cpu"
        return "wall" if spent > 3 * r["cpu"] + 2 and used < IDLE * spent else None

    while open_fds and not broken:
        for fd, _ in poll.poll(20):
            data = os.read(fd, 65536)
            if not data:
                poll.unregister(fd)
                open_fds -= 1
            elif fd == output:
                printed += len(data)
            else:
                raw += data
        broken = "output" if len(raw) > RESULTS or printed > r["output"] else over()
    if not broken:  # the pipes are closed; the process may still run
        while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            broken = over()
            if broken:
                break
            time.sleep(0.002)
    return bytes(raw[:RESULTS]), broken


def run(r, filter):
    r_results, w_results = os.pipe()
    r_output, w_output = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(r_results)
            os.close(r_output)
            child(r, filter, w_results, w_output)
        finally:
            os._exit(0)
    os.close(w_results)
    os.close(w_output)
    raw, broken = watch(pid, r, r_results, r_output)
    kill_all(pid)
    _, status, usage = os.wait4(pid, 0)
    os.close(r_results)
    os.close(r_output)
    while True:  # orphans that became ours
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                break
        except ChildProcessError:
            break
    cpu = usage.ru_utime + usage.ru_stime
    kind = broken
    if not kind and os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        kind = "cpu" if number in (signal.SIGXCPU, signal.SIGKILL) else "killed by signal %d" % number
    if not kind and os.WEXITSTATUS(status) == 99:
        kind = "sandbox"
    if not kind and b'"MemoryError"' in raw[-4096:]:
        kind = "memory"
    if not kind and os.WEXITSTATUS(status):
        kind = "exit %d" % os.WEXITSTATUS(status)
    return {"class": kind or "ok", "cpu": cpu}, raw


def read_exact(n):
    data = b""
    while len(data) < n:
        piece = os.read(0, n - len(data))
        if not piece:
            os._exit(0)
        data += piece
    return data


def main():
    filter, keep = load_filter(int(sys.argv[1]))
    gc.freeze()
    while True:
        frame = read_exact(struct.unpack(">I", read_exact(4))[0])
        head, raw = run(json.loads(frame), filter)
        body = json.dumps(head).encode() + b"\n" + raw
        frame = struct.pack(">I", len(body)) + body
        while frame:
            frame = frame[os.write(1, frame):]


main()
