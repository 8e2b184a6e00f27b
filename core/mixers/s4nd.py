"""S4ND: state-space models along each axis of an image or a volume, as one convolution."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tristate.core.arguments import call
from tristate.core.grid import GridMixer
from tristate.core.parts.pointwise import make_output
from tristate.core.ssm.base import StateSpace
from tristate.core.ssm.table import SSMS
from tristate.kernels.longconv import long_conv, two_sided


class AxisKernels(nn.Module):
    """Depthwise convolution of a grid with the outer product of one kernel an axis.

    ``y[c] = D[c] x + sum_r (k_1[r, c] (x) k_2[r, c] (x) ...) * x / R``: each factor is the kernel
    of a state-space model of its own along one axis, one- or two-sided. The backward half of a
    two-sided one begins at lag -1: the position itself is the forward half's.

    The factors are continuous functions of the place, so the same weights fit any resolution: with
    the models' ``rate`` at 0.5 the grid is read as one twice as fine.

    Args:
        ssms: one an axis, each with ``n_terms * channels`` outputs, twice as many where it is
            bidirectional: the forward half first.
        channels: outputs of every channel.
        n_terms: products that are averaged, ``R``; one makes the kernel separable.
        bidirectional: along each axis, look back and ahead.
        kernel_lengths: how far each axis looks, in positions at rate 1; None for all of it.

    Raises:
        ValueError: not one entry an axis, or a model has another number of outputs.

    Source: Nguyen et al. 2022, https://arxiv.org/abs/2210.06583, section 3; details after
    https://github.com/state-spaces/s4.
    """

    def __init__(
        self,
        ssms: Sequence[StateSpace],
        *,
        channels: int = 1,
        n_terms: int = 1,
        bidirectional: bool | Sequence[bool] = True,
        kernel_lengths: Sequence[int | None] | None = None,
    ) -> None:
        super().__init__()
        self.d_model, self.n_axes = ssms[0].d_model, len(ssms)
        self.channels, self.n_terms = channels, n_terms
        self.ssms: Any = nn.ModuleList(ssms)
        self.bidirectional = per_axis("bidirectional", bidirectional, self.n_axes)
        self.kernel_lengths = per_axis("kernel_lengths", kernel_lengths, self.n_axes)
        for ssm, sides in zip(ssms, self.bidirectional, strict=True):
            if ssm.channels != (1 + sides) * n_terms * channels:
                raise ValueError(
                    f"{1 + sides} sides, {n_terms} terms and {channels} channels need as many "
                    f"outputs of each model as their product, got {ssm.channels}"
                )
        self.D = nn.Parameter(torch.randn(channels, self.d_model))
        self.D._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]

    def factors(self, grid: Sequence[int]) -> tuple[list[Tensor], list[int]]:
        """The kernel along each axis, ``(R, C, D, taps)``, and which of its taps has lag 0."""
        kernels, origins = [], []
        axes = zip(self.ssms, grid, self.kernel_lengths, self.bidirectional, strict=True)
        for ssm, length, most, sides in axes:
            if most is not None:
                length = min(length, round(most / ssm.rate))
            kernel = ssm.kernel(length)
            if sides:
                kernel = two_sided(*kernel.chunk(2))
            origins.append(length if sides else 0)
            kernels.append(kernel.unflatten(0, (self.n_terms, self.channels)))
        return kernels, origins

    def kernel(self, grid: Sequence[int]) -> tuple[Tensor, list[int]]:
        """The whole kernel for a grid, ``(C, D, *taps)``, without ``D``, and its tap with lag 0.

        What :meth:`forward` applies, to be looked at.
        """
        kernels, origins = self.factors(grid)
        whole = kernels[0]
        for kernel in kernels[1:]:
            whole = whole[..., None] * kernel.reshape(
                *kernel.shape[:3], *[1] * (whole.dim() - 3), kernel.shape[-1]
            )
        return whole.mean(0), origins

    def forward(self, x: Tensor) -> Tensor:
        """``(B, *grid, C * d_model)`` for ``x (B, *grid, d_model)``."""
        kernels, origins = self.factors(x.shape[1:-1])
        y = x
        # A product of kernels is applied an axis at a time: no transform of the grid, no kernel of
        # its size. The first makes all terms and outputs of a channel, which then go apart.
        for axis, (kernel, origin) in enumerate(zip(kernels, origins, strict=True), 1):
            taps = kernel.flatten(0, 1) if axis == 1 else kernel.flatten(0, 2)
            rows = y.movedim(axis, -1)  # (B, *others, channels, L)
            found = long_conv(rows.flatten(0, -3), taps, origin=origin)
            found = found.flatten(1, -2).unflatten(0, rows.shape[:-2])
            y = found.movedim(-1, axis)
        y = y.unflatten(-1, (self.n_terms, -1)).mean(-2)
        skipped = self.D.to(x.dtype) * x[..., None, :]
        return y + skipped.flatten(-2)


class StateSpaceGrid(GridMixer):
    """``output(conv(x))``: a convolution of the grid, then channels mix.

    Args:
        conv: the convolution.
        activation: behind it, a name in :data:`tristate.core.activation.ACTIVATIONS`.
        output: what follows, a name in :data:`tristate.core.parts.pointwise.OUTPUTS`.
        dropout: rate, behind the activation and at the end.
    """

    def __init__(
        self,
        conv: AxisKernels,
        *,
        activation: str = "gelu",
        output: str = "glu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.d_model, self.n_axes, self.conv = conv.d_model, conv.n_axes, conv
        self.output = make_output(
            output,
            conv.channels * conv.d_model,
            conv.d_model,
            activation=activation,
            dropout=dropout,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``x (B, *grid, d_model)``."""
        self.check(x)
        y = self.conv(x)
        return self.output(y.flatten(1, -2)).unflatten(1, x.shape[1:-1])


class S4ND(StateSpaceGrid):
    """Convolution by state-space models along each axis, then activation and gate.

    ``output(conv(x))`` with :class:`AxisKernels`: every position sees the whole grid, through
    kernels that are functions of the distance along each axis. Time O(M log M) for ``M``
    positions, memory O(M).

    A model may be used at another resolution than it was trained at: set ``rate`` to the ratio of
    the distances between positions, new over old (:func:`tristate.core.rate.set_rate` does so for a
    whole model). A band limit keeps frequencies out of the kernels that the coarser grid can't
    show, so that the finer one meets nothing it was not trained on.

    Args:
        d_model: width of input and output.
        n_axes: of the grid: 1, 2 or 3.
        d_state: states of each kernel.
        channels: outputs of every channel.
        n_terms: products that are averaged into the kernel.
        bidirectional: along each axis, look back and ahead; one word or one an axis. Along an axis
            that isn't, no position sees a later one.
        kernel_lengths: how far each axis looks, in positions at rate 1; None for all of it.
        ssm: what stands along an axis, a name in :data:`tristate.core.ssm.table.SSMS`:
            ``"low_rank"`` (S4) or ``"diagonal"`` (S4D).
        bandlimit: share of the frequencies that the grid can show, beyond which kernels are cut
            off: 1 leaves out only what aliases. None for no limit.
        activation: behind the convolution; a name in
            :data:`tristate.core.activation.ACTIVATIONS`.
        output: what follows, a name in :data:`tristate.core.parts.pointwise.OUTPUTS`.
        dropout: rate, behind the activation and at the end.
        **kernel: the other arguments of :class:`tristate.core.ssm.low_rank.LowRankSSM` or
            :class:`tristate.core.ssm.diagonal.DiagonalSSM`: ``init``, ``dt_min`` and the like.

    Raises:
        ValueError: an argument is out of range.
        KeyError: the state-space model is unknown.

    Source: Nguyen et al. 2022, https://arxiv.org/abs/2210.06583.
    """

    def __init__(
        self,
        d_model: int,
        *,
        n_axes: int = 2,
        d_state: int = 64,
        channels: int = 1,
        n_terms: int = 1,
        bidirectional: bool | Sequence[bool] = True,
        kernel_lengths: Sequence[int | None] | None = None,
        ssm: str = "low_rank",
        bandlimit: float | None = None,
        activation: str = "gelu",
        output: str = "glu",
        dropout: float = 0.0,
        **kernel: Any,
    ) -> None:
        if n_axes not in (1, 2, 3):
            raise ValueError(f"n_axes must be 1, 2 or 3, got {n_axes}")
        options = {"d_state": d_state, "bandlimit": bandlimit, **kernel}
        conv = AxisKernels(
            [
                call(SSMS[ssm], d_model, channels=(1 + sides) * n_terms * channels, **options)
                for sides in per_axis("bidirectional", bidirectional, n_axes)
            ],
            channels=channels,
            n_terms=n_terms,
            bidirectional=bidirectional,
            kernel_lengths=kernel_lengths,
        )
        super().__init__(conv, activation=activation, output=output, dropout=dropout)


def per_axis(name: str, given: Any, n_axes: int) -> list[Any]:
    """One entry an axis: those given, or the one given for all.

    Raises:
        ValueError: there are more or fewer entries than axes.
    """
    entries = list(given) if isinstance(given, Sequence) else [given] * n_axes
    if len(entries) != n_axes:
        raise ValueError(f"{name} needs one entry an axis, {n_axes}, got {len(entries)}")
    return entries
