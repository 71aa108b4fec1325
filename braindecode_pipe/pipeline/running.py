"""The stages in order: decide what is up to date, run the rest, survive what fails."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from braindecode_pipe.audit import check_names
from braindecode_pipe.errors import RecipeError
from braindecode_pipe.evaluate.ledger import append, configuration_of, ledger_dir, read
from braindecode_pipe.executor import Executor, Outcome, call
from braindecode_pipe.pipeline.auditing import Auditor
from braindecode_pipe.pipeline.baselines import with_low_level
from braindecode_pipe.pipeline.cache import FileHashes, History
from braindecode_pipe.pipeline.consistency import check_rates
from braindecode_pipe.pipeline.drawing import reconstruct, refuse_without_section
from braindecode_pipe.pipeline.findings import event_findings
from braindecode_pipe.pipeline.published import compute_used, publish, versions, write_record
from braindecode_pipe.pipeline.result import RunResult, UnitResult
from braindecode_pipe.pipeline.stages import Stages
from braindecode_pipe.pipeline.tokens import Tokens, run_tokens, section_of
from braindecode_pipe.pipeline.units import STAGES, Unit
from braindecode_pipe.recipe import Recipe
from braindecode_pipe.splits import StudyPlan
from braindecode_pipe.store import StoreLock, is_committed, store_attrs


class Run:
    """One run of one recipe; the stages are called in order by :func:`run_stages`."""

    def __init__(
        self,
        recipe: Recipe,
        data: Path,
        out: Path,
        executor: Executor,
        *,
        start: str | None,
        until: str | None,
        force: Iterable[str],
        dry_run: bool,
        ledger: Path | None,
        break_lock: bool,
        progress: Any,
        reuse: Iterable[str] = (),
        name: str = "run",
        tensorboard: Path | None = None,
        allow_leaks: Iterable[str] = (),
        anonymize: bool = False,
    ) -> None:
        names = list(STAGES)
        for stage in (start, until, *force, *reuse):
            if stage is not None and stage not in names:
                raise RecipeError("no such stage", expected=", ".join(names), found=stage)
        self.decodes = recipe.split.by != "none"
        if not self.decodes and until in ("embed", "train", "evaluate", "reconstruct"):
            raise RecipeError(
                "nothing is decoded without a split",
                expected="stages plan, preprocess, tokenize, report",
                found=until, remedy='set [split] by to something other than "none"',
            )  # fmt: skip
        refuse_without_section(recipe, until)
        recipe = with_low_level(recipe)
        self.recipe, self.data, self.out, self.name = recipe, data, out, name
        self.executor, self.dry_run, self.progress = executor, dry_run, progress
        self.anonymize = anonymize
        self.wanted = names[: names.index(until) + 1] if until else names
        self.first = names.index(start) if start else 0
        self.reuse = set(reuse)
        self.force, self.break_lock = set(force), break_lock
        self.hashes = FileHashes(out / "cache" / "hashes.json")
        self.history = History(out / "cache" / "history.json")
        self.stages = Stages(recipe, data, out, self.hashes, tensorboard)
        if until == "tokenize":
            section_of(self.stages)
        self.ledger = ledger_dir(data, ledger)
        self.result = RunResult()
        self.auditor = Auditor(check_names(allow_leaks))

    @property
    def record(self) -> Path:
        """File that says what the run did."""
        return self.out / f"{self.name}.json"

    def execute(self, units: Iterable[Unit]) -> set[str]:
        """Run those units that are not up to date; names of the units whose result is there."""
        ready, pending = set(), {}
        for unit in units:
            parts = dict(unit.parts)
            name = f"{unit.stage}/{unit.name}"
            committed = is_committed(unit.path)
            why = self.history.why(name, parts, committed)
            if committed and unit.stage not in self.force:
                ready.add(unit.name)
                self._row(unit, "cached", why)
                self.history.remember(name, parts)
            elif list(STAGES).index(unit.stage) < self.first:
                self._row(unit, "skipped", f"{why}; left out by --from")
            elif unit.stage in self.reuse:
                continue
            elif self.dry_run:
                self._row(unit, "will run", "forced" if committed else why)
                ready.add(unit.name)
            else:
                pending[name] = (unit, "forced" if committed else why)
        if pending:
            self._run_pending(pending, ready)
        return ready

    def _run_pending(self, pending: dict[str, tuple[Unit, str]], ready: set[str]) -> None:
        stage = next(iter(pending.values()))[0].stage
        with self.progress.stage(stage, len(pending)) as bar:

            def report(outcome: Outcome) -> None:
                unit, why = pending[outcome.name]
                status = "failed" if outcome.error else "done"
                self._row(
                    unit, status, why, outcome.seconds, outcome.error, outcome.bad_input,
                    outcome.trace,
                )  # fmt: skip
                if not outcome.error:
                    ready.add(unit.name)
                    self.history.remember(outcome.name, dict(unit.parts))
                    self.history.save()
                bar.advance(unit.name, outcome.error)

            if self.break_lock:
                for unit, _ in pending.values():
                    with StoreLock(unit.path, break_lock=True):
                        pass
            tasks = [unit.task() for unit, _ in pending.values()]
            if self.executor.elsewhere:
                bar.watch([unit.fit_folder for unit, _ in pending.values() if unit.together])
            if stage in ("plan", "report"):
                for task in tasks:
                    report(call(task.name, task.function, task.arguments, task.threads))
            else:
                self.executor.run(tasks, report)

    def _row(
        self, unit: Unit, status: str, why: str, seconds: float = 0.0, error: str = "",
        bad_input: bool = False, trace: str = "",
    ) -> None:  # fmt: skip
        self.result.rows.append(
            UnitResult(
                unit.stage, unit.name, status, why, seconds, error, bad_input, unit.path, trace
            )
        )

    def skip(self, unit: Unit, why: str) -> None:
        """Record a unit that cannot run because something before it failed."""
        self._row(unit, "skipped", why)

    def record_scores(self, evaluations: Mapping[str, Unit]) -> None:
        """Append every score of this configuration to the ledger, report or not."""
        configuration = configuration_of(self.recipe.model_dump(mode="json"))
        for name, unit in evaluations.items():
            attrs = store_attrs(unit.path)
            for score in attrs.get("scored", []):
                append(
                    self.ledger, attrs["test_hash"], configuration=configuration,
                    study=self.recipe.study.name, embedding=name, **score,
                )  # fmt: skip

    def ledger_of(self, evaluations: Mapping[str, Unit]) -> dict[str, list[dict[str, Any]]]:
        """Hash of each test set scored here -> every configuration ever scored on it."""
        hashes = {store_attrs(unit.path).get("test_hash") for unit in evaluations.values()}
        return {str(found): read(self.ledger, str(found)) for found in hashes if found}

    def save(self, began: float) -> None:
        """Write the caches and the record of the run."""
        self.hashes.save()
        self.history.save()
        configuration = configuration_of(self.recipe.model_dump(mode="json"))
        write_record(
            self.record, self.data, self.ledger, self.result, began,
            configuration=configuration, audit=self.auditor.record(),
        )  # fmt: skip


def run_stages(current: Run) -> None:
    plan = _plan(current)
    if plan is None or "preprocess" not in current.wanted:
        return
    if current.decodes and not current.dry_run:
        current.auditor.before_training(plan, store_attrs(current.stages.plan().path))
    signals = current.stages.preprocess(plan)
    if current.decodes:
        check_rates(plan, current.recipe.preprocess)
    done = current.execute(signals.values())
    done -= _without_events(current, plan, done) if current.decodes else set()
    failed = sorted(set(signals) - done)
    if not current.dry_run:
        plan = plan.without(failed)
    signals = {name: unit for name, unit in signals.items() if name in done}
    if not current.decodes and signals:
        tokens = run_tokens(current, plan, signals)
        if "report" in current.wanted:
            _report(current, plan, signals, {}, {}, {}, {}, tokens)
    if "embed" not in current.wanted or not current.decodes:
        return
    embeddings = current.stages.embed(plan)
    done = current.execute(embeddings.values())
    missing = set(embeddings) - done
    tokens = run_tokens(current, plan, signals)
    if "train" not in current.wanted:
        return
    trained = _train(current, plan, signals, embeddings, missing, tokens)
    if "evaluate" not in current.wanted:
        return
    usable = {name: unit for name, unit in embeddings.items() if name not in missing}
    leaks = []
    if not current.dry_run:
        used = {"preprocess": signals, "embed": usable, "train": trained}
        stores = {stage: [u.path for u in units.values()] for stage, units in used.items()}
        stores["tokenize"] = [] if tokens is None else [unit.path for unit in tokens.units]
        leaks = current.auditor.before_evaluation(plan, stores)
    evaluations = current.stages.evaluate(plan, trained, usable, leaks)
    done = current.execute(evaluations.values())
    evaluations = {name: unit for name, unit in evaluations.items() if unit.name in done}
    if not current.dry_run:
        current.record_scores(evaluations)
    drawn = reconstruct(current, plan, trained, usable)
    if "report" in current.wanted:
        _report(current, plan, signals, usable, trained, evaluations, drawn, tokens)


def _plan(current: Run) -> StudyPlan | None:
    """The plan, from its store; a dry run of a study without one makes it in memory."""
    unit = current.stages.plan()
    current.hashes.save() if not current.dry_run else None
    if current.execute([unit]) and is_committed(unit.path):
        found = event_findings(store_attrs(unit.path))
        current.result.notes += [f.text for f in found if f.severity == "warning"]
        return StudyPlan.load(unit.path)
    if current.dry_run and current.result.rows[-1].status == "will run":
        from braindecode_pipe.plan import build

        return build(
            current.recipe.plan, current.recipe.split, current.data,
            extent=current.stages.extent, hasher=current.hashes, reach=current.stages.reach,
            repairs=current.stages.table_repairs,
        ).plan  # fmt: skip
    return None


def _without_events(current: Run, plan: StudyPlan, done: set[str]) -> set[str]:
    """Recordings that can be read and whose events cannot: their problem is told here."""
    problems = dict(zip(plan.recordings["recording"], plan.recordings["problem"]))
    found = {name for name in done if problems[name]}
    for name in sorted(found):
        current.result.rows.append(
            UnitResult(
                "plan", name, "failed", "its events cannot be used", error=problems[name],
                bad_input=True,
            )
        )  # fmt: skip
    return found


def _train(
    current: Run,
    plan: StudyPlan,
    signals: dict[str, Unit],
    embeddings: dict[str, Unit],
    missing: set[str],
    tokens: Tokens | None,
) -> dict[tuple[str, str, str], Unit]:
    tokens = tokens if current.recipe.train.inputs == "tokens" else None
    units = current.stages.train(plan, signals, embeddings, tokens and tokens.of_fold)
    runnable = {}
    for key, unit in units.items():
        if key[0] in missing:
            current.skip(unit, f"the embedding {key[0]} failed")
        elif tokens is not None and key[2] in tokens.lost:
            current.skip(unit, tokens.lost[key[2]])
        elif key[2] and (lost := _lost_role(plan, key[2])):
            current.skip(unit, f"no {lost} event is left in this fold: its recordings failed")
        else:
            runnable[key] = unit
    done = current.execute(runnable.values())
    return {key: unit for key, unit in runnable.items() if unit.name in done}


def _lost_role(plan: StudyPlan, fold: str) -> str:
    number = list(plan.folds["fold"]).index(fold)
    return next((r for r in ("train", "test") if not len(plan.rows(number, r))), "")


def _report(
    current: Run,
    plan: StudyPlan,
    signals: dict[str, Unit],
    embeddings: dict[str, Unit],
    trained: dict[tuple[str, str, str], Unit],
    evaluations: dict[str, Unit],
    drawn: dict[str, Unit],
    tokens: Tokens | None = None,
) -> None:
    from braindecode_pipe.report import ReportInputs

    left_out = [row for row in current.result.rows if row.status == "skipped"]
    if current.first == list(STAGES).index("report") and left_out:
        # Half of it would replace a whole one.
        why = f"results of this recipe and version are missing, as {left_out[0].stage}; run without"
        current.result.rows.append(
            UnitResult("report", "study", "skipped", f"{why} --reports-only and --from")
        )
        return
    results = [*evaluations.values(), *drawn.values()]
    if current.dry_run and not all(is_committed(unit.path) for unit in results):
        current.result.rows.append(
            UnitResult("report", "study", "will run", "what it shows will change")
        )
        return
    predictions: dict[str, list[Path]] = {}
    for (name, _, _), unit in trained.items():
        predictions.setdefault(name, []).append(unit.path)
    failures = [
        {"stage": row.stage, "unit": row.unit, "error": row.error} for row in current.result.failed
    ]
    inputs = ReportInputs(
        recipe=current.recipe.model_dump(mode="json"),
        plan=current.stages.plan().path,
        signals={name: unit.path for name, unit in signals.items()},
        tokens={} if tokens is None else tokens.shown,
        embeddings={name: unit.path for name, unit in embeddings.items()},
        predictions=predictions,
        evaluations={name: unit.path for name, unit in evaluations.items()},
        reconstructions={name: unit.path for name, unit in drawn.items()},
        ledger=current.ledger_of(evaluations),
        audit=current.auditor.record(),
        data=current.data,
        versions=versions(),
        failures=failures,
        anonymize=current.anonymize,
    )
    encoded = [] if tokens is None else tokens.units
    unit = current.stages.report(inputs, [*signals.values(), *embeddings.values(), *encoded,
                                          *trained.values(), *results])  # fmt: skip
    if current.execute([unit]) and not current.dry_run and is_committed(unit.path):
        whole = current.decodes or current.name == "run"
        fill = compute_used(current.record, current.result, current.recipe.compute.threads)
        current.result.report = publish(unit.path, current.out, whole, fill)
