"""Independent components of blinks, heart beats and the like, removed as one matrix.

The components are fitted by MNE on an excerpt that was high-passed at about 1 Hz, and judged by
ICLabel (Pion-Tonachini et al. 2019, NeuroImage 198) or by their likeness to EOG and ECG channels.
ICLabel was trained on EEG between 1 and 100 Hz against the average reference, decomposed by
extended infomax; what differs from that is said in the log.

``ICA.apply`` is affine: ``y = A x + b`` with ``A = mixing[kept] @ unmixing[kept]`` in the units of
the channels and ``b`` what is left of the excerpt's mean. Only ``A`` is used: on the unfiltered
recording ``b`` is a constant per channel, which the high-pass or the scaler takes out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from braindecode_pipe.errors import DataError
from braindecode_pipe.preprocess.artifact_scores import Verdict, by_ecg, by_eog, by_iclabel
from braindecode_pipe.preprocess.extras import require, warnings_into
from braindecode_pipe.preprocess.steps import Log
from braindecode_pipe.recipe.models import IcaSection

# Types that share one decomposition.
_FAMILIES = {"EEG": ("eeg",), "MEG": ("mag", "grad"), "iEEG": ("seeg", "ecog", "dbs")}
_PACKAGES = {"picard": ("picard", "python-picard")}
_FIT_PARAMS: dict[str, dict[str, Any]] = {
    # Both are extended infomax, by other optimisers.
    "picard": {"ortho": False, "extended": True},
    "infomax": {"extended": True},
    "fastica": {},
}
# Eigenvalues below this share of the largest are rounding, not rank.
_RANK = 1e-10
_SOURCE_S, _SOURCE_SFREQ = 10.0, 100.0


@dataclass(frozen=True)
class IcaResult:
    """Components of one recording and the matrix that removes some of them.

    Attributes
    ----------
    names : (n_channels,) all channels that were decomposed
    matrix : (n_channels, n_channels), ``cleaned = matrix @ samples`` in SI units
    offset : (n_channels,) the constant that ``ICA.apply`` adds to that
    maps : (n_components, n_channels) [V, T or T/m per unit of the source]; NaN where a component
        knows nothing of the channel
    labels : (n_components,) ICLabel's class; ``eye blink``, ``heart beat`` by EOG or ECG; or ``""``
    scores : (n_components,) probability of that class, or largest |score| against EOG or ECG; NaN
    excluded : (n_components,) bool
    variance : (n_components,) share of the excerpt's variance, each channel over the standard
        deviation of its type
    sources : (n_components, n_times) a short piece of their time courses, unit variance
    source_sfreq : [Hz]
    """

    names: list[str]
    matrix: np.ndarray
    offset: np.ndarray
    maps: np.ndarray
    labels: list[str]
    scores: np.ndarray
    excluded: np.ndarray
    variance: np.ndarray
    sources: np.ndarray
    source_sfreq: float

    def apply(self, sensors: Any) -> None:
        """Put the matrix in front of the data of ``sensors``, which may lack some channels."""
        rows = [sensors.ch_names.index(name) for name in self.names if name in sensors.ch_names]
        here = [i for i, name in enumerate(self.names) if name in sensors.ch_names]
        if rows:
            sensors._data[rows] = self.matrix[np.ix_(here, here)] @ sensors._data[rows]

    def variables(self, names: list[str]) -> dict[str, tuple[Any, np.ndarray]]:
        """Variables of the QC group, whose ``sensor`` dimension has ``names``."""
        maps = np.full((len(self.maps), len(names)), np.nan)
        for i, name in enumerate(self.names):
            if name in names:
                maps[:, names.index(name)] = self.maps[:, i]
        times = np.arange(self.sources.shape[1]) / self.source_sfreq
        return {
            "ica_map": (("component", "sensor"), maps),
            "ica_label": ("component", np.asarray(self.labels, object)),
            "ica_score": ("component", self.scores),
            "ica_excluded": ("component", self.excluded),
            "ica_variance": ("component", self.variance),
            "ica_source": (("component", "ica_time"), self.sources.astype(np.float32)),
            "ica_time": ("ica_time", times),
        }


def fit_ica(raw: Any, section: IcaSection, log: Log) -> IcaResult | None:
    """Decompose an excerpt and find the components to remove.

    Parameters
    ----------
    raw : loaded Raw in SI units
        The excerpt: band-passed (``info`` says how), at the rate for the fit. Its channels of type
        eog and ecg, and Fp1 and Fp2, serve to judge; its good data channels are decomposed, EEG,
        MEG and intracranial EEG each by themselves.
    section : IcaSection
    log : Log

    Returns
    -------
    IcaResult, or None where nothing could be judged, with the reason in ``log.warnings``

    Raises
    ------
    RecipeError : a package that is missing, a channel that is not there
    PositionError : ICLabel without positions
    DataError : an excerpt of too few samples or channels
    """
    if section.method in _PACKAGES:
        module, distribution = _PACKAGES[section.method]
        require(module, "preprocess.emeg.ica.method", distribution)
    if "iclabel" in section.find:
        require("mne_icalabel", "preprocess.emeg.ica.find", "mne-icalabel")
    parts = []
    for family, kinds in _FAMILIES.items():
        types = raw.get_channel_types()
        names = [
            name
            for name, kind in zip(raw.ch_names, types)
            if kind in kinds and name not in raw.info["bads"]
        ]
        if not names:
            continue
        finders = [how for how in section.find if how != "iclabel" or family == "EEG"]
        if not finders:
            log.warnings.append(
                f"no ICA of {family}: ICLabel knows EEG only; "
                'preprocess.emeg.ica.find = ["eog", "ecg"] would'
            )
            continue
        parts.append(_fit_family(raw, names, family, finders, section, log))
    return _join(parts) if parts else None


def _fit_family(
    raw: Any, names: list[str], family: str, finders: list[str], section: IcaSection, log: Log
) -> IcaResult:
    import mne

    data = raw.get_data(names)
    scale = _scale_by_type(data, raw.get_channel_types(names))
    rank = _rank(data, scale)
    if rank < 2 or data.shape[1] < rank**2 // 2:
        raise DataError(
            f"too little {family} for an ICA",
            expected="two channels or more, and rank^2 / 2 samples",
            found=f"{len(names)} good channels of rank {rank}, {data.shape[1]} samples",
            remedy="leave preprocess.emeg.ica out, or set a larger max_s",
        )
    n = section.n_components
    if n is None or n == 1.0 and isinstance(n, float):
        n = rank
    elif n >= 1:
        n = min(int(n), rank)
    ica = mne.preprocessing.ICA(
        n_components=n, method=section.method, fit_params=_FIT_PARAMS[section.method],
        random_state=section.seed, max_iter="auto", verbose="error",
    )  # fmt: skip
    with warnings_into(log, f"ICA of {family}"):
        ica.fit(raw, picks=names)
    if ica.n_components_ > rank:
        raise DataError(
            "more components than the rank of the data",
            expected=f"at most {rank}",
            found=f"{ica.n_components_}",
            remedy=f"set preprocess.emeg.ica.n_components = {rank}",
        )
    verdict = Verdict.none(ica.n_components_)
    if "iclabel" in finders:
        by_iclabel(ica, raw, names, section, verdict, log)
    if "eog" in finders:
        by_eog(ica, raw, section, verdict, log)
    if "ecg" in finders:
        by_ecg(ica, raw, family, section, verdict, log)
    reasons = verdict.reasons
    log.steps.append(
        f"ICA ({section.method}) of {len(names)} {family} channels: {len(reasons)} of "
        f"{ica.n_components_} components removed"
        + "".join(f"; {i}: {reasons[i]}" for i in sorted(reasons))
    )
    info = mne.pick_info(raw.info, [raw.ch_names.index(name) for name in names])
    return _result(ica, info, data, scale, verdict)


def _scale_by_type(data: np.ndarray, types: list[str]) -> np.ndarray:
    """(n_channels,) standard deviation over all channels of a type, as ICA's own pre-whitening."""
    scale = np.ones(len(types))
    for kind in set(types):
        rows = np.flatnonzero(np.asarray(types) == kind)
        scale[rows] = data[rows].std()
    return np.where(scale > 0, scale, 1.0)


def _rank(data: np.ndarray, scale: np.ndarray) -> int:
    values = np.linalg.eigvalsh(np.cov(data / scale[:, None]))
    return int((values > _RANK * values.max()).sum())


def _result(
    ica: Any, info: Any, data: np.ndarray, scale: np.ndarray, verdict: Verdict
) -> IcaResult:
    """Matrix and constant from what ``ICA.apply`` makes of unit vectors and of zero."""
    import mne

    names = list(info["ch_names"])
    excluded = sorted(verdict.reasons)
    probe = np.column_stack([np.diag(scale), np.zeros(len(names))])
    raw = mne.io.RawArray(probe, info, verbose="error")
    if excluded:
        ica.apply(raw, exclude=excluded, verbose="error")
    applied = raw.get_data()
    offset = applied[:, -1]
    matrix = (applied[:, :-1] - offset[:, None]) / scale
    # MNE's maps are those of the channels over their scale.
    maps = ica.get_components().T * scale
    raw = mne.io.RawArray(data, info, verbose="error")
    sources = ica.get_sources(raw).get_data()
    power = ((maps / scale) ** 2).sum(axis=1) * sources.var(axis=1)
    total = (data.var(axis=1) / scale**2).sum()
    flags = np.zeros(len(maps), bool)
    flags[excluded] = True
    piece, rate = _piece(sources, flags, float(info["sfreq"]))
    return IcaResult(
        names, matrix, offset, maps, verdict.labels, verdict.scores, flags, power / total, piece,
        rate,
    )  # fmt: skip


def _piece(sources: np.ndarray, excluded: np.ndarray, sfreq: float) -> tuple[np.ndarray, float]:
    """The ten seconds in which the excluded sources are strongest, at about 100 Hz."""
    from scipy.signal import resample_poly

    unit = sources / sources.std(axis=1, keepdims=True)
    n = min(unit.shape[1], round(_SOURCE_S * sfreq))
    n_pieces = unit.shape[1] // n
    shown = unit[excluded] if excluded.any() else unit
    energy = (shown[:, : n_pieces * n].reshape(len(shown), n_pieces, n) ** 2).sum(axis=(0, 2))
    start = int(np.argmax(energy)) * n
    down = max(1, round(sfreq / _SOURCE_SFREQ))
    return resample_poly(unit[:, start : start + n], 1, down, axis=1), sfreq / down


def _join(parts: list[IcaResult]) -> IcaResult:
    """Components of several families, which share no channels."""
    if len(parts) == 1:
        return parts[0]
    from scipy.linalg import block_diag

    maps = block_diag(*(part.maps for part in parts))
    maps[block_diag(*(np.ones_like(part.maps) for part in parts)) == 0] = np.nan
    n_times = min(part.sources.shape[1] for part in parts)
    return IcaResult(
        names=[name for part in parts for name in part.names],
        matrix=block_diag(*(part.matrix for part in parts)),
        offset=np.concatenate([part.offset for part in parts]),
        maps=maps,
        labels=[label for part in parts for label in part.labels],
        scores=np.concatenate([part.scores for part in parts]),
        excluded=np.concatenate([part.excluded for part in parts]),
        variance=np.concatenate([part.variance for part in parts]),
        sources=np.concatenate([part.sources[:, :n_times] for part in parts]),
        source_sfreq=parts[0].source_sfreq,
    )
