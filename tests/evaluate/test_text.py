"""Word errors, BLEU and ROUGE by hand; F-42: what may be claimed of decoded text."""

from __future__ import annotations

import math

import numpy as np
import pytest

from braindecode_pipe.errors import DataError, InputError
from braindecode_pipe.evaluate.text import (
    bleu,
    edit_distance,
    rouge,
    score_texts,
    word_error_rate,
    words,
)


def naive_distance(a, b):
    if not a or not b:
        return len(a) + len(b)
    return min(
        naive_distance(a[1:], b) + 1,
        naive_distance(a, b[1:]) + 1,
        naive_distance(a[1:], b[1:]) + (a[0] != b[0]),
    )


def test_words_are_compared_without_case_and_punctuation():
    assert words("“Don't go,” she said -- twice.") == ["don't", "go", "she", "said", "twice"]


def test_edit_distance_equals_the_definition():
    rng = np.random.default_rng(0)
    for _ in range(40):
        a, b = (list(rng.choice(list("abc"), rng.integers(0, 6))) for _ in range(2))
        assert edit_distance(a, b) == naive_distance(a, b)


def test_word_error_rate_by_hand():
    # "the cat sat" -> "the hat sat down": 1 substitution and 1 insertion; "a b" -> "": 2 deletions.
    assert word_error_rate(["the cat sat", "a b"], ["the hat sat down", ""]) == 4 / 5
    assert word_error_rate(["a"], ["b c d"]) == 3.0
    assert word_error_rate(["The cat."], ["the cat"]) == 0.0


def test_bleu_by_hand():
    # Papineni's "the the the ...": one of seven unigrams after clipping at two.
    found = bleu(["the cat is on the mat"], ["the the the the the the the"], n=1)
    assert found == pytest.approx(2 / 7)
    # 4 of 5 unigrams, 2 of 4 bigrams, brevity exp(1 - 6 / 5).
    reference, text = "the cat is on the mat", "the cat on a mat"
    expected = math.exp(1 - 6 / 5) * math.sqrt(4 / 5 * 1 / 4)
    assert bleu([reference], [text], n=2) == pytest.approx(expected)
    assert bleu([reference], [text]) == 0.0
    assert bleu([reference], [reference]) == pytest.approx(1.0)
    assert bleu([reference], [""]) == 0.0
    # Counts are added over the corpus before they are divided.
    both = bleu([reference, "a b"], [text, "a b"], n=2)
    expected = math.exp(1 - 8 / 7) * math.sqrt(6 / 7 * 2 / 5)
    assert both == pytest.approx(expected)


def test_rouge_by_hand():
    reference, found = "police killed the gunman", "police kill the gunman"
    assert rouge(reference, found, "l") == pytest.approx(3 / 4)
    assert rouge(reference, "the gunman kill police", "l") == pytest.approx(2 / 4)
    assert rouge(reference, found, "1") == pytest.approx(3 / 4)
    assert rouge(reference, found, "2") == pytest.approx(2 * 1 / (3 + 3))
    assert rouge("a b c d", "a c", "l") == pytest.approx(2 * 2 / (4 + 2))
    assert rouge("a", "", "l") == rouge("a", "b", "2") == 0.0


SENTENCES = [f"the {a} {b} a {c}" for a in ("cat", "dog") for b in ("saw", "ate")
             for c in ("bird", "fish", "leaf")]  # fmt: skip


def test_f42_teacher_forced_text_is_refused():
    rows = {"brain": SENTENCES, "noise input": SENTENCES}
    with pytest.raises(InputError, match="true words at hand"):
        score_texts(SENTENCES, rows, free_running=False)


def test_f42_text_needs_a_row_from_noise():
    with pytest.raises(InputError, match="what the system writes from noise"):
        score_texts(SENTENCES, {"brain": SENTENCES}, free_running=True)


def test_f42_fluent_text_that_noise_writes_as_well_is_no_claim():
    """A prior writes a likely sentence whatever comes in; only text that beats it is evidence."""
    prior = ["the cat saw a bird"] * len(SENTENCES)
    rows = {"brain": prior[1:] + ["the cat saw a fish"], "noise input": prior, "oracle": SENTENCES}
    found = {r["row"]: r for r in score_texts(SENTENCES, rows, free_running=True)}
    assert found["brain"]["rougel"] > 0.5
    assert not found["brain"]["claim"]
    assert found["oracle"]["claim"]
    assert found["oracle"]["p_noise"] <= 0.05
    assert found["oracle"]["wer"] == 0.0
    assert found["noise input"]["p_noise"] is None
    assert {r["n"] for r in found.values()} == {12}


def test_texts_that_cannot_be_compared():
    with pytest.raises(DataError, match="2 references with 2 words, 1 texts"):
        word_error_rate(["a", "b"], ["a"])
    with pytest.raises(DataError, match="1 references with 0 words"):
        bleu(["..."], ["a"])
