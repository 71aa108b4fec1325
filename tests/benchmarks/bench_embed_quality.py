"""How good the packaged models are: nearest neighbours over groups of pictures and of words.

``python tests/benchmarks/bench_embed_quality.py [GALLERY.png]``. Pictures are the glyphs of the
simulation (OpenMoji, CC BY-SA 4.0) in six groups, words their names. A stimulus counts as right
when its nearest neighbour (cosine after centring, itself left out) is of its group. With a path, a
gallery is drawn: queries on the left, their four nearest neighbours by each model on the right.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from braindecode_pipe.embed import embed
from braindecode_pipe.simulate.stimuli import N_PICTURES_MAX, Picture, choose_pictures

PICTURES = ("pixels", "colour", "hog", "gabor", "efficientnet-lite0")
WORDS = ("one-hot", "minilm")


def similarity(vectors: np.ndarray) -> np.ndarray:
    """Cosines after centring, -inf on the diagonal."""
    centred = vectors - vectors.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    return cosines


def accuracy(vectors: np.ndarray, groups: Sequence[str]) -> float:
    """Share whose nearest neighbours are of their group; equal neighbours share the vote."""
    names, cosines = np.asarray(groups), similarity(vectors)
    nearest = cosines >= cosines.max(1, keepdims=True) - 1e-6
    same = names[:, None] == names[None]
    return float(((nearest & same).sum(1) / nearest.sum(1)).mean())


def chance(groups: Sequence[str]) -> float:
    """Expected accuracy of neighbours drawn at random."""
    _, counts = np.unique(groups, return_counts=True)
    n = counts.sum()
    return float((counts * (counts - 1)).sum() / (n * (n - 1)))


def pictures(n: int = N_PICTURES_MAX) -> list[Picture]:
    """Pictures of all six groups."""
    return choose_pictures(n, np.random.default_rng(0))


def scores(shown: Sequence[Picture]) -> dict[str, float]:
    """Model -> accuracy, chance among them."""
    groups = [picture.category for picture in shown]
    images = [Image.fromarray(picture.image) for picture in shown]
    names = [picture.label for picture in shown]
    return {
        "chance": chance(groups),
        **{model: accuracy(embed(images, model), groups) for model in PICTURES},
        **{model: accuracy(embed(names, model), groups) for model in WORDS},
    }


def gallery(shown: Sequence[Picture], path: Path, side: int = 72, n_nearest: int = 4) -> None:
    """Draw two queries of each group with their nearest neighbours by each model of pictures."""
    groups = [picture.category for picture in shown]
    queries = [k for group in sorted(set(groups)) for k in
               [i for i, g in enumerate(groups) if g == group][:2]]  # fmt: skip
    images = [Image.fromarray(picture.image) for picture in shown]
    found = {m: similarity(embed(images, m)) for m in ("pixels", "hog", "efficientnet-lite0")}
    width = (1 + len(found) * (n_nearest + 0.5)) * side
    sheet = Image.new("RGB", (int(width), len(queries) * side + 20), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (model, cosines) in enumerate(found.items()):
        left = int((1.5 + column * (n_nearest + 0.5)) * side)
        draw.text((left, 4), model, fill="black")
        for row, query in enumerate(queries):
            top = 20 + row * side
            sheet.paste(images[query].resize((side, side)), (0, top))
            for place, k in enumerate(np.argsort(-cosines[query])[:n_nearest]):
                corner = (left + place * side, top)
                sheet.paste(images[k].resize((side, side)), corner)
                right = groups[k] == groups[query]
                box = (*corner, corner[0] + side - 2, corner[1] + side - 2)
                draw.rectangle(box, outline="green" if right else "red", width=2)
    sheet.save(path)


def main() -> None:
    """Print the table; draw the gallery where a path is given."""
    shown = pictures()
    print(f"{len(shown)} pictures and their names, nearest neighbour of the same of 6 groups")
    for model, value in scores(shown).items():
        print(f"  {model:20} {value:.3f}")
    if len(sys.argv) > 1:
        gallery(shown, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
