"""Fitted decoders as checkpoints, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from braindecode_pipe.fitting.checkpoint import (
    checkpoint_files,
    load_checkpoint,
    restore_state,
    state_arrays,
)
from braindecode_pipe.fitting.inputs import InputTransform
from braindecode_pipe.train.decoder import BrainDecoder
from braindecode_pipe.train.linear import LINEAR, LinearFit

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
    arrays = {"mean": decoder.mean_, "scale": decoder.scale_}
    config: dict[str, Any] = {
        "decoder": decoder.get_params(),
        "shape": list(decoder.shape_),
        "n_features_out": decoder.n_features_out_,
        "hyper": decoder.hyper_,
    }
    if decoder.decoder in LINEAR:
        arrays |= {"weights": decoder.fit_.weights, "intercept": decoder.fit_.intercept}
        if decoder.decoder == "logistic":
            arrays["class_embeddings"] = decoder.class_embeddings_
    else:
        config["network"] = decoder.arguments_
        arrays |= {_NETWORK + k: v for k, v in state_arrays(decoder.network_).items()}
        if decoder.decoder == "conv":
            arrays |= {"positions": decoder.positions_, "masks": decoder.masks_}
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
    decoder = BrainDecoder(**config["decoder"])
    decoder.shape_, decoder.n_features_out_ = tuple(config["shape"]), config["n_features_out"]
    decoder.hyper_, decoder.log_ = config["hyper"], []
    decoder.mean_, decoder.scale_ = arrays["mean"], arrays["scale"]
    if decoder.decoder in LINEAR:
        penalty = float(next(iter(decoder.hyper_.values())))
        decoder.fit_ = LinearFit(arrays["weights"], arrays["intercept"], penalty, (penalty,), ())
        decoder.class_embeddings_ = arrays.get("class_embeddings")
        return decoder
    from braindecode_pipe.train.networks import NETWORKS

    decoder.arguments_ = config["network"]
    decoder.network_ = NETWORKS[decoder.decoder](**decoder.arguments_).eval()
    weights = {k[len(_NETWORK) :]: v for k, v in arrays.items() if k.startswith(_NETWORK)}
    restore_state(decoder.network_, weights)
    decoder.positions_, decoder.masks_ = arrays.get("positions"), arrays.get("masks")
    return decoder
