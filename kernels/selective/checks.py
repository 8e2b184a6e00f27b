"""What a selective scan must be given."""

from torch import Tensor

from tristate.kernels.checks import (
    expect_floating,
    expect_one_device,
    expect_segments,
    expect_shape,
)


def check_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
) -> None:
    """Refuse inputs of a selective scan that don't fit together.

    Raises:
        ValueError: shapes, dtypes or devices disagree.
    """
    if u.dim() != 3 or u.shape[2] < 1:
        raise ValueError(f"u must be (B, D, L) with L >= 1, got {tuple(u.shape)}")
    batch, dim, length = u.shape
    if A.dim() != 2 or A.shape[0] != dim or A.shape[1] < 1:
        raise ValueError(f"A must be (D, N) with D = {dim}, got {tuple(A.shape)}")
    n_states = A.shape[1]
    expect_shape("delta", delta, (batch, dim, length), "(B, D, L)")
    expect_shape("z", z, (batch, dim, length), "(B, D, L)")
    expect_shape("D", D, (dim,), "(D,)")
    expect_shape("delta_bias", delta_bias, (dim,), "(D,)")
    expect_shape("initial_state", initial_state, (batch, dim, n_states), "(B, D, N)")
    expect_segments(seq_idx, batch, length)
    for name, weight in (("B", B), ("C", C)):
        _check_weight(name, weight, A, batch, length)
    if initial_state is not None and initial_state.is_complex() != A.is_complex():
        raise ValueError(f"initial_state is {initial_state.dtype}, but A is {A.dtype}")
    expect_floating({"u": u, "delta": delta, "D": D, "z": z, "delta_bias": delta_bias})
    tensors = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z}
    others = {"delta_bias": delta_bias, "initial_state": initial_state, "seq_idx": seq_idx}
    expect_one_device({**tensors, **others})


def _check_weight(name: str, weight: Tensor, A: Tensor, batch: int, length: int) -> None:
    dim, n_states = A.shape
    if not (A.is_floating_point() or A.is_complex()):
        raise ValueError(f"A must be floating point or complex, got {A.dtype}")
    varies = weight.dim() != 2
    if weight.is_complex() != (A.is_complex() and not varies):
        raise ValueError(
            f"{name} of {weight.dim()} axes must be {'real' if varies else 'like A'}, "
            f"got {weight.dtype} with A {A.dtype}"
        )
    if not (weight.is_floating_point() or weight.is_complex()):
        raise ValueError(f"{name} must be floating point, got {weight.dtype}")
    steps = length * 2 if A.is_complex() else length
    if weight.dim() == 4:
        groups = weight.shape[1]
        expect_shape(name, weight, (batch, groups, n_states, steps), "(B, G, N, L)")
        if groups < 1 or dim % groups:
            raise ValueError(f"{name} has {groups} groups, which don't divide {dim} channels")
    elif weight.dim() == 3:
        expect_shape(name, weight, (batch, n_states, steps), "(B, N, L)")
    else:
        expect_shape(name, weight, (dim, n_states), "(D, N), (B, N, L) or (B, G, N, L)")
