from __future__ import annotations

from django.conf import settings
from django.db import models


class Employment(models.Model):
    company = models.ForeignKey("companies.Company", on_delete=models.CASCADE)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)

    def __str__(self) -> str:
        return f"{self.user} at {self.company}"
