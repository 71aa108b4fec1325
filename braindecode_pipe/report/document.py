"""A page as data: sections that hold blocks. ``html`` and ``markdown`` write the same document.

Blocks hold plain text only, so that escaping happens in one place: the writer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

from braindecode_pipe.errors import BraindecodePipeError


@dataclass(frozen=True)
class Text:
    """A paragraph. ``style``: "", "note", "warning" or "lead"."""

    kind: ClassVar[str] = "text"
    text: str
    style: str = ""


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Items:
    """A list of sentences."""

    kind: ClassVar[str] = "items"
    items: tuple[str, ...]
    ordered: bool = False


@dataclass(frozen=True)
class Link:
    """A table cell that links to another page of the same report."""

    text: str
    href: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Level:
    """A table cell that also draws its number: ``share`` (0 to 1) as a bar, ``look`` marks it."""

    text: str
    share: float
    look: bool = False

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Column:
    """Head of a table column; numbers are set to the right, ``whole`` texts never broken."""

    name: str
    numeric: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Table:
    """A table: ``rows`` of text, numbers as text, :class:`Link` or :class:`Level`.

    ``folded`` tables show their caption until a reader opens them.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str | Link | Level, ...], ...]
    notes: tuple[str, ...] = ()
    folded: bool = False


@dataclass(frozen=True)
class Figure:
    """A picture with its alternative text; ``width`` and ``height`` in CSS pixels."""

    kind: ClassVar[str] = "figure"
    png: bytes
    alt: str
    caption: str
    width: int
    height: int


@dataclass(frozen=True)
class Scale:
    """A score between its chance level and its interval, all as shares of the scale (0 to 1)."""

    value: float
    chance: float | None
    ci_low: float | None
    ci_high: float | None
    text: str
    label: str


@dataclass(frozen=True)
class Verdict:
    """What a reader takes home. ``evidence`` None: nothing could be said."""

    kind: ClassVar[str] = "verdict"
    heading: str
    text: str
    evidence: bool | None
    scale: Scale | None = None
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Item:
    """A stimulus as the reader meets it: a small JPEG, a short WAV, or its label."""

    label: str
    jpeg: bytes | None = None
    wav: bytes | None = None
    problem: str = ""


@dataclass(frozen=True)
class Query:
    """One row of the gallery: the true stimulus and what the decoder put first."""

    title: str
    detail: str
    truth: Item
    truth_score: str
    top: tuple[tuple[Item, str, bool], ...]


@dataclass(frozen=True)
class Gallery:
    """Queries from the best to the worst rank; ``right`` says what stands beside the truth."""

    kind: ClassVar[str] = "gallery"
    caption: str
    queries: tuple[Query, ...]
    right: str = "put first by the decoder"


@dataclass(frozen=True)
class Fact:
    """One number that a reader looks for first; ``look`` says why it deserves a look, or ""."""

    name: str
    value: str
    look: str = ""


@dataclass(frozen=True)
class Facts:
    """The numbers at the head of a page."""

    kind: ClassVar[str] = "facts"
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Links:
    """A line of links to other pages of the same report."""

    kind: ClassVar[str] = "links"
    links: tuple[Link, ...]


@dataclass(frozen=True)
class Code:
    """Preformatted text."""

    kind: ClassVar[str] = "code"
    caption: str
    text: str


@dataclass(frozen=True)
class Failed:
    """A panel that should be here and is not, and why."""

    kind: ClassVar[str] = "failed"
    title: str
    cause: str


@dataclass(frozen=True)
class Slot:
    """A place that is filled when the page is published. Data cannot forge it: ``<`` is escaped."""

    kind: ClassVar[str] = "slot"
    name: str

    @property
    def mark(self) -> str:
        return f"<!--slot:{self.name}-->"


Block = (
    Slot
    | Text
    | Heading
    | Items
    | Table
    | Figure
    | Verdict
    | Gallery
    | Facts
    | Links
    | Code
    | Failed
)


@dataclass(frozen=True)
class Section:
    """A numbered part of a page. ``slug`` is fixed by us and never made of data."""

    slug: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """A whole page.

    ``data_origin`` other than ``recorded`` puts a banner on top and a mark on every number;
    ``back`` are the links above the title; ``wide`` pages have no list of contents at the side.
    """

    title: str
    subtitle: str
    data_origin: str
    sections: tuple[Section, ...]
    alerts: tuple[Failed, ...] = ()
    back: tuple[Link, ...] = ()
    wide: bool = False


def cause_of(error: BaseException) -> str:
    """One error as text for a reader: our own messages as they are, others with their type."""
    if isinstance(error, BraindecodePipeError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def attempt(title: str, make: Callable[..., Block | Iterable[Block]], *args: object) -> list[Block]:
    """Blocks made by ``make(*args)``, or the FAILED box ``title`` with the cause.

    One broken panel must not take the page with it, and must not vanish either.
    """
    try:
        made = make(*args)
        return list(made) if isinstance(made, Iterable) else [made]
    except Exception as error:  # noqa: BLE001 - whatever broke, the reader must see it
        return [Failed(title, cause_of(error))]
