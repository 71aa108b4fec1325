"""What a run did, unit by unit, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from braindecode_pipe.errors import one_line


@dataclass(frozen=True)
class UnitResult:
    """One unit: status is cached | done | failed | skipped | will run."""

    stage: str
    unit: str
    status: str
    why: str
    seconds: float = 0.0
    error: str = ""
    bad_input: bool = False
    path: Path | None = None
    trace: str = field(default="", repr=False)


@dataclass
class RunResult:
    """All units of a run.

    Attributes
    ----------
    rows : list of UnitResult
    report : path of the HTML page, None when the run did not get that far
    notes : what the plan says about the events: dropped ones, triggers that disagree
    """

    rows: list[UnitResult] = field(default_factory=list)
    report: Path | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def failed(self) -> list[UnitResult]:
        """Units that failed themselves (not those skipped because of them)."""
        return [row for row in self.rows if row.status == "failed"]

    @property
    def exit_code(self) -> int:
        """0; 2 when every failure is bad input, or --from left out what is not there; else 1."""
        if not self.failed:
            return 2 if any(row.status == "skipped" for row in self.rows) else 0
        return 2 if all(row.bad_input for row in self.failed) else 1

    @property
    def up_to_date(self) -> bool:
        """Whether nothing had to run."""
        return bool(self.rows) and all(row.status == "cached" for row in self.rows)

    def stages(self) -> list[str]:
        """Names of the stages, in order."""
        return list(dict.fromkeys(row.stage for row in self.rows))

    def table(self, details: bool = False) -> Any:
        """A rich table: one row per stage, or per unit with ``details``."""
        from rich.markup import escape
        from rich.table import Table

        table = Table("stage", "unit" if details else "units", "status", "why", "time \\[s]")
        for stage in self.stages():
            rows = [row for row in self.rows if row.stage == stage]
            if details:
                for row in rows:
                    table.add_row(
                        stage, escape(row.unit), row.status, escape(row.why), f"{row.seconds:.1f}"
                    )
                continue
            counts = {s: sum(row.status == s for row in rows) for s in dict.fromkeys(
                row.status for row in rows)}  # fmt: skip
            status = ", ".join(f"{n} {s}" if len(counts) > 1 else s for s, n in counts.items())
            reasons = list(dict.fromkeys(row.why for row in rows if row.why))
            why = "; ".join(reasons[:1]) + (
                f" (+{len(reasons) - 1} more)" if len(reasons) > 1 else ""
            )
            table.add_row(
                stage, str(len(rows)), status, escape(why),
                f"{sum(row.seconds for row in rows):.1f}",
            )  # fmt: skip
        return table

    def failures(self) -> Any:
        """A rich table of who failed and why, in one line each."""
        from rich.markup import escape
        from rich.table import Table

        table = Table("stage", "unit", "why it failed", title="failed", show_lines=True)
        for row in self.failed:
            table.add_row(row.stage, escape(row.unit), escape(one_line(row.error)))
        return table
