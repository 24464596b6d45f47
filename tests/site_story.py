"""Creates tenants in the empty database of `DATABASE_URL` and prints, as JSON, what their Sites are at each step."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import django

django.setup()

from django.conf import settings  # noqa: E402 - needs the set-up
from django.contrib.sites.models import Site  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.db.models.signals import pre_save  # noqa: E402

from django_tenant_messaging.tenancy import activated  # noqa: E402
from example.customers.models import Customer, Domain  # noqa: E402


class Story(logging.Handler):
    """The steps, each with the Sites of some tenants and what was logged since the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: dict[str, Any] = {}
        self.log: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.log.append(f"{record.levelname} {record.getMessage()}")

    def note(self, step: str, *schema_names: str) -> None:
        found = {}
        for name in schema_names:
            with activated(name):
                found[name] = list(Site.objects.values_list("pk", "domain", "name"))
        self.steps[step] = {"sites": found, "log": self.log}
        self.log = []


def make(name: str) -> Customer:
    customer = Customer(schema_name=name, name=name.title())
    customer.save()
    return customer


def give(customer: Customer, host: str, *, is_primary: bool = True) -> None:
    Domain.objects.create(tenant=customer, domain=f"{host}.localhost", is_primary=is_primary)


def read_site(**_kwargs: Any) -> None:
    assert Site.objects.get_current().domain == "example.com"


def tell_of_domains(story: Story) -> None:
    one = make("one")
    story.note("tenant", "one")

    # As another thread may do, after Django has removed the Site from its cache and before the change is committed.
    pre_save.connect(read_site, sender=Site)
    give(one, "one")
    pre_save.disconnect(read_site, sender=Site)
    story.note("domain", "one")
    with activated("one"):
        story.steps["cached"] = Site.objects.get_current().domain
        Site.objects.clear_cache()

    two = make("two")
    give(two, "two")
    give(two, "alias", is_primary=False)
    story.note("another", "one", "two")

    with activated("two"):
        Site.objects.update(domain="chosen.example", name="Chosen")
    give(two, "new")
    story.note("chosen by the host", "two")


def tell_of_a_clone(story: Story) -> None:
    settings.TENANT_CREATION_FAKES_MIGRATIONS, settings.TENANT_BASE_SCHEMA = True, "one"
    give(make("clone"), "clone")
    settings.TENANT_CREATION_FAKES_MIGRATIONS = False
    story.note("clone", "one", "clone")


def tell_of_trouble(story: Story) -> None:
    broken = make("broken")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE broken.django_tenant_messaging_userstatus RENAME TO put_aside")
    call_command("migrate_schemas", schema_name="broken", verbosity=0)  # forgets what was known
    give(broken, "broken")
    story.note("not ready", "broken")

    odd = make("odd")
    with activated("odd"):
        Site.objects.create(domain="odd.localhost", name="made by hand")
    give(odd, "odd")
    story.steps["domain is saved all the same"] = Domain.objects.filter(domain="odd.localhost").exists()
    story.note("refused by the database", "odd")


if __name__ == "__main__":
    story = Story()
    logger = logging.getLogger("django_tenant_messaging.tenancy.gate.sites")
    logger.addHandler(story)
    logger.setLevel("INFO")
    logger.propagate = False
    call_command("migrate_schemas", shared=True, verbosity=0)
    tell_of_domains(story)
    tell_of_a_clone(story)
    tell_of_trouble(story)
    json.dump(story.steps, sys.stdout)
