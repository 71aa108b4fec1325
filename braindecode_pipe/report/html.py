"""A document as one self-contained HTML page: no script, nothing loaded, every text escaped."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from braindecode_pipe.report.document import Block, Facts, Page, Table

# There is no script on a page, so none is allowed, not even one with a known hash.
CSP = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"


def _css_percent(share: float) -> str:
    return f"{100 * min(max(float(share), 0.0), 1.0):.2f}"


def _css_label(share: float) -> str:
    """Place of a label above the scale, kept inside the box at both ends."""
    return _css_percent(min(max(float(share), 0.03), 0.97))


def _runs(blocks: tuple[Block, ...]) -> list[tuple[str, list[Block]]]:
    """Neighbouring blocks of one kind together: figures then flow side by side."""
    return [(kind, list(group)) for kind, group in groupby(blocks, key=lambda b: b.kind)]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    environment.filters["css"] = _css_percent
    environment.filters["css_label"] = _css_label
    environment.filters["runs"] = _runs
    return environment


def render(page: Page) -> bytes:
    """The page as UTF-8."""
    return _environment().get_template("page.html.j2").render(page=page, csp=CSP).encode()


def render_blocks(blocks: Sequence[Facts | Table], data_origin: str = "recorded") -> bytes:
    """Facts and tables alone, to be put into a page."""
    macros = _environment().get_template("blocks.html.j2").module
    return "".join(str(getattr(macros, b.kind)(b, data_origin)) for b in blocks).encode()


def render_index(title: str, data_origin: str, entries: list) -> bytes:
    """The page that links several reports; ``entries`` are (Verdict, link)."""
    template = _environment().get_template("index.html.j2")
    return template.render(title=title, data_origin=data_origin, entries=entries, csp=CSP).encode()
