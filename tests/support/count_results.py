"""Prints why each skipped test was skipped, and the counts, from CTest's JUnit file."""

import re
import sys
import xml.etree.ElementTree as ElementTree

suite = ElementTree.parse(sys.argv[1]).getroot()
passed = failed = 0
skipped = []
for case in suite.iter("testcase"):
    output = case.findtext("system-out") or ""
    if case.get("status") == "fail" or case.find("failure") is not None:
        failed += 1
        print(f"failed: {case.get('name')}")
    elif case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
        reason = re.search(r"Skipped\n(.*)", output)
        skipped.append((case.get("name"), reason.group(1).strip() if reason else "no reason given"))
    else:
        passed += 1
for name, reason in skipped:
    print(f"skipped: {name}: {reason}")
print(f"{passed} passed, {failed} failed, {len(skipped)} skipped")
