"""Sequences of ids as letters on a page."""

from collections.abc import Sequence
from html import escape

from torch import Tensor

SHOWN = 80  # letters


def middle(ids: Tensor, tokens: Sequence[str], pad_id: int, alt: str) -> str:
    """Up to 80 letters around the middle of a sequence, a bar at the middle itself.

    Args:
        ids: ``(L,)``, filled up on the left with ``pad_id``.
        tokens: by id.
        pad_id: is not shown.
        alt: a title for the whole.
    """
    letters = [str(tokens[i]) for i in ids.tolist() if i != pad_id]
    half = len(letters) // 2
    parts = [letters[max(0, half - SHOWN // 2) : half], letters[half : half + SHOWN // 2]]
    left, right = (escape("".join(part)) for part in parts)
    dots = ["…" if len(letters) > 2 * len(part) + 1 else "" for part in parts]
    return (
        f'<code title="{escape(alt, quote=True)}" style="overflow-wrap:anywhere;font-size:0.8rem">'
        f"{dots[0]}{left}<b>|</b>{right}{dots[1]}</code>"
    )
