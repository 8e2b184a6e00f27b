"""The selective scan of a sequence from both ends, summed."""

from torch import Tensor

from tristate.kernels.cross.branches import Branches
from tristate.kernels.cross.choice import run
from tristate.kernels.selective.checks import check_scan

Either = Tensor | tuple[Tensor, Tensor]


def bidirectional_selective_scan(
    u: Either,
    delta: Either,
    A: Either,
    B: Either,
    C: Either,
    D: Either | None = None,
    z: Tensor | None = None,
    delta_bias: Either | None = None,
    delta_softplus: bool = False,
    *,
    seq_idx: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Two selective scans, one reading ahead and one back: their sum, gated.

    ``out = (scan(ahead) + scan(back, reverse=True)) silu(z)``, with
    :func:`tristate.kernels.selective_scan` less its gate. An input is a tensor that both share, or
    a pair ``(ahead, back)`` of one shape: Vim's branches share ``z``, those of AuM's Fo-Bi block
    all but ``A``. Forward and backward hold at most four times the inputs beyond them.

    Args:
        u: input, ``(B, D, L)``, any strides; a ``(B, L, D)`` tensor transposed is as fast.
        delta: step sizes, ``(B, D, L)``.
        A: decay rates, ``(D, N)``, real; below 0 for a stable recurrence.
        B: input weights, ``(D, N)``, ``(B, N, L)`` or ``(B, G, N, L)``.
        C: output weights, like ``B``.
        D: weight of the input in the output, ``(D,)``.
        z: gate, ``(B, D, L)``, of both.
        delta_bias: added to ``delta``, ``(D,)``.
        delta_softplus: apply softplus to the step sizes, after the bias.
        seq_idx: segment of each position, ``(B, L)`` integers. Where it changes the state starts
            from zero, in either direction; a negative one marks padding: its output is 0.
        backend: ``"auto"``, or one of :func:`tristate.kernels.backend.available_backends`.

    Returns:
        The output, ``(B, D, L)`` in the dtype of ``u``, summed in float32 at least.

    Raises:
        ValueError: shapes, dtypes or devices disagree, ``A`` is complex, or the backend can't run
            this.

    Source: Zhu et al. 2024, https://arxiv.org/abs/2401.09417, algorithm 1; Erol et al. 2024,
    https://arxiv.org/abs/2406.03344, figure 2 (Fo-Bi).
    """
    fields = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "delta_bias": delta_bias}
    for name, field in fields.items():
        _check_pair(name, field)
    for k in (0, 1):
        x = {
            name: field[k] if isinstance(field, tuple) else field for name, field in fields.items()
        }
        if x["A"].is_complex():
            raise ValueError(f"A must be real, got {x['A'].dtype}")
        check_scan(**x, z=z, initial_state=None, seq_idx=seq_idx)
    inputs = Branches(
        _field(u),
        _field(delta),
        _field(A),
        _field(B),
        _field(C),
        _field(D),
        _field(delta_bias),
        _field(z),
    )
    return run("bidirectional_selective_scan", inputs, seq_idx, delta_softplus, (0, 2), 0, backend)


def _check_pair(name: str, field: Either | None) -> None:
    if not isinstance(field, tuple):
        return
    if len(field) != 2:
        raise ValueError(f"{name} must be a tensor or a pair, got {len(field)} tensors")
    ahead, back = field
    if ahead.shape != back.shape or ahead.dtype != back.dtype:
        raise ValueError(
            f"both {name} must be alike, got {ahead.dtype} {tuple(ahead.shape)} and "
            f"{back.dtype} {tuple(back.shape)}"
        )


def _field(field: Either | None) -> list[Tensor]:
    """An input as :class:`Branches` has them."""
    if field is None:
        return []
    return [*field] if isinstance(field, tuple) else [field]
