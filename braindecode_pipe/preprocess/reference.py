"""References of electrodes, as matrices on the unit vectors of ``sensors``.

======== ===================================================================================
average  ``v_i - mean_j v_j`` over the good electrodes of the same type
REST     the potential against infinity, by a spherical head (Yao 2001, Physiol. Meas. 22)
channels ``v_i - mean_r v_r`` over the named channels
bipolar  ``v_a - v_c`` for neighbours on a shaft or strip, or for the pairs that are given
laplacian on a shaft ``v_i`` - mean of its one or two neighbours (Li et al. 2018, NeuroImage
         183); on the scalp the spherical-spline Laplacian (Perrin et al. 1989)
======== ===================================================================================

All but the scalp Laplacian keep the unit V by themselves. The current source density of MNE is in
V/m^2; it is multiplied by the squared radius of the sphere [m^2], one constant for all channels, so
that a sensor of kind ``eeg`` stays in V.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from braindecode_pipe.errors import DataError, PositionError, RecipeError
from braindecode_pipe.preprocess.sensors import sensor_geometry
from braindecode_pipe.preprocess.steps import Log
from braindecode_pipe.recipe import EmegSection

ELECTRODES = ("eeg", "seeg", "ecog", "dbs")
_SHAFTS = ("seeg", "ecog", "dbs")
# Contacts with consecutive numbers that lie further apart than this many typical distances of
# their shaft are not neighbours: the end of one row of a grid and the start of the next.
_FAR = 2.0


def apply_reference(sensors: Any, section: EmegSection, log: Log, path: Path | None = None) -> Any:
    """Re-reference by ``section.reference``; the matrix is the data of the result.

    Parameters
    ----------
    sensors : Raw (n_channels, n_inputs) of unit vectors, or of what earlier steps made of them
    section : EmegSection
    log : Log
    path : the recording, for messages

    Returns
    -------
    ``sensors``, changed in place: bipolar channels take the place of the contacts they are made of.

    Raises
    ------
    RecipeError : channels or pairs that are not there
    PositionError : REST and the scalp Laplacian without positions
    DataError : no pair of neighbours
    """
    if not section.reference:
        return sensors
    kinds = [kind for kind in ELECTRODES if kind in sensors.get_channel_types()]
    if not kinds:
        log.warnings.append(f"no {section.reference} reference: no electrodes")
        return sensors
    _drop_unused_projs(sensors, log)
    if section.reference == "average":
        sensors.set_eeg_reference("average", projection=False, ch_type=kinds, verbose="error")
        for_each = "" if len(kinds) == 1 else ", for each of " + ", ".join(kinds)
        log.steps.append(f"average reference over the good electrodes{for_each}")
    elif section.reference == "REST":
        _rest(sensors, log, path)
    elif section.reference == "channels":
        _named(sensors, section.reference_channels, log)
    elif section.reference == "bipolar":
        _bipolar(sensors, section.bipolar_pairs, log, path)
    else:
        _laplacian(sensors, kinds, log, path)
    return sensors


def _drop_unused_projs(sensors: Any, log: Log) -> None:
    """Projections of the file that were not asked for do not fit the electrodes any more."""
    electrodes = {
        name
        for name, kind in zip(sensors.ch_names, sensors.get_channel_types())
        if kind in ELECTRODES
    }
    stale = [
        number
        for number, proj in enumerate(sensors.info["projs"])
        if not proj["active"] and electrodes & set(proj["data"]["col_names"])
    ]
    if stale:
        names = ", ".join(sensors.info["projs"][number]["desc"] for number in stale)
        sensors.del_proj(stale)
        log.steps.append(f"left out, not applied before the reference: {names}")


# -- whole heads


def _rest(sensors: Any, log: Log, path: Path | None) -> None:
    """Reference electrode standardization technique, over the good EEG electrodes.

    ``v_i - mean(v) + mean(G pinv(G - mean G) (v - mean v))`` with ``G`` the lead field (good
    electrodes, dipoles) of MNE's default four-layer sphere, fitted to the digitised head or,
    without one, to the electrodes. The dipoles lie on the grid of MNE's example: every 15 mm, from
    30 mm off the centre, in three orientations.
    """
    import mne

    names = _placed_eeg(sensors, "REST", path)
    if not names:
        log.warnings.append("no REST reference: no EEG")
        return
    info = mne.pick_info(sensors.info, [sensors.ch_names.index(name) for name in names])
    # A projection in the Info would be applied to the lead field, which stands for raw potentials.
    with info._unlock():
        info["projs"] = []
    centre, radius = head_sphere(sensors.info)
    sphere = mne.make_sphere_model(centre, radius, verbose="error")
    try:
        source = mne.setup_volume_source_space(
            pos=15.0, sphere=sphere, exclude=30.0, verbose="error"
        )
        forward = mne.make_forward_solution(
            info, trans=None, src=source, bem=sphere, meg=False, eeg=True, verbose="error"
        )
    except (RuntimeError, ValueError) as error:
        raise PositionError(
            "no forward model for the REST reference",
            file=path,
            expected="electrodes on a head, in the head frame",
            found=f"a sphere of {radius:.3g} m; {str(error).splitlines()[0]}",
            remedy='set preprocess.emeg.montage, or reference = "average"',
        ) from error
    sensors.set_eeg_reference("REST", ch_type="eeg", forward=forward, verbose="error")
    log.steps.append(
        f"REST reference over {len(names)} good electrodes, {forward['nsource']} dipoles in a "
        f"sphere of {1000 * radius:.0f} mm"
    )


def _placed_eeg(sensors: Any, what: str, path: Path | None) -> list[str]:
    """The good EEG electrodes, all of which need a position."""
    placed = np.isfinite(sensor_geometry(sensors.info)[0]).all(axis=1)
    good = [
        (name, place)
        for name, kind, place in zip(sensors.ch_names, sensors.get_channel_types(), placed)
        if kind == "eeg" and name not in sensors.info["bads"]
    ]
    lost = [name for name, place in good if not place]
    if lost:
        raise PositionError(
            f"the {what} reference needs the positions of all good electrodes",
            file=path,
            expected="positions",
            found=f"{len(lost)} without: {', '.join(lost[:8])}",
            remedy='set preprocess.emeg.montage, or reference = "average"',
        )
    return [name for name, _ in good]


def head_sphere(info: Any) -> tuple[np.ndarray, float]:
    """Centre and radius [m] of the sphere that fits the digitised head, else the electrodes."""
    import mne

    with np.errstate(all="ignore"):
        for kinds in ("auto", ("eeg",)):
            try:
                fit = mne.bem.fit_sphere_to_headshape(info, dig_kinds=kinds, verbose="error")
            except (RuntimeError, ValueError):
                continue
            return np.asarray(fit[1], float), float(fit[0])
    position = sensor_geometry(info)[0]
    position = position[np.isfinite(position).all(axis=1)]
    # |p|^2 = 2 p.c + r^2 - |c|^2: least squares in the centre and the constant.
    design = np.column_stack([2 * position, np.ones(len(position))])
    solution = np.linalg.lstsq(design, (position**2).sum(axis=1), rcond=None)[0]
    centre = solution[:3]
    return centre, float(np.sqrt(solution[3] + centre @ centre))


def _named(sensors: Any, names: list[str], log: Log) -> None:
    if not names:
        raise RecipeError(
            "no reference channels are named",
            expected="preprocess.emeg.reference_channels",
            found="an empty list",
        )
    missing = [name for name in names if name not in sensors.ch_names]
    types = dict(zip(sensors.ch_names, sensors.get_channel_types()))
    wrong = [name for name in names if types.get(name) not in (*ELECTRODES, None)]
    if missing or wrong:
        raise RecipeError(
            "reference channels are not among the picked electrodes",
            expected=", ".join(names),
            found=f"without {', '.join(missing + wrong)}",
            remedy="correct preprocess.emeg.reference_channels, channel_types or picks",
        )
    bad = [name for name in names if name in sensors.info["bads"]]
    if bad:
        log.warnings.append(f"bad channels in the reference: {', '.join(bad)}")
    kinds = list(dict.fromkeys(types[name] for name in names))
    sensors.set_eeg_reference(names, ch_type=kinds, verbose="error")
    log.steps.append(f"reference: mean of {', '.join(names)}")
    if len(names) == 1 and not bad:
        # Zero from now on.
        log.bad_reason[names[0]] = "the reference itself"
        log.constant.add(names[0])
        sensors.info["bads"] = [*sensors.info["bads"], names[0]]


# -- shafts and strips


def shaft_neighbours(
    names: list[str], types: list[str], position: np.ndarray
) -> list[tuple[int, int]]:
    """Pairs of contacts that follow each other on a shaft or strip, by name.

    ``LA1`` and ``LA2``, ``A'01`` and ``A'02``, ``POL B3-Ref`` and ``POL B4-Ref``: the last number
    counts, all else names the shaft. Both are of one type. Where positions are known, pairs more
    than twice as far apart as the shaft's median pair are none.

    Parameters
    ----------
    names, types : (n_channels,)
    position : (n_channels, 3) [m], NaN where unknown

    Returns
    -------
    (i, j) with the number of ``i`` one below that of ``j``, in the order of the shafts' first
    contacts
    """
    shafts: dict[tuple[str, str, str], dict[int, int]] = {}
    for i, (name, kind) in enumerate(zip(names, types)):
        match = re.fullmatch(r"(.*?)(\d+)(\D*)", name)
        if match and kind in _SHAFTS:
            shaft = (match[1].strip(" _-"), match[3], kind)
            shafts.setdefault(shaft, {}).setdefault(int(match[2]), i)
    pairs = []
    for contacts in shafts.values():
        found = [(contacts[n], contacts[n + 1]) for n in sorted(contacts) if n + 1 in contacts]
        distance = np.array([np.linalg.norm(position[i] - position[j]) for i, j in found])
        if np.isfinite(distance).any():
            limit = _FAR * np.nanmedian(distance)
            found = [pair for pair, d in zip(found, distance) if not d > limit]
        pairs += found
    return pairs


def _bipolar(sensors: Any, given: list[list[str]], log: Log, path: Path | None) -> None:
    import mne

    names, types = list(sensors.ch_names), sensors.get_channel_types()
    position = sensor_geometry(sensors.info)[0]
    if given:
        pairs = _given_pairs(given, names, log)
    else:
        pairs = shaft_neighbours(names, types, position)
    if not pairs:
        raise DataError(
            "no bipolar pairs",
            file=path,
            expected="contacts named by shaft and number, such as LA1 and LA2",
            found=", ".join(names[:8]) + (" ..." if len(names) > 8 else ""),
            remedy="name them in preprocess.emeg.bipolar_pairs, or correct channel_types",
        )
    anodes, cathodes = ([names[pair[side]] for pair in pairs] for side in (0, 1))
    new = [f"{a}-{c}" for a, c in zip(anodes, cathodes)]
    places = [_midway(sensors.info["chs"][i]["loc"], sensors.info["chs"][j]["loc"])
              for i, j in pairs]  # fmt: skip
    bads, old = set(sensors.info["bads"]), set(names)
    mne.set_bipolar_reference(
        sensors, anodes, cathodes, new, [{"loc": loc} for loc in places], copy=False,
        on_bad="ignore", verbose="error",
    )  # fmt: skip
    for name, pair in zip(new, zip(anodes, cathodes)):
        spoiled = [contact for contact in pair if contact in bads]
        if spoiled:
            log.bad_reason[name] = "; ".join(
                f"{contact}: {log.bad_reason.get(contact, 'bad')}" for contact in spoiled
            )
        if log.constant.issuperset(pair):
            log.constant.add(name)
    log.left_out |= dict.fromkeys(old - set(sensors.ch_names), "in bipolar pairs")
    paired = {types[i] for i, _ in pairs}
    alone = [n for n in sensors.ch_names if n in old and types[names.index(n)] in paired]
    if alone:
        sensors.drop_channels(alone)
        log.left_out |= dict.fromkeys(alone, "in no bipolar pair")
        log.warnings.append(f"left out, in no bipolar pair: {', '.join(alone)}")
    how = "as given" if given else "neighbours by name"
    log.steps.append(f"bipolar reference: {len(new)} pairs, {how}")


def _given_pairs(given: list[list[str]], names: list[str], log: Log) -> list[tuple[int, int]]:
    wrong = [pair for pair in given if len(pair) != 2 or pair[0] == pair[1]]
    if wrong or len({tuple(pair) for pair in given}) < len(given):
        raise RecipeError(
            "bipolar pairs must be different pairs of two channels",
            expected="[[anode, cathode], ...]",
            found=str(wrong or given),
            remedy="correct preprocess.emeg.bipolar_pairs",
        )
    kept = [pair for pair in given if set(pair) <= set(names)]
    missing = sorted({name for pair in given for name in pair} - set(names))
    if missing:
        if not kept:
            raise RecipeError(
                "channels of the bipolar pairs are not there",
                expected=", ".join(missing),
                found=", ".join(names[:20]),
                remedy="correct preprocess.emeg.bipolar_pairs",
            )
        log.warnings.append(f"bipolar pairs left out, without {', '.join(missing)}")
    return [(names.index(anode), names.index(cathode)) for anode, cathode in kept]


def _midway(anode: np.ndarray, cathode: np.ndarray) -> np.ndarray:
    """A channel's ``loc`` halfway between two, without a place of the reference."""
    loc = np.full(12, np.nan)
    known = all(np.isfinite(place[:3]).all() and place[:3].any() for place in (anode, cathode))
    if known:
        loc[:3] = (anode[:3] + cathode[:3]) / 2
    return loc


def _laplacian(sensors: Any, kinds: list[str], log: Log, path: Path | None) -> None:
    if set(kinds) & set(_SHAFTS):
        _shaft_laplacian(sensors, log, path)
    if "eeg" in kinds:
        _scalp_laplacian(sensors, log, path)


def _shaft_laplacian(sensors: Any, log: Log, path: Path | None) -> None:
    """``v_i - mean(v_j)`` over the good neighbours ``j``; without any the channel turns bad."""
    from mne.io.constants import FIFF

    names, types = list(sensors.ch_names), sensors.get_channel_types()
    bads = set(sensors.info["bads"])
    around: dict[int, list[int]] = {i: [] for i, kind in enumerate(types) if kind in _SHAFTS}
    for i, j in shaft_neighbours(names, types, sensor_geometry(sensors.info)[0]):
        if names[j] not in bads:
            around[i].append(j)
        if names[i] not in bads:
            around[j].append(i)
    if not any(around.values()):
        raise DataError(
            "no contact has a good neighbour on its shaft",
            file=path,
            expected="contacts named by shaft and number, such as LA1 and LA2",
            found=", ".join(names[:8]) + (" ..." if len(names) > 8 else ""),
            remedy='set preprocess.emeg.reference = "average", or correct channel_types',
        )
    before = sensors.get_data()
    alone = []
    for i, others in around.items():
        if others:
            sensors._data[i] = before[i] - before[others].mean(axis=0)
        elif names[i] not in bads:
            alone.append(names[i])
            log.bad_reason[names[i]] = "no good neighbour on its shaft"
    sensors.info["bads"] = [*sensors.info["bads"], *alone]
    with sensors.info._unlock():
        sensors.info["custom_ref_applied"] = FIFF.FIFFV_MNE_CUSTOM_REF_ON
    log.steps.append("Laplacian along the shafts: minus the mean of one or two good neighbours")
    if alone:
        log.warnings.append(f"no good neighbour on the shaft, left as they are: {', '.join(alone)}")


def _scalp_laplacian(sensors: Any, log: Log, path: Path | None) -> None:
    """MNE's current source density [V/m^2] of the good electrodes times radius^2 [m^2]."""
    import mne
    from mne.io.constants import FIFF

    names = _placed_eeg(sensors, "Laplacian", path)
    if not names:
        return
    rows = [sensors.ch_names.index(name) for name in names]
    centre, radius = head_sphere(sensors.info)
    good = mne.io.RawArray(
        sensors.get_data()[rows], mne.pick_info(sensors.info, rows), verbose="error"
    )
    density = mne.preprocessing.compute_current_source_density(
        good, sphere=(*centre, radius), verbose="error"
    )
    sensors._data[rows] = density.get_data() * radius**2
    with sensors.info._unlock():
        sensors.info["custom_ref_applied"] = FIFF.FIFFV_MNE_CUSTOM_REF_ON
    log.steps.append(
        f"spherical-spline Laplacian of {len(names)} good electrodes: current source density "
        f"[V/m^2] times the squared radius ({1000 * radius:.1f} mm)^2"
    )
