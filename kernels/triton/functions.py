"""Functions of tiles that the kernels share."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false

import triton
import triton.language as tl


@triton.jit
def affine(decay, entering, later_decay, later_entering):
    """First ``x -> decay x + entering``, then the later one of the same kind."""
    return later_decay * decay, later_decay * entering + later_entering


@triton.jit
def complex_affine(
    decay_re, decay_im, entering_re, entering_im,
    later_re, later_im, later_entering_re, later_entering_im,
):  # fmt: skip
    """:func:`affine` of complex numbers."""
    return (
        later_re * decay_re - later_im * decay_im,
        later_re * decay_im + later_im * decay_re,
        later_re * entering_re - later_im * entering_im + later_entering_re,
        later_re * entering_im + later_im * entering_re + later_entering_im,
    )


@triton.jit
def softplus(x):
    """``log(1 + exp(x))``, exact to rounding at both ends."""
    small = tl.exp(-tl.abs(x))
    whole = 1 + small
    lost = whole == 1
    # What adding to 1 rounded off is made up for by the quotient (Kahan).
    tail = tl.where(lost, small, small * tl.log(whole) / tl.where(lost, 1, whole - 1))
    return tl.maximum(x, 0) + tail


@triton.jit
def sigmoid(x):
    """``1 / (1 + exp(-x))``."""
    return 1 / (1 + tl.exp(-x))


@triton.jit
def softplus_slope(y):
    """The slope of :func:`softplus` where it is ``y``: ``1 - exp(-y)``, exact to rounding."""
    near = y * (1 - y * (1 / 2 - y * (1 / 6 - y * (1 / 24 - y * (1 / 120)))))
    return tl.where(y < 0.1, near, 1 - tl.exp(-y))


@triton.jit
def tile_at(row, place, stride_t, stride_d, step, lane):
    """Addresses of a tile ``(T, D)``, ``step`` and ``lane`` from ``place`` on in ``row``.

    One address and offsets of 32 bits: those inside a tile are that small.
    """
    return row + place * stride_t + (step[:, None] * stride_t + lane[None, :] * stride_d)


@triton.jit
def load_tile(row, place, stride_t, stride_d, step, lane, inside):
    """A tile in float32, zeros outside."""
    at = tile_at(row, place, stride_t, stride_d, step, lane)
    return tl.load(at, mask=inside, other=0).to(tl.float32)


@triton.jit
def store_tile(tile, row, place, stride_t, stride_d, step, lane, inside):
    """Writes a tile in the dtype of ``row``."""
    at = tile_at(row, place, stride_t, stride_d, step, lane)
    tl.store(at, tile.to(row.dtype.element_ty), mask=inside)


@triton.jit
def row_of(x, is_row):
    """The row of a tile in registers that is marked, ``(1, D)``: those can't be indexed."""
    return tl.sum(tl.where(is_row, x, 0), 0)[None, :]


@triton.jit
def row_at(place, inside):
    """Numbers in memory as a row ``(1, D)`` in float32; zeros outside."""
    return tl.load(place, mask=inside, other=0).to(tl.float32)[None, :]


@triton.jit
def column_at(place, inside):
    """Numbers in memory as a column ``(T, 1)`` in float32; zeros outside."""
    return tl.load(place, mask=inside, other=0).to(tl.float32)[:, None]
