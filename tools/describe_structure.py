"""Write down what the migrations make of this app's tables: `structure.json`, with which the gate compares schemas.

Run by `make structure` after a migration was added or changed; a test fails while it is left out.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "example_project")]

from example.services import EmbeddedPostgres  # noqa: E402 - the path is set above


def main() -> None:
    """Migrate a tenant of the example project in a PostgreSQL of its own, and describe it."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder) / "data") as server:
        os.environ |= {"DATABASE_URL": server.url(), "SECRET_KEY": "unused"}
        os.environ["DJANGO_SETTINGS_MODULE"] = "example.settings"
        import django

        django.setup()
        from django.core.management import call_command
        from django_tenants.utils import schema_context

        from django_tenant_messaging.tenancy.gate.describing import to_keep
        from django_tenant_messaging.tenancy.gate.structure import KEPT

        with schema_context("public"):
            call_command("migrate_schemas", shared=True, verbosity=0)
            from django.db import connection

            connection.cursor().execute("CREATE SCHEMA described")
            call_command("migrate_schemas", schema_name="described", verbosity=0)
        KEPT.write_text(json.dumps(to_keep("described"), indent=1) + "\n")
        print(f"{KEPT.relative_to(ROOT)} is written.")


if __name__ == "__main__":
    main()
