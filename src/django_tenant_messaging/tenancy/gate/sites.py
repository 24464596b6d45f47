"""The tenant's own Site, where ``django.contrib.sites`` is installed for tenants."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.db import transaction
from django.db.models.signals import post_save
from django_tenants.utils import get_subfolder_prefix, get_tenant_domain_model

from ..context import activated, is_public_schema
from ..database import TENANT_DATABASE, apps_of_kind, is_among
from .schemas import kind_of
from .verdicts import facts, readiness_of

if TYPE_CHECKING:
    from django.contrib.sites.models import Site

logger = logging.getLogger(__name__)

SITES = "django.contrib.sites"
PLACEHOLDER = "example.com"
"""What Django's ``post_migrate`` puts into a new table of sites."""
LONGEST_NAME = 50


def connect_sites() -> None:
    """Connect to the host's domain model."""
    post_save.connect(complete_domain, sender=get_tenant_domain_model(), dispatch_uid="tenant_messaging_sites")


def complete_domain(instance: Any, raw: bool = False, **_kwargs: Any) -> None:
    """Give a tenant's Site the primary domain that was saved: the domain usually comes after the tenant."""
    if instance.is_primary and not raw:
        name_site(instance.tenant)


def name_site(tenant: Any) -> None:
    """Give a tenant's Site the tenant's primary domain, unless the host has changed it, or there is no domain yet.

    Never raises: neither the tenant nor the domain depends on it.
    """
    name = tenant.schema_name
    try:
        if not _has_site(name):
            return
        domain = _primary_domain(tenant)
        if domain is None:
            return
        readiness = readiness_of(name)
        if not readiness.is_ready:
            logger.warning("[%s] No Site is made for %s: %s.", name, domain, readiness.reason, extra=facts(readiness))
            return
        with activated(name), transaction.atomic(TENANT_DATABASE):
            is_named = _name_site(tenant, domain)
        if is_named:
            logger.info("Created Site for tenant %s: %s", name, domain, extra={"schema_name": name})
    except Exception:
        logger.exception("[%s] The tenant's Site can't be made.", name, extra={"schema_name": name})


def _has_site(schema_name: str) -> bool:
    # Where domains are paths, they are nobody's host name.
    if not apps.is_installed(SITES) or is_public_schema(schema_name) or get_subfolder_prefix():
        return False
    return is_among(apps.get_app_config("sites"), apps_of_kind(kind_of(schema_name) or ""))


def _primary_domain(tenant: Any) -> str | None:
    domains = get_tenant_domain_model().objects.using(TENANT_DATABASE).filter(tenant=tenant, is_primary=True)
    domain: str | None = domains.values_list("domain", flat=True).first()
    return domain


def _name_site(tenant: Any, domain: str) -> bool:
    from django.contrib.sites.models import Site

    site = _site()
    if site is None or not _is_placeholder(site.domain, tenant):
        return False
    site.domain, site.name = domain, domain[:LONGEST_NAME]
    site.save(using=TENANT_DATABASE)
    # Django keeps sites in a dict of the process by their id, which is the same in all tenants: what it holds may be
    # this tenant's former Site, read again since Django's own receiver removed it before the change, or another's.
    # Other processes keep theirs until they are restarted.
    transaction.on_commit(Site.objects.clear_cache, using=TENANT_DATABASE)
    return True


def _site() -> Site | None:
    """Return the current schema's Site, made as Django makes it if there is none at all."""
    from django.contrib.sites.management import create_default_site
    from django.contrib.sites.models import Site

    create_default_site(apps.get_app_config("sites"), verbosity=0, using=TENANT_DATABASE)
    sites = Site.objects.using(TENANT_DATABASE)
    site_id = getattr(settings, "SITE_ID", None)
    return sites.filter(pk=site_id).first() if site_id else sites.order_by("pk").first()


def _is_placeholder(domain: str, tenant: Any) -> bool:
    """Say whether nobody chose the domain: it is Django's, or in a clone that of the template."""
    domains = get_tenant_domain_model().objects.using(TENANT_DATABASE).filter(domain=domain)
    return domain == PLACEHOLDER or domains.exclude(tenant=tenant).exists()
