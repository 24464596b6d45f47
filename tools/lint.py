"""Check style, types and layers; run all checks, then fail if any failed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent
CHECKS = (
    ("ruff", "check"),
    ("ruff", "format", "--check"),
    ("mypy",),
    ("lint-imports",),
)

failed = []
for program, *arguments in CHECKS:
    name = " ".join((program, *arguments))
    if subprocess.run([BIN / program, *arguments], check=False).returncode:
        failed.append(name)
sys.exit(f"failed: {', '.join(failed)}" if failed else 0)
