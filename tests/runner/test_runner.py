#!/usr/bin/env python3
"""A test that fails, one that is skipped and one that dies must be counted as such: test_runner.py CTEST MUST_FAIL"""
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))
import count_tests  # noqa: E402

WANTED = ["pass plain/passes", "skip plain/skips: nothing to test here", "fail plain/fails", "fail dies: "]


def main(ctest, must_fail):
    with tempfile.TemporaryDirectory(prefix="lowbeam-runner-") as folder:
        with open(os.path.join(folder, "CTestTestfile.cmake"), "w", encoding="utf-8") as file:
            file.write(f'add_test(plain "{must_fail}")\nadd_test(dies "{must_fail}" "abort")\n')
        done = subprocess.run([ctest, "--verbose", "--parallel", "2"], cwd=folder, capture_output=True, text=True)
    rows = list(count_tests.report(*count_tests.read(done.stdout.splitlines())))
    missing = [row for row in WANTED if not any(found.startswith(row) for found in rows)]
    if done.returncode == 0 or missing or len(rows) != len(WANTED):
        print(done.stdout, f"exit status {done.returncode}", f"found {rows}", f"wanted {WANTED}", sep="\n")
        return 1
    print(f"ctest's exit status {done.returncode}; {len(rows)} results counted as they are")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
