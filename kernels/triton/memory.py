"""States and rows that a program keeps in memory, and works on piece by piece.

A state ``(K, V)`` has more numbers than a thread has registers for beside all else. What a program
alone reads and writes stays in the caches.
"""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportGeneralTypeIssues=false, reportOptionalOperand=false

import triton
import triton.language as tl

from tristate.kernels.triton.axes import lanes, piece_of


@triton.jit
def state_at(tile, i, j, d_key, d_value, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr):
    """A piece ``(V, K)`` of a state in memory: where in ``(K, V)`` it lies, and what there is.

    Of the keys the ``i``-th piece, of the values the ``j``-th.
    """
    key, is_key = piece_of(tile, i, d_key, BLOCK_K)
    value, is_value = piece_of(tile, j, d_value, BLOCK_V)
    return value[:, None] + key[None, :] * d_value, is_value[:, None] & is_key[None, :]


@triton.jit
def put_state(
    source, target, there, tile, j, n_j, d_key, d_value,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """Copy pieces of a state from the ``j``-th of the values on, ``n_j`` of them.

    Zeros where it isn't ``there``, or there is no source.
    """
    for i in tl.range(0, tl.cdiv(d_key, BLOCK_K), disable_licm=True):
        for m in tl.range(0, n_j, disable_licm=True):
            at, inside = state_at(tile, i, j + m, d_key, d_value, BLOCK_K, BLOCK_V)
            state = tl.zeros([BLOCK_V, BLOCK_K], tl.float32)
            if source is not None:
                state = tl.load(source + at, mask=inside & there, other=0)
            tl.store(target + at, state, mask=inside)
    # Other threads of the program read what these wrote.
    tl.debug_barrier()


@triton.jit
def own_at(first, i, t, channel, size, BLOCK_T: tl.constexpr):
    """Where numbers ``(T, channels)`` of a part's ``i``-th tile lie, of which those ``first`` are.

    An index in the memory of a program's own: addresses of all that is there would fill registers.
    """
    return first + (i * BLOCK_T + t)[:, None] * size + channel[None, :]


@triton.jit
def table_at(tables, which, tile, BLOCK_T: tl.constexpr):
    """Where the ``which``-th of the tables ``(T, T)`` of a tile lies, an index as :func:`own_at`'s.

    A table that several products take would be split for the matrix units but once, into more
    registers than there are.
    """
    row = tables + (which * BLOCK_T + lanes(tile + which, BLOCK_T)) * BLOCK_T
    return row[:, None] + lanes(tile + which, BLOCK_T)[None, :]


@triton.jit
def state_ends(
    part, state, slope, ends, d_key, d_value,
    BY_KEY: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """To ``ends``: products of the state behind a part and its gradient, by key or in all.

    That is what comes from behind to the logarithms of decays.
    """
    total = tl.zeros([1], tl.float32)
    for m in tl.range(0, tl.cdiv(d_key, BLOCK_K), disable_licm=True):
        by_key = tl.zeros([BLOCK_K], tl.float32)
        for j in tl.range(0, tl.cdiv(d_value, BLOCK_V), disable_licm=True):
            at, inside = state_at(part, m, j, d_key, d_value, BLOCK_K, BLOCK_V)
            here = tl.load(state + at, mask=inside, other=0)
            by_key += tl.sum(here * tl.load(slope + at, mask=inside, other=0), 0)
        if BY_KEY:
            key, is_key = piece_of(part, m, d_key, BLOCK_K)
            tl.store(ends + key, by_key, mask=is_key)
        total += tl.sum(by_key, 0)
    if not BY_KEY:
        tl.store(ends + tl.arange(0, 1), total)
    # What other threads of the program read here is changed next.
    tl.debug_barrier()
