"""The results as a picture for the documentation: an SVG in the page's own colour and type."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

WIDTH, LABEL, VALUE = 760, 190, 80
BAR, STEP, HEAD, GAP = 16, 24, 30, 22
TITLES = {
    "limit": "no database at all",
    "commit": "bare, with commits",
    "tutorial-daphne-core": "by hand, daphne, core",
    "tutorial-daphne-pubsub": "by hand, daphne, pub/sub",
    "tutorial-uvicorn-core": "by hand, uvicorn, core",
    "tutorial-uvicorn-pubsub": "by hand, uvicorn, pub/sub",
    "ours": "this package",
    "ours-2": "this package, 2 workers",
}
STYLE = """
.speed { max-width: 760px; width: 100%; height: auto; color: inherit; font: 13px system-ui, sans-serif; }
.speed text { fill: currentcolor; }
.speed .head { font-weight: 600; }
.speed rect { fill: currentcolor; opacity: .35; }
.speed rect.ours { opacity: .9; }
"""


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars of one figure, on a logarithmic scale."""

    title: str
    scenario: str
    figure: Callable[[Any], float]


PANELS = (
    Panel("One room of 200: deliveries/s", "A", lambda row: float(row["top"]["deliveries_per_second"])),
    Panel(
        "One room of 200: server CPU per delivery, in microseconds (less is better)",
        "A",
        lambda row: float(row["top"]["cpu_us_per_delivery"]["server"]),
    ),
    Panel("200 rooms of two: messages/s", "B", lambda row: float(row["top"]["messages_per_second"])),
    Panel("A burst into a room of 50: seconds (less is better)", "C", lambda row: float(row["burst"]["seconds"])),
)


def plot(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The picture of all figures that there are."""
    parts: list[str] = []
    top = 0
    for panel in PANELS:
        rows = {name: row for name, row in results.get(panel.scenario, {}).items() if "failed" not in row}
        if rows:
            parts += _bars(panel, {name: panel.figure(row) for name, row in rows.items()}, top)
            top += HEAD + STEP * len(rows) + GAP
    head = (
        f'<svg class="speed" role="img" aria-labelledby="speed-title" viewBox="0 0 {WIDTH} {max(top, 1)}"'
        ' xmlns="http://www.w3.org/2000/svg">'
    )
    title = "How fast messages are delivered, beside the limit and hand-written consumers, on logarithmic scales"
    parts = [head, f'<title id="speed-title">{title}</title>', f"<style>{STYLE}</style>", *parts, "</svg>"]
    return "\n".join(parts) + "\n"


def _bars(panel: Panel, figures: Mapping[str, float], top: int) -> list[str]:
    positive = [figure for figure in figures.values() if figure > 0] or [1.0]
    low, high = math.floor(math.log10(min(positive))), math.log10(max(positive))
    room = WIDTH - LABEL - VALUE
    parts = [f'<text class="head" x="0" y="{top + 16}">{escape(panel.title)}</text>']
    for place, (name, figure) in enumerate(figures.items()):
        y = top + HEAD + STEP * place
        share = (math.log10(figure) - low) / max(high - low, 1e-9) if figure > 0 else 0.0
        width = max(2, round(share * room))
        kind = ' class="ours"' if name.startswith("ours") else ""
        parts += [
            f'<text x="0" y="{y + 12}">{escape(TITLES.get(name, name))}</text>',
            f'<rect{kind} x="{LABEL}" y="{y}" width="{width}" height="{BAR}"/>',
            f'<text x="{LABEL + width + 6}" y="{y + 12}">{_short(figure)}</text>',
        ]
    return parts


def _short(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"
