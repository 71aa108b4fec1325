"""BOLD of one simulated person, in the form in which fMRIPrep writes it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from braindecode_pipe.simulate.design import Run, event_table, sequence, slow_run
from braindecode_pipe.simulate.emeg import TASK, Simulated
from braindecode_pipe.simulate.latents import LatentCode, response_variance
from braindecode_pipe.simulate.optimal import Whitener, identify
from braindecode_pipe.simulate.settings import Settings

VOXEL_MM = 3.0
PICTURE_DURATION = 1.0  # s
MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
_BASELINE = 1000.0
_THERMAL, _PHYSIOLOGICAL, _DRIFT, _MOTION = 0.01, 0.008, 0.012, 0.5
_N_PHYSIOLOGICAL, _AR1 = 12, 0.6
_COMMON_RATIO = 1.5


@dataclass(frozen=True)
class Brain:
    """Voxels of one person; ``n_voxels`` are those of the mask, in C order.

    Attributes
    ----------
    mask : (x, y, z) bool
    affine : (4, 4) [mm]
    tissue : (n_voxels,) of "grey" | "white" | "csf"
    baseline : (x, y, z) image intensity without noise
    specific : (N_LATENTS, n_voxels) peak response per unit of the latent code, gain included
    common : trial_type -> (n_voxels,) peak response
    thermal : (n_voxels,) standard deviation of white noise
    physiological : (n_voxels, n) maps of unit-variance AR(1) noise
    motion : (n_voxels, 6) change of intensity per mm and per radian
    hrf_delay : [s] added to the canonical response
    """

    mask: np.ndarray
    affine: np.ndarray
    tissue: np.ndarray
    baseline: np.ndarray
    specific: np.ndarray
    common: dict[str, np.ndarray]
    thermal: np.ndarray
    physiological: np.ndarray
    motion: np.ndarray
    hrf_delay: float

    @property
    def noise_variance(self) -> np.ndarray:
        """Variance of noise (n_voxels,), without drift and motion."""
        return self.thermal**2 + (self.physiological**2).sum(1)


def make_brain(settings: Settings, subject: str, latents: LatentCode) -> Brain:
    """Voxels of one person: everybody's weight maps mixed with the person's own."""
    group, person = settings.rng("voxels"), settings.rng("voxels", subject)
    shape = settings.grid
    radius = _normalised_radius(shape)
    mask = radius <= 1
    tissue = np.select([radius[mask] < 0.3, radius[mask] < 0.5], ["csf", "white"], "grey")
    grey = tissue == "grey"
    level = np.select([tissue == "csf", tissue == "white"], [1.3, 0.9], 1.0)
    baseline = np.full(shape, 0.05 * _BASELINE)
    baseline[mask] = _BASELINE * level * (1 + 0.08 * _smooth(shape, 1.5, person)[mask])

    profile = {
        name: np.clip(_smooth(shape, 3.0, group)[mask] + 0.2, 0, None) * grey
        for name in ("visual", "auditory", "semantic")
    }
    specific = np.stack(
        [
            profile[block]
            * (0.8 * _smooth(shape, 1.2, group) + 0.6 * _smooth(shape, 1.2, person))[mask]
            for block in latents.block
        ]
    )
    maps = np.stack([_smooth(shape, 2.0, person)[mask] for _ in range(_N_PHYSIOLOGICAL)], axis=1)
    scale = _PHYSIOLOGICAL * _BASELINE / np.sqrt((maps**2).sum(1).mean())
    thermal = _THERMAL * _BASELINE * np.exp(0.1 * person.standard_normal(mask.sum()))
    brain = Brain(
        mask=mask,
        affine=_affine(shape),
        tissue=tissue,
        baseline=baseline,
        specific=specific,
        common={"picture": profile["visual"], "word": profile["auditory"]},
        thermal=thermal,
        physiological=maps * scale,
        motion=_motion_effect(baseline, mask),
        hrf_delay=float(np.clip(0.3 * person.standard_normal(), -0.6, 0.6)),
    )
    return _with_snr(brain, settings.snr_of("bold"), latents)


def _with_snr(brain: Brain, snr: float, latents: LatentCode) -> Brain:
    variance = brain.noise_variance
    power = response_variance(brain.specific, latents)
    gain = snr / np.sqrt((power / variance).mean())
    common = {}
    for name, profile in brain.common.items():
        size = np.sqrt((profile**2 / variance).mean())
        common[name] = profile * (_COMMON_RATIO * snr / size if size else 0.0)
    return Brain(**{**vars(brain), "specific": gain * brain.specific, "common": common})


def simulate_bold(
    root: Path, settings: Settings, subject: str, stimuli: pd.DataFrame, latents: LatentCode
) -> Simulated:
    """Write all runs of one person: images and confounds below ``derivatives/fmriprep``, events
    in the raw tree."""
    brain = make_brain(settings, subject, latents)
    rng = settings.rng("design", "bold", subject)
    order = sequence(
        (stimuli["trial_type"] == "picture").to_numpy(),
        settings.n_bold_repeats, settings.n_word_repeats, settings.n_runs, rng,
    )  # fmt: skip
    ranks, courses = [], {}
    for number, shown in enumerate(order, 1):
        label = f"{number:02d}"
        run = slow_run(shown, settings.bold_interval, settings.t_r, rng)
        data, design, motion, drift = _draw_run(
            settings, brain, subject, label, run, stimuli, latents
        )
        nuisance = np.column_stack([drift, motion])
        ranks.append(_optimal_ranks(brain, data, run, design, nuisance, latents))
        courses[f"motion_run{label}"] = motion
        _write_run(root, settings, subject, label, brain, data, motion, drift, run, stimuli)
    facts = {
        "noise_sd": float(np.sqrt(brain.noise_variance.mean())),
        "hrf": {
            "form": "gamma(6) - gamma(16) / 6, unit scale 1 s, peak 1",
            "delay_s": brain.hrf_delay,
            "peak_s": float(_HRF_TIME[_hrf(brain.hrf_delay).argmax()]),
        },
        "n_voxels": int(brain.mask.sum()),
    }
    arrays = {
        "mask": brain.mask,
        "affine": brain.affine,
        "specific": brain.specific.astype(np.float32),
        **{f"common_{name}": part.astype(np.float32) for name, part in brain.common.items()},
        "thermal": brain.thermal,
        "physiological": brain.physiological,
        "motion": brain.motion,
        "hrf_time": _HRF_TIME,
        "hrf": _hrf(brain.hrf_delay),
        **courses,
    }
    return Simulated(facts, arrays, np.concatenate(ranks))


_HRF_TIME = np.arange(0, 32, 0.1)


def _hrf(delay: float) -> np.ndarray:
    """Difference of two gamma densities on ``_HRF_TIME``, ``delay`` [s] later, peak 1."""
    from scipy.stats import gamma

    time = _HRF_TIME - delay
    response = gamma.pdf(time, 6) - gamma.pdf(time, 16) / 6
    return response / response.max()


def response_courses(onset: np.ndarray, duration: float, delay: float, n: int, t_r: float):
    """Responses ``(n_trials, n_volumes)`` to boxcars of ``duration`` [s]; a single one peaks at 1.

    Volume ``k`` is acquired at ``k * t_r``.
    """
    kernel = np.convolve(_hrf(delay), np.ones(max(1, round(duration / 0.1))))
    kernel /= kernel.max()
    lag = np.arange(n) * t_r - np.asarray(onset)[:, None]
    return np.interp(lag, 0.1 * np.arange(len(kernel)), kernel, left=0.0, right=0.0)


def _draw_run(settings, brain: Brain, subject, label, run: Run, stimuli, latents: LatentCode):
    """``data (n_voxels, n_volumes)``, responses of trials, motion and drift regressors."""
    rng = settings.rng("samples", "bold", subject, label)
    n = round(run.duration / settings.t_r)
    design = response_courses(run.onset, PICTURE_DURATION, brain.hrf_delay, n, settings.t_r)
    kinds = stimuli["trial_type"].to_numpy()[run.stimulus]
    amplitude = latents.code[run.stimulus] @ brain.specific
    amplitude += np.stack([brain.common[kind] for kind in kinds])
    data = brain.baseline[brain.mask][:, None] + amplitude.T @ design
    data += brain.thermal[:, None] * rng.standard_normal((len(brain.thermal), n))
    data += brain.physiological @ _ar1(brain.physiological.shape[1], n, rng)
    drift = _cosines(n, settings.t_r)
    size = _DRIFT * _BASELINE / np.sqrt(drift.shape[1])
    fields = np.stack([_smooth(settings.grid, 4.0, rng)[brain.mask] for _ in drift.T], axis=1)
    data += size * fields @ (drift * np.sqrt(n)).T
    motion = _motion(n, rng)
    data += _MOTION * brain.motion @ motion.T
    return data, design, motion, drift


def _optimal_ranks(
    brain: Brain,
    data: np.ndarray,
    run: Run,
    design: np.ndarray,
    nuisance: np.ndarray,
    latents: LatentCode,
) -> np.ndarray:
    """``optimal.identify`` of every picture, the stimuli of all other trials being known."""
    n = data.shape[1]
    lags = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    whitener = Whitener.of(
        background=brain.physiological,
        white=brain.thermal,
        temporal=_AR1**lags,
        null_times=np.column_stack([np.ones(n), nuisance]),
    )
    is_picture = run.stimulus < latents.n_pictures
    common = np.where(is_picture[:, None], brain.common["picture"], brain.common["word"])
    amplitude = common + latents.code[run.stimulus] @ brain.specific
    # Every trial's response is taken away, and below each trial gets its own back.
    rest = data - brain.baseline[brain.mask][:, None] - amplitude.T @ design
    maps = brain.specific @ whitener.space
    courses = design[is_picture] @ whitener.time
    weighted = whitener.weight * (whitener.space.T @ rest @ whitener.time)
    gram = np.stack([(maps * (whitener.weight @ course**2)) @ maps.T for course in courses])
    shown = run.stimulus[is_picture]
    code = latents.code[: latents.n_pictures]
    u = courses @ weighted.T @ maps.T + np.einsum("nkl,nl->nk", gram, code[shown])
    return identify(u, gram, code, shown)


def _write_run(root, settings, subject, label, brain, data, motion, drift, run, stimuli) -> None:
    import nibabel as nib

    name = f"sub-{subject}_task-{TASK}_run-{label}"
    raw = root / f"sub-{subject}" / "func"
    folder = root / "derivatives" / "fmriprep" / f"sub-{subject}" / "func"
    raw.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    event_table(run, stimuli, PICTURE_DURATION).to_csv(
        raw / f"{name}_events.tsv", sep="\t", index=False, na_rep="n/a"
    )
    rng = settings.rng("outside", subject, label)
    volumes = np.repeat(brain.baseline[..., None], data.shape[1], axis=3)
    volumes += 0.3 * _THERMAL * _BASELINE * rng.standard_normal(volumes.shape, dtype=np.float32)
    volumes[brain.mask] = data
    space = f"{name}_space-T1w"

    def save(values, dtype, suffix, zooms=()):
        image = nib.Nifti1Image(values.astype(dtype), brain.affine)
        image.header.set_xyzt_units("mm", "sec")
        image.header.set_zooms((VOXEL_MM,) * 3 + zooms)
        image.set_sform(brain.affine, code="aligned")
        image.set_qform(brain.affine, code="aligned")
        nib.save(image, folder / f"{space}_{suffix}.nii.gz")

    # Steps of 1/8: far below the noise, and integers compress.
    save(np.round(volumes * 8) / 8, np.float32, "desc-preproc_bold", (settings.t_r,))
    save(volumes.mean(3), np.float32, "boldref")
    save(brain.mask, np.uint8, "desc-brain_mask")
    sidecar = {
        "RepetitionTime": settings.t_r, "TaskName": TASK, "SkullStripped": False,
        "SliceTimingCorrected": True, "StartTime": 0.0,
    }  # fmt: skip
    _write_json(folder / f"{space}_desc-preproc_bold.json", sidecar)
    confounds, meta = _confounds(brain, data, motion, drift)
    confounds.to_csv(
        folder / f"{name}_desc-confounds_timeseries.tsv",
        sep="\t", index=False, na_rep="n/a", float_format="%.8g",
    )  # fmt: skip
    _write_json(folder / f"{name}_desc-confounds_timeseries.json", meta)


def _confounds(brain, data, motion, drift) -> tuple[pd.DataFrame, dict]:
    """fMRIPrep's table: derivatives and framewise displacement start with n/a."""
    change = np.diff(motion, axis=0, prepend=np.nan)
    successive = np.sqrt((np.diff(data, axis=1) ** 2).mean(0))
    columns = {
        "global_signal": data.mean(0),
        "csf": data[brain.tissue == "csf"].mean(0),
        "white_matter": data[brain.tissue == "white"].mean(0),
        "dvars": np.r_[np.nan, successive],
        "std_dvars": np.r_[np.nan, successive / successive.mean()],
        # Power 2012: rotations as arcs on a sphere of 50 mm.
        "framewise_displacement": np.abs(change[:, :3]).sum(1) + 50 * np.abs(change[:, 3:]).sum(1),
    }
    columns |= {f"cosine{i:02d}": column for i, column in enumerate(drift.T)}
    for i, name in enumerate(MOTION):
        columns[name] = motion[:, i]
        columns[f"{name}_derivative1"] = change[:, i]
    meta = {"csf": {"Method": "Mean"}, "white_matter": {"Method": "Mean"}}
    meta |= {"global_signal": {"Method": "Mean"}}
    return pd.DataFrame(columns), meta


def _write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _normalised_radius(shape) -> np.ndarray:
    axes = [(np.arange(n) - (n - 1) / 2) / (0.42 * n) for n in shape]
    return np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij")))


def _affine(shape) -> np.ndarray:
    """3 mm voxels, the slab in the back of the head."""
    affine = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    affine[:3, 3] = np.array([0.0, -50.0, 0.0]) - VOXEL_MM * (np.array(shape) - 1) / 2
    return affine


def _smooth(shape, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """White noise smoothed by a Gaussian of ``sigma`` voxels, zero mean and unit variance."""
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap")
    return (field - field.mean()) / field.std()


def _motion_effect(baseline: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Change of intensity per mm and per radian: the image's gradient times the displacement."""
    slope = np.stack([g[mask] for g in np.gradient(baseline, VOXEL_MM)], axis=1)
    place = VOXEL_MM * (np.argwhere(mask) - (np.array(mask.shape) - 1) / 2)
    turns = np.cross(np.eye(3)[None], place[:, None])  # (n_voxels, axis of rotation, xyz)
    return np.concatenate([slope, np.einsum("vax,vx->va", turns, slope)], axis=1)


def _motion(n: int, rng: np.random.Generator) -> np.ndarray:
    """Six parameters ``(n, 6)`` [mm, rad]: a slow random walk and a few sudden moves."""
    steps = 0.02 * rng.standard_normal((n, 6))
    sudden = rng.random(n) < 0.02
    steps[sudden] += 0.15 * rng.standard_normal((int(sudden.sum()), 6))
    walk = np.cumsum(steps - steps.mean(0), axis=0)
    walk[:, 3:] /= 50.0
    return np.round(walk, 6)


def _ar1(n_series: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Stationary AR(1) series ``(n_series, n)`` of unit variance."""
    from scipy.signal import lfilter

    innovations = rng.standard_normal((n_series, n)) * np.sqrt(1 - _AR1**2)
    innovations[:, 0] /= np.sqrt(1 - _AR1**2)
    return lfilter([1.0], [1.0, -_AR1], innovations, axis=1)


def _cosines(n: int, t_r: float) -> np.ndarray:
    """Discrete cosines slower than 128 s, unit norm: ``(n, n_cosines)``, at least one."""
    order = max(1, int(np.floor(2 * n * t_r / 128.0)))
    time = np.arange(n) + 0.5
    return np.sqrt(2 / n) * np.cos(np.pi / n * np.outer(time, np.arange(1, order + 1)))
