"""Prints which tests failed, why each skipped test was skipped, and the counts, from CTest's JUnit
file."""

import re
import sys
import xml.etree.ElementTree as ElementTree

passed = failed = 0
skipped = []
for case in ElementTree.parse(sys.argv[1]).getroot().iter("testcase"):
    skip = case.find("skipped")
    # What asked to be skipped; a test that could not even be started is "notrun" as well.
    if skip is not None and skip.get("message", "").startswith("SKIP_"):
        reason = re.search(r"Skipped\n(.*)", case.findtext("system-out") or "")
        skipped.append((case.get("name"), reason.group(1).strip() if reason else "no reason given"))
    elif case.get("status") == "run":
        passed += 1
    else:
        failed += 1
        print(f"failed: {case.get('name')}: {'' if skip is None else skip.get('message')}")
for name, reason in skipped:
    print(f"skipped: {name}: {reason}")
print(f"{passed} passed, {failed} failed, {len(skipped)} skipped")
