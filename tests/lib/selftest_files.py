# SPDX-License-Identifier: Apache-2.0
"""Files that belong to imf selftest, for t65_selftest.sh. Says what is wrong and ends with 1, or is silent.

junit FILE TESTS FAILURES SKIPPED OUTPUT [WORDS]   the report's counts, its cases against the lines of OUTPUT; WORDS (with Python's
                                                   escapes): in every failure
"""
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


{"junit": junit}[sys.argv[1]](*sys.argv[2:])
