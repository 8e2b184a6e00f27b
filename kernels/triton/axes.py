"""Axes of tiles that are found anew for each tile, so that none of it stays in registers."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

import triton
import triton.language as tl


@triton.jit
def lanes(tile, N: tl.constexpr):
    """``tl.arange(0, N)``, which seems to depend on the tile: its number is never negative.

    Addresses and masks made of what doesn't depend on it are found once, before the loops, and fill
    registers all through them. A multiple of 16 is added: numbers that are neighbours in memory are
    still seen to be read together.
    """
    return 16 * tl.minimum(tile, 0) + tl.arange(0, N)


@triton.jit
def axes_of(
    tile, block, d_key, d_value, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr
):
    """Steps, keys and values of a tile, and which keys and values there are."""
    key, value = lanes(tile, BLOCK_K), block * BLOCK_V + lanes(tile, BLOCK_V)
    return lanes(tile, BLOCK_T), key, key < d_key, value, value < d_value


@triton.jit
def state_at(tile, block, d_key, d_value, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr):
    """Where the numbers of a state ``(V, K)`` lie in ``(K, V)``, and which there are."""
    key, value = lanes(tile, BLOCK_K), block * BLOCK_V + lanes(tile, BLOCK_V)
    at = value[:, None] + key[None, :] * d_value
    return at, (value < d_value)[:, None] & (key < d_key)[None, :]
