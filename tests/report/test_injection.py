"""F-29: text from data, recipe or errors is text on every page, never markup, script or formula."""

from __future__ import annotations

import csv
import dataclasses
import io
from html.parser import HTMLParser

import pytest

from braindecode_pipe.report import figures, index_page, run
from braindecode_pipe.report.compute import SLOT
from braindecode_pipe.report.document import Figure
from braindecode_pipe.store import list_extra_files, read_file

PAYLOADS = {
    "tag": "<script>document.title='pwned'</script>",
    "image": "<img src=x onerror=document.title='pwned'>",
    "attribute": "\" onmouseover=\"document.title='pwned'\" x=\"",
    "single_quote": "' autofocus onfocus='document.title=1",
    "js_string": "';document.title='pwned';//</script><script>",
    "url": "javascript:document.title='pwned'",
    "svg": "<svg onload=document.title='pwned'><style>*{display:none}</style></svg>",
    "template": "{{ 7*7 }}{% raw %}${7*7}</style></textarea><iframe src=//x.invalid>",
    "comment": "--><meta http-equiv=refresh content='0;url=http://x.invalid'><!--",
    "formula": "=HYPERLINK(\"http://x.invalid\";\"click\")",
}  # fmt: skip
TINY = {
    "eeg": {"n_runs": 2, "n_trials": 12, "draws": 20},
    "bold": {"n_runs": 2, "n_trials": 8, "draws": 20, "zero_shot": True},
}
ALLOWED_LINKS = ("#", "qc/", "./", "../report.html")


class Page(HTMLParser):
    def __init__(self, html: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.tags, self.text, self._style = [], "", False
        self.feed(html.decode())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, attrs))
        self._style = tag == "style"

    def handle_endtag(self, tag):
        self._style = False

    def handle_data(self, data):
        self.text += "" if self._style else data


def shape(html: bytes) -> set[tuple]:
    """Every kind of tag with the names of its attributes."""
    return {(tag, tuple(sorted(name for name, _ in attrs))) for tag, attrs in Page(html).tags}


@pytest.fixture
def fast_figures(monkeypatch):
    """Figures without their pixels: drawing is tested elsewhere, alternative texts are not."""

    def picture(figure, alt, caption, few_colours=False):
        return Figure(b"\x89PNG", alt, caption, 10, 10)

    modules = ("figures", "maps", "embedding_map", "qc_figures", "qc_time_figures",
               "qc_ica_figures")  # fmt: skip
    for module in modules:
        monkeypatch.setattr(f"braindecode_pipe.report.{module}.picture", picture)


def poisoned(make_names, payload: str, bold: bool):
    labels = tuple(f"{payload}{i}" for i in range(4 if bold else 24))
    return make_names(
        title=payload, description=payload, subjects=(payload,), labels=labels,
        categories=tuple(f"{payload}{c}" for c in "abcd"), sensor=payload, reason=payload,
        warning=payload, step=payload, exclude_reason=payload, error=payload, version=payload,
        licence=payload, embedding=payload, extra={"failed": True},
    )  # fmt: skip


@pytest.fixture(scope="module")
def plain_shapes(make_study, make_names, tmp_path_factory):
    """Tags of the same reports made of harmless names."""
    found = {}
    for modality in ("eeg", "bold"):
        folder = tmp_path_factory.mktemp(modality)
        names = make_names(subjects=("01",), extra={"failed": True})
        inputs = make_study(folder / "in", modality=modality, names=names, **TINY[modality])
        run(inputs, folder / "out.zarr")
        out = folder / "out.zarr"
        files = [f for f in list_extra_files(out) if f.endswith(".html")]
        found[modality] = set().union(*(shape(read_file(out, f)) for f in files))
    return found


@pytest.mark.parametrize("kind", sorted(PAYLOADS))
@pytest.mark.parametrize("modality", ["eeg", "bold"])
def test_f29_payload_through_every_field(
    modality, kind, make_study, make_names, plain_shapes, fast_figures, tmp_path
):
    payload = PAYLOADS[kind]
    names = poisoned(make_names, payload, modality == "bold")
    inputs = make_study(tmp_path / "in", modality=modality, names=names, **TINY[modality])
    out = tmp_path / "out.zarr"
    first = next(iter(inputs.signals))
    run(dataclasses.replace(inputs, signals={first: inputs.signals[first]}), out)
    files = list_extra_files(out)
    for file in files:
        assert all(c.isalnum() or c in "-._/" for c in file), file
    for file in (f for f in files if f.endswith(".html")):
        html = read_file(out, file)
        assert shape(html) <= plain_shapes[modality], file
        page = Page(html)
        assert " ".join(payload.split()) in " ".join(page.text.split())
        for _, attrs in page.tags:
            for name, value in attrs:
                assert not name.startswith("on") and name not in ("srcdoc", "action", "autofocus")
                if name == "href":
                    assert value.startswith(ALLOWED_LINKS), value
                if name == "src":
                    assert value.startswith(("data:image/png;base64,", "data:image/jpeg;base64,"))
                if name == "style":
                    assert "url" not in value and "expression" not in value
    for line in read_file(out, "report.md").decode().splitlines():
        if line == SLOT.mark:
            continue
        assert line.startswith("    ") or ("<" not in line and "](" not in line), line
    for row in csv.reader(io.StringIO(read_file(out, "metrics.csv").decode())):
        for cell in row:
            assert not cell.startswith(("=", "+", "@", "\t")), cell
            assert not cell.startswith("-") or float(cell) < 0


@pytest.mark.parametrize("kind", sorted(PAYLOADS))
def test_f29_payload_in_the_index(kind, tmp_path):
    payload = PAYLOADS[kind]
    report = {"verdict": payload, "evidence": "evidence", "data_origin": "recorded"}
    made = []
    for text in ("plain", payload):
        index_page([{**report, "title": text, "link": "a.html"}], tmp_path / "index.html", text)
        made.append(shape((tmp_path / "index.html").read_bytes()))
    assert made[1] == made[0]


def test_f29_names_in_figures_are_not_interpreted():
    labels = ["$\\frac{1}{0", "a\x00b\x07", "<script>"]
    figure = figures.confusion([[1, 0, 0], [0, 1, 0], [0, 0, 1]], labels, "alt", "caption")
    assert figure.png.startswith(b"\x89PNG")
