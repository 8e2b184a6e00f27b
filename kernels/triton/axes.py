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
def piece_of(tile, i, size, BLOCK: tl.constexpr):
    """The channels of an axis's ``i``-th piece, and which of them there are."""
    channel = i * BLOCK + lanes(tile + i, BLOCK)
    return channel, channel < size


@triton.jit
def tiles_from(first, most, length, BLOCK_T: tl.constexpr):
    """How many tiles there are from the ``first`` on, up to so many, of ``length`` positions."""
    return tl.minimum(most, tl.maximum(tl.cdiv(length, BLOCK_T) - first, 0))


@triton.jit
def once(tile):
    """One, which the compiler doesn't know: what is in a loop of so many turns stays together.

    Parts of tiles that several products have in common are found but once, and fill registers from
    the first product to the last.
    """
    return tl.minimum(tile, 0) + 1


@triton.jit
def uncounted(i, n):
    """``i``, which the compiler doesn't see to count; ``n`` is a number that isn't negative.

    Of a number that counts it makes one for each address that it leads to, all of which stay in
    registers all through the loop.
    """
    return i ^ tl.minimum(n, 0)
