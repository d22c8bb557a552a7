# SPDX-License-Identifier: Apache-2.0
"""Files that belong to imf selftest, for t65_selftest.sh. Says what is wrong and ends with 1, or is silent.

junit FILE TESTS FAILURES SKIPPED OUTPUT [WORDS]   the report's counts, its cases against the lines of OUTPUT; WORDS (with Python's
                                                   escapes): in every failure
gitlab FILE WORD OUT                               the only line of the job's script with WORD is written to OUT
reframe FILE OUTPUT                                the patterns of the ReFrame test against OUTPUT
"""
import ast
import re
import sys
import xml.etree.ElementTree as ET


def check(ok, *words):
    if not ok:
        sys.exit(" ".join(str(w) for w in words))


def lines(path):
    """(layout, stage, digest, seconds, mark) of what imf selftest printed."""
    row = re.compile(r"(first|second) +([a-z]+) +([0-9a-f]{32}) +([0-9.]+) s(.*)")
    return [m.groups() for m in map(row.match, open(path)) if m]


def junit(path, tests, failures, skipped, output, words=""):
    suite = ET.parse(path).getroot()
    cases = suite.findall("testcase")
    check(suite.tag == "testsuite" and suite.get("name") == "imf selftest", "no test suite")
    counts = [suite.get(k) for k in ("tests", "failures", "skipped")]
    check(counts == [tests, failures, skipped], "counts", counts)
    real = [len(cases), len(suite.findall(".//failure")), len(suite.findall(".//skipped"))]
    check([str(n) for n in real] == counts, "counts", counts, "of", real)
    total = sum(float(c.get("time")) for c in cases)
    check(abs(total - float(suite.get("time"))) < 0.1, "time", suite.get("time"), "of", total)
    for failure in suite.findall(".//failure"):
        check(words.encode().decode("unicode_escape") in failure.text, "failure:", ascii(failure.text))
    printed = lines(output)
    for case, line in zip(cases, printed):
        layout, stage, digest, seconds, mark = line
        check((case.get("classname"), case.get("name")) == ("imf.selftest." + layout, stage), case.attrib, line)
        check(case.findtext("system-out") == digest, case.attrib, line)
        check(abs(float(case.get("time")) - float(seconds)) < 0.06, case.attrib, line)
        check((case.find("failure") is not None) == ("DIFFERENT" in mark), case.attrib, line)
    check(all(c.find("system-out") is None for c in cases[len(printed):]), "more cases than lines have ended")


def plain_yaml(text):
    """The part of YAML that the file keeps to: maps and lists by indentation, plain or quoted words, comments of a line."""
    rows = [(len(r) - len(r.lstrip()), r.strip()) for r in text.splitlines() if r.strip() and not r.lstrip().startswith("#")]

    def word(s):
        return s[1:-1] if s[0] == s[-1] == '"' else s

    def block(i, depth):
        out = [] if rows[i][1].startswith("- ") else {}
        while i < len(rows) and rows[i][0] == depth:
            row = rows[i][1]
            if isinstance(out, list):
                check(row.startswith("- "), "a list ends at", row)
                out.append(word(row[2:]))
                i += 1
                continue
            m = re.fullmatch(r"([A-Za-z_]+):(?: (.+))?", row)
            check(m and m[1] not in out, "no key, or twice there:", row)
            if m[2]:
                out[m[1]], i = word(m[2]), i + 1
            else:
                check(i + 1 < len(rows) and rows[i + 1][0] > depth, "nothing below", row)
                out[m[1]], i = block(i + 1, rows[i + 1][0])
        check(i == len(rows) or rows[i][0] < depth, "indentation of", rows[min(i, len(rows) - 1)])
        return out, i

    return block(0, 0)[0]


def gitlab(path, word, out):
    text = open(path).read()
    jobs = plain_yaml(text)
    try:
        import yaml
        check(yaml.safe_load(text) == jobs, "PyYAML reads", yaml.safe_load(text), "not", jobs)
    except ImportError:
        pass
    job = jobs["imf"]
    check(job["image"] == "debian:12" and "make check" in job["script"], job)
    check(all(isinstance(v, str) for v in job["variables"].values()), job["variables"])
    found = [line for line in job["script"] if word in line]
    check(len(found) == 1, "lines with", word, found)
    report = job["artifacts"]["reports"]["junit"]
    check("--junit " + report in found[0] and report in job["artifacts"]["paths"], "the report", report, "of", found[0])
    open(out, "w").write(found[0] + "\n")


def reframe(path, output):
    given = {t.id: ast.literal_eval(n.value) for n in ast.parse(open(path).read()).body if isinstance(n, ast.Assign) for t in n.targets}
    text = open(output).read().splitlines()
    found = [re.search(given["LINE"], line) for line in text]
    rows = [m.group("layout", "stage", "digest", "seconds") for m in found if m]
    check(rows == [line[:4] for line in lines(output)] and len(rows) == 2 * given["STAGES"], "LINE finds", rows)
    check(rows[given["STAGES"] - 1][1] == "eval", "the last stage is", rows[given["STAGES"] - 1])
    check([line for line in text if re.search(given["VERDICT"], line)] == text[-1:], "VERDICT finds no last line")


{"junit": junit, "gitlab": gitlab, "reframe": reframe}[sys.argv[1]](*sys.argv[2:])
