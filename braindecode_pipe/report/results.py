"""Sections 1 to 3: the verdict, all results, and results per person and fold."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pandas as pd

from braindecode_pipe.report import figures, wording
from braindecode_pipe.report.document import (
    Block,
    Column,
    Heading,
    Scale,
    Section,
    Table,
    Text,
    Verdict,
    attempt,
)
from braindecode_pipe.report.retrieval import retrieval_table
from braindecode_pipe.report.study import ZERO_SHOT, Evaluation, Study, of_whole_window, require
from braindecode_pipe.report.variants import seeds_table, time_curves

MAX_CONFUSION = 50


def verdict_section(study: Study) -> Section:
    """What is decoded, how well, against what chance, from how much data."""
    blocks: list[Block] = []
    for evaluation in study.evaluations:
        blocks += attempt(f"verdict for {evaluation.name}", verdict, evaluation)
        blocks += attempt(f"prior of {evaluation.name}", prior_warning, evaluation)
    if not study.evaluations and study.zero_shot is None:
        blocks.append(Text("Nothing was evaluated, so there is no result to judge.", "warning"))
    if study.zero_shot is not None and not study.evaluations:
        blocks += attempt("zero-shot verdict", verdict, study.zero_shot)
    blocks += attempt("extent of the data", extent, study)
    return Section("verdict", "Verdict", tuple(blocks))


def verdict(evaluation: Evaluation) -> Verdict:
    """The verdict of one evaluation with its numbers on a scale."""
    says = evaluation.verdict
    metric, decoder = str(says.get("metric", "")), str(says.get("decoder", ""))
    wanted = {k: says[k] for k in ("decoder", "metric", "prompt_set") if k in says}
    record = next((r for r in pooled(evaluation) if wanted.items() <= r.items()), {})
    facts = [(wording.metric_name(metric), wording.score(metric, record.get("value")))]
    facts += [
        ("Chance", wording.score(metric, record.get("chance"))),
        (level_of(record), wording.interval(metric, record.get("ci_low"), record.get("ci_high"))),
        ("p", wording.p_value(record.get("p_value"))),
        ("Queries", wording.plain(record.get("n_queries"))),
        ("Candidates", wording.plain(record.get("n_candidates"))),
        ("Decoder", wording.decoder_name(decoder)),
    ]
    return Verdict(
        heading=heading_of(evaluation, record),
        text=str(says["text"]),
        evidence=stated_evidence(says.get("evidence")),
        scale=scale(metric, record),
        facts=tuple(facts) if record else (),
    )


def prior_warning(evaluation: Evaluation) -> Iterator[Text]:
    """A warning where guessing by training frequency does as well as the decoder of the verdict."""
    metric, decoder = headline_metric(evaluation), evaluation.headline
    value = {r.get("decoder"): r["value"] for r in pooled(evaluation) if r["metric"] == metric}
    if "prior" not in value or decoder not in value or decoder == "prior":
        return
    sign = -1 if metric in ("median_rank", "normalized_rank") else 1
    chance = next(r["chance"] for r in pooled(evaluation) if r["metric"] == metric)
    informative = sign * (value["prior"] - chance) > 0.01 * abs(chance)
    if informative and sign * (value["prior"] - value[decoder]) >= 0:
        yield Text(
            "How often training showed each candidate predicts the truth as well, without brain "
            f"data: {wording.metric_name(metric)} {wording.score(metric, value['prior'])} against "
            f"{wording.score(metric, value[decoder])} of the decoder. Look at the balanced scores "
            "before believing the verdict.",
            "warning",
        )


def heading_of(evaluation: Evaluation, record: dict) -> str:
    """What is decoded into what."""
    if evaluation.name == ZERO_SHOT:
        return f"Zero-shot decoding, prompt set “{record.get('prompt_set', '')}”"
    target = str(record.get("target") or evaluation.name)
    of = f" of “{target}”" if target != evaluation.name else ""
    return f"Decoding into the embedding “{evaluation.name}”{of}"


def stated_evidence(stated: object) -> bool | None:
    """ "evidence" -> True, "no evidence" -> False, nothing -> None."""
    return None if stated in (None, "") else stated in (True, "evidence")


def level_of(record: dict) -> str:
    """Name of the interval column."""
    level = wording.number(record.get("ci_level"))
    return f"{100 * level:.0f} % interval" if math.isfinite(level) else "Interval"


def scale(metric: str, record: dict) -> Scale | None:
    """Position of a score between 0 and 1; None for scores without such a scale."""
    value = wording.number(record.get("value"))
    if not (math.isfinite(value) and 0 <= value <= 1) or metric == "normalized_rank":
        return None
    low, high, chance = (wording.number(record.get(k)) for k in ("ci_low", "ci_high", "chance"))
    known = math.isfinite(low) and math.isfinite(high)
    label = f"{wording.metric_name(metric)} {wording.score(metric, value)}"
    if known:
        label += f", interval {wording.interval(metric, low, high)}"
    if math.isfinite(chance):
        label += f", chance {wording.score(metric, chance)}"
    return Scale(
        value=value,
        chance=chance if math.isfinite(chance) else None,
        ci_low=low if known else None,
        ci_high=high if known else None,
        text=wording.score(metric, value),
        label=label,
    )


def extent(study: Study) -> Text:
    """How much data of how many people the numbers come from."""
    recordings, plan = study.recordings, study.plan
    subjects = recordings["subject"].nunique()
    seconds = float(np.nansum(recordings["duration"].to_numpy(float)))
    by = study.section("split").get("by", "")
    kinds = wording.datatypes(sorted({str(v) for v in recordings["datatype"]}))
    tested = int((plan.role == 3).any(axis=0).sum())
    text = (
        f"From {wording.count(len(recordings), 'recording')} ({kinds}; "
        f"{wording.duration(seconds)}) of {wording.count(subjects, 'person', 'people')}: "
        f"{wording.count(len(plan.events), 'event')}, of which {tested} are tested in "
        f"{wording.count(len(plan.folds), 'fold')}"
    )
    return Text(text + (f", split by {by}." if by else "."), "note")


def pooled(evaluation: Evaluation) -> list[dict]:
    """Records of the whole window over everybody, in the order of the file."""
    return [r for r in of_whole_window(evaluation.records) if str(r.get("subject", "all")) == "all"]


def results_section(study: Study) -> Section:
    """Every number with its chance, interval and p-value, then the figures."""
    blocks: list[Block] = []
    for evaluation in study.evaluations:
        blocks.append(Heading(f"Embedding “{evaluation.name}”"))
        blocks += attempt(f"figure of scores, {evaluation.name}", score_figure, evaluation)
        blocks += attempt(f"results, {evaluation.name}", results_table, evaluation)
        blocks += attempt(f"retrieval, {evaluation.name}", retrieval_table, evaluation)
        blocks += attempt(f"seeds, {evaluation.name}", seeds_table, evaluation)
        blocks += attempt(f"course over time, {evaluation.name}", time_curves, evaluation)
        blocks += attempt(f"ranks, {evaluation.name}", rank_figure, evaluation)
        blocks += attempt(f"confusion, {evaluation.name}", confusion_figure, study, evaluation)
    if not blocks:
        blocks.append(Text("No embedding was evaluated."))
    return Section("results", "Results", tuple(blocks))


def results_table(evaluation: Evaluation) -> Iterator[Block]:
    """The score of the verdict for every decoder; behind it all other scores."""
    metric = headline_metric(evaluation)
    records = pooled(evaluation)
    main = [r for r in records if r["metric"] == metric]
    decoders = [r for r in main if not r.get("control")]
    yield record_table(decoders, f"{wording.metric_name(metric)} of every decoder")
    chosen = Counter(evaluation.attrs.get("selected", {}).values())
    if chosen:
        text = ", ".join(
            f"{wording.decoder_name(d)} in {wording.count(n, 'fold')}"
            for d, n in chosen.most_common()
        )
        yield Text(f"Selected by cross-validation inside the training data: {text}.", "note")
    yield record_table(records, f"All {len(records)} scores", folded=True)


def headline_metric(evaluation: Evaluation) -> str:
    """The metric that the verdict speaks of."""
    return str(evaluation.verdict.get("metric") or pooled(evaluation)[0]["metric"])


def record_table(
    records: list[dict], caption: str, *, by_person: bool = False, folded: bool = False
) -> Table:
    """Records as a table; equal descriptions of null and bootstrap share one footnote."""
    require(records or None, "any record in metrics.json")
    ways: dict[str, str] = {}
    one_metric = len({record["metric"] for record in records}) == 1
    rows = []
    before = None
    for record in records:
        metric, decoder = str(record["metric"]), str(record.get("decoder", ""))
        unit = str(record.get("bootstrap_unit") or "")
        drawn = f"bootstrap over {wording.plural(unit)}" if unit else "none"
        way = f"p-value: {record.get('null') or 'none'}; interval: {drawn}."
        mark = ways.setdefault(way, f"[{len(ways) + 1}]")
        few, many = record.get("n_candidates_min"), record.get("n_candidates")
        candidates = wording.plain(many)
        if few is not None and few != many:
            candidates = f"{wording.plain(few)} – {candidates}"
        who = (str(record.get("subject", "")),) if by_person else ()
        group = (*who, decoder)
        shown = (*who, wording.decoder_name(decoder)) if group != before else ("",) * len(group)
        if before and group != before and group[:-1] == before[:-1]:
            shown = ("",) * len(who) + shown[-1:]
        rows.append(
            (
                *shown,
                *(() if one_metric else (wording.metric_name(metric),)),
                wording.score(metric, record.get("value")),
                wording.interval(metric, record.get("ci_low"), record.get("ci_high")),
                wording.score(metric, record.get("chance")),
                wording.p_value(record.get("p_value")),
                wording.plain(record.get("n_queries")),
                candidates,
                mark,
            )
        )
        before = group
    names = ("Person",) * by_person + ("Decoder",) + ("Metric",) * (not one_metric)
    numeric = ("Value", level_of(records[0]), "Chance", "p", "Queries", "Candidates")
    columns = (*map(Column, names), *(Column(n, True) for n in numeric), Column("How"))
    notes = tuple(f"{mark} {way}" for way, mark in ways.items())
    return Table(caption, columns, tuple(rows), notes, folded)


def score_figure(evaluation: Evaluation) -> Block:
    """The headline score of every decoder beside chance and null."""
    metric = headline_metric(evaluation)
    rows = []
    for record in pooled(evaluation):
        if record["metric"] != metric:
            continue
        decoder = str(record.get("decoder", ""))
        people = [
            wording.number(r.get("value"))
            for r in of_whole_window(evaluation.records)
            if r["metric"] == metric
            and r.get("decoder") == decoder
            and str(r.get("subject", "all")) != "all"
        ]
        rows.append(
            {
                "label": wording.decoder_name(decoder),
                **{k: wording.number(record.get(k)) for k in ("value", "chance")},
                **{k: wording.number(record.get(k)) for k in ("ci_low", "ci_high")},
                "null": evaluation.null_values(decoder, metric),
                "people": np.asarray(people, float),
                "headline": decoder == evaluation.headline,
            }
        )
    require(rows or None, f"any record of the metric {metric}", evaluation.path)
    name = wording.metric_name(metric)
    alt = f"{name} by decoder: " + "; ".join(
        f"{r['label']} {wording.score(metric, r['value'])}" for r in rows
    )
    alt += f"; chance {wording.score(metric, rows[0]['chance'])}"
    caption = f"{name} of every decoder with its interval, chance, and the permutation null."
    return figures.scores(rows, wording.is_share(metric), name, alt, caption)


def rank_figure(evaluation: Evaluation) -> Block:
    """Where the true stimulus was ranked, for the decoder of the verdict."""
    items = evaluation.items
    items = items[items["decoder"] == evaluation.headline]
    require(len(items) or None, f"any query of decoder {evaluation.headline}", evaluation.path)
    rank = items["rank"].to_numpy(float)
    first = float(np.mean(rank < 1.5))
    alt = (
        f"Histogram of the rank of the true stimulus over {len(items)} queries; median "
        f"{wording.plain(np.median(rank))}, first in {wording.share(first, 0)}"
    )
    name = wording.decoder_name(evaluation.headline)
    caption = f"Rank of the true stimulus ({name}, {len(items)} queries)."
    return figures.ranks(rank, items["n_candidates"].to_numpy(float), alt, caption)


def confusion_figure(study: Study, evaluation: Evaluation) -> Iterator[Block]:
    """Confusions between stimuli, or between their categories where the stimuli are many."""
    decoder = evaluation.headline
    stored = evaluation.confusion
    if stored is not None and decoder in (found := _names(stored["confusion"], "decoder")):
        array = stored["confusion"].isel(decoder=found.index(decoder))
        labels = _names(array, "true")
        known = {str(r["label"]): str(r["category"]) for r in study.stimuli.values()}
        category = [known.get(label) or study.category(label) for label in labels]
        order = np.argsort(category, kind="stable")
        counts = np.asarray(array.values)[np.ix_(order, order)]
        labels = [study.label(labels[i]) for i in order]
        level = str(stored.attrs.get("level", "stimulus"))
        what = "categories" if level == "category" else "stimuli"
    else:
        counts, labels = _category_confusion(study, evaluation, decoder)
        what = "categories"
    if len(labels) < 2:
        yield Text(
            "The stimuli are too many for a confusion matrix and have no categories to group by.",
            "note",
        )
        return
    right = float(np.trace(counts) / max(counts.sum(), 1))
    alt = (
        f"Confusion matrix of {len(labels)} {what}; {wording.share(right, 0)} of "
        f"{int(counts.sum())} queries on the diagonal"
    )
    name = wording.decoder_name(decoder)
    caption = f"Which of {len(labels)} {what} came first for which was shown ({name}; % of rows)."
    yield figures.confusion(counts, labels, alt, caption)


def _names(array, dim: str) -> list[str]:
    return [str(v) for v in np.asarray(array[dim].values)]


def _category_confusion(
    study: Study, evaluation: Evaluation, decoder: str
) -> tuple[np.ndarray, list[str]]:
    items = evaluation.items
    items = items[items["decoder"] == decoder]
    true = [study.category(s) for s in items["stimulus"]]
    first = [study.category(s) for s in items["top1"]]
    labels = sorted({*true, *first} - {""})
    if len(labels) > MAX_CONFUSION:
        return np.zeros((0, 0)), []
    number = {label: i for i, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), int)
    for a, b in zip(true, first):
        if a and b:
            counts[number[a], number[b]] += 1
    return counts, labels


def people_section(study: Study) -> Section:
    """Scores per person, and per fold."""
    blocks: list[Block] = []
    for evaluation in study.evaluations:
        blocks += attempt(f"people and folds, {evaluation.name}", _people, evaluation)
    return Section(
        "people", "People and folds", tuple(blocks) or (Text("No embedding was evaluated."),)
    )


def _people(evaluation: Evaluation) -> Iterator[Block]:
    yield Heading(f"Embedding “{evaluation.name}”")
    own = [r for r in of_whole_window(evaluation.records) if str(r.get("subject", "all")) != "all"]
    if own:
        own.sort(key=lambda r: str(r["subject"]))
        metric = headline_metric(evaluation)
        main = [r for r in own if r["metric"] == metric]
        caption = f"{wording.metric_name(metric)} of every person"
        yield record_table(main, caption, by_person=True)
        yield record_table(own, f"All {len(own)} scores per person", by_person=True, folded=True)
    yield fold_table(evaluation)


def fold_table(evaluation: Evaluation) -> Table:
    """Share of queries ranked first in each fold, for every decoder."""
    items = evaluation.items.assign(first=evaluation.items["rank"].astype(float) < 1.5)
    decoders = list(dict.fromkeys(items["decoder"].astype(str)))
    short = wording.distinct([str(f) for f in items["fold"]])
    rows = []
    for (subject, fold), part in items.groupby(["subject", "fold"], sort=False):
        by = dict(iter(part.groupby("decoder")))
        shares = (
            wording.share(float(by[d]["first"].mean()), 0) if d in by else wording.NOTHING
            for d in decoders
        )  # fmt: skip
        median = by[evaluation.headline]["rank"].median() if evaluation.headline in by else None
        queries = str(part["event"].nunique())
        rows.append((str(subject), short[str(fold)], queries, *shares, wording.plain(median)))
    rows.sort(key=lambda r: (r[0], _natural(r[1])))
    columns = (
        Column("Person"), Column("Fold", whole=True), Column("Queries", True),
        *(Column(wording.decoder_name(d), True) for d in decoders), Column("Median rank", True),
    )  # fmt: skip
    name = wording.decoder_name(evaluation.headline)
    note = f"Median rank: of the decoder “{name}”, that of the verdict."
    caption = "Share of queries whose true stimulus was ranked first, by fold"
    return Table(caption, columns, tuple(rows), (note,))


def _natural(text: str) -> tuple:
    return (
        (0, float(text), text) if pd.notna(pd.to_numeric(text, errors="coerce")) else (1, 0, text)
    )
