"""Models of ``transformers`` on this machine: found, checked, loaded; never from the network.

Only safetensors are read. Weights that are a pickle are refused, unless the recipe pins their
SHA-256: then torch's weights-only loader reads them, which runs nothing of what is in them.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from braindecode_pipe.embed.weights import file_sha256
from braindecode_pipe.errors import ModelError

BUILT_IN_NAMES = (
    "one-hot", "minilm", "efficientnet-lite0", "pixels", "hog", "gabor", "colour", "log-mel",
    "envelope", "onsets",
)  # fmt: skip
SOURCE = "model_source.json"
CONTENT = (".json", ".txt", ".model", ".safetensors")
# Heads that embeddings never pass through, and a vector used in training only.
_UNUSED = ("pooler.", "masked_spec_embed")


def find_model(
    name: str, revision: str = "", pinned: Mapping[str, str] | None = None
) -> tuple[Path, str]:
    """Folder of a model and its revision ("" for a folder that does not say).

    Parameters
    ----------
    name : folder, or hub id that is in the local cache
    revision : of a hub id; "" for the one that "main" was when it was fetched
    pinned : file of torch weights -> SHA-256, where the model has no safetensors

    Raises
    ------
    ModelError
        No such folder, not in the cache, no ``transformers``, another revision than the one asked
        for, or weights that are a pickle and not pinned.
    """
    folder, found = Path(name).expanduser(), ""
    if not folder.is_dir():
        if name.startswith((".", "~", os.sep)) or name.count("/") > 1:
            raise ModelError(
                "the folder of the model is missing",
                file=name,
                expected="a folder",
                found="nothing",
            )
        folder = _find_in_cache(name, revision)
        found = folder.name
    elif (folder / SOURCE).is_file():
        found = str(json.loads((folder / SOURCE).read_text(encoding="utf-8")).get("revision", ""))
    if revision and not found.startswith(revision) and Path(name).expanduser().is_dir():
        raise ModelError(
            f"{name} is another revision of the model", file=folder, expected=revision,
            found=found or "a folder that does not say its revision",
            remedy=f"braindecode-pipe fetch model:ID@{revision}, and name that folder",
        )  # fmt: skip
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise ModelError(
            f"{name} needs the library transformers",
            expected="transformers",
            found="not installed",
            remedy='pip install "braindecode-pipe[transformers]"',
        ) from None
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{name} is no model of transformers",
            file=folder,
            expected="config.json",
            found="no such file",
        )
    if not any(folder.glob("*.safetensors")):
        _check_pinned(name, folder, dict(pinned or {}))
    return folder, found


def _check_pinned(name: str, folder: Path, pinned: Mapping[str, str]) -> None:
    pickles = sorted(file.name for file in [*folder.glob("*.bin"), *folder.glob("*.pt*")])
    if not pinned or not pickles:
        example = f'[embed.<table>.weights_sha256] "{pickles[0]}" = "..."' if pickles else ""
        raise ModelError(
            f"{name} has no weights that are safe to load",
            file=folder,
            expected="*.safetensors",
            found=f"pickle: {', '.join(pickles)}" if pickles else "no weights",
            remedy="use a revision with safetensors, or convert it with save_pretrained"
            + (f"; or pin the file by its hash: {example}" if example else ""),
        )
    for file, expected in pinned.items():
        if file not in pickles:
            raise ModelError(
                f"{name} lacks a file that the recipe pins", file=folder, expected=file,
                found=", ".join(pickles),
            )  # fmt: skip
        digest = file_sha256(folder / file)
        if digest != expected.lower():
            raise ModelError(
                f"{name} holds other weights than the pinned ones", file=folder / file,
                expected=f"SHA-256 {expected}", found=f"SHA-256 {digest}",
            )  # fmt: skip


def _find_in_cache(name: str, revision: str) -> Path:
    folder = "models/" + name.rsplit("/", 1)[-1]
    remedy = (
        f"braindecode-pipe fetch model:{name} {folder}, then model = {folder!r} in the recipe; "
        f"or a built-in model: {' | '.join(BUILT_IN_NAMES)}"
    )
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ImportError:
        found = "no folder of this name, and huggingface_hub is not installed"
        remedy = f'pip install "braindecode-pipe[transformers]", then {remedy}'
        raise ModelError(
            f"{name} is no model on this machine", found=found, remedy=remedy
        ) from None
    try:
        return Path(snapshot_download(name, revision=revision or None, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise ModelError(
            f"{name} is no model on this machine",
            expected="a built-in model, a folder, or a hub id in the local cache",
            found="no folder and no cached model of this name"
            + (f" and revision {revision}" if revision else ""),
            remedy=remedy,
        ) from error


def content_hashes(folder: Path, pinned: Mapping[str, str]) -> dict[str, str]:
    """SHA-256 of every file that decides what a model computes, by name."""
    own = [f for f in sorted(folder.iterdir()) if f.suffix in CONTENT and f.name != SOURCE]
    own += sorted(folder.glob("*_Pooling/config.json"))
    if not any(folder.glob("*.safetensors")):
        own += [folder / name for name in sorted(pinned)]
    return {file.relative_to(folder).as_posix(): file_sha256(file) for file in own}


def load(auto: Any, folder: Path, name: str, **options: Any) -> Any:
    """``auto.from_pretrained`` of a folder; what it has against the folder becomes a ModelError."""
    from safetensors import SafetensorError

    try:
        return auto.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **options
        )
    except (OSError, ValueError, ImportError, KeyError, SafetensorError) as error:
        raise ModelError(
            f"{name} cannot be loaded by {auto.__name__}",
            file=folder,
            expected="a folder as written by save_pretrained, with safetensors",
            found=str(error).strip().split("\n")[0] or type(error).__name__,
        ) from error


def load_network(folder: Path, name: str, pinned: Mapping[str, str]) -> Any:
    """The network of a folder with all its weights, in evaluation mode, float32.

    Raises
    ------
    ModelError
        Damaged or incomplete weights.
    """
    from transformers import AutoModel

    if any(folder.glob("*.safetensors")):
        options = {"use_safetensors": True, "output_loading_info": True}
        model, report = load(AutoModel, folder, name, **options)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            _convert(folder, Path(temporary), name, pinned)
            options = {"use_safetensors": True, "output_loading_info": True}
            model, report = load(AutoModel, Path(temporary), name, **options)
    missing = [
        key
        for key in sorted({*report["missing_keys"], *map(str, report["mismatched_keys"])})
        if not any(part in key for part in _UNUSED)
    ]
    if missing:
        raise ModelError(
            f"the weights of {name} are incomplete: the rest would be random",
            file=folder,
            expected="every tensor of the model",
            found=f"{len(missing)} missing or of another shape: {', '.join(missing[:5])}",
        )
    return model.float().eval()


def _convert(folder: Path, target: Path, name: str, pinned: Mapping[str, str]) -> None:
    """Pinned torch weights as safetensors beside a copy of the configuration."""
    import shutil

    import torch
    from safetensors.torch import save_file

    weights: dict[str, Any] = {}
    for file in sorted(pinned):
        try:
            part = torch.load(folder / file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch's own loader: a pickle's errors are of many kinds
            raise ModelError(
                f"{name} holds weights that torch's weights-only loader refuses",
                file=folder / file,
                expected="tensors by name",
                found=str(error).strip().split("\n")[0] or type(error).__name__,
            ) from error
        weights |= {key: value for key, value in part.items() if isinstance(value, torch.Tensor)}
    # Tied weights share memory in a pickle; safetensors wants each for itself.
    copies = {key: value.clone().contiguous() for key, value in weights.items()}
    save_file(copies, target / "model.safetensors", {"format": "pt"})
    shutil.copyfile(folder / "config.json", target / "config.json")


def shorten(body: Any, last: int) -> None:
    """Drop the layers of a network behind the last one that is read.

    One more layer stays, since some networks norm what their final layer gives. Networks whose
    layers are not one list of the configured length are left as they are.
    """
    from torch import nn

    depth = getattr(getattr(body, "config", None), "num_hidden_layers", None)
    lists = [m for m in body.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if len(lists) == 1 and depth is not None and last + 1 < depth:
        del lists[0][last + 1 :]


def sentence_settings(folder: Path) -> dict[str, Any]:
    """Pooling and scaling of a sentence-transformers folder; empty for any other.

    Raises
    ------
    ModelError
        A module that is not the network, its pooling or the scaling to unit length.
    """
    file = folder / "modules.json"
    if not file.is_file():
        return {}
    found: dict[str, Any] = {"normalize": False}
    for module in json.loads(file.read_text(encoding="utf-8")):
        kind = str(module.get("type", "")).rsplit(".", 1)[-1]
        if kind == "Pooling":
            settings = json.loads((folder / module["path"] / "config.json").read_text("utf-8"))
            names = {"cls_token": "cls", "mean_tokens": "mean", "lasttoken": "last"}
            modes = [k.removeprefix("pooling_mode_") for k, on in settings.items()
                     if k.startswith("pooling_mode_") and on]  # fmt: skip
            if "pooling_mode" in settings:
                modes = [{"mean": "mean_tokens", "cls": "cls_token"}.get(
                    settings["pooling_mode"], settings["pooling_mode"])]  # fmt: skip
            if len(modes) != 1 or modes[0] not in names:
                raise ModelError(
                    "a sentence encoder with another pooling", file=folder,
                    expected=" | ".join(names), found=", ".join(modes) or "none",
                    remedy='give [embed.<table>] pooling = "mean", and mind that the model was '
                    "trained otherwise",
                )  # fmt: skip
            found["pooling"] = names[modes[0]]
        elif kind == "Normalize":
            found["normalize"] = True
        elif kind != "Transformer":
            raise ModelError(
                "a sentence encoder with a part that is not known here", file=folder,
                expected="Transformer, Pooling, Normalize", found=kind,
                remedy="set pooling and layer in [embed.<table>] to read the network itself",
            )  # fmt: skip
    return found
