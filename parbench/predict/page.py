"""Predictions as a page of its own: tables, and throughput against memory. Texts are escaped by Jinja2."""

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment

from parbench.predict.ranking import Ranking
from parbench.text import plain, with_unit

WIDTH, HEIGHT, EDGE = 640, 240, 40

TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Predictions</title>
<style>body{font-family:sans-serif;margin:2em}td,th{padding:.2em .6em;text-align:right}
td.text{text-align:left}svg{border:1px solid #ccc}</style></head><body>
<p>Predicted from published rows; nothing here was measured.</p>
{% for ranking in rankings %}<h2>{{ ranking.title }}</h2>
<svg viewBox="0 0 {{ width }} {{ height }}" width="{{ width }}" role="img" aria-label="Tokens per second over memory">
{% for point in ranking.points %}<circle cx="{{ point.x }}" cy="{{ point.y }}" r="5">
<title>{{ point.name }}</title></circle>
{% endfor %}<text x="{{ width // 2 }}" y="{{ height - 8 }}">memory a device →</text>
<text x="8" y="20">tokens/s ↑</text></svg>
<table><tr><th>rank</th><th>layout</th><th>tokens/s</th><th>low</th><th>high</th><th>step</th><th>memory</th>
<th>fits</th></tr>
{% for row in ranking.rows %}<tr>{% for cell in row %}
<td{% if loop.index == 2 %} class="text"{% endif %}>{{ cell }}</td>
{% endfor %}</tr>{% endfor %}</table>
<p>Assumed: {{ ranking.assumed }}.</p>{% endfor %}</body></html>
"""


def predictions_page(rankings: Sequence[Ranking]) -> str:
    """The page, which loads nothing from elsewhere."""
    template = Environment(autoescape=True).from_string(TEMPLATE)
    return template.render(rankings=[_ranking(each) for each in rankings], width=WIDTH, height=HEIGHT)


def _ranking(ranking: Ranking) -> dict[str, Any]:
    rows = [
        (
            f"{place}{'=' if each.tie else ''}",
            each.words,
            with_unit(each.tokens_per_s, "tokens/s"),
            with_unit(each.low, "tokens/s"),
            with_unit(each.high, "tokens/s"),
            with_unit(each.step_s, "s"),
            with_unit(sum(each.memory.values()), "bytes"),
            each.fits,
        )
        for place, each in enumerate(ranking.predictions, start=1)
    ]
    return {
        "title": plain(f"{ranking.workload} on {ranking.devices} × {ranking.cluster.device.name}"),
        "rows": rows,
        "points": _points(ranking),
        "assumed": plain("; ".join(ranking.assumed)),
    }


def _points(ranking: Ranking) -> list[dict[str, Any]]:
    """Each layout in the drawing: its memory to the right, its throughput upwards."""
    most = max((each.tokens_per_s for each in ranking.predictions), default=1.0)
    return [
        {
            "x": round(EDGE + (WIDTH - 2 * EDGE) * min(1.0, sum(each.memory.values()) / each.capacity)),
            "y": round(HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * each.tokens_per_s / most),
            "name": each.words,
        }
        for each in ranking.predictions
    ]
