from __future__ import annotations

from django.urls import path

from example.customers.views import customer_list

urlpatterns = [path("", customer_list)]
