from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "example_project"))

if __name__ == "__main__":
    from tests.chaos.runner import main

    sys.exit(main(sys.argv[1:]))
