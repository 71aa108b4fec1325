"""Fitted decoders as checkpoints, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from braindecode_pipe import __version__
from braindecode_pipe.errors import BraindecodePipeError, MissingFileError, ModelError
from braindecode_pipe.fitting.checkpoint import (
    ARRAYS,
    CONFIG,
    checkpoint_files,
    load_checkpoint,
    read_folder,
    restore_state,
    state_arrays,
)
from braindecode_pipe.fitting.inputs import InputTransform
from braindecode_pipe.train.linear import LINEAR, LinearFit
from braindecode_pipe.train.settings import plain

if TYPE_CHECKING:
    from braindecode_pipe.train.decoder import BrainDecoder

CARD = "card.json"
_NETWORK, _INPUTS = "network.", "inputs."


def decoder_files(
    decoder: BrainDecoder, inputs: InputTransform | None = None, scope: str = ""
) -> dict[str, bytes]:
    """The two files of a fitted decoder; see ``fitting.checkpoint``.

    Parameters
    ----------
    decoder : BrainDecoder
    inputs : what its windows go through first, see :func:`load_inputs`
    scope : hash of the ``FitScope`` of both
    """
    arrays = {
        "mean": decoder.mean_,
        "scale": decoder.scale_,
        "positions": decoder.positions_,
        "masks": decoder.masks_,
    }
    config: dict[str, Any] = {
        "decoder": plain(decoder.get_params()),
        "shape": list(decoder.shape_),
        "n_features_out": decoder.n_features_out_,
        "hyper": decoder.hyper_,
        "people": decoder.people_,
    }
    if decoder.decoder in LINEAR:
        arrays |= {"weights": decoder.fit_.weights, "intercept": decoder.fit_.intercept}
        if decoder.decoder == "logistic":
            arrays["class_embeddings"] = decoder.class_embeddings_
    else:
        config["network"] = plain(decoder.arguments_)
        arrays["trained"] = decoder.trained_
        arrays |= {_NETWORK + k: v for k, v in state_arrays(decoder.network_).items()}
    if inputs is not None:
        arrays |= {_INPUTS + name: values for name, values in inputs.arrays().items()}
        config["inputs"] = inputs.config()
    return checkpoint_files(arrays, config | ({"fit_scope": scope} if scope else {}))


def load_inputs(read: Callable[[str], bytes]) -> InputTransform | None:
    """What windows go through before the decoder of a checkpoint, or None: ``Windows.transformed``.

    ``read`` and errors as for :func:`load_decoder`.
    """
    arrays, config = load_checkpoint(read)
    if "inputs" not in config:
        return None
    own = {name[len(_INPUTS) :]: v for name, v in arrays.items() if name.startswith(_INPUTS)}
    return InputTransform.load(own, config["inputs"])


def load_decoder(read: Callable[[str], bytes]) -> BrainDecoder:
    """The fitted decoder of a checkpoint.

    Parameters
    ----------
    read : name of a file -> its bytes
        For a store: ``functools.partial(store.read_file, path)``.

    Raises
    ------
    ModelError
        When the checkpoint cannot be read, or holds another network than it says.
    """
    arrays, config = load_checkpoint(read)
    try:
        return _restored(arrays, config)
    except (KeyError, TypeError, ValueError, AttributeError, BraindecodePipeError) as error:
        found = error.message if isinstance(error, BraindecodePipeError) else repr(error)
        raise ModelError(
            "this is no checkpoint of a decoder",
            expected="what save_pretrained or the stage train wrote",
            found=found,
            remedy="save or train it again",
        ) from error


def _restored(arrays: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> BrainDecoder:
    from braindecode_pipe.train.decoder import BrainDecoder

    decoder = BrainDecoder(**config["decoder"])
    decoder.shape_, decoder.n_features_out_ = tuple(config["shape"]), config["n_features_out"]
    decoder.hyper_, decoder.log_, decoder.people_ = config["hyper"], [], config["people"]
    decoder.mean_, decoder.scale_ = arrays["mean"], arrays["scale"]
    decoder.positions_, decoder.masks_ = arrays["positions"], arrays["masks"]
    if decoder.decoder in LINEAR:
        penalty = float(next(iter(decoder.hyper_.values())))
        decoder.fit_ = LinearFit(arrays["weights"], arrays["intercept"], penalty, (penalty,), ())
        decoder.class_embeddings_ = arrays.get("class_embeddings")
        return decoder
    from braindecode_pipe.train.networks import NETWORKS

    decoder.trained_, decoder.arguments_ = arrays["trained"], config["network"]
    decoder.network_ = NETWORKS[decoder.decoder](**decoder.arguments_).eval()
    weights = {k[len(_NETWORK) :]: v for k, v in arrays.items() if k.startswith(_NETWORK)}
    restore_state(decoder.network_, weights)
    return decoder


def save(decoder: BrainDecoder, folder: str | Path) -> None:
    """Write a fitted decoder to a folder: weights, settings, and a card for people.

    ``model.safetensors`` and ``model.json`` as in a store; ``card.json`` says in plain words what
    the decoder is, and holds the SHA-256 of the other two, by which a damaged folder is told.
    Files are renamed into place, the card last.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = decoder_files(decoder)
    text = json.dumps(_card(decoder, files), sort_keys=True, indent=1, ensure_ascii=False)
    for name, data in {**files, CARD: text.encode()}.items():
        aside = folder / f"{name}.tmp"
        aside.write_bytes(data)
        aside.replace(folder / name)


def _card(decoder: BrainDecoder, files: Mapping[str, bytes]) -> dict[str, Any]:
    n_sensors, n_times = decoder.shape_
    network = getattr(decoder, "network_", None)
    return {
        "library": "braindecode_pipe",
        "version": __version__,
        "decoder": decoder.decoder,
        "input": f"windows of {n_sensors} sensors and {n_times} samples",
        "output": f"{decoder.n_features_out_} features in {decoder.n_steps} step(s)"
        + (", of the head that retrieves" if decoder.two_heads else ""),
        "parameters": None if network is None else sum(p.numel() for p in network.parameters()),
        "people": None if decoder.people_ is None else list(decoder.people_),
        "chosen": plain(decoder.hyper_),
        "sha256": {name: sha256(data).hexdigest() for name, data in files.items()},
    }


def load(folder: str | Path) -> BrainDecoder:
    """The decoder that :func:`save` wrote.

    Raises
    ------
    MissingFileError
        When the folder or one of its files is not there.
    ModelError
        When a file is not as it was written.
    """
    folder = Path(folder)
    missing = [name for name in (ARRAYS, CONFIG, CARD) if not (folder / name).is_file()]
    if missing:
        raise MissingFileError(
            "there is no saved decoder in this folder",
            file=folder,
            expected=f"{ARRAYS}, {CONFIG}, {CARD}",
            found=f"no {', no '.join(missing)}" if folder.is_dir() else "no such folder",
            remedy="name a folder that save_pretrained wrote",
        )
    try:
        sums = json.loads((folder / CARD).read_bytes())["sha256"]
        changed = [n for n in (ARRAYS, CONFIG) if _sum(folder / n) != sums[n]]
    except (ValueError, KeyError, TypeError):
        changed = [CARD]
    if changed:
        raise ModelError(
            "a saved decoder is not as it was written",
            file=folder,
            expected="the bytes whose SHA-256 stands in card.json",
            found=f"others in {', '.join(changed)}",
            remedy="save it again",
        )
    return load_decoder(read_folder(folder))


class Pretrained:
    """The part of a decoder that goes to a folder and comes back."""

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the fitted decoder to a folder, as :func:`save` does."""
        check_is_fitted(self, "mean_")
        save(self, folder)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> BrainDecoder:
        """The decoder that :meth:`save_pretrained` wrote; errors as for :func:`load`."""
        return load(folder)


def _sum(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()
