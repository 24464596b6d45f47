"""The host's life before the app came: two companies with users of the same names."""

from __future__ import annotations

import django

django.setup()

from companies.models import Company, Domain  # noqa: E402
from django.apps import apps  # noqa: E402
from django.contrib.auth import get_user_model  # noqa: E402
from django.db import connection  # noqa: E402

users = get_user_model().objects
shared = apps.is_installed("employment")
if shared:
    people = [users.create_user(name, password="password") for name in ("ann@example.com", "ben@example.com")]
for schema_name in ("acme", "globex"):
    company = Company.objects.create(schema_name=schema_name)
    Domain.objects.create(domain=f"{schema_name}.example.com", tenant=company, is_primary=True)
    if shared:
        from employment.models import Employment

        for person in people:
            Employment.objects.create(company=company, user=person)
    else:
        connection.set_schema(schema_name)
        for name in ("ann@example.com", "ben@example.com"):
            users.create_user(name, password="password")
        connection.set_schema_to_public()
if shared:
    users.create_user("stranger@example.com", password="password")
