"""Decoded text against what was said: word errors, BLEU and ROUGE, beside rows without a brain.

A language model writes fluent text without any brain data, and a decoder that is fed the true words
while it is scored (teacher forcing) scores high without any decoding. So :func:`score_texts` takes
text that was generated freely, asks for what the same system writes from noise, and calls a score
evidence only where it exceeds that.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from braindecode_pipe.errors import DataError, InputError
from braindecode_pipe.evaluate.comparison import compare

BRAIN, NOISE = "brain", "noise input"


def words(text: str) -> list[str]:
    """Lower-case words without punctuation at their ends; apostrophes within words stay."""
    found = (word.strip(".,;:!?\"'()[]“”‘’…-–—") for word in text.lower().split())
    return [word for word in found if word]


def edit_distance(reference: Sequence[str], found: Sequence[str]) -> int:
    """Fewest insertions, deletions and substitutions from one sequence to the other."""
    row = list(range(len(found) + 1))
    for i, a in enumerate(reference, start=1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(found, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def word_error_rate(references: Sequence[str], found: Sequence[str]) -> float:
    """``sum of edit distances / sum of reference words``, over the corpus; 0 is best, no maximum.

    Raises
    ------
    DataError
        Unequal numbers of texts, or references without words.
    """
    _check(references, found)
    pairs = [(words(r), words(f)) for r, f in zip(references, found)]
    return sum(edit_distance(r, f) for r, f in pairs) / sum(len(r) for r, _ in pairs)


def bleu(references: Sequence[str], found: Sequence[str], n: int = 4) -> float:
    """BLEU of a corpus with one reference per text (Papineni et al. 2002, section 2.3).

    ``BP exp(mean_k log p_k)``, ``k = 1 ... n``, with ``p_k`` the clipped share of k-grams that the
    reference holds and ``BP = exp(min(0, 1 - r / c))`` for ``r`` reference and ``c`` found words.
    No smoothing: 0 where one ``p_k`` is 0.

    Raises
    ------
    DataError
        Unequal numbers of texts, or references without words.
    """
    _check(references, found)
    right, total = np.zeros(n), np.zeros(n)
    n_reference = n_found = 0
    for reference, text in zip(references, found):
        a, b = words(reference), words(text)
        n_reference, n_found = n_reference + len(a), n_found + len(b)
        for k in range(1, n + 1):
            have, want = _grams(b, k), _grams(a, k)
            right[k - 1] += sum((have & want).values())
            total[k - 1] += sum(have.values())
    if not n_found or (right == 0).any():
        return 0.0
    brevity = math.exp(min(0.0, 1 - n_reference / n_found))
    return brevity * math.exp(float(np.log(right / total).mean()))


def rouge(reference: str, found: str, kind: str = "l") -> float:
    """F1 of shared n-grams (``"1"``, ``"2"``) or of the longest common subsequence (``"l"``).

    Lin 2004, equations 1 and 2 to 4 with beta = 1; no stemming, no stop words. 0 where either text
    has no n-gram.
    """
    a, b = words(reference), words(found)
    if kind == "l":
        shared, n_a, n_b = _common_subsequence(a, b), len(a), len(b)
    else:
        want, have = _grams(a, int(kind)), _grams(b, int(kind))
        shared, n_a, n_b = sum((want & have).values()), want.total(), have.total()
    return 2 * shared / (n_a + n_b) if shared else 0.0


def score_texts(
    references: Sequence[str],
    rows: Mapping[str, Sequence[str]],
    *,
    free_running: bool,
    n_permutations: int = 2000,
    seed: int = 0,
) -> list[dict[str, object]]:
    """Scores of decoded text with the rows that make them readable.

    Parameters
    ----------
    references : (n,) what was said
    rows : row -> (n,) texts; ``brain`` and ``noise input`` (the same system fed noise) are needed,
        others (shuffled brain, ...) are scored beside them
    free_running : whether every word was generated from generated words
    n_permutations, seed : of the paired test against ``noise input`` (ROUGE-L of single texts)

    Returns
    -------
    list of dict
        row, wer, bleu4, rouge1, rouge2, rougel, n, p_noise, claim: whether the row exceeds the
        noise row at p <= .05

    Raises
    ------
    InputError
        Teacher-forced text, or no row from noise.
    DataError
        Rows of unequal length, or references without words.
    """
    if not free_running:
        raise InputError(
            "text that was decoded with the true words at hand is not scored",
            expected="free-running text: every word follows from words that the system wrote",
            found="teacher forcing",
            remedy="generate the text again, without the reference",
        )
    missing = [name for name in (BRAIN, NOISE) if name not in rows]
    if missing:
        raise InputError(
            "decoded text is scored beside what the system writes from noise",
            expected=f"rows {BRAIN!r} and {NOISE!r}",
            found=f"without {', '.join(missing)}",
            remedy="decode the same number of texts from noise input",
        )
    single = {}
    for name, found in rows.items():
        _check(references, found)
        single[name] = np.array([rouge(r, f) for r, f in zip(references, found)])
    records = []
    for name, found in rows.items():
        against = compare(
            single[name], single[NOISE], unit="text", n_permutations=n_permutations, seed=seed
        )
        records.append(
            {
                "row": name,
                "wer": word_error_rate(references, found),
                "bleu4": bleu(references, found),
                **{
                    f"rouge{k}": float(np.mean([rouge(r, f, k) for r, f in zip(references, found)]))
                    for k in "12l"
                },
                "n": len(references),
                "p_noise": None if name == NOISE else against.p_value,
                "claim": name != NOISE and against.difference > 0 and against.p_value <= 0.05,
            }
        )
    return records


def _grams(text: Sequence[str], n: int) -> Counter:
    return Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))


def _common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], diagonal + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def _check(references: Sequence[str], found: Sequence[str]) -> None:
    if len(references) != len(found) or not any(words(r) for r in references):
        raise DataError(
            "texts cannot be compared",
            expected="one text per reference, and references with words",
            found=f"{len(references)} references with "
            f"{sum(len(words(r)) for r in references)} words, {len(found)} texts",
        )
