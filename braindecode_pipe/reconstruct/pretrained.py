"""Pretrained generators of ``diffusers``, by folder or by id, behind the one interface.

Nothing is downloaded: an id must be in the local cache. Only safetensors are read. The loading
code is tested on tiny pipelines with random weights; it is untested with real weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from braindecode_pipe.errors import ModelError
from braindecode_pipe.reconstruct.interface import check_embedding, row_seeds

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Family:
    """How pipelines of one class are asked.

    Attributes
    ----------
    width : features of the embedding that a pipeline reads
    arguments : embeddings as a tensor -> arguments of the call
    starts_from : whether a blurred picture can be what denoising begins from
    """

    width: Callable[[Any], int]
    arguments: Callable[[Any], dict[str, Any]]
    starts_from: bool


def _unclip(embeds: Any) -> dict[str, Any]:
    # An empty prompt: the embedding alone says what is to be seen.
    return {"prompt": [""] * len(embeds), "image_embeds": embeds}


def _kandinsky(embeds: Any) -> dict[str, Any]:
    return {"image_embeds": embeds, "negative_image_embeds": embeds * 0}


FAMILIES = {
    "StableUnCLIPImg2ImgPipeline": Family(
        lambda pipe: pipe.image_normalizer.config.embedding_dim, _unclip, False
    ),
    "KandinskyV22Pipeline": Family(
        lambda pipe: pipe.unet.config.encoder_hid_dim, _kandinsky, False
    ),
    "KandinskyV22Img2ImgPipeline": Family(
        lambda pipe: pipe.unet.config.encoder_hid_dim, _kandinsky, True
    ),
}


class DiffusersGenerator:
    """A pipeline of ``diffusers`` that draws pictures of image embeddings.

    Parameters
    ----------
    source : folder as written by ``save_pretrained``, or id in the local cache
    device : of torch
    steps : denoising steps
    guidance : classifier-free guidance of the pipeline
    side : of the pictures [pixels]; None: what the pipeline makes by default
    strength : with a blurred picture, the share of the steps that are done from it

    Raises
    ------
    ModelError
        No ``diffusers``; no such folder; not in the cache; a pipeline of another class; weights
        that are no safetensors.
    """

    def __init__(
        self,
        source: str,
        *,
        device: str = "cpu",
        steps: int = 20,
        guidance: float = 5.0,
        side: int | None = None,
        strength: float = 0.75,
    ) -> None:
        self.source, self.device, self.side = str(source), device, side
        self.steps, self.guidance, self.strength = steps, guidance, strength
        self.pipe, name = load_pipeline(self.source, device)
        self.family = FAMILIES[name]
        self.width = int(self.family.width(self.pipe))
        self.facts = {
            # The name, not the path: stores of equal work have equal bytes.
            "generator": Path(self.source).name,
            "description": f"{name} of diffusers",
            "steps": steps, "guidance": guidance, "strength": strength, "stochastic": True,
        }  # fmt: skip

    def generate(
        self,
        embedding: np.ndarray,
        low_level: np.ndarray | None = None,
        *,
        seed: int | Sequence[int] = 0,
    ) -> list[Image.Image]:
        """See :class:`~braindecode_pipe.reconstruct.interface.Generator`.

        Raises
        ------
        ModelError
            The embedding has another width; the pipeline cannot begin from a blurred picture.
        DataError
            The embedding is not finite.
        """
        import torch

        vectors = check_embedding(embedding, self.width, self.facts["description"])
        dtype = next(self.pipe.unet.parameters()).dtype
        embeds = torch.from_numpy(vectors).to(self.device, dtype)
        options: dict[str, Any] = self.family.arguments(embeds)
        if low_level is not None:
            options |= self._start(low_level)
        if self.side is not None:
            options |= {"height": self.side, "width": self.side}
        # Noise is drawn on the processor, so that a seed means the same on every device.
        draws = [torch.Generator().manual_seed(s) for s in row_seeds(seed, len(vectors))]
        with torch.inference_mode():
            return self.pipe(
                **options, generator=draws, num_inference_steps=self.steps,
                guidance_scale=self.guidance,
            ).images  # fmt: skip

    def _start(self, low_level: np.ndarray) -> dict[str, Any]:
        if not self.family.starts_from:
            raise ModelError(
                "this pipeline cannot begin from a blurred picture",
                file=self.source,
                expected=", ".join(n for n, f in FAMILIES.items() if f.starts_from),
                found=type(self.pipe).__name__,
                remedy="leave out reconstruct.low_level, or name another generator",
            )
        from braindecode_pipe.reconstruct.embedded import as_images

        size = (self.side or 512,) * 2
        pictures = [picture.resize(size) for picture in as_images(low_level)]
        return {"image": pictures, "strength": self.strength}


def load_pipeline(source: str, device: str) -> tuple[Any, str]:
    """A pipeline on its device, and the name of its class; see :class:`DiffusersGenerator`."""
    try:
        import diffusers
    except ImportError:
        raise ModelError(
            f"the generator {source} needs the library diffusers", expected="diffusers",
            found="not installed", remedy='pip install "braindecode-pipe[reconstruct]"',
        ) from None  # fmt: skip
    folder = find_generator(source)
    name = _class_of(folder)
    try:
        pipe = getattr(diffusers, name).from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True,
            low_cpu_mem_usage=find_spec("accelerate") is not None,
        )  # fmt: skip
        pipe.set_progress_bar_config(disable=True)
        return pipe.to(device), name
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, AssertionError) as error:
        raise ModelError(
            "the generator cannot be loaded", file=folder,
            expected="a folder as written by save_pretrained, with safetensors, and a device that "
            "is there", found=" ".join(str(error).split())[:300],
        ) from error  # fmt: skip


def find_generator(source: str) -> Path:
    """The folder of a generator: itself, or that of an id in the local cache."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if source.startswith((".", "~", "/")) or source.count("/") != 1:
        raise ModelError(
            "the folder of the generator is missing", file=source,
            expected="a folder, or an id of the form owner/name", found="nothing",
            remedy='generator = "embedded" needs none',
        )  # fmt: skip
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise ModelError(
            "the generator is not on this machine", file=source,
            expected="a folder, or an id in the local cache of the hub", found="nothing",
            remedy=f"braindecode-pipe fetch model:{source} FOLDER, then name that folder",
        ) from error  # fmt: skip


def _class_of(folder: Path) -> str:
    index = folder / "model_index.json"
    try:
        name = str(json.loads(index.read_text(encoding="utf-8")).get("_class_name"))
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(
            "this folder holds no generator", file=index, expected="model_index.json of diffusers",
            found=f"{type(error).__name__}",
        ) from error  # fmt: skip
    if name not in FAMILIES:
        raise ModelError(
            "this pipeline does not draw pictures of image embeddings", file=index,
            expected=", ".join(FAMILIES), found=name,
        )  # fmt: skip
    return name
