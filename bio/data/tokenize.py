"""Letters as ids: the character tokenisers of HyenaDNA and Caduceus."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from tristate.bio.data.complement import reverse_complement

SPECIAL = ["[CLS]", "[SEP]", "[BOS]", "[MASK]", "[PAD]", "[RESERVED]", "[UNK]"]
LETTERS = "ACGTN"
VOCABULARY = {token: number for number, token in enumerate([*SPECIAL, *LETTERS])}

# What the originals know as special; [RESERVED] only keeps its place.
_KNOWN = [token for token in SPECIAL if token != "[RESERVED]"]
_SPLIT = re.compile(f"({'|'.join(map(re.escape, _KNOWN))})")


class CharacterTokenizer:
    """One id a letter, by a table of 256: twelve ids, what is unknown is ``[UNK]``.

    Ids are the same in all of the originals. They differ in lower-case letters, which are unknown
    to HyenaDNA and folded by Caduceus, and in ``[CLS]``, which HyenaDNA's stand-alone version puts
    first. Padding is on the left; truncation keeps the beginning of a text and its ``[SEP]``.

    Args:
        fold_case: read lower-case letters as upper-case ones.
        cls: ``special`` puts ``[CLS]`` first too, not only ``[SEP]`` last.

    Source: Nguyen et al. 2023, https://arxiv.org/abs/2306.15794; Schiff et al. 2024,
    https://arxiv.org/abs/2403.03234.
    """

    cls_id, sep_id, bos_id, mask_id, pad_id, _, unk_id = range(len(SPECIAL))
    vocab_size = len(VOCABULARY)
    base_ids = tuple(VOCABULARY[letter] for letter in "ACGT")

    def __init__(self, *, fold_case: bool, cls: bool = False) -> None:
        self.fold_case, self.cls = fold_case, cls
        table = np.full(256, self.unk_id, np.uint8)
        for letter in LETTERS:
            table[ord(letter)] = VOCABULARY[letter]
            if fold_case:
                table[ord(letter.lower())] = VOCABULARY[letter]
        self._table = table
        self._names = np.array(list(VOCABULARY), dtype=object)

    @property
    def vocabulary(self) -> dict[str, int]:
        """Token to id."""
        return dict(VOCABULARY)

    def complement(self, size: int | None = None) -> Tensor:
        """The id of each id's complement, ``(size,)`` int64; what has none is its own.

        Args:
            size: a vocabulary padded to so many ids; by default 12.
        """
        table = torch.arange(self.vocab_size if size is None else size)
        for letter in LETTERS:
            table[VOCABULARY[letter]] = VOCABULARY[reverse_complement(letter)]
        return table

    def tokens(self, text: str) -> list[str]:
        """``text`` cut up: letters and special tokens."""
        tokens: list[str] = []
        for part in _SPLIT.split(text):
            tokens += [part] if part in _KNOWN else (part.upper() if self.fold_case else part)
        return tokens

    def encode(self, text: str, *, special: bool = True, max_length: int | None = None) -> Tensor:
        """The ids of ``text``.

        Args:
            text: letters, and special tokens by name.
            special: add ``[SEP]``, and ``[CLS]`` where this tokeniser does.
            max_length: truncate and pad to so many ids. What is empty stays empty, as in the
                originals.

        Returns:
            ``(L,)`` int64.
        """
        if "[" in text:
            parts = [
                np.array([VOCABULARY[part]]) if part in _KNOWN else self._letters(part)
                for part in _SPLIT.split(text)
            ]
            ids = np.concatenate(parts)
        else:
            ids = self._letters(text)
        if special:
            head, tail = [self.cls_id] if self.cls else [], [self.sep_id]
            if max_length is not None:
                ids = ids[: max(0, max_length - len(head) - len(tail))]
            ids = np.concatenate([head, ids, tail])
        if max_length is not None and len(ids):
            ids = ids[:max_length]
            ids = np.pad(ids, (max_length - len(ids), 0), constant_values=self.pad_id)
        return torch.from_numpy(ids.astype(np.int64))

    def encode_batch(
        self, texts: Sequence[str], *, special: bool = False, max_length: int | None = None
    ) -> Tensor:
        """The ids of several texts, filled up on the left to the longest or to ``max_length``.

        Returns:
            ``(B, L)`` int64.
        """
        rows = [self.encode(text, special=special, max_length=max_length) for text in texts]
        length = max((len(row) for row in rows), default=0) if max_length is None else max_length
        batch = torch.full((len(rows), length), self.pad_id)
        for place, row in zip(batch, rows, strict=True):
            if len(row):
                place[-len(row) :] = row
        return batch

    def encode_letters(self, letters: np.ndarray) -> Tensor:
        """The ids of ASCII codes, uint8 of any shape; no special tokens are looked for.

        Returns:
            int64 of the same shape.
        """
        return torch.from_numpy(self._table[letters].astype(np.int64))

    def decode(self, ids: Tensor | Iterable[int], *, skip_special: bool = False) -> str:
        """The tokens of ``ids`` one after another.

        Args:
            ids: ``(L,)``.
            skip_special: leave out the special tokens, ``[UNK]`` too.
        """
        numbers = np.asarray(ids if isinstance(ids, Tensor) else list(ids), dtype=np.int64)
        if skip_special:
            numbers = numbers[~np.isin(numbers, [VOCABULARY[token] for token in _KNOWN])]
        return "".join(self._names[numbers])

    def _letters(self, text: str) -> np.ndarray:
        # What is no Latin-1 becomes a question mark: one unknown id a character.
        return self._table[np.frombuffer(text.encode("latin-1", "replace"), np.uint8)]


def hyenadna_tokenizer(*, standalone: bool = False) -> CharacterTokenizer:
    """HyenaDNA's: lower case is unknown; ``standalone`` begins with ``[CLS]``."""
    return CharacterTokenizer(fold_case=False, cls=standalone)


def caduceus_tokenizer() -> CharacterTokenizer:
    """Caduceus': lower case is folded."""
    return CharacterTokenizer(fold_case=True)
