from __future__ import annotations

from django.urls import include, path

from example.customers.views import customer_list

urlpatterns = [
    path("", customer_list),
    path("health/", include("django_tenant_messaging.health_urls")),
]
