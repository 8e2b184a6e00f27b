"""Masked letters to be guessed, as BERT's."""

import torch
from torch import Tensor

from tristate.bio.data.tokenize import CharacterTokenizer

IGNORE = -100  # of torch.nn.functional.cross_entropy


def mask_tokens(
    ids: Tensor,
    *,
    rate: float = 0.15,
    generator: torch.Generator | None = None,
    vocab_size: int = CharacterTokenizer.vocab_size,
    mask_id: int = CharacterTokenizer.mask_id,
    ignore: int = IGNORE,
) -> tuple[Tensor, Tensor]:
    """Choose places to be guessed: 80 % become ``[MASK]``, 10 % any id, 10 % stay as they are.

    Drawn in the order that Caduceus draws in, so that the same seed chooses the same places.

    Args:
        ids: of any shape, int64; they are not changed.
        rate: chance of a place to be chosen.
        generator: of all that is random; None for PyTorch's own.
        vocab_size: what is put in at random is below it.
        mask_id: id of ``[MASK]``.
        ignore: label of the places that are not chosen.

    Returns:
        The inputs and the labels, both as ``ids``.

    Source: Devlin et al. 2018, https://arxiv.org/abs/1810.04805, section 3.1.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is a share between 0 and 1, got {rate}")

    def chance(share: float) -> Tensor:
        return torch.bernoulli(torch.full(ids.shape, share), generator=generator).bool()

    chosen = chance(rate)
    masked = chosen & chance(0.8)
    changed = chosen & ~masked & chance(0.5)
    others = torch.randint(vocab_size, ids.shape, generator=generator)
    inputs = torch.where(changed, others, ids.masked_fill(masked, mask_id))
    return inputs, ids.masked_fill(~chosen, ignore)
