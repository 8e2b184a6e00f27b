"""Long convolutions of a sequence that comes in pieces: the past is handed on as it came."""

import torch
from torch import Tensor

from tristate.core.mixer import at_least_float32
from tristate.kernels.longconv import long_conv


def convolve(
    x: Tensor, taps: Tensor, D: Tensor | None = None, past: Tensor | None = None
) -> Tensor:
    """Causal convolution of ``x (B, D, L)`` that came after ``past (B, D, T)``.

    ``y[t] = D x[t] + sum_j taps[j] x[t - j]``. One position costs O(D T), more than one a transform
    of all ``T + L``.

    Args:
        x: the new inputs.
        taps: ``(D, K)``, or ``(C, D, K)`` for ``C`` outputs of every channel; what is more than
            ``K - 1`` positions back has no weight.
        D: weight of the input itself, ``(D,)`` or ``(C, D)`` as the taps have it.
        past: inputs before the first, the newest last; none when absent.

    Returns:
        ``(B, D, L)``, or ``(B, C, D, L)``, in the dtype of ``x``.
    """
    length, reach = x.shape[2], taps.shape[-1] - 1
    stream = x
    if past is not None:
        stream = torch.cat([past[..., max(0, past.shape[2] - reach) :].to(x.dtype), x], 2)
    taps = taps[..., : stream.shape[2]]
    if length > 1:
        return long_conv(stream, taps, D)[..., -length:]
    wide = at_least_float32(stream)
    wide = wide if taps.dim() == 2 else wide[:, None]
    y = (wide * taps.flip(-1).to(wide.dtype)).sum(-1, keepdim=True)
    if D is not None:
        y = y + D[..., None].to(y.dtype) * wide[..., -1:]
    return y.to(x.dtype)


def keep(x: Tensor, past: Tensor | None, reach: int | None = None) -> Tensor:
    """The last ``reach`` inputs of ``past (B, D, T)`` and ``x (B, D, L)``, or all of them."""
    stream = x if past is None else torch.cat([past.to(x.dtype), x], 2)
    if reach is None:
        return stream
    return stream[..., max(0, stream.shape[2] - reach) :]
