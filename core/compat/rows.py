"""Steps whose states are some of the rows of a larger tensor, as servers keep them."""

from collections.abc import Callable

from torch import Tensor


def update(
    step: Callable[..., Tensor], state: Tensor, places: Tensor, x: Tensor, *others: Tensor | None
) -> Tensor:
    """``step(states, x, *others)`` with row ``places[b]`` of ``state`` for row ``b``.

    Args:
        step: writes the states it is given in place, and returns an output like ``x``.
        state: all states; those in ``places`` are written.
        places: ``(B,)`` integers; a row with one below 0 is left out, and its output is 0.
        x: ``(B, ...)``.
        *others: more of ``step``'s arguments, ``(B, ...)`` each or None.
    """
    used = places >= 0
    taken = places[used].long()
    states = state[taken]
    out = x.new_zeros(x.shape)
    out[used] = step(
        states, x[used], *(other if other is None else other[used] for other in others)
    )
    state[taken] = states
    return out
