"""The whole report: what it says, what it holds, what it does when parts are missing."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from typing import get_args

import pytest

from braindecode_pipe.recipe import Loss, Network, Recipe
from braindecode_pipe.report import data, figures, index_page, methods, results, run, wording
from braindecode_pipe.report.html import CSP
from braindecode_pipe.report.references import REFERENCES, Cited
from braindecode_pipe.store import list_extra_files, read_file, store_attrs, store_hash


class Dom(HTMLParser):
    """Tags with their attributes, and the text, of a page."""

    def __init__(self, page: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.tags, self.texts, self._style = [], [], False
        self.feed(page.decode())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._style = tag == "style"

    def handle_data(self, data):
        if not self._style:
            self.texts.append(data)
        self._style = False

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def studies(make_study, make_names, tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    one = make_names(subjects=("01",))
    made = {
        "eeg": make_study(folder / "eeg", origin="simulated", n_runs=2),
        "bold": make_study(folder / "bold", modality="bold", zero_shot=True, names=one, n_runs=2),
        "null": make_study(folder / "null", modality="bold", snr=0.0, n_runs=2, names=make_names()),
    }
    found = {}
    for name, inputs in made.items():
        run(inputs, folder / f"{name}.zarr")
        found[name] = (inputs, folder / f"{name}.zarr")
    return found


def page(studies, name, file="report.html"):
    return read_file(studies[name][1], file)


def test_report_store_holds_all_pages(studies):
    inputs, out = studies["eeg"]
    pages = {f"qc/{data.page_name(name)}" for name in inputs.signals} | {"qc/index.html"}
    expected = {"report.html", "report.md", "metrics.json", "metrics.csv"} | pages
    assert set(list_extra_files(out)) == expected
    assert store_attrs(out)["data_origin"] == "simulated"


@pytest.mark.parametrize("name", ["eeg", "bold", "null"])
def test_no_panel_failed(studies, name):
    for file in list_extra_files(studies[name][1]):
        assert b"FAILED" not in page(studies, name, file), file


@pytest.mark.parametrize("name", ["eeg", "bold"])
def test_page_is_self_contained_and_navigable(studies, name):
    for file in list_extra_files(studies[name][1]):
        if not file.endswith(".html"):
            continue
        html = page(studies, name, file)
        dom = Dom(html)
        assert len(html) < 5_000_000
        policies = [a["content"] for t, a in dom.tags if a.get("http-equiv")]
        assert policies == [CSP]
        assert {t for t, _ in dom.tags}.isdisjoint({"script", "link", "iframe", "object", "base"})
        ids = [a["id"] for _, a in dom.tags if "id" in a]
        assert len(ids) == len(set(ids))
        for tag, attrs in dom.tags:
            if tag == "img":
                assert attrs["alt"].strip()
                assert re.match(r"data:image/(png|jpeg);base64,", attrs["src"])
            if tag == "a" and attrs["href"].startswith("#"):
                assert attrs["href"][1:] in ids
            if tag == "a" and attrs["href"].startswith("qc/"):
                assert attrs["href"] in list_extra_files(studies[name][1])
            if tag == "th":
                assert attrs["scope"] in ("row", "col")
            if "class" in attrs and attrs["class"] == "scroll":
                assert attrs["tabindex"] == "0" and attrs["aria-label"]


def test_verdict_comes_first_and_says_evidence(studies):
    text = Dom(page(studies, "eeg")).text
    inputs, _ = studies["eeg"]
    says = store_attrs(inputs.evaluations["pictures"])["verdict"]
    assert says["evidence"] == "evidence"
    assert text.index(says["text"]) < re.search(r"All \d+ scores", text).start()
    assert "Evidence Decoding into the embedding “pictures”" in text
    assert "From 4 recordings (EEG; 4 min) of 2 people: 96 events" in text


def test_null_study_says_no_evidence(studies):
    html = page(studies, "null")
    assert b'class="verdict no"' in html and b'class="verdict yes"' not in html
    assert "No evidence that" in Dom(html).text


def test_simulated_data_are_marked_wherever_a_number_stands(studies):
    html = page(studies, "eeg").decode()
    assert "SIMULATED DATA" in html
    dom = Dom(html.encode())
    marks = sum(a.get("class") == "mark" for _, a in dom.tags)
    marked = sum(t in ("figcaption", "summary", "caption") for t, _ in dom.tags)
    assert marks > marked  # the verdict and the gallery too
    for file in list_extra_files(studies["eeg"][1]):
        if file.startswith("qc/"):
            assert b"SIMULATED DATA" in page(studies, "eeg", file)
    assert b"SIMULATED DATA" in page(studies, "eeg", "report.md")
    recorded = page(studies, "bold")
    assert b'class="mark"' not in recorded and b'class="banner"' not in recorded


def test_unknown_origin_does_not_pass_as_recorded(studies, tmp_path):
    inputs, _ = studies["bold"]
    lost = dataclasses.replace(inputs, plan=tmp_path / "no.zarr", evaluations={}, predictions={})
    run(lost, tmp_path / "out.zarr")
    assert b"ORIGIN OF THE DATA UNKNOWN" in read_file(tmp_path / "out.zarr", "report.html")


@pytest.mark.parametrize("name", ["eeg", "bold"])
def test_every_record_stands_in_a_table(studies, name):
    text = Dom(page(studies, name)).text
    records = json.loads(page(studies, name, "metrics.json"))
    assert records
    for r in records:
        metric = r["metric"]
        cells = [wording.score(metric, r["value"])]
        cells.append(wording.interval(metric, r["ci_low"], r["ci_high"]))
        cells += [wording.score(metric, r["chance"]), wording.p_value(r["p_value"])]
        cells.append(wording.plain(r["n_queries"]))
        assert " ".join([wording.metric_name(metric), *cells]) in text
        assert r["null"] in text
    rows = list(csv.DictReader(io.StringIO(page(studies, name, "metrics.csv").decode())))
    assert [float(row["value"]) for row in rows] == [r["value"] for r in records]


def test_both_prompt_sets_and_the_null_are_printed(studies):
    text = Dom(page(studies, "bold")).text
    assert "all 24 maps from category to embedding" in text
    assert "prompt set “names”" in text and "sentences Pair accuracy" in text
    assert "face / house" in text


def test_ledger_counts_configurations(studies):
    text = Dom(page(studies, "bold")).text
    assert "Configuration 2 of 2 on this test set." in text
    assert re.search(r"Identification accuracy here [\d.]+ %; over all 6 scores", text)


def test_exclusions_drops_and_licences_are_stated(studies):
    text = Dom(page(studies, "eeg")).text
    for part in ("excluded: bytes equal to another run", "outside the recording", "bad span 3",
                 "Licence of the pictures: CC0-1.0", "share 100 % of their samples",
                 "24 stimuli of target “picture” are in training and in test"):  # fmt: skip
        assert part in text
    assert re.search(r"\d+ pictures of the data set are shown above", text)


def test_methods_cite_what_was_used(studies):
    eeg, bold = (Dom(page(studies, n)).text for n in ("eeg", "bold"))
    assert "Gramfort A" in eeg and "Défossez A" in eeg and "Abraham A" not in eeg
    assert "Abraham A" in bold and "Gramfort A" not in bold and "Dupré la Tour T" in bold
    assert "estimated on training runs from stimulus versus rest" in bold


def test_every_decoder_and_loss_has_words_and_references():
    assert set(methods.DECODERS) == {"ridge", "logistic", *get_args(Network)}
    assert set(methods.LOSSES) == set(get_args(Loss))
    for _, keys in (*methods.DECODERS.values(), *methods.LOSSES.values()):
        assert set(keys) <= set(REFERENCES)
    assert set(methods.DECODERS) < set(wording.DECODERS)


@pytest.mark.parametrize(
    ("train", "words", "keys"),
    [
        ({"decoders": ["nice"], "loss": "siglip"}, "NICE, trained with a pairwise sigmoid loss",
         ["Song 2024", "Zhai 2023"]),
        ({"decoders": ["mixer"], "loss": "mixco+softclip"}, "BiMixCo, then SoftCLIP",
         ["Scotti 2024"]),
        ({"decoders": ["conv-image"], "loss": "clip+mse", "layout": "space"},
         "in three dimensions", ["Benchetrit 2024", "Défossez 2023", "Radford 2021"]),
        ({"decoders": ["ridge"], "windows": {"repeats": "average"}},
         "Windows of one stimulus were averaged", ["Dupré la Tour 2022", "Haufe 2014"]),
    ],
)  # fmt: skip
def test_methods_say_network_loss_layout_and_repeats(train, words, keys):
    cited = Cited()
    recipe = Recipe.model_validate({"train": train})
    methods._say_train(cited, recipe)
    assert words in " ".join(cited.sentences) and cited.keys == keys


def test_quality_page_names_bad_sensors_steps_and_warnings(studies):
    text = Dom(page(studies, "eeg", "qc/sub-01_task-see_run-01.html")).text
    for part in ("EEG003 eeg flat: 1e-3", "EEG-off eeg flat: 1e-3 of the median amplitude of its "
                 "type dropped", "band-pass 0.1 to 40 Hz", "no low-pass", "18 eeg; 1 bad; "
                 "1 dropped", "2 of 19", "Shaded: spans marked as bad"):  # fmt: skip
        assert part in text, part
    text = Dom(page(studies, "bold", "qc/sub-01_task-see_run-01.html")).text
    assert "Framewise displacement" in text and "Temporal signal-to-noise ratio" in text


def test_gallery_runs_from_the_best_to_the_worst_rank(studies):
    ranks = [float(r) for r in re.findall(r"Rank ([\d.]+) of 24", Dom(page(studies, "eeg")).text)]
    assert len(ranks) == 12 and ranks == sorted(ranks)
    pictures = [a for t, a in Dom(page(studies, "eeg")).tags
                if t == "img" and a["src"].startswith("data:image/jpeg")]  # fmt: skip
    assert len(pictures) == 12 * 6


def test_equal_inputs_give_equal_bytes(studies, tmp_path):
    inputs, out = studies["bold"]
    run(inputs, tmp_path / "again.zarr")
    assert store_hash(out) == store_hash(tmp_path / "again.zarr")


def test_pages_hold_no_path_of_this_machine(studies):
    inputs, out = studies["bold"]
    for file in list_extra_files(out):
        assert str(inputs.data.parent).encode() not in page(studies, "bold", file)


def test_broken_panel_is_a_visible_box_and_the_rest_stands(studies, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("<b>no</b> histogram")

    monkeypatch.setattr(results.figures, "ranks", broken)
    run(studies["bold"][0], tmp_path / "out.zarr")
    html = read_file(tmp_path / "out.zarr", "report.html")
    text = Dom(html).text
    assert "FAILED ranks, pictures RuntimeError: <b>no</b> histogram" in text
    assert b"<b>no</b>" not in html
    assert "Configuration 2 of 2" in text and "Confusion matrix" in html.decode()
    md = read_file(tmp_path / "out.zarr", "report.md").decode()
    assert "**FAILED: ranks, pictures.** RuntimeError: &lt;b&gt;no&lt;/b&gt; histogram" in md


def test_missing_stores_and_pictures_are_boxes_not_crashes(studies, tmp_path):
    inputs, _ = studies["eeg"]
    (tmp_path / "data").mkdir()
    signals = {**inputs.signals, "sub-01_task-see_run-01": tmp_path / "gone.zarr"}
    lost = dataclasses.replace(
        inputs, data=tmp_path / "data", signals=signals,
        evaluations={**inputs.evaluations, "other": tmp_path / "gone.zarr"},
        failures=[{"stage": "train", "unit": "other", "error": "DataError: no events"}],
    )  # fmt: skip
    run(lost, tmp_path / "out.zarr")
    text = Dom(read_file(tmp_path / "out.zarr", "report.html")).text
    assert "FAILED 1 unit of work failed. The results below hold for the rest." in text
    assert "train: other: DataError: no events" in text
    assert "FAILED verdict for other" in text and "FAILED ranks, other" in text
    assert "FAILED: FileNotFoundError" in text  # a picture of the gallery
    quality = Dom(read_file(tmp_path / "out.zarr", "qc/sub-01_task-see_run-01.html")).text
    assert "FAILED spectra" in quality and "FAILED store of this recording" in quality


def test_prior_as_good_as_the_decoder_is_a_warning():
    def record(decoder, value):
        return {"metric": "pair_accuracy", "decoder": decoder, "value": value, "chance": 0.5}

    class Fake:
        headline, verdict = "ridge", {"metric": "pair_accuracy"}

    for prior, warned in ((0.65, True), (0.6, False), (0.5, False)):
        Fake.records = [record("ridge", 0.63), record("prior", prior)]
        assert bool(list(results.prior_warning(Fake()))) is warned


def test_index_page_links_reports(tmp_path):
    reports = [
        {"title": "A", "verdict": "Told apart.", "evidence": "evidence",
         "data_origin": "simulated", "link": "a/report.html"},
        {"title": "<script>B", "verdict": "Chance.", "evidence": "no evidence",
         "data_origin": "simulated", "link": "b/report.html"},
    ]  # fmt: skip
    index_page(reports, tmp_path / "index.html", "Demo")
    html = (tmp_path / "index.html").read_bytes()
    dom = Dom(html)
    assert [a["href"] for t, a in dom.tags if t == "a"] == ["a/report.html", "b/report.html"]
    assert "script" not in {t for t, _ in dom.tags}
    assert html.count(b"verdict yes") == 1 and html.count(b"verdict no") == 1
    assert "SIMULATED DATA" in dom.text and "<script>B" in dom.text


def test_equal_figures_have_equal_bytes_and_no_date():
    made = [figures.confusion([[3, 1], [0, 4]], ["a", "b"], "alt", "caption") for _ in range(2)]
    assert made[0].png == made[1].png
    assert b"Software" not in made[0].png and b"tEXt" not in made[0].png


def test_controls_comparisons_and_the_audit_are_shown(studies, tmp_path):
    """Two decoders: each beside its probe, and one beside the other; no leak, and one allowed."""
    text = page(studies, "eeg", "report.md").decode()
    assert "## Controls and comparisons" in text
    assert "linear probe of ridge" in text and "Decoders compared" in text
    assert "No leak was found" in text and "FAILED" not in text
    leak = {"severity": "error", "check": "recordings", "fold": "", "text": "a = b", "names": ["a"],
            "allowed": True}  # fmt: skip
    leaky = tmp_path / "leaky.zarr"
    run(dataclasses.replace(studies["eeg"][0], audit=[leak]), leaky)
    text = read_file(leaky, "report.md").decode()
    assert "Training and test are not apart (recordings)" in text and "a = b" in text
