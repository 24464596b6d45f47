"""Ask whether what is installed has known vulnerabilities; fail if so, and say plainly when nobody could be asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(sys.executable).parent / "pip-audit"
SECONDS = 300


def main() -> int:
    """Run pip-audit, print what it found, and return the exit status."""
    command = [PROGRAM, "--format", "json", "--progress-spinner", "off", "--timeout", "10", "--skip-editable"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except FileNotFoundError:
        status, said = judge("", "pip-audit is not installed")
    except subprocess.TimeoutExpired:
        status, said = judge("", f"no answer within {SECONDS} s")
    else:
        status, said = judge(done.stdout, done.stderr)
    print(said)
    return status


def judge(output: str, complaint: str) -> tuple[int, str]:
    """Return the exit status and the words for what pip-audit printed. Not to know isn't to pass, and isn't to fail."""
    try:
        found = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        reason = (complaint.strip().splitlines() or ["it said nothing"])[-1]
        return 0, f"NOT AUDITED: the advisory service gave no answer ({reason}). Nothing is known of vulnerabilities."
    audited = [package for package in found if "skip_reason" not in package]
    lines = [
        f"{package['name']} {package['version']}: {advisory['id']}, mended in {_listed(advisory['fix_versions'])}"
        for package in audited
        for advisory in package["vulns"]
    ]
    left_out = sorted(package["name"] for package in found if "skip_reason" in package)
    if not audited:
        return 0, f"NOT AUDITED: none of {len(left_out)} packages is known to the advisory service."
    summary = f"{len(audited)} packages audited, {len(lines)} known vulnerabilities."
    if left_out:
        summary += f" NOT AUDITED: {', '.join(left_out)}."
    return int(bool(lines)), "\n".join([*lines, summary])


def _listed(versions: list[str]) -> str:
    return ", ".join(versions) or "no version yet"


if __name__ == "__main__":
    sys.exit(main())
