"""Check that a wheel holds all that the app needs and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).resolve().parents[1]

(wheel,) = sys.argv[1:]
with ZipFile(wheel) as archive:
    packed = {name for name in archive.namelist() if ".dist-info/" not in name}
listed = subprocess.run(["git", "ls-files", "src"], cwd=ROOT, capture_output=True, text=True, check=True)
expected = {name.removeprefix("src/") for name in listed.stdout.splitlines()}
if packed != expected:
    sys.exit(f"missing: {sorted(expected - packed)}\ntoo much: {sorted(packed - expected)}")
if untranslated := {name for name in packed if name.endswith(".po")} - {
    f"{name[:-3]}.po" for name in packed if name.endswith(".mo")
}:
    sys.exit(f"not compiled to .mo: {sorted(untranslated)}")
print(f"{Path(wheel).name}: the {len(packed)} files of src, and no others")
