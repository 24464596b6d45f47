#!/usr/bin/env python
"""Django's command line for the example project.

Without `DATABASE_URL` it works on the database of the demo, while that runs.
"""

from __future__ import annotations

import os
import sys

from django.core.management import execute_from_command_line

from demo import FOLDER, use_own_secrets
from example.services import running_url

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example.settings")
    if not os.environ.get("DATABASE_URL") and (url := running_url(FOLDER / "postgres")):
        os.environ["DATABASE_URL"] = url
        use_own_secrets()
    execute_from_command_line(sys.argv)
