"""Zero-shot weights equal a ridge fit to each embedding, and see neither pair nor run."""

import itertools

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from braindecode_pipe import store
from braindecode_pipe.errors import RecipeError, SplitError
from braindecode_pipe.recipe import TrainSection, WindowSection, ZeroShotSection
from braindecode_pipe.train import run_zero_shot
from braindecode_pipe.train.folds import read_fold
from braindecode_pipe.train.linear import moments

LABELS = ["cat", "chair", "face", "house"]


def section(**changes):
    base = {"target": "object", "categories": LABELS, "embeddings": ["words"]}
    return TrainSection(
        windows=WindowSection(reduce="mean"), zero_shot=ZeroShotSection(**{**base, **changes})
    )


def weights_of(study, name="zero_shot", **changes):
    out = study.folder / f"{name}.zarr"
    run_zero_shot(section(**changes), study.plan, study.signals, out)
    return store.open_store(out)


def test_weights_are_ridge_fits_to_any_embedding_and_to_permuted_ones(make_study):
    study = make_study(n_runs=4)
    dataset = weights_of(study, alphas=[30.0])
    windows = read_fold(study.plan, 0, "object", section().windows, study.signals).windows
    x = windows.read(windows.rows())[..., 0].astype(np.float64)
    events = windows.events
    category = events["stimulus_object"].map(lambda s: LABELS.index(s[3:])).to_numpy()
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(4, 6))
    for map_ in (embedding, embedding[rng.permutation(4)]):
        predicted = dataset["weights"].values @ map_
        for pair, (a, b) in enumerate(itertools.combinations(range(4), 2)):
            for group in dict.fromkeys(events["group"]):
                rows = (dataset["pair"].values == pair) & (dataset["group"].values == group)
                left = np.isin(category, (a, b))
                out = (events["group"] == group).to_numpy()
                mean, scale = moments(x[~left & ~out])
                z = (x - mean) / scale
                fit = Ridge(alpha=30.0).fit(z[~left & ~out], map_[category[~left & ~out]])
                assert (
                    events["event"][left & out].tolist() == dataset["event"].values[rows].tolist()
                )
                assert predicted[rows] == pytest.approx(fit.predict(z[left & out]), abs=1e-4)


def test_rows_cover_every_event_in_every_pair_it_belongs_to(make_study):
    dataset = weights_of(make_study(n_runs=3))
    assert dataset.sizes == {"row": 3 * 8 * 3, "category": 4}
    assert dataset["category"].values.tolist() == LABELS
    weights = dataset["weights"].values
    assert weights.sum(1) == pytest.approx(np.ones(72), abs=1e-5)
    rows = np.arange(72)
    assert not weights[rows, dataset["a"].values].any()
    assert not weights[rows, dataset["b"].values].any()
    assert ((dataset["true"] == dataset["a"]) | (dataset["true"] == dataset["b"])).all()


def test_f36_run_of_the_test_moves_no_weight_of_the_fit(make_study):
    study = make_study(n_runs=3)
    events = study.plan.events
    first = weights_of(study)
    # Other categories in the tested run: what is predicted for the events must not change.
    own = (events["group"] == "sub-01_run-0").to_numpy()
    is_cat = (events["stimulus_object"] == "id-cat").to_numpy()
    spoiled = events["stimulus_object"].where(~(own & is_cat), "id-chair")
    study.plan.events["stimulus_object"] = spoiled
    second = weights_of(study, "second")
    pick = lambda d: d["weights"].values[  # noqa: E731
        (d["group"].values == "sub-01_run-0") & (d["pair"].values == 5)
    ]
    assert np.array_equal(pick(first), pick(second))
    elsewhere = (first["group"].values == "sub-01_run-1") & (first["pair"].values == 5)
    there = (second["group"].values == "sub-01_run-1") & (second["pair"].values == 5)
    assert not np.array_equal(first["weights"].values[elsewhere], second["weights"].values[there])


def test_delay_is_estimated_without_the_left_out_run(make_study):
    study = make_study(n_runs=3, delay=4.0, snr=2.0)
    sec = section().model_copy(update={"windows": WindowSection(reduce="mean", delay="estimate")})
    run_zero_shot(sec, study.plan, study.signals, study.folder / "z.zarr")
    assert set(store.open_store(study.folder / "z.zarr")["delay"].values) == {4.0}


def test_equal_work_gives_equal_bytes(make_study):
    study = make_study(n_runs=3)
    weights_of(study, "one"), weights_of(study, "two")
    assert store.store_hash(study.folder / "one.zarr") == store.store_hash(
        study.folder / "two.zarr"
    )


@pytest.mark.parametrize("categories", [["cat", "chair"], ["cat", "chair", "dragon"]])
def test_refuses_categories(make_study, categories):
    with pytest.raises(RecipeError, match="expected: at least 3 of cat, chair, face, house"):
        weights_of(make_study(n_runs=3), categories=categories)


def test_refuses_too_few_groups_and_no_section(make_study):
    study = make_study(n_runs=2)
    with pytest.raises(SplitError, match="at least 3 groups"):
        weights_of(study)
    with pytest.raises(RecipeError, match="no zero-shot analysis"):
        run_zero_shot(TrainSection(), study.plan, study.signals, study.folder / "x.zarr")
