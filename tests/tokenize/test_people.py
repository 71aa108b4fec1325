"""Networks that people share: fitted, and extended by a person."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from braindecode_pipe.errors import DataError
from braindecode_pipe.networks.brain_tokens import BrainInteraction
from braindecode_pipe.networks.voxel_encoding import VoxelEncoding
from braindecode_pipe.splits import FitScope
from braindecode_pipe.tokenize.clusters import fit_clusters
from braindecode_pipe.tokenize.people import (
    ImagesToVoxels,
    Responses,
    VoxelsToTokens,
    decode_person,
    encode_person,
    fit_decoding,
    fit_encoding,
)

N_FUNCTIONS, N_IMAGES = 5, 160
SCOPE = FitScope("fold-0", ("e1",))


class Study:
    """Simulated people: every voxel has one of five functions of the image, and noise.

    A function is one feature at one token of the image, so where a voxel looks matters.
    People have their voxels in orders of their own and see images of their own.
    """

    def __init__(self, n_people=3, n_voxels=60, noise=0.3):
        rng = np.random.default_rng(0)
        self.features = torch.from_numpy(rng.standard_normal((N_IMAGES, 4, 6)).astype(np.float32))
        flat = self.features.flatten(1).numpy()
        self.signals = flat[:, rng.choice(flat.shape[1], N_FUNCTIONS, replace=False)]
        self.functions, self.responses = [], []
        for person in range(n_people):
            function = rng.permutation(np.arange(n_voxels) % N_FUNCTIONS)
            images = rng.permutation(N_IMAGES)[:120]
            values = self.signals[images][:, function]
            values = values + noise * rng.standard_normal(values.shape)
            self.functions.append(function)
            self.responses.append(Responses(values.astype(np.float32), images, person))
        mix = rng.standard_normal((N_FUNCTIONS, 3 * 4)).astype(np.float32) / N_FUNCTIONS**0.5
        self.targets = torch.from_numpy((self.signals @ mix).reshape(-1, 3, 4))


def encoding_model(n_voxels):
    torch.manual_seed(0)
    return VoxelEncoding([6], [4], n_voxels=n_voxels, width=16, channels=16)


@pytest.fixture(scope="module")
def study():
    torch.set_num_threads(1)
    return Study()


@pytest.fixture(scope="module")
def encoded(study):
    """An encoding model of two people, then the third with the body frozen."""
    network = encoding_model([60, 60])
    reference = ImagesToVoxels(study.responses[:2], [study.features], n_drawn=60)
    log = fit_encoding(network, reference, epochs=30, lr=5e-3).log
    frozen = {k: v.clone() for k, v in network.state_dict().items()}
    new = ImagesToVoxels(study.responses[2:], [study.features], n_drawn=60)
    person, fitted = encode_person(network, new, 60, epochs=30, lr=2e-2)
    return network, frozen, person, log, fitted.log


@pytest.fixture(scope="module")
def clusters(encoded):
    tables = encoded[0].people
    embeddings = {str(i): tables[i].detach().numpy() for i in range(2)}
    return fit_clusters(embeddings, SCOPE, n_clusters=N_FUNCTIONS)


def test_the_encoding_model_learns_what_voxels_answer(encoded):
    _, _, _, log, new = encoded
    print(f"\nloss {log[0]['train_loss']:.3f} to {log[-1]['train_loss']:.3f}; "
          f"new person {new[0]['train_loss']:.3f} to {new[-1]['train_loss']:.3f}")  # fmt: skip
    # Noise of 0.3 leaves 0.09 of squares and nearly all of the cosine.
    assert log[-1]["train_loss"] < 0.25 and new[-1]["train_loss"] < 0.35


def test_people_with_voxels_in_another_order_share_clusters(study, encoded, clusters):
    """Adjusted Rand index across people, their voxels aligned by the planted functions."""
    first, second = clusters.labels
    order = [np.argsort(f, kind="stable") for f in study.functions]
    between = adjusted_rand_score(first[order[0]], second[order[1]])
    found = clusters.assign(encoded[0].people[2].detach().numpy())
    new = adjusted_rand_score(found.labels[order[2]], first[order[0]])
    # The same cluster, not only the same grouping.
    same = np.mean(first[order[0]] == second[order[1]])
    shuffled = adjusted_rand_score(first, second)
    print(f"\nARI {between:.3f}, new person {new:.3f}, same label {same:.3f}, "
          f"voxels not aligned {shuffled:.3f}")  # fmt: skip
    assert between > 0.9 and same > 0.9 and new > 0.8
    assert shuffled < 0.3


def test_only_the_embeddings_of_a_new_person_change(encoded):
    network, frozen, person, _, _ = encoded
    after = network.state_dict()
    assert person == 2 and set(after) - set(frozen) == {"people.tables.2"}
    assert all(torch.equal(after[name], value) for name, value in frozen.items())


def at_random(tokens, labels, start):
    return type(tokens).add_person(tokens, labels)


def decoder(study, clusters):
    torch.manual_seed(0)
    network = BrainInteraction(
        3, 4, n_voxels=[60, 60], n_clusters=N_FUNCTIONS, width=16, heads=2, depth=1
    )
    for person in range(2):
        network.tokens.set_clusters(person, torch.from_numpy(clusters.labels[person]))
    return network


def test_a_new_person_starts_better_at_the_nearest_voxels_than_at_random(
    study, encoded, clusters, monkeypatch
):
    body = decoder(study, clusters)
    reference = VoxelsToTokens(study.responses[:2], study.targets)
    log = fit_decoding(body, reference, lr=3e-3, batch_size=40, epochs=30).log
    assignment = clusters.assign(encoded[0].people[2].detach().numpy())
    new = VoxelsToTokens(study.responses[2:], study.targets)
    losses, learned = {}, {}
    for start in ("nearest", "random"):
        network = decoder(study, clusters)
        network.load_state_dict(body.state_dict())
        if start == "random":
            monkeypatch.setattr(network.tokens, "add_person", partial(at_random, network.tokens))
        frozen = {k: v.clone() for k, v in network.state_dict().items()}
        person, fitted = decode_person(
            network, new, assignment, clusters, lr=3e-3, epochs=4, batch_size=40
        )
        losses[start] = [record["train_loss"] for record in fitted.log]
        learned[start] = [k for k, p in network.named_parameters() if p.grad is not None]
        assert all(torch.equal(network.state_dict()[k], v) for k, v in frozen.items())
    baseline = float(study.targets.var())
    print(
        f"\nreference people {log[-1]['train_loss']:.3f}, mean predictor {baseline:.3f}, {losses}"
    )
    assert learned["nearest"] == learned["random"] == ["tokens.people.tables.2"]
    for nearest, random in zip(losses["nearest"], losses["random"]):
        assert nearest < 0.8 * random
    assert losses["nearest"][-1] < 0.6 * baseline


def test_batches_hold_what_they_say(study):
    people = [study.responses[1], Responses(np.ones((3, 7), np.float32), np.array([4, 5, 6]), 0)]
    examples = ImagesToVoxels(people, [study.features, study.features[:, :1]], n_drawn=9)
    assert len(examples) == 123
    rows = np.array([0, 121, 7])
    torch.manual_seed(0)
    (voxels, subject, first, second), values, stimuli = examples.batch(rows)
    assert subject.tolist() == [1, 0, 1] and stimuli[1] == 5
    assert torch.equal(first, study.features[stimuli]) and second.shape == (3, 1, 6)
    assert int(voxels[1].max()) < 7 and voxels.shape == values.shape == (3, 9)
    assert np.array_equal(values[2], people[0].values[7, voxels[2]])
    assert examples.mates(rows).tolist() == [0, 1, 0]
    torch.manual_seed(0)
    assert torch.equal(examples.batch(rows)[0][0], voxels)
    assert not torch.equal(examples.batch(rows)[0][0], voxels)
    fixed = ImagesToVoxels(people, [study.features], n_drawn=20, fixed=True)
    assert torch.equal(fixed.batch(rows)[0][0], fixed.batch(rows)[0][0])
    assert fixed.batch(rows)[0][0][0].tolist() == list(range(0, 60, 3))
    (patterns, who), targets, _ = VoxelsToTokens(people, study.targets).batch(rows)
    assert patterns.shape == (3, 60) and not patterns[1, 7:].any() and who.tolist() == [1, 0, 1]
    assert torch.equal(targets, study.targets[stimuli])


def test_responses_that_cannot_be_used_are_refused():
    with pytest.raises(DataError, match="a stimulus for each event"):
        Responses(np.ones((3, 7), np.float32), np.arange(4), 0)
    bad = np.ones((3, 7), np.float32)
    bad[1, 2] = np.nan
    with pytest.raises(DataError, match="1 voxels with others"):
        Responses(bad, np.arange(3), 0)


def test_a_new_person_is_fitted_on_its_own_events_only(study, encoded, clusters):
    network = encoding_model([60, 60])
    with pytest.raises(DataError, match=r"events of others(.|\n)*persons 1"):
        encode_person(network, ImagesToVoxels(study.responses[1:], [study.features]), 60)
    assert len(network.people) == 2
    other = BrainInteraction(3, 4, n_voxels=[60, 59], n_clusters=5, width=16, heads=2, depth=1)
    assignment = clusters.assign(encoded[0].people[2].detach().numpy())
    with pytest.raises(DataError, match="does not hold the people of the clusters"):
        decode_person(
            other, VoxelsToTokens(study.responses[2:], study.targets), assignment, clusters
        )


def test_responses_of_other_voxels_than_those_of_the_network_are_refused(study):
    examples = ImagesToVoxels(study.responses[:2], [study.features], n_drawn=5)
    with pytest.raises(DataError, match=r"voxels of person 1(.|\n)*the 61 of the network"):
        fit_encoding(encoding_model([60, 61]), examples)
    network = BrainInteraction(3, 4, n_voxels=[50, 60], n_clusters=5, width=16, heads=2, depth=1)
    with pytest.raises(DataError, match=r"voxels of person 0(.|\n)*the 50 of the network"):
        fit_decoding(network, VoxelsToTokens(study.responses[:2], study.targets))


def test_both_networks_fit_in_bfloat16(study):
    images = ImagesToVoxels(study.responses[:2], [study.features], n_drawn=10)
    found = fit_encoding(encoding_model([60, 60]), images, epochs=3, precision="bf16").log
    torch.manual_seed(0)
    network = BrainInteraction(3, 4, n_voxels=[60, 60], n_clusters=5, width=16, heads=2, depth=1)
    patterns = VoxelsToTokens(study.responses[:2], study.targets)
    more = fit_decoding(network, patterns, epochs=3, precision="bf16").log
    assert found[-1]["train_loss"] < found[0]["train_loss"]
    assert more[-1]["train_loss"] < more[0]["train_loss"]


def test_a_stopped_fit_draws_the_same_voxels_when_it_goes_on(study, tmp_path):
    class Stopped(Exception):
        pass

    def stop(record):
        if record["epoch"] == 2:
            raise Stopped

    examples = ImagesToVoxels(study.responses[:2], [study.features], n_drawn=10)
    states = []
    for stopped in (False, True):
        network, folder = encoding_model([60, 60]), tmp_path / str(stopped)
        if stopped:
            with pytest.raises(Stopped):
                fit_encoding(network, examples, folder=folder, epochs=4, on_epoch=stop)
            network = encoding_model([60, 60])
        fit_encoding(network, examples, folder=folder, epochs=4)
        states.append(network.state_dict())
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())
