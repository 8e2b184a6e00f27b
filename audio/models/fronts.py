"""Front ends: from clips to tokens, by name; a new one is a file here and a line in the table."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tristate.kernels.registry import Registry

FRONTS = Registry(
    "front end",
    {
        "conv": "tristate.audio.models.fronts:Strided",
        "gabor": "tristate.audio.models.gabor:GaborFront",
    },
)


class Front(nn.Module):
    """Makes tokens of clips; what lies behind the end of a clip changes none of them.

    The token ``j`` stands for the position ``j * stride``: a clip of ``L`` positions has
    ``ceil(L / stride)`` tokens, whether it comes alone or padded among longer ones.

    Attributes:
        stride: positions of a clip from one token to the next.
    """

    stride: int

    def forward(self, x: Tensor, seq_idx: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Tokens ``(B, M, d_model)`` and their ``seq_idx (B, M)``.

        Args:
            x: clips ``(B, C, L)``.
            seq_idx: ``(B, L)`` int32: 0, and negative behind the end of a clip.
        """
        raise NotImplementedError


class Strided(Front):
    """A convolution along time: of features, or of a waveform as it is.

    Args:
        in_chans: rows of the features; 1 for a waveform.
        d_model: width of a token.
        sample_rate: of the waveform, in Hz; not looked at.
        kernel_size: positions that a token sees.
        stride: positions from one token to the next.
        standardise: take off each clip's mean and divide by its deviation first, so that loudness
            does not count.
    """

    def __init__(
        self,
        in_chans: int,
        d_model: int,
        sample_rate: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        standardise: bool = False,
    ) -> None:
        super().__init__()
        if not 1 <= stride <= kernel_size:
            raise ValueError(
                "stride must be at least 1 and at most kernel_size, or positions would be skipped; "
                f"got {stride} and {kernel_size}"
            )
        self.stride, self.standardise = stride, standardise
        self.proj = nn.Conv1d(in_chans, d_model, kernel_size, stride)

    def forward(self, x: Tensor, seq_idx: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Tokens ``(B, M, d_model)`` of ``x (B, in_chans, L)``, and their ``seq_idx``."""
        if self.standardise:
            x = standardise(x, seq_idx)
        elif seq_idx is not None:
            x = silence(x, seq_idx)
        x = extend(x, self.proj.kernel_size[0], self.stride)
        return self.proj(x).mT, None if seq_idx is None else seq_idx[:, :: self.stride]


def extend(x: Tensor, window: int, stride: int) -> Tensor:
    """``x (B, C, L)`` with zeros around it: windows around ``0, stride, ...`` up to its end fit."""
    length = x.shape[-1]
    count = -(-length // stride)
    before = window // 2
    return F.pad(x, (before, (count - 1) * stride + window - before - length))


def silence(x: Tensor, seq_idx: Tensor) -> Tensor:
    """``x (B, C, L)`` with zeros where ``seq_idx (B, L)`` is negative."""
    return x.where(seq_idx[:, None] >= 0, 0)


def standardise(x: Tensor, seq_idx: Tensor | None = None) -> Tensor:
    """``x (B, C, L)`` with mean 0 and deviation 1 in each clip; zeros where there is padding."""
    if seq_idx is None:
        mean, var = x.mean((1, 2), keepdim=True), x.var((1, 2), keepdim=True, correction=0)
        return (x - mean) * (var + 1e-5).rsqrt()
    x = silence(x, seq_idx)
    count = (seq_idx >= 0).sum(1)[:, None, None] * x.shape[1]
    mean = x.sum((1, 2), keepdim=True) / count
    apart = silence(x - mean, seq_idx)
    return apart * (apart.square().sum((1, 2), keepdim=True) / count + 1e-5).rsqrt()


class Holes(nn.Module):
    """Covers bands and stretches of features with zeros, in training only.

    Args:
        n_time: stretches of a clip that are covered.
        time: largest length of one, in columns.
        n_freq: bands that are covered.
        freq: largest height of one, in rows.

    Source: Park et al. 2019, https://arxiv.org/abs/1904.08779 (SpecAugment), without warping.
    """

    def __init__(self, n_time: int = 0, time: int = 0, n_freq: int = 0, freq: int = 0) -> None:
        super().__init__()
        if min(n_time, time, n_freq, freq) < 0:
            raise ValueError(
                "counts and lengths of holes must be at least 0, "
                f"got {n_time}, {time}, {n_freq} and {freq}"
            )
        self.n_time, self.time, self.n_freq, self.freq = n_time, time, n_freq, freq

    def forward(self, x: Tensor) -> Tensor:
        """``x (B, F, T)``, each clip with holes of its own."""
        if not self.training:
            return x
        for count, most, axis in ((self.n_time, self.time, 2), (self.n_freq, self.freq, 1)):
            size = x.shape[axis]
            places = torch.arange(size, device=x.device)
            for _ in range(count if most else 0):
                first, width = torch.rand(2, len(x), 1, device=x.device)
                width = width * (min(most, size) + 1)
                first = first * (size + 1 - width)
                hole = (places >= first.floor()) & (places < first.floor() + width.floor())
                x = x.masked_fill(hole.unsqueeze(3 - axis), 0)
        return x
