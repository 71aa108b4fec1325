"""Colours of the pages can be read: contrast as WCAG 2.1 defines it (1.4.3, 1.4.11)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import braindecode_pipe.report
from braindecode_pipe.report import figures

CSS = (Path(braindecode_pipe.report.__file__).parent / "templates" / "style.css").read_text()
SCREEN = CSS.partition("@media print")[0]
VARIABLES = dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{3,6})", CSS))


def resolved(value: str) -> str:
    """A colour as #rrggbb; "" where a value holds none."""
    value = re.sub(r"var\(--([\w-]+)\)", lambda m: VARIABLES[m[1]], value)
    found = re.search(r"#([0-9a-f]{6}|[0-9a-f]{3})\b", value)
    digits = found[1] if found else ""
    return "#" + "".join(2 * c for c in digits) if len(digits) == 3 else digits and f"#{digits}"


def luminance(colour: str) -> float:
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear))


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def rules() -> dict[str, dict[str, str]]:
    """selector -> its declarations."""
    found: dict[str, dict[str, str]] = {}
    for selectors, body in re.findall(r"([^{}]+)\{([^{}]*)\}", SCREEN):
        for selector in selectors.split(","):
            pairs = (d.partition(":") for d in body.split(";") if ":" in d)
            found.setdefault(selector.strip(), {}).update(
                {k.strip(): v.strip() for k, _, v in pairs}
            )
    return found


def test_contrast_by_hand():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_text_can_be_read_on_every_ground_it_stands_on():
    """4.5 : 1. Text without a ground of its own stands on white or on the softest grounds."""
    grounds = ["#ffffff", resolved("var(--soft)")]
    texts = {}
    for selector, rule in rules().items():
        colour = resolved(rule.get("color", ""))
        ground = resolved(rule.get("background", ""))
        if colour:
            texts[selector] = min(contrast(colour, g) for g in ([ground] if ground else grounds))
        elif ground and not selector.endswith(" i") and "width" not in rule:
            own = "#ffffff" if selector.endswith(" .state") else resolved("var(--ink)")
            texts[selector] = contrast(own, ground)
    assert len(texts) > 25
    assert not {selector: round(c, 2) for selector, c in texts.items() if c < 4.5}


@pytest.mark.parametrize(
    ("colour", "ground"),
    [("var(--warn)", "var(--warn-soft)"), ("var(--fail)", "var(--fail-soft)"),
     ("var(--muted)", "var(--warn-soft)"), ("var(--ink)", "var(--fail-soft)"),
     ("#5a3700", "#ffe3a8")],
)  # fmt: skip
def test_text_inside_coloured_boxes(colour, ground):
    assert contrast(resolved(colour), resolved(ground)) >= 4.5


def test_marks_and_focus_stand_out():
    """3 : 1 for what must be seen and is no text."""
    found = rules()
    marks = [found["a:focus-visible"]["outline"], found[".scale .dot"]["background"],
             found[".verdict.yes"]["border-left-color"], found[".verdict.no"]["border-left-color"],
             found[".card.hit .face"]["border-color"], found[".level.look i"]["background"],
             found[".warning"]["border-left"]]  # fmt: skip
    low = {mark: round(contrast(resolved(mark), "#ffffff"), 2) for mark in marks}
    assert not {mark: c for mark, c in low.items() if c < 3}


def test_figures_can_be_read():
    for ink in (figures.INK, figures.MUTED):
        assert contrast(ink, "#ffffff") >= 4.5
    assert contrast(figures.INK, figures.BAND.lower()) >= 4.5


def test_print_shows_what_was_folded_and_hides_what_cannot_be_used():
    printed = CSS.partition("@media print")[2]
    assert "details::details-content" in printed and "audio" in printed
    assert re.search(r"nav, \.skip, audio \{ display: none", printed)
