"""Who is asked, among what, and how often: the evaluation protocols of published decoders.

A protocol fixes what makes two retrieval numbers comparable: the candidates, what is averaged
before a query is made, whether stimuli also look for brain responses, and how distractors are
sampled. ``[evaluate] protocol = "mindeye2"`` takes one of the table below; without it the keys of
the section make one. What a paper decides elsewhere (preprocessing, the network, its choice of the
epoch) is no part of it.

A query's score is the cosine of prediction and candidate. Papers that divide by the length of the
candidate only (Defossez) rank alike, since the length of a prediction is the same for all its
candidates.

Two differences are ours everywhere. Ties count half. And predictions are averaged where
THINGS-EEG papers average the signals before the network: the two are equal for linear decoders.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from braindecode_pipe.recipe import EvaluateSection


@dataclass(frozen=True)
class Protocol:
    """What is asked.

    Attributes
    ----------
    name : of the preset; "" where the recipe's keys make the protocol
    candidates : ``test`` (stimuli of the test fold, unique by content), ``all`` (of the study),
        ``prototypes`` (one per class of tested stimuli: mean over its stimuli that are not tested),
        ``frequent`` (the ``n_frequent`` stimuli that the test fold shows most often)
    n_frequent : int
    aggregate : ``none`` (single trials), ``repetitions`` (of one stimulus and person), ``subjects``
        (everybody, each person counting the same)
    direction : ``query`` (predictions look for candidates) or ``both``
    n_way : numbers of candidates sampled, the true one among them
    pool : ``query`` (distractors of its own for every query) or ``shared`` (one pool per draw, and
        the queries of its stimuli)
    draws : times that distractors are drawn for the interval over draws
    top_k : numbers k to report
    score : the metric that stands beside the paper's
    n_candidates : candidates in the paper; None where that depends on the data set
    source : what the preset rests on, and what could not be found
    """

    name: str = ""
    candidates: str = "test"
    n_frequent: int = 250
    aggregate: str = "none"
    direction: str = "query"
    n_way: tuple[int, ...] = ()
    pool: str = "query"
    draws: int = 30
    top_k: tuple[int, ...] = (1, 5, 10)
    score: str = field(default="", compare=False)
    n_candidates: int | None = field(default=None, compare=False)
    source: str = field(default="", compare=False)

    def attrs(self) -> dict[str, object]:
        """As attributes of a store."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}


_TABLE = (
    Protocol(
        "defossez",
        score="top10",
        source="Defossez et al. 2023, Nature Machine Intelligence, and its public code: every "
        "unique test segment once, single trials of all people, top-1, 5 and 10. Segments are "
        "told apart by content here, by first occurrence there.",
    ),
    Protocol(
        "benchetrit-large",
        top_k=(5,),
        score="top5",
        n_candidates=2400,
        source="Benchetrit et al. 2024, ICLR: the 2,400 images of the test categories that were "
        "taken out of training; chance of top-5 is 5/2400. The aggregation that the paper finally "
        "used was not found: single trials are taken.",
    ),
    Protocol(
        "benchetrit-small",
        aggregate="repetitions",
        top_k=(5,),
        score="top5",
        n_candidates=200,
        source="Benchetrit et al. 2024, ICLR: the 200 test images with their repetitions "
        "averaged; chance of top-5 is 2.5 %. Whether the headline averages is not certain.",
    ),
    Protocol(
        "nice",
        candidates="prototypes",
        aggregate="repetitions",
        top_k=(1, 5),
        score="top1",
        n_candidates=200,
        source="Song et al. 2024, ICLR (NICE), and its public code: 200 concept centres, each the "
        "mean over other images of the concept; repetitions averaged before the network.",
    ),
    Protocol(
        "atm",
        aggregate="repetitions",
        n_way=(2, 4, 10, 50, 100),
        top_k=(1, 5),
        score="top1",
        n_candidates=200,
        source="Li et al. 2024, NeurIPS (ATM), public code: k-way with distractors sampled for "
        "every query, and all 200. The paper reports the best epoch on the test set; a preset "
        "cannot and does not.",
    ),
    Protocol(
        "brainflora",
        aggregate="repetitions",
        n_way=(2, 4, 10, 100),
        top_k=(1, 5),
        score="top1",
        source="BrainFLORA, ACM MM 2025, public code only: k-way with distractors sampled for "
        "every query, k = 2, 4, 10 and all (200 for EEG and MEG, 100 for fMRI); repetitions "
        "averaged. The tables of the paper were not seen.",
    ),
    Protocol(
        "mindeye2",
        aggregate="repetitions",
        direction="both",
        n_way=(300,),
        pool="shared",
        top_k=(1,),
        score="top1_of_300",
        n_candidates=300,
        source="Scotti et al. 2024 (MindEye2), public code: pools of 300 of the 1000 test images, "
        "30 draws, top-1, image and brain retrieval; predictions of three repetitions averaged. "
        "The mean over the draws is `draws_mean`.",
    ),
    Protocol(
        "neuralbench",
        top_k=(5,),
        score="pair_accuracy",
        source="NeuralBench, public code: the unique stimuli of the whole test set, single trials; "
        "the headline is the mean inverse normalised rank ('retrieval AUC'), beside it its median "
        "and top-5. That it equals `1 - normalized_rank` at the ends of the scale was not checked.",
    ),
)

PROTOCOLS = {protocol.name: protocol for protocol in _TABLE}


def protocol_of(section: EvaluateSection) -> Protocol:
    """The preset that the section names, or what its keys say; ``top_k`` of both are reported."""
    if section.protocol:
        preset = PROTOCOLS[section.protocol]
        top_k = tuple(sorted({*preset.top_k, *section.top_k}))
        return Protocol(**{**vars(preset), "top_k": top_k})
    return Protocol(
        candidates=section.candidates,
        n_frequent=section.n_frequent,
        aggregate=section.aggregate,
        direction=section.direction,
        n_way=tuple(sorted(set(section.n_way))),
        pool=section.pool,
        draws=section.draws,
        top_k=tuple(sorted(set(section.top_k))),
    )
