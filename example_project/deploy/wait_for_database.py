"""Wait until the tenants' database accepts connections: python wait_for_database.py SECONDS."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time

import django
import psycopg
from django.db import connections

PAUSE = 0.5
"""Seconds between two tries."""


def main(seconds: float) -> int:
    """Return 0 once the database answers, 2 when it doesn't in time, which may take 2 seconds more."""
    # As manage.py does, in whose folder this is run.
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - an import path is text
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example.settings")
    django.setup()
    from django_tenant_messaging.tenancy import TENANT_DATABASE

    parameters = connections[TENANT_DATABASE].get_connection_params()
    deadline = time.monotonic() + seconds
    while True:
        # A connection of its own: Django's may have a pool, which goes on trying. 2 seconds are the least there is.
        patience = max(2, math.ceil(deadline - time.monotonic()))
        try:
            psycopg.connect(**parameters | {"connect_timeout": patience}).close()
        except psycopg.OperationalError as error:
            if time.monotonic() + PAUSE >= deadline:
                print(f"The database did not answer within {seconds:g} s: {error}", file=sys.stderr)
                return 2
            time.sleep(PAUSE)
        else:
            return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float)
    sys.exit(main(parser.parse_args().seconds))
