"""Prints which tests failed, why each skipped test was skipped, and the counts, from CTest's JUnit
file. Exit code 1 if a test failed or there was none; with --strict also if one was skipped that
ALLOWED does not list.

    count_results.py [--strict] FILE
"""

import os
import re
import sys
import xml.etree.ElementTree as ElementTree

# Skips that say nothing about the program: what the test's name and its reason must match, and why.
ALLOWED = [
    # These measure memory, or preload a library, as do the sanitizers; the release build runs them.
    (r"model/", r"the sanitizer's (allocator|own memory) "),
    (r"app/", r"a sanitizer must be the first library loaded$"),
    (r"model/convert/Smollm2", r"a sanitizer takes minutes for a real model"),
    # Without a GPU the tests on one are skipped; on a machine with one, the tests of what is said then.
    (r"(comm|comm/device|model|model/ops)/", r"no usable GPU: "),
    (r"", r"(there is|this machine has) a GPU$"),
    # NCCL's own library is part of the build for GPUs, which runs this.
    (r"comm/", r"built without NCCL$"),
    # Nodes and hosts of their own need namespaces, which not everybody may make.
    (r"(slurm|hosts)/", r"no namespaces: they need root$"),
    # What the machine has at that moment.
    (r"", r"needs \d+ GiB of free memory$"),
    (r"", r"less than \d+ GiB free in "),
    (r"", r"over \d+ TB free in "),
    (r"comm/", r"the machine is too busy$"),
    (r"io/", r"this file system cannot reserve$"),
]


def is_allowed(name, reason):
    return any(re.match(names, name) and re.match(reasons, reason) for names, reasons in ALLOWED)


def main(arguments):
    strict = arguments[:1] == ["--strict"]
    path = arguments[-1]
    cases = list(ElementTree.parse(path).getroot().iter("testcase")) if os.path.exists(path) else []
    passed = failed = 0
    skipped = []
    for case in cases:
        skip = case.find("skipped")
        # What asked to be skipped; a test that could not even be started is "notrun" as well.
        if skip is not None and skip.get("message", "").startswith("SKIP_"):
            reason = re.search(r"Skipped\n(.*)", case.findtext("system-out") or "")
            reason = reason.group(1).strip() if reason else "no reason given"
            skipped.append((case.get("name"), reason))
        elif case.get("status") == "run":
            passed += 1
        else:
            failed += 1
            print(f"failed: {case.get('name')}: {'' if skip is None else skip.get('message')}")
    refused = 0
    for name, reason in skipped:
        bad = strict and not is_allowed(name, reason)
        refused += bad
        print(f"skipped{', which is a failure here' if bad else ''}: {name}: {reason}")
    if not cases:
        print(f"no test has run: {path} holds no results")
    print(f"{passed} passed, {failed} failed, {len(skipped)} skipped")
    return 1 if failed or refused or not cases else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
