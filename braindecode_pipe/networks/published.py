"""Weights that the authors of BrainOmni published, under the names of this package.

Names of the release, from the modules of OpenTSLab/BrainOmni (MIT; ``braintokenizer/model.py``,
``brainomni/model.py``, ``model_utils/module.py``, ``attn.py``, ``seanet.py``, ``vq.py``, and its
copies) as of 2025: ``BrainTokenizer.pt`` holds the tokenizer, ``BrainOmni.pt`` both, the tokenizer
under ``tokenizer.``. Convolutions are weight-normed in the older layout (``weight_g``,
``weight_v``).

The rotary cache ``rotate`` is checked, and rebuilt from the frequencies of the formula. That of the
release holds cosines only: a cast of complex numbers to bfloat16 drops their imaginary part. Its
own code then multiplies with the cosines, and so does what is loaded from such a file
(:func:`~.omni.rotate`); a cache that is complex asks for rotations.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from braindecode_pipe.errors import ModelError
from braindecode_pipe.networks.omni import BrainOmni, Rotary, rotary_frequencies
from braindecode_pipe.networks.tokenizer import BrainTokenizer

_CONV = {"weight_g": "length", "weight_v": "direction", "bias": "bias"}
# What the layers of the two sequences in the release are called here, by their number.
_ENCODER = {"0": "first", "1": "stages.0", "3": "stages.1", "4": "stages.2", "6": "stages.3",
            "7": "stages.4", "9": "stages.5", "10": "recurrent", "12": "last"}  # fmt: skip
_DECODER = {"0": "first", "1": "recurrent", "3": "stages.0", "4": "stages.1", "6": "stages.2",
            "7": "stages.3", "9": "stages.4", "10": "stages.5", "12": "last"}  # fmt: skip
_RESIDUAL = {"block.1": "narrow", "block.3": "widen", "shortcut": "shortcut"}
_CODEBOOK = {"embed": "codes", "embed_avg": "sums", "cluster_size": "counts", "inited": "started"}
_TOKENIZER = {
    "sensor_embed.sensor_embedding_layer": "sensors.kind",
    "sensor_embed.pos_embedding_layer": "sensors.place",
    "sensor_embed.aggregate_mlp.layer": "sensors.feedforward",
    "sensor_embed.norm": "sensors.norm",
    "encoder.neuros": "gather.sources",
    "encoder.k_proj": "gather.key",
    "encoder.backwardsolution.v": "gather.value",
    "encoder.backwardsolution.proj": "gather.out",
    "decoder.forwardsolution.kv": "spread.key_value",
    "decoder.forwardsolution.proj": "spread.out",
}
_OMNI = {
    "mask_token": "mask_token",
    "projection": "projection",
    "predict_head": "head",
    "pre_attn_norm": "attention_norm",
    "time_attn.qkv": "time.qkv",
    "time_attn.proj": "time.out",
    "spatial_attn.qkv": "space.qkv",
    "spatial_attn.proj": "space.out",
    "pre_ff_norm": "feedforward_norm",
    "ff.layer": "feedforward",
}


def tokenizer_name(published: str) -> str | None:
    """Our name of a tokenizer's array; None where there is none."""
    found = re.fullmatch(r"(encoder|decoder)\.seanet_\1\.model\.(\d+)\.(.+)", published)
    if found:
        side, number, rest = found.groups()
        place = (_ENCODER if side == "encoder" else _DECODER).get(number)
        return place and _convolution_name(side, place, rest)
    found = re.fullmatch(r"quantizer\.rvq\.layers\.(\d+)\._codebook\.(\w+)", published)
    if found and found[2] in _CODEBOOK:
        return f"quantizer.levels.{found[1]}.{_CODEBOOK[found[2]]}"
    return _renamed(published, _TOKENIZER)


def _convolution_name(side: str, place: str, rest: str) -> str | None:
    if rest.startswith("lstm."):
        return f"{side}.{place}.{rest.removeprefix('lstm.')}"
    found = re.fullmatch(r"(?:(block\.[13]|shortcut)\.)?(conv\.conv|convtr\.convtr)\.(\w+)", rest)
    if found is None or found[3] not in _CONV:
        return None
    inner = f".{_RESIDUAL[found[1]]}" if found[1] else ""
    return f"{side}.{place}{inner}.{_CONV[found[3]]}"


def _renamed(name: str, table: Mapping[str, str]) -> str | None:
    for theirs, ours in table.items():
        if name == theirs or name.startswith(f"{theirs}."):
            return ours + name[len(theirs) :]
    return None


def omni_name(published: str) -> str | None:
    """Our name of an encoder's array; None where there is none."""
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", published)
    if found is None:
        return _renamed(published, _OMNI)
    inner = _renamed(found[2], _OMNI)
    return inner and f"blocks.{found[1]}.{inner}"


def load_tokenizer(arrays: Mapping[str, Tensor], **settings: object) -> BrainTokenizer:
    """The tokenizer of a published checkpoint, which may be that of the encoder.

    Parameters
    ----------
    arrays : the checkpoint, as ``torch.load(path, weights_only=True)`` gives it
    **settings : of :class:`BrainTokenizer`, where they are not those of the paper

    Raises
    ------
    ModelError
        When arrays are missing, left over, or of another shape.
    """
    own = {name.removeprefix("tokenizer."): value for name, value in arrays.items()}
    own = {name: value for name, value in own.items() if not _of_encoder(name)}
    network = BrainTokenizer(**settings)
    _fill(network, own, tokenizer_name)
    return network


def load_omni(
    arrays: Mapping[str, Tensor],
    tokenizer: BrainTokenizer,
    n_heads: int,
    rotary: Rotary | None = None,
    **settings: object,
) -> BrainOmni:
    """The encoder of a published checkpoint.

    Parameters
    ----------
    arrays : see :func:`load_tokenizer`
    tokenizer : that of the same checkpoint
    n_heads : int, 8 (tiny) or 16 (base); the arrays do not tell
    rotary : what the file's cache asks for, where it is not given: see this module
    **settings : of :class:`BrainOmni`

    Raises
    ------
    ModelError
        When arrays are missing, left over, or of another shape.
    """
    own = {name: value for name, value in arrays.items() if _of_encoder(name)}
    caches = [name for name in own if name.endswith(".rope_embedding_layer.rotate")]
    for name in caches:
        _check_cache(name, own[name])
    if rotary is None:
        whole = all(own[name].is_complex() and own[name].imag.any() for name in caches)
        rotary = "rotation" if whole else "cosine"
    own = {name: value for name, value in own.items() if ".rope_embedding_layer." not in name}
    widths = [v.shape[0] for name, v in own.items() if name == "blocks.0.pre_attn_norm.weight"]
    if not widths:
        raise ModelError(
            "this is no checkpoint of the encoder",
            expected="blocks.0.pre_attn_norm.weight",
            found=", ".join(sorted(arrays)[:3]) or "nothing",
        )
    depth = len({name.split(".")[1] for name in own if name.startswith("blocks.")})
    network = BrainOmni.of(
        tokenizer, width=widths[0], n_heads=n_heads, depth=depth, rotary=rotary, **settings
    )
    _fill(network, own, omni_name, kept=("codebooks", "sources", "frequencies"))
    return network


def _of_encoder(name: str) -> bool:
    return name.split(".")[0] in {"blocks", "mask_token", "projection", "predict_head"}


def _check_cache(name: str, cache: Tensor) -> None:
    """The cache must be what the frequencies of the formula give, to within bfloat16."""
    steps = torch.arange(len(cache), dtype=torch.float32)
    expected = torch.outer(steps, rotary_frequencies(2 * cache.shape[1])).cos()
    real = cache.real if cache.is_complex() else cache
    error = float((real.float() - expected).abs().max())
    if error > 2**-8:
        raise ModelError(
            "the checkpoint turns vectors by other angles",
            expected=f"cosines of t 10000^(-2 i / {2 * cache.shape[1]})",
            found=f"{name} differs by {error:.3g}",
        )


def _fill(
    network: nn.Module,
    arrays: Mapping[str, Tensor],
    name_of: Callable[[str], str | None],
    kept: Sequence[str] = (),
) -> None:
    """Put arrays into ``network``; every array has a place and every place gets an array."""
    own = network.state_dict()
    named, unknown = {}, []
    for theirs, value in arrays.items():
        ours = name_of(theirs)
        if ours in own and own[ours].numel() == value.numel():
            named[ours] = value.reshape(own[ours].shape).to(own[ours].dtype)
        else:
            unknown.append(f"{theirs} {tuple(value.shape)}")
    missing = [n for n in own if n not in named and n.split(".")[-1] not in kept]
    if unknown or missing:
        raise ModelError(
            "the checkpoint does not fit the network",
            expected=_shown(missing) or "no further arrays",
            found=_shown(unknown) or "no such arrays",
            remedy="give the settings that it was made with",
        )
    network.load_state_dict(named, strict=False)


def _shown(names: list[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
