"""What every generator of pictures is, and how it is asked in batches that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from braindecode_pipe.errors import DataError, ModelError

if TYPE_CHECKING:
    from PIL import Image


class Generator(Protocol):
    """Embeddings to pictures.

    Attributes
    ----------
    width : features of an embedding
    facts : what it is and what made it, for the output
    """

    width: int
    facts: dict[str, Any]

    def generate(
        self,
        embedding: np.ndarray,
        low_level: np.ndarray | None = None,
        *,
        seed: int | Sequence[int] = 0,
    ) -> list[Image.Image]:
        """One picture per row.

        Parameters
        ----------
        embedding : (n, width)
        low_level : (n, height, width, 3) in 0 to 1, blurred pictures to begin from
        seed : one for each row, or one number from which those of the rows are made
        """
        ...


def row_seeds(seed: int | Sequence[int], n: int) -> list[int]:
    """A seed for each row, so that no picture depends on those beside it."""
    if isinstance(seed, (int, np.integer)):
        return [
            int(np.random.SeedSequence([int(seed), row]).generate_state(1)[0]) for row in range(n)
        ]
    seeds = [int(s) for s in seed]
    if len(seeds) != n:
        raise DataError("seeds do not fit the rows", expected=str(n), found=str(len(seeds)))
    return seeds


def check_embedding(embedding: np.ndarray, width: int, what: str) -> np.ndarray:
    """The embedding as float32, after it was checked.

    Raises
    ------
    ModelError
        Another width than the generator was made for.
    DataError
        NaN or infinity, or no matrix.
    """
    embedding = np.asarray(embedding, np.float32)
    if embedding.ndim != 2:
        raise DataError(
            "embeddings for a generator must be vectors", expected="(n, features)",
            found=str(embedding.shape),
        )  # fmt: skip
    if embedding.shape[1] != width:
        raise ModelError(
            f"{what} reads embeddings of another width",
            expected=f"{width} features",
            found=f"{embedding.shape[1]}",
            remedy="choose the table of [embed] that holds this generator's embedding, without "
            'principal components (normalize = "whiten" changes the width)',
        )
    bad = np.flatnonzero(~np.isfinite(embedding).all(axis=1))
    if len(bad):
        raise DataError(
            "an embedding is not finite",
            expected="numbers in every feature",
            found=f"NaN or infinity in {len(bad)} of {len(embedding)} rows, first {bad[0]}",
            remedy="look at the predictions of the stage train",
        )
    return embedding


def generate_in_batches(
    generator: Generator,
    embedding: np.ndarray,
    low_level: np.ndarray | None = None,
    *,
    seed: int | Sequence[int] = 0,
    batch: int = 16,
    say: Callable[[str], None] = lambda text: None,
) -> list[Image.Image]:
    """Pictures of all rows; a batch that does not fit into memory is halved, and ``say`` told.

    Raises
    ------
    ModelError
        Not even one picture fits.
    """
    embedding = check_embedding(embedding, generator.width, str(generator.facts["generator"]))
    seeds = row_seeds(seed, len(embedding))
    made: list[Image.Image] = []
    while len(made) < len(embedding):
        rows = slice(len(made), len(made) + batch)
        low = None if low_level is None else low_level[rows]
        try:
            made += generator.generate(embedding[rows], low, seed=seeds[rows])
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            _free()
            if batch == 1:
                raise ModelError(
                    "not even one picture fits into memory",
                    expected="memory for one picture",
                    found=str(error).splitlines()[0] if str(error) else type(error).__name__,
                    remedy="use a device with more memory, or a smaller generator",
                ) from error
            batch = max(1, min(batch, len(embedding) - len(made)) // 2)
            say(f"out of memory: from here on {batch} pictures at a time")
    return made


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error).lower()


def _free() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
