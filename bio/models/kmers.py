"""Letters as vectors, together with the letters before them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tristate.bio.data.tokenize import CharacterTokenizer


class KmerEmbedding(nn.Module):
    """The sum of an embedding of each letter and of the last k letters, for several k.

    Only what is already read counts, so that a causal model stays causal. Where one of the k
    letters is no base, or lies before the beginning, one vector of its own stands for them.

    Args:
        d_model: width.
        vocab_size: ids are below it.
        kmers: the k, each from 2 to 9; ``4**k + 1`` vectors each. Empty for the letters alone.
        base_ids: the ids of A, C, G and T.

    Raises:
        ValueError: a k is out of range.
    """

    def __init__(
        self,
        d_model: int,
        *,
        vocab_size: int = CharacterTokenizer.vocab_size,
        kmers: Sequence[int] = (),
        base_ids: Sequence[int] = CharacterTokenizer.base_ids,
    ) -> None:
        super().__init__()
        if any(not 2 <= k <= 9 for k in kmers):
            raise ValueError(f"kmers are from 2 to 9 letters long, got {list(kmers)}")
        self.kmers = tuple(kmers)
        self.letters = nn.Embedding(vocab_size, d_model)
        self.tables = nn.ModuleList(nn.Embedding(4**k + 1, d_model) for k in self.kmers)
        codes = torch.full((vocab_size,), -1)
        codes[list(base_ids)] = torch.arange(len(base_ids))
        self.register_buffer("codes", codes, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Letters as far apart as the blocks' outputs; k-mers, most of which are rare, near 0."""
        nn.init.normal_(self.letters.weight, std=0.5)
        for table in self.tables:
            nn.init.normal_(table.weight, std=0.02)  # pyright: ignore[reportArgumentType]

    def forward(self, ids: Tensor, seq_idx: Tensor | None = None) -> Tensor:
        """``(B, L, d_model)`` of ids ``(B, L)``; negative ``seq_idx (B, L)`` count as no bases."""
        out = self.letters(ids)
        if not self.tables:
            return out
        codes: Tensor = self.codes[ids]  # pyright: ignore[reportIndexIssue]
        if seq_idx is not None:
            codes = codes.masked_fill(seq_idx < 0, -1)
        for k, table in zip(self.kmers, self.tables, strict=True):
            out = out + table(kmer_numbers(codes, k))
        return out


def kmer_numbers(codes: Tensor, k: int) -> Tensor:
    """The k letters up to each position as one number, base 4; ``4**k`` where one is no base.

    Args:
        codes: 0 to 3 for bases, negative for all else, ``(B, L)``.
        k: letters.

    Returns:
        ``(B, L)`` int64.
    """
    length = codes.shape[1]
    padded = nn.functional.pad(codes, (k - 1, 0), value=-1)
    numbers, known = torch.zeros_like(codes), torch.ones_like(codes, dtype=torch.bool)
    for at in range(k):
        piece = padded[:, at : at + length]
        numbers = 4 * numbers + piece
        known = known & (piece >= 0)
    return numbers.masked_fill(~known, 4**k)
