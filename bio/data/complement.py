"""The other strand, read in its own direction: of letters and of ids."""

import torch
from torch import Tensor

_BASES = str.maketrans("ACGTacgt", "TGCAtgca")
# S, W and N are their own complements.
_IUPAC = str.maketrans("ACGTRYKMBDHVacgtrykmbdhv", "TGCAYRMKVHDBtgcayrmkvhdb")


def reverse_complement(sequence: str, *, iupac: bool = True) -> str:
    """The reverse complement of ``sequence``; other characters stay what they are.

    Args:
        sequence: letters of either case, which is kept.
        iupac: complement the letters for several bases too, such as R (A or G) to Y (C or T).
            HyenaDNA and Caduceus leave these as they are.
    """
    return sequence.translate(_IUPAC if iupac else _BASES)[::-1]


def reverse_complement_ids(ids: Tensor, complement: Tensor, pad_id: int | None = None) -> Tensor:
    """The reverse complement of sequences of ids.

    Args:
        ids: ``(..., L)``.
        complement: the complement of each id, ``(vocab_size,)``.
        pad_id: an id that fills up on the left; it is kept there. None where nothing is padded.

    Returns:
        ``(..., L)``.
    """
    other = complement[ids].flip(-1)
    if pad_id is None:
        return other
    # The padding came to stand on the right: turn each row until it is on the left again.
    length = ids.shape[-1]
    padding = (ids != pad_id).long().cummax(-1).values.eq(0).sum(-1, keepdim=True)
    places = torch.arange(length, device=ids.device) - padding
    return other.gather(-1, places.remainder(length))
