"""Sums of simple fractions over pairs of conjugate poles on a GPU, forward and backward.

With ``a = 1 / (z - w)`` and ``b = 1 / (z - conj(w))`` a pair is ``v a + conj(v) b``, that is
``Re(v) s + Im(v) d`` with ``s = a + b`` and ``d = i (a - b)``. Both come from the differences
themselves: their product would cancel where a node is close to a pole. Complex numbers are pairs.
"""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportIndexIssue=false

import triton
import triton.language as tl


@triton.jit
def fractions(z_re, z_im, w_re, w_im):
    """``1 / (z - w)`` and ``1 / (z - conj(w))`` as four parts."""
    x, near, far = z_re - w_re, z_im - w_im, z_im + w_im
    square = x * x
    a, b = 1 / (near * near + square), 1 / (far * far + square)
    return x * a, -near * a, x * b, -far * b


@triton.jit
def forward(
    coefficient, nodes, poles, out, n_rows, n_channels, n_states, length,
    CHANNELS: tl.constexpr, TILES: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_L: tl.constexpr,
):  # fmt: skip
    """``out[r, d, l]`` for ``BLOCK_R`` rows, ``CHANNELS`` channels and ``TILES`` tiles of nodes.

    A fraction is made once for all rows of a program.

    COST: writes ``out`` once; beside it reads the nodes once for every ``BLOCK_R CHANNELS`` of its
    lines, and ``8 N (1 + 1 / BLOCK_R)`` bytes of parameters for the ``8 TILES BLOCK_L`` of a line:
    1.19 times the least with 32 poles. A node and pole take some 40 operations and 8 a row: bound
    by arithmetic; 0.16 ms on an H100 for 4 rows of 256 channels, 8,193 nodes and 32 poles, where
    memory takes 0.02 ms.
    """
    lane, row = tl.arange(0, BLOCK_L), tl.program_id(2) * BLOCK_R + tl.arange(0, BLOCK_R)
    is_row = row < n_rows
    for d in range(tl.program_id(0) * CHANNELS, (tl.program_id(0) + 1) * CHANNELS):
        line = row.to(tl.int64) * n_channels + d
        real = is_row & (d < n_channels)
        for tile in range(tl.program_id(1) * TILES, (tl.program_id(1) + 1) * TILES):
            l = tile * BLOCK_L + lane
            inside = l < length
            # Away from every pole, which outside the sequence could be anywhere.
            z_re = tl.load(nodes + 2 * l, mask=inside, other=0)[None, :]
            z_im = tl.load(nodes + 2 * l + 1, mask=inside, other=0)[None, :]
            y_re = tl.zeros([BLOCK_R, BLOCK_L], tl.float32)
            y_im = tl.zeros([BLOCK_R, BLOCK_L], tl.float32)
            for n in range(n_states):
                w = poles + 2 * (d * n_states + n)
                w_re = tl.load(w, mask=d < n_channels, other=1)
                w_im = tl.load(w + 1, mask=d < n_channels, other=0)
                v = coefficient + 2 * (line * n_states + n)
                v_re = tl.load(v, mask=real, other=0)[:, None]
                v_im = tl.load(v + 1, mask=real, other=0)[:, None]
                a_re, a_im, b_re, b_im = fractions(z_re, z_im, w_re, w_im)
                y_re += v_re * (a_re + b_re) + v_im * (b_im - a_im)
                y_im += v_re * (a_im + b_im) + v_im * (a_re - b_re)
            target = out + 2 * (line[:, None] * length + l[None, :])
            tl.store(target, y_re, mask=real[:, None] & inside[None, :])
            tl.store(target + 1, y_im, mask=real[:, None] & inside[None, :])


@triton.jit
def backward(
    grad, nodes, poles, out, n_rows, n_channels, n_states, length,
    CHANNELS: tl.constexpr, TILES: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_L: tl.constexpr,
):  # fmt: skip
    """What the gradients are made of, of ``TILES`` tiles of nodes.

    ``out[chunk, r, d]`` has four planes of ``N``: the sums over ``l`` of ``Re(conj(g) s)`` and of
    ``Re(conj(g) d)``, and both parts of that of ``g conj(a)**2 + conj(g) b**2``.

    COST: reads ``grad`` once (again for further states, from the first cache); beside it the nodes
    once for every ``BLOCK_R CHANNELS`` of its lines, and ``16 N`` bytes for the ``8 TILES
    BLOCK_L`` of a line are written, and read again to be added up: 1.28 times the least with 32
    poles. A node and pole take some 50 operations and 16 a row: bound by arithmetic, twice as long
    as :func:`forward`.
    """
    lane, row = tl.arange(0, BLOCK_L), tl.program_id(2) * BLOCK_R + tl.arange(0, BLOCK_R)
    chunk, pole = tl.program_id(1), tl.arange(0, BLOCK_N)
    for d in range(tl.program_id(0) * CHANNELS, (tl.program_id(0) + 1) * CHANNELS):
        line = row.to(tl.int64) * n_channels + d
        real = (row < n_rows) & (d < n_channels)
        for first in range(0, n_states, BLOCK_N):
            n = first + pole
            is_pole = (n < n_states) & (d < n_channels)
            w = poles + 2 * (d * n_states + n)
            w_re = tl.load(w, mask=is_pole, other=1)[:, None]
            w_im = tl.load(w + 1, mask=is_pole, other=0)[:, None]
            v_re = tl.zeros([BLOCK_R, BLOCK_N, BLOCK_L], tl.float32)
            v_im = tl.zeros([BLOCK_R, BLOCK_N, BLOCK_L], tl.float32)
            t_re = tl.zeros([BLOCK_R, BLOCK_N, BLOCK_L], tl.float32)
            t_im = tl.zeros([BLOCK_R, BLOCK_N, BLOCK_L], tl.float32)
            for tile in range(chunk * TILES, (chunk + 1) * TILES):
                l = tile * BLOCK_L + lane
                inside = l < length
                z_re = tl.load(nodes + 2 * l, mask=inside, other=0)[None, :]
                z_im = tl.load(nodes + 2 * l + 1, mask=inside, other=0)[None, :]
                source = grad + 2 * (line[:, None] * length + l[None, :])
                here = real[:, None] & inside[None, :]
                g_re = tl.load(source, mask=here, other=0)[:, None, :]
                g_im = tl.load(source + 1, mask=here, other=0)[:, None, :]
                a_re, a_im, b_re, b_im = fractions(z_re, z_im, w_re, w_im)
                v_re += g_re * (a_re + b_re)[None] + g_im * (a_im + b_im)[None]
                v_im += g_re * (b_im - a_im)[None] + g_im * (a_re - b_re)[None]
                aa_re, aa_im = a_re * a_re - a_im * a_im, 2 * a_re * a_im
                bb_re, bb_im = b_re * b_re - b_im * b_im, 2 * b_re * b_im
                t_re += g_re * (aa_re + bb_re)[None] + g_im * (aa_im + bb_im)[None]
                t_im += g_re * (bb_im - aa_im)[None] + g_im * (aa_re - bb_re)[None]
            place = (chunk.to(tl.int64) * n_rows * n_channels + line)[:, None] * 4 * n_states
            target, here = out + place + n[None, :], real[:, None] & is_pole[None, :]
            tl.store(target, tl.sum(v_re, 2), mask=here)
            tl.store(target + n_states, tl.sum(v_im, 2), mask=here)
            tl.store(target + 2 * n_states, tl.sum(t_re, 2), mask=here)
            tl.store(target + 3 * n_states, tl.sum(t_im, 2), mask=here)
