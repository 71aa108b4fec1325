"""The WordPiece tokenizer of uncased BERT models."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from braindecode_pipe.errors import ModelError

_CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
_MAX_WORD = 100


class WordPiece:
    """Uncased WordPiece: clean, split CJK, strip accents, lower, split, longest match first.

    The steps are those of BERT's ``BasicTokenizer`` and ``WordpieceTokenizer`` (Devlin et al.,
    2019, ``tokenization.py``), in the order of the ``tokenizers`` package. One difference: text is
    data, so "[MASK]" in a text is punctuation and a word, never a special token.

    Parameters
    ----------
    vocabulary : path
        One token per line; the line number is its id.
    max_tokens : int
        Longest sequence with [CLS] and [SEP]; longer texts are cut.
    """

    def __init__(self, vocabulary: Path, max_tokens: int) -> None:
        lines = vocabulary.read_text(encoding="utf-8").split("\n")
        if lines and not lines[-1]:
            lines.pop()
        self.ids = {token: number for number, token in enumerate(lines)}
        missing = [t for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if t not in self.ids]
        if missing:
            raise ModelError(
                "vocabulary without special tokens",
                file=vocabulary.name,
                expected="[PAD] [UNK] [CLS] [SEP]",
                found="no " + ", ".join(missing),
            )
        self.pad = self.ids["[PAD]"]
        self.max_tokens = max_tokens

    def encode(self, text: str) -> list[int]:
        """Token ids of one text, from [CLS] to [SEP]."""
        pieces = [piece for word in split_words(text) for piece in self._pieces(word)]
        pieces = pieces[: self.max_tokens - 2]
        return [self.ids[token] for token in ("[CLS]", *pieces, "[SEP]")]

    def _pieces(self, word: str) -> list[str]:
        if len(word) > _MAX_WORD:
            return ["[UNK]"]
        pieces, start = [], 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(len(word), start, -1):
                if prefix + word[start:end] in self.ids:
                    pieces.append(prefix + word[start:end])
                    start = end
                    break
            else:
                return ["[UNK]"]
        return pieces


def split_words(text: str) -> list[str]:
    """Words and punctuation marks of ``text``: lower case, without accents and control signs."""
    cleaned = []
    for char in text:
        if char in "\t\n\r":
            cleaned.append(" ")
        elif char == "\ufffd" or unicodedata.category(char).startswith("C"):
            continue
        elif char.isspace():
            cleaned.append(" ")
        elif any(low <= ord(char) <= high for low, high in _CJK):
            cleaned.append(f" {char} ")
        else:
            cleaned.append(char)
    decomposed = unicodedata.normalize("NFD", "".join(cleaned))
    plain = "".join(char for char in decomposed if unicodedata.category(char) != "Mn").lower()
    spaced = "".join(f" {char} " if _is_punctuation(char) else char for char in plain)
    return spaced.split()


def _is_punctuation(char: str) -> bool:
    # ASCII signs such as "$" and "^" are symbols in Unicode, but BERT splits at them too.
    ascii_sign = char.isascii() and char.isprintable() and not char.isalnum() and char != " "
    return ascii_sign or unicodedata.category(char).startswith("P")
