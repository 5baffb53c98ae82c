"""Ask whether anything that is installed has a known weakness; fail where it has.

    python .ci/audit.py PIP-AUDIT

Where nobody can be asked, that is said and no failure: a machine without a network can check too.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS_MAX = 120


def main(program: str) -> int:
    """Run pip-audit; give the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "audit.json")
        command = [program, "--skip-editable", "--progress-spinner", "off", "--timeout", "10"]
        command += ["--format", "json", "--output", str(report)]
        try:
            subprocess.run(command, capture_output=True, check=False, timeout=SECONDS_MAX)  # noqa: S603  ours
            found = json.loads(report.read_text("utf-8"))["dependencies"]
        except (OSError, ValueError, subprocess.TimeoutExpired):
            found = []
    known = [one for one in found if "vulns" in one]
    weak = [one for one in known if one["vulns"]]
    for one in weak:
        for why in one["vulns"]:
            fixed = ", ".join(why["fix_versions"]) or "no version yet"
            sys.stdout.write(f"{one['name']} {one['version']}: {why['id']}, fixed in {fixed}\n")
    if not known:
        sys.stdout.write("dependencies were not audited: no advisories can be reached from here\n")
    else:
        sys.stdout.write(f"{len(known)} dependencies audited, {len(weak)} weak\n")
    return 1 if weak else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
