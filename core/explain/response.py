"""What becomes of an impulse: its response over time, over frequency, and how long it lasts."""

from typing import NamedTuple

import torch
from torch import Tensor

from tristate.core.explain.calls import Call

SOURCES = 16  # positions whose impulses are followed through an op that varies in time


class Response(NamedTuple):
    """The response of a time-invariant op to an impulse, by lag.

    Attributes:
        taps: ``(*channels, K)``; complex where the op's states are.
        origin: index of the tap with lag 0; those before it look ahead.
    """

    taps: Tensor
    origin: int

    def convolve(self, x: Tensor) -> Tensor:
        """``y[t] = sum_j taps[origin + j] x[t - j]`` for ``x (B, *channels, L)``, of its length."""
        length = x.shape[-1]
        t = torch.arange(length, device=x.device)
        index = self.origin + t[:, None] - t
        inside = (index >= 0) & (index < self.taps.shape[-1])
        toeplitz = self.taps[..., index.clamp(0, self.taps.shape[-1] - 1)] * inside
        while x.dim() < self.taps.dim() + 1:
            x = x[:, None]
        return (toeplitz @ x[..., None])[..., 0]

    def spectrum(self, n: int = 512) -> tuple[Tensor, Tensor]:
        """Frequencies ``(F,)`` in cycles a position, 0 to 1/2, and magnitudes ``(*channels, F)``.

        Of complex taps the real part is taken: what a conjugate pair of states makes.

        Args:
            n: least points of the transform, at least as many as taps: zeros fill the rest.
        """
        taps = self.taps.real if self.taps.is_complex() else self.taps
        n = max(n, taps.shape[-1])
        return torch.fft.rfftfreq(n), torch.fft.rfft(taps, n=n).abs()


def impulse_response(call: Call) -> Response:
    """The response of a call of a time-invariant op, without its skip: one run of the op.

    It reaches ``L - 1`` lags for a sequence of ``L``, to both sides where the op looks ahead.

    Raises:
        ValueError: the op varies in time.
    """
    if not call.invariant:
        raise ValueError(f"{call.op.name} varies in time: it has no one impulse response")
    (values,), length = call.values, call.length
    # Room for all lags of either sign around the middle.
    shape = [1, *values.shape[1:]]
    shape[call.op.axis] = 2 * length - 1
    impulse = values.new_zeros(shape)
    impulse.select(call.op.axis, length - 1).fill_(1)
    found = call.output([impulse], call.op.gate, call.op.skip, call.op.state, "seq_idx")
    taps = call.op.laid(found)[0]
    # A transform leaves rounding errors where there is nothing.
    least = 1e3 * torch.finfo(taps.dtype).eps * taps.abs().amax()
    if length == 1 or taps[..., : length - 1].abs().amax() <= least:
        return Response(taps[..., length - 1 :], 0)
    if taps[..., length:].abs().amax() <= least:
        return Response(taps[..., :length], length - 1)
    return Response(taps, length - 1)


def half_life(response: Tensor) -> Tensor:
    """Positions until half of a response's energy is spent, ``(...)`` for ``response (..., K)``.

    The energy ``|r[k]|^2`` of the position at distance ``k`` counts as spread evenly from ``k`` to
    ``k + 1``: an op that only passes an impulse on has 0.5, a decay ``a^k`` has about
    ``ln 2 / (-2 ln a)``, which is half as long as until ``a^k`` itself is 1/2. NaN for no response.
    """
    energy = response.abs().square()
    spent = energy.cumsum(-1) / energy.sum(-1, keepdim=True)
    whole = (spent < 0.5).sum(-1, keepdim=True).clamp(max=response.shape[-1] - 1)
    before = torch.where(whole > 0, spent.gather(-1, (whole - 1).clamp(min=0)), 0)
    part = (0.5 - before) / (spent.gather(-1, whole) - before)
    return (whole + part)[..., 0]


def half_lives(call: Call) -> Tensor:
    """The :func:`half_life` of each channel of a call, ``(S, *channels)``, ``S`` impulses of each.

    An op that is the same at all positions has one. Of any other, impulses at up to ``SOURCES``
    positions of each row are followed to the end of the sequence: what a channel keeps depends on
    the input, so it has many. Only impulses with room to last count: of the first half of the
    sequence where responses come later, of the last half where they come earlier, of the middle
    half where they do both. What isn't spent by the end counts as if it ended there.
    """
    if call.invariant:
        taps, origin = impulse_response(call)
        return half_life(_by_distance(taps, origin))[None]
    found = []
    for part in range(len(call.values)):
        columns, matrix = responses(call, part)
        scale = matrix.shape[-2] / call.length
        origins = [int(column * scale) for column in columns]
        folded = [_by_distance(matrix[..., i], origin) for i, origin in enumerate(origins)]
        found += [half_life(response) for response in folded]
    return torch.cat(found)


def responses(call: Call, part: int) -> tuple[list[int], Tensor]:
    """Positions of impulses, and what becomes of them, ``(B, *channels, L_out, S)``."""
    length = call.length
    spread = torch.linspace(0, length - 1, min(SOURCES, length)).round().int().tolist()
    matrix = call.matrix(part, spread)
    scale, energy = matrix.shape[-2] / length, matrix.abs().square()
    while energy.dim() > 2:
        energy = energy.sum(0)
    later = any(energy[int((s + 1) * scale) :, i].sum() > 0 for i, s in enumerate(spread))
    earlier = any(energy[: int(s * scale), i].sum() > 0 for i, s in enumerate(spread))
    low, high = {
        (True, False): (0.0, 0.5),
        (False, True): (0.5, 1.0),
        (True, True): (0.25, 0.75),
        (False, False): (0.0, 1.0),
    }[later, earlier]
    kept = [i for i, s in enumerate(spread) if low <= (s + 0.5) / length <= high]
    kept = kept or list(range(len(spread)))
    return [spread[i] for i in kept], matrix[..., kept]


def _by_distance(response: Tensor, origin: int) -> Tensor:
    """Amplitudes ``(..., K)`` by the distance from ``origin`` in ``response (..., L)``."""
    energy = response.abs().square()
    ahead, back = energy[..., origin:], energy[..., :origin].flip(-1)
    folded = energy.new_zeros(*energy.shape[:-1], max(ahead.shape[-1], back.shape[-1] + 1))
    folded[..., : ahead.shape[-1]] += ahead
    folded[..., 1 : back.shape[-1] + 1] += back
    return folded.sqrt()
