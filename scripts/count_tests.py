#!/usr/bin/env python3
"""Counts what `ctest --verbose` ran, function by function where a test is a cmocka program.

    count_tests.py CTEST.log      prints one line a function: "pass NAME", "fail NAME" or "skip NAME: reason"

A program that dies or fails without naming a function is one failure of its own, and one that names no function at all
counts as one test, so that nothing that ctest saw failing is lost.
"""
import re
import sys

CMOCKA = re.compile(r"^\[\s+(OK|FAILED|SKIPPED)\s+\] (.*)$")
SUMMARY = re.compile(r"\d+ test\(s\)")
RESULT = re.compile(r"^\s*\d+/\d+ Test\s+#(\d+): (\S+) \.*\s*(.*?)\s+[\d.]+ sec")


def read(lines):
    output, results = {}, []
    for line in lines:
        own = re.match(r"^(\d+): (.*)$", line)
        ended = RESULT.match(line)
        if own:
            output.setdefault(int(own.group(1)), []).append(own.group(2))
        elif ended:
            results.append((int(ended.group(1)), ended.group(2), ended.group(3)))
    return output, results


def functions(lines):
    """name -> (kind, reason): a function's last line before [  SKIPPED ] is taken as the reason."""
    found, last = {}, ""
    for line in lines:
        match = CMOCKA.match(line.strip())
        if not match:
            if line.strip() and not line.startswith("["):
                last = line.strip()
            continue
        kind, name = match.groups()
        if not SUMMARY.search(name) and name not in found:
            found[name] = (kind, last)
        last = ""
    return found


def report(output, results):
    for number, name, state in results:
        found = functions(output.get(number, []))
        passed = state == "Passed"
        if "Skipped" in state:
            yield f"skip {name}: {(output.get(number) or ['no reason given'])[-1]}"
            continue
        if not found and passed:
            yield f"pass {name}"
        for function, (kind, reason) in found.items():
            if kind == "SKIPPED":
                yield f"skip {name}/{function}: {reason or 'no reason given'}"
            elif kind == "OK":
                yield f"pass {name}/{function}"
            elif not passed:
                yield f"fail {name}/{function}"
        if not passed and not any(kind == "FAILED" for kind, _ in found.values()):
            yield f"fail {name}: {state.strip('*')}"


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8", errors="replace") as log:
        for row in report(*read(log.read().splitlines())):
            print(row)
