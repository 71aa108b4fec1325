"""The quality page of one recording: which panels it has, by what it is and what was asked for.

A panel that the recipe and the kind of recording lead to is drawn, or stands as FAILED with its
cause. What nobody asked for is named in one line. What lies in the store is drawn in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from braindecode_pipe.report import qc_bold, qc_emeg, qc_events, qc_summary, qc_tokens
from braindecode_pipe.report.data import page_name
from braindecode_pipe.report.document import Block, Link, Page, Section, Text, attempt
from braindecode_pipe.report.methods_steps import recording_methods
from braindecode_pipe.report.recording import Recording


@dataclass(frozen=True)
class Panel:
    """A part of the page.

    Attributes
    ----------
    title : its name in a FAILED box and in the line of what was not asked for
    make : function that draws it
    asked : whether the recipe and the kind of recording lead to it
    arrays : arrays whose presence is reason enough to draw it
    silent : leave it out without a word where it was not asked for: it could not be
    """

    title: str
    make: Callable[[Recording], Iterable[Block]]
    asked: bool = True
    arrays: tuple[str, ...] = ()
    silent: bool = False

    def wanted(self, recording: Recording) -> bool:
        """Whether it is drawn or stands as FAILED."""
        return self.asked or (bool(self.arrays) and recording.has(*self.arrays))


def panels(recording: Recording) -> list[tuple[str, str, list[Panel]]]:
    """(slug, title, panels) of every section, in reading order."""
    middle = _bold(recording) if recording.is_bold else _emeg(recording)
    head = [
        Panel("summary", qc_summary.facts),
        Panel("warnings", qc_summary.warnings),
        Panel("details", qc_summary.details),
    ]
    events = [
        Panel("event timing", qc_events.timing),
        Panel("comparison with the device's triggers", qc_events.matching,
              asked=_matched(recording)),
        Panel("response lag", qc_events.lag, asked=_lag_asked(recording)),
        Panel("drop log", qc_events.drop_log),
    ]  # fmt: skip
    encoded = qc_tokens.store_of(recording) is not None
    tokens = [
        Panel("codes", qc_tokens.numbers, asked=encoded, silent=True),
        Panel("signals rebuilt from codes", qc_tokens.rebuilt, asked=encoded, silent=True),
        Panel("latent sources", qc_tokens.sources, asked=encoded, silent=True),
    ]
    foot = [
        Panel("steps", qc_summary.steps),
        Panel("methods paragraph", recording_methods),
        Panel("provenance", qc_summary.provenance),
    ]
    return [
        ("summary", "Summary", head),
        *middle,
        ("tokens", "Tokens", tokens),
        ("events", "Events and what was left out", events),
        ("methods", "Methods and provenance", foot),
    ]


def _emeg(recording: Recording) -> list[tuple[str, str, list[Panel]]]:
    section, kinds = recording.section, set(attempt_kinds(recording))
    continuous = recording.datatype != "epochs"
    maxwell = section.get("maxwell") or {}
    magnetic = bool(kinds & {"mag", "grad"}) or not kinds
    return [
        ("sensors", "Sensors", [
            Panel("sensor positions", qc_emeg.layout),
            Panel("amplitudes", qc_emeg.amplitudes),
            Panel("bad sensors", qc_emeg.bad_table),
        ]),
        ("spectra", "Spectra and filters", [
            Panel("spectra", qc_emeg.spectra),
            Panel("line noise", qc_emeg.line_noise,
                  asked=bool(section.get("notch")) and continuous,
                  arrays=("line_power_before", "line_power_after")),
            Panel("reach of the filters", qc_summary.reach,
                  asked=continuous and bool(section.get("l_freq") or section.get("h_freq")),
                  silent=True),
        ]),
        ("components", "Independent components", [
            Panel("independent components", qc_emeg.components,
                  asked=bool(section.get("ica")) and continuous, arrays=("ica_map",)),
        ]),
        ("movement", "Head movement", [
            Panel("head movement", qc_emeg.head_movement, arrays=("head_position",),
                  asked=maxwell.get("movement") == "chpi" and magnetic and continuous),
        ]),
        ("signal", "Signal", [Panel("excerpt", qc_emeg.excerpt)]),
    ]  # fmt: skip


def _bold(recording: Recording) -> list[tuple[str, str, list[Panel]]]:
    section, volumes = recording.section, recording.datatype == "bold"
    responses = section.get("responses") or "series"
    strategy = set(section.get("confounds_strategy") or ())
    motion = bool(strategy & {"motion", "scrub"})
    voxels = volumes and section.get("sensors", "voxels") == "voxels"
    parcels = volumes and section.get("sensors") == "parcels"
    return [
        ("brain", "Mask, mean and tSNR", [
            Panel("mean image and mask", qc_bold.mean_image, asked=voxels, silent=True),
            Panel("temporal signal-to-noise ratio", qc_bold.tsnr),
            Panel("coverage of parcels", qc_bold.coverage, asked=parcels, arrays=("coverage",),
                  silent=not volumes),
            Panel("bad sensors", qc_emeg.bad_table, asked=False, arrays=("bad_reason",),
                  silent=True),
        ]),
        ("signal", "Signal and motion", [
            Panel("carpet", qc_bold.carpet),
            Panel("head motion", qc_bold.motion, asked=motion, arrays=("motion",)),
        ]),
        ("responses", "Single-trial responses", [
            Panel("single-trial responses", qc_bold.betas, asked=responses != "series",
                  arrays=("r2",)),
        ]),
    ]  # fmt: skip


def attempt_kinds(recording: Recording) -> list[str]:
    """Kinds of the sensors; none where the store cannot be read."""
    found: list[str] = []
    attempt("kinds", lambda: found.extend(recording.sensors["kind"].unique()) or ())
    return found


def _matched(recording: Recording) -> bool:
    found: list[bool] = []
    attempt("plan", lambda: found.append(qc_events.matching_of(recording) is not None) or ())
    return found == [True]


def _lag_asked(recording: Recording) -> bool:
    """Wherever it can be measured: there are enough events, and responses have a time."""
    found: list[bool] = []
    attempt("lag", lambda: found.append(recording.lag is not None) or ())
    return found != [False]  # a measurement that breaks is shown as FAILED


def qc_page(recording: Recording, neighbours: tuple[str, str] = ("", "")) -> Page:
    """The quality page of a recording.

    Parameters
    ----------
    recording : Recording
    neighbours : ids of the recordings before and after it, "" for none
    """
    alerts = attempt("store of this recording", lambda: () if recording.attrs else ())
    origin = "unknown" if alerts else str(recording.attrs.get("data_origin", "unknown"))
    sections: list[Section] = []
    left_out: list[str] = []
    for slug, title, every in panels(recording):
        blocks: list[Block] = []
        for panel in every:
            if panel.wanted(recording):
                blocks += attempt(panel.title, panel.make, recording)
            elif not panel.silent:
                left_out.append(panel.title)
        if blocks:
            sections.append(Section(slug, title, tuple(blocks)))
    if left_out and sections:
        note = Text(f"Not asked for, or nothing to compare: {'; '.join(left_out)}.", "note")
        first = sections[0]
        sections[0] = Section(first.slug, first.title, (*first.blocks, note))
    links = [Link("Back to the report", "../report.html"), Link("All recordings", "./index.html")]
    for label, other in zip(("Previous", "Next"), neighbours):
        if other:
            links.append(Link(label, f"./{page_name(other)}"))
    return Page(
        title=recording.name,
        subtitle=f"Quality of one recording of “{recording.study.name}”",
        data_origin=origin,
        sections=tuple(sections),
        alerts=tuple(alerts),
        back=tuple(links),
    )
