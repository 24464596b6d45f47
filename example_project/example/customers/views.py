from __future__ import annotations

from typing import TYPE_CHECKING

from django.shortcuts import render
from django_tenants.utils import get_public_schema_name

from example.customers.models import Domain

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse


def customer_list(request: HttpRequest) -> HttpResponse:
    """Show the way to each customer, to whoever comes without a customer's host name."""
    domains = Domain.objects.select_related("tenant").exclude(tenant__schema_name=get_public_schema_name())
    port = request.get_port()
    return render(request, "customers.html", {"domains": domains.order_by("domain"), "port": port})
