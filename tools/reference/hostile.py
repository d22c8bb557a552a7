# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/judge/hostile.jsonl and forging.jsonl: programs that attack the sandbox or the verdict.

hostile: {"name", "program", "expect"}; the test is `assert f() == 'denied'`. expect: what the verdict's reason must begin with
("all 1 tests pass" = the attempt failed inside the sandbox), several separated by |. @CANARY@ is a file of the tester, @PPID@ the
pid of the supervisor's caller, @PORT@ a TCP and UDP port on which the tester listens.
forging: {"name", "program", "tests"}: none may get the verdict right.

    python3 tools/reference/hostile.py
"""
import json, textwrap

rows = []
DENIED = "all 1 tests pass"


def attempt(name, body, before="", expect=DENIED):
    """f() is 'harm' when body succeeds, 'denied' when it raises."""
    body = textwrap.indent(textwrap.dedent(body).strip("\n"), " " * 8)
    rows.append({"name": name, "expect": expect,
                 "program": "import os, sys\n%s\ndef f():\n    try:\n%s\n    except BaseException:\n        return 'denied'\n    return 'harm'\n" % (before, body)})


def program(name, text, expect):
    rows.append({"name": name, "expect": expect, "program": textwrap.dedent(text).strip("\n") + "\n"})


LIBC = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\ndef need(r):\n    if r < 0: raise OSError(ctypes.get_errno())\n    return r"

# resources
program("spin", "def f():\n    while True: pass", "cpu")
program("ignore signals and spin", "import signal\nfor s in range(1, 32):\n    try: signal.signal(s, signal.SIG_IGN)\n    except Exception: pass\ndef f():\n    while True: pass", "cpu")
program("spin at import", "while True: pass", "cpu")
program("regular expression", "import re\ndef f():\n    return re.match('(a+)+$', 'a' * 60 + 'b')", "cpu")
program("9**9**9", "def f():\n    return 9 ** 9 ** 9", "cpu|memory|test 1")
program("recursion", "import sys\nsys.setrecursionlimit(10 ** 9)\ndef g(n):\n    return g(n + 1)\ndef f():\n    return g(0)", "killed|test 1|memory|cpu")
program("list doubling", "def f():\n    a = [0]\n    while True: a = a + a", "memory|cpu|test 1")
program("64 MiB steps", "def f():\n    a = []\n    while True: a.append(bytearray(64 << 20))", "memory|cpu")
attempt("mmap of 1 TB", "mmap.mmap(-1, 1 << 40)", "import mmap")
attempt("itertools.product", "list(itertools.product(range(1000), repeat=4))", "import itertools", "memory|cpu|" + DENIED)
attempt("memfd", "os.memfd_create('x')")
attempt("10000 threads", "threads = [threading.Thread(target=time.sleep, args=(9,), daemon=True) for _ in range(10000)]\nfor t in threads: t.start()", "import threading, time", "memory|" + DENIED)
attempt("descriptors", "keep = [os.dup(1) for _ in range(1000)]")
program("stdout flood", "def f():\n    while True: print('x' * 1000)", "output")
program("stderr flood", "import sys\ndef f():\n    while True: sys.stderr.write('x' * 1000)", "output")
program("one long line", "def f():\n    print('x' * (1 << 22))", "output|memory")
program("result flood", "def f():\n    return 'x' * (1 << 22)", "output|memory")
program("sleep", "import time\ndef f():\n    time.sleep(60)", "time")
attempt("write a 64 MiB file", "open('/tmp/x', 'wb').write(bytes(64 << 20))")
attempt("many files", "for i in range(1000): open('/tmp/imf-x%d' % i, 'w').close()")
attempt("sparse file", "os.truncate('@CANARY@', 1 << 40)")
# processes
attempt("fork", "os._exit(0) if os.fork() == 0 else None")
attempt("fork bomb", "while True: os.fork()")
attempt("double fork daemon", "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        import time\n        time.sleep(100)")
attempt("vfork", "need(libc.vfork())", LIBC)
attempt("clone with CLONE_PARENT", "need(libc.syscall(56, 0x8000 | 17, 0, 0, 0, 0))", LIBC)
attempt("clone3", "buf = ctypes.create_string_buffer(88)\nneed(libc.syscall(435, buf, 88))", LIBC)
attempt("subprocess", "subprocess.run(['/bin/true'], check=True)", "import subprocess")
attempt("os.system", "assert os.system('touch /tmp/imf-harm') == 0")
attempt("exec a shell", "os.execv('/bin/sh', ['sh', '-c', 'echo harm'])")
attempt("posix_spawn", "os.posix_spawn('/bin/true', ['true'], {})")
attempt("setsid", "os.setsid()")
attempt("multiprocessing", "multiprocessing.Process(target=print).start()", "import multiprocessing")
attempt("pty", "pty.fork()", "import pty")
# host: files
attempt("read /etc/passwd", "open('/etc/passwd').read()")
attempt("read the canary", "open('@CANARY@').read()")
attempt("write the canary", "open('@CANARY@', 'w').write('harm')")
attempt("append to the canary", "os.open('@CANARY@', os.O_WRONLY | os.O_APPEND)")
attempt("truncate on open", "os.open('@CANARY@', os.O_RDONLY | os.O_TRUNC)")
attempt("unlink", "os.unlink('@CANARY@')")
attempt("rename", "os.rename('@CANARY@', '/tmp/imf-harm')")
attempt("symlink", "os.symlink('/etc/passwd', '/tmp/imf-harm')")
attempt("hard link", "os.link('@CANARY@', '/tmp/imf-harm')")
attempt("fifo", "os.mkfifo('/tmp/imf-harm')")
attempt("mkdir", "os.mkdir('/tmp/imf-harm')")
attempt("chmod", "os.chmod('@CANARY@', 0o777)")
attempt("chown", "os.chown('@CANARY@', 0, 0)")
attempt("utime", "os.utime('@CANARY@', (0, 0))")
attempt("setxattr", "os.setxattr('@CANARY@', 'user.x', b'1')")
attempt("list /", "assert {'home', 'root', 'var'} & set(os.listdir('/'))")
attempt("list /proc", "os.listdir('/proc')")
attempt("environ of the parent", "open('/proc/%d/environ' % os.getppid()).read()")
attempt("memory of itself by /proc", "open('/proc/self/mem', 'rb')")
attempt("memory of the caller", "open('/proc/@PPID@/mem', 'rb')")
attempt("/dev/shm", "open('/dev/shm/imf-harm', 'w')")
attempt("/dev/nvidia0", "open('/dev/nvidia0')")
attempt("chdir and read", "os.chdir('/etc')\nopen('passwd').read()")
attempt("chroot", "os.chroot('/tmp')")
attempt("mount", "need(libc.mount(b'none', b'/tmp', b'tmpfs', 0, None))", LIBC)
attempt("environment", "assert [k for k in os.environ if k not in ('PYTHONHASHSEED', 'LC_ALL', 'PATH', 'LC_CTYPE')]")
attempt("secret in memory", "import gc\nassert any('imf-secret' in s for s in gc.get_objects() if isinstance(s, str))")
# host: processes and kernel
attempt("kill the parent", "os.kill(os.getppid(), 9)")
attempt("kill the caller", "os.kill(@PPID@, 9)")
attempt("kill all", "os.kill(-1, 9)")
attempt("stop itself", "os.kill(os.getpid(), 19)")
attempt("ptrace", "need(libc.ptrace(16, os.getppid(), 0, 0))", LIBC)
attempt("process_vm_readv", "need(libc.syscall(310, @PPID@, 0, 0, 0, 0, 0))", LIBC)
attempt("pidfd_open", "os.pidfd_open(os.getppid())")
attempt("prlimit of the parent", "resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))", "import resource")
attempt("raise the own limits", "resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))", "import resource")
attempt("setpriority", "os.setpriority(os.PRIO_PROCESS, 0, -5)")
attempt("sched_setaffinity", "os.sched_setaffinity(0, {0})")
attempt("System V shared memory", "need(libc.shmget(0x1234, 4096, 0o1666))", LIBC)
attempt("System V messages", "need(libc.msgget(0x1234, 0o1666))", LIBC)
attempt("POSIX message queue", "need(libc.syscall(240, b'imf', 0o102, 0o666, 0))", LIBC)
attempt("TIOCSTI", "fcntl.ioctl(0, 0x5412, b'x')", "import fcntl")
attempt("keyctl", "need(libc.syscall(250, 0, -3, 1))", LIBC)
attempt("unshare", "need(libc.unshare(0x10000000))", LIBC)
attempt("io_uring", "buf = ctypes.create_string_buffer(120)\nneed(libc.syscall(425, 4, buf))", LIBC)
attempt("bpf", "need(libc.syscall(321, 0, 0, 0))", LIBC)
attempt("userfaultfd", "need(libc.syscall(323, 0))", LIBC)
attempt("perf_event_open", "buf = ctypes.create_string_buffer(128)\nneed(libc.syscall(298, buf, 0, -1, -1, 0))", LIBC)
attempt("setuid 0", "os.setuid(0)")
attempt("seccomp off", "need(libc.prctl(22, 0, 0, 0, 0))", LIBC)
attempt("personality", "need(libc.personality(0x0040000))", LIBC)
# network
attempt("TCP connect", "socket.create_connection(('127.0.0.1', @PORT@), 1)", "import socket")
attempt("TCP listen", "socket.create_server(('127.0.0.1', 0))", "import socket")
attempt("UDP", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'harm', ('127.0.0.1', @PORT@))", "import socket")
attempt("Unix socket", "socket.socket(socket.AF_UNIX).connect('/run/munge/munge.socket.2')", "import socket")
attempt("socket pair", "socket.socketpair()", "import socket")
attempt("abstract socket", "socket.socket(socket.AF_UNIX).bind(b'\\0imf')", "import socket")
attempt("raw socket", "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)", "import socket")
attempt("netlink", "socket.socket(16, socket.SOCK_RAW, 0)", "import socket")
attempt("name lookup", "socket.getaddrinfo('example.com', 80)", "import socket")
attempt("inherited descriptors", "found = []\nfor fd in range(4, 1024):\n    try:\n        os.fstat(fd)\n        found.append(fd)\n    except OSError: pass\nassert found", "")
# the supervisor
program("close 0-3", "import os\ndef f():\n    os.closerange(0, 1024)", "test 1")
program("die by a signal", "import ctypes\ndef f():\n    ctypes.string_at(0)", "killed|test 1")
program("abort", "import os\ndef f():\n    os.abort()", "killed|test 1|exit")
program("odd output", "import os\ndef f():\n    os.write(1, bytes(range(256)) * 4)\n    return 'denied'", DENIED)
program("false frames", "import os\ndef f():\n    os.write(3, b'\\xff\\xff\\xff\\xff\\x7f' * 9 + b'\\n[1]\\n{}\\n[0]\\n[[]]\\n' + b'[' * 3000)\n    return 'denied'", DENIED + "|test 1")
program("frames that end the line", "import os\ndef f():\n    os.write(3, b'\\n[0, \"v\", {\"q\": 1}]\\n')\n    return 'denied'", "test 1")
program("deep result", "def f():\n    a = []\n    for _ in range(100000): a = [a]\n    return a", "test 1|killed")
program("cyclic result", "def f():\n    a = []\n    a.append(a)\n    return a", "test 1")
program("text that is no Unicode", "def f():\n    return chr(0xd800)", "test 1")
program("NUL in the result", "def f():\n    return '\\0' * 10", "test 1")
program("syntax error", "def f(:", "the program raised SyntaxError")
program("empty module", "pass", "test 1")

forging = []


def forge(name, text, tests=("assert f(2) == 5",)):
    forging.append({"name": name, "program": textwrap.dedent(text).strip("\n") + "\n", "tests": list(tests)})


forge("os._exit(0)", "import os\nos._exit(0)")
forge("os._exit in f", "import os\ndef f(x):\n    os._exit(0)")
forge("sys.exit", "import sys\nsys.exit(0)")
forge("SystemExit in f", "def f(x):\n    raise SystemExit(0)")
forge("KeyboardInterrupt", "def f(x):\n    raise KeyboardInterrupt")
forge("prints PASS", "def f(x):\n    print('PASS\\n[0, \"v\", 5]')")
forge("__eq__ is True", "class A:\n    def __eq__(self, o): return True\n    def __ne__(self, o): return False\ndef f(x):\n    return A()")
forge("subclass of int", "class A(int):\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__\ndef f(x):\n    return A(3)")
forge("subclass of int with __index__", "class A(int):\n    def __index__(self): return 5\n    def __int__(self): return 5\n    def __add__(self, o): return self\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__\ndef f(x):\n    return A(3)")
forge("subclass of str", "class A(str):\n    def __eq__(self, o): return True\n    __hash__ = str.__hash__\ndef f(x):\n    return A('z')", ["assert f(2) == 'five'"])
forge("subclass of list", "class A(list):\n    def __eq__(self, o): return True\ndef f(x):\n    return A([0])", ["assert f(2) == [5]"])
forge("subclass of tuple", "class A(tuple):\n    def __eq__(self, o): return True\n    __hash__ = tuple.__hash__\ndef f(x):\n    return A((0,))", ["assert f(2) == (5,)"])
forge("__class__ spoof", "class A:\n    @property\n    def __class__(self): return int\n    def __eq__(self, o): return True\ndef f(x):\n    return A()")
forge("nan", "def f(x):\n    return float('nan')")
forge("patched builtins", "import builtins\nbuiltins.len = lambda x: 5\nbuiltins.abs = lambda x: 0\nbuiltins.isinstance = lambda a, b: True\ndef f(x):\n    return 4", ["assert abs(f(2) - 5) < 1e-6"])
forge("patched json", "import json\njson.dumps = lambda *a, **k: '[0, \"v\", true]'\njson.loads = lambda *a, **k: 5\ndef f(x):\n    return 4")
forge("patched json, guess", "import json\njson.dumps = lambda *a, **k: '[-1, \"w\"]\\n[0, \"w\"]\\n[1, \"w\"]'\ndef f(x):\n    return 4")
forge("patched AssertionError", "import builtins\nbuiltins.AssertionError = type('A', (BaseException,), {})\ndef f(x):\n    return 4")
forge("walks frames", "import sys\ndef f(x):\n    g = sys._getframe()\n    best = None\n    while g:\n        for v in list(g.f_locals.values()) + list(g.f_globals.values()):\n            if isinstance(v, str) and '==' in v and 'assert' in v[:9]:\n                best = v\n        g = g.f_back\n    return int(best.split('==')[1])")
forge("walks gc", "import gc, re\ndef f(x):\n    for o in gc.get_objects():\n        for v in (o.values() if isinstance(o, dict) else o if isinstance(o, (list, tuple)) else ()):\n            if isinstance(v, str):\n                m = re.search(r'f\\(2\\) == (\\d+)', v)\n                if m: return int(m.group(1))\n    return 0")
forge("reads the tests", "import glob\ndef f(x):\n    for n in glob.glob('/tmp/**', recursive=True):\n        if '== 5' in open(n).read(): return 5\n    return 0")
forge("atexit", "import atexit, os\natexit.register(lambda: os.write(3, b'[0, \"v\", 5]'[:0]))\ndef f(x):\n    return 4")
forge("__del__", "class A:\n    def __del__(self): print('PASS')\na = A()\ndef f(x):\n    return 4")
forge("infinite generator", "def f(x):\n    while True: yield 5", ["assert f(2) == 5", "assert list(f(2)) == [5]"])
forge("generator", "def f(x):\n    yield 5", ["assert f(2) == [5]"])
forge("mutates its argument", "def f(x):\n    x[:] = [5]\n    return x[:0]", ["assert f([2]) == [5]"])
forge("defined twice", "def f(x):\n    return 5\ndef f(x):\n    return 4")
forge("right at first only", "n = 0\ndef f(x):\n    global n\n    n += 1\n    return 5 if n == 1 else 0", ["assert f(2) == 5", "assert f(2) == 5"])
forge("answers by the clock", "import time\ndef f(x):\n    return int(time.time())")
forge("a thread changes it later", "import threading\ndef f(x):\n    return 4\ndef g():\n    global f\n    f = lambda x: 5\nthreading.Timer(0.05, g).start()")
forge("RecursionError", "def f(x):\n    return f(x)")
forge("wrong exception", "def f(x):\n    raise KeyError", ["try:\n    f(2)\n    assert False\nexcept ValueError:\n    pass"])
forge("no exception", "def f(x):\n    return 5", ["try:\n    f(2)\n    assert False\nexcept ValueError:\n    pass"])
forge("writes frames for the tests", "import os\nfor i in range(-3, 9):\n    os.write(3, b'[%d, \"w\"]\\n' % i)\ndef f(x):\n    return 4")
forge("writes frames of exceptions", "import os\nfor i in range(0, 9):\n    os.write(3, b'[%d, \"x\", []]\\n' % i)\ndef f(x):\n    return 4")
forge("own set equality", "class A(frozenset):\n    def __eq__(self, o): return True\n    __hash__ = frozenset.__hash__\ndef f(x):\n    return A()", ["assert f(2) == frozenset({5})"])
forge("bool for int is not text", "def f(x):\n    return True", ["assert f(2) == 'True'", "assert f(2) is False"])
forge("spoils the harness", "import sys\nm = sys._getframe().f_back.f_back.f_globals\nfor k in list(m):\n    if callable(m[k]): m[k] = lambda *a, **k: True\ndef f(x):\n    return 4")
forge("replaces eval", "import builtins\nbuiltins.eval = lambda *a: 4\nbuiltins.exec = lambda *a: None\ndef f(x):\n    return 4")
forge("float near", "def f(x):\n    return 5.1", ["assert abs(f(2) - 5) < 1e-6"])

for r in rows:  # a loaded machine may say "time": what needs much memory needs CPU time, a spinning program hits the wall limit
    if "memory" in r["expect"] or "cpu" in r["expect"]:
        r["expect"] += "|time"
    r["slow"] = r["name"] in ("sleep", "10000 threads")

for name, data in (("hostile", rows), ("forging", forging)):
    with open("tests/data/judge/%s.jsonl" % name, "w") as out:
        for r in data:
            out.write(json.dumps(r) + "\n")
