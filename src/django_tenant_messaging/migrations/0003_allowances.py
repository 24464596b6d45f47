from __future__ import annotations

from importlib import import_module
from typing import Any

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

USER_KEYS = [("dailyallowance", "user", "CASCADE")]


def constrain_user_keys(apps: Any, schema_editor: Any) -> None:
    first = import_module("django_tenant_messaging.migrations.0001_initial")
    first.constrain_user_keys(apps, schema_editor, USER_KEYS)


class Migration(migrations.Migration):
    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("django_tenant_messaging", "0002_lean_indexes"),
    ]

    operations = [
        migrations.CreateModel(
            name="DailyAllowance",
            fields=[
                (
                    "id",
                    models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("rooms", "rooms made"),
                            ("members", "members added"),
                            ("lookups", "names looked up"),
                        ],
                        max_length=10,
                        verbose_name="kind",
                    ),
                ),
                ("full_at", models.DateTimeField(verbose_name="full again at")),
                (
                    "user",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="user",
                    ),
                ),
            ],
            options={
                "verbose_name": "daily allowance",
                "verbose_name_plural": "daily allowances",
                "constraints": [
                    models.UniqueConstraint(fields=("user", "kind"), name="messaging_allowance_unique"),
                ],
            },
        ),
        migrations.RunPython(constrain_user_keys, migrations.RunPython.noop),
        migrations.AddField(
            model_name="membership",
            name="left_by_choice",
            field=models.BooleanField(db_default=False, default=False, verbose_name="left by choice"),
        ),
    ]
