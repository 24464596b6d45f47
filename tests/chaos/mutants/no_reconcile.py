"""Never compare what is followed with the database: what the channel layer lost stays lost."""

from __future__ import annotations

from django_tenant_messaging.realtime.comparison import Comparison
from tests.chaos.mutants.patching import replace


def apply() -> None:
    """Let the comparison find nothing."""

    async def compare(_comparison: Comparison) -> None:
        return

    replace(Comparison, "_compare", compare)
