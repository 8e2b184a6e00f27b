"""RWKV-4's attention on a GPU, forward and backward.

A step makes of the sums before it those after it: both decay by ``exp(w)``, and its own weight
comes in. Such steps are composed, and time within a tile is one scan. Sums are kept in units of
``exp(unit)``, and so are their gradients: every exponential is at most 1.

Positions count in the order in which time is read. ``marks`` tells a segment's first position and
padding (:mod:`tristate.kernels.triton.segments`).
"""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false
# pyright: reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

from tristate.kernels.rwkv.reference import LEAST

NOTHING = tl.constexpr(LEAST)


@triton.jit
def compose(w, num, den, unit, later_w, later_num, later_den, later_unit):
    """First ``sums -> exp(w) sums + (num, den) exp(unit)``, then the later one of the same kind."""
    decayed = unit + later_w
    top = tl.maximum(decayed, later_unit)
    old, new = tl.exp(decayed - top), tl.exp(later_unit - top)
    # Sums of what forgets everything are not to become infinite.
    both = tl.maximum(w + later_w, NOTHING)
    return both, old * num + new * later_num, old * den + new * later_den, top


@triton.jit
def mean_of(key, value, bonus, num, den, unit):
    """The output, the present's own share of it, and its denominator as ``exp(top) / inverse``."""
    present = bonus + key
    top = tl.maximum(unit, present)
    old, new = tl.exp(unit - top), tl.exp(present - top)
    inverse = 1 / (old * den + new)
    own = new * inverse
    return old * num * inverse + own * value, own, inverse, top


@triton.jit
def load_step(k_tile, v_tile, marks, place, k_t, v_t, at, length, is_channel, w):
    """Steps ``at``: decay, key, value, which are real, and which are a segment's first."""
    is_step = (at >= 0) & (at < length)
    real, fresh = is_step, tl.zeros_like(is_step)
    if marks is not None:
        mark = tl.load(marks + at, mask=is_step, other=2)
        real, fresh = mark < 2, mark == 1
    here = real[:, None] & is_channel[None, :]
    key = tl.load(k_tile + place * k_t, mask=here, other=0).to(tl.float32)
    value = tl.load(v_tile + place * v_t, mask=here, other=0).to(tl.float32)
    decay = tl.where(fresh[:, None], NOTHING, tl.where(here, w, 0))
    return decay, key, value, here, fresh[:, None]


@triton.jit
def sums_before(
    k_tile, v_tile, marks, place, k_t, v_t, first, length, is_channel, w, num, den, unit,
    REVERSE: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Before each step of a tile that begins with some sums; and the decay since its beginning."""
    t = tl.arange(0, BLOCK_T)
    before, at = place + 1 if REVERSE else place - 1, tl.where(t > 0, first + t - 1, -1)
    decay, key, value, real, _ = load_step(
        k_tile, v_tile, marks, before, k_t, v_t, at, length, is_channel, w
    )
    begin = (t == 0)[:, None]
    steps = (
        tl.where(begin, 0, decay),
        tl.where(begin, num[None, :], value),
        tl.where(begin, den[None, :], tl.where(real, 1.0, 0.0)),
        tl.where(begin, unit[None, :], tl.where(real, key, NOTHING)),
    )
    return tl.associative_scan(steps, 0, compose)


@triton.jit
def row_of(x, is_row):
    """One row of a tile."""
    return tl.sum(tl.where(is_row, x, 0), 0)


@triton.jit
def forward(
    k, v, w, u, marks, entering, out, leaving, decays, kept,
    length, n_channels, n_blocks, n_tiles, k_b, k_t, k_d, v_b, v_t, v_d, out_b, out_t, out_d,
    REVERSE: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """A block of channels of one sequence, ``n_tiles`` tiles of time one after the other.

    Without ``out`` only what the tiles do to the sums is found: where they leave those that begin
    with nothing, and the logarithm of what they multiply them by (``decays``).

    COST: reads ``k`` and ``v`` and writes ``out`` once: the least there is (each once more, a step
    before, from the first cache). To be differentiated, ``3 / BLOCK_T`` numbers of float32 more:
    1.02 times the least, in 16 bits 1.03. A split sequence is read twice. Some 15 exponentials a
    number: 0.4 ms on an H100 for 768 channels of 131,072 steps in float32, as long as memory takes.
    """
    sequence = (tl.program_id(0) // n_blocks).to(tl.int64)
    chunk, n_chunks = tl.program_id(1), tl.num_programs(1)
    first_d = tl.program_id(0) % n_blocks * BLOCK_D
    lane, t = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_T)
    is_channel = first_d + lane < n_channels
    is_last = (t == BLOCK_T - 1)[:, None]
    step, at_d = -t if REVERSE else t, first_d.to(tl.int64)
    k_tile = k + sequence * k_b + at_d * k_d + (step[:, None] * k_t + lane[None, :] * k_d)
    v_tile = v + sequence * v_b + at_d * v_d + (step[:, None] * v_t + lane[None, :] * v_d)
    if out is not None:
        out_tile = out + sequence * out_b + at_d * out_d
        out_tile += step[:, None] * out_t + lane[None, :] * out_d
    if marks is not None:
        marks += sequence * length
    rate = tl.load(w + first_d + lane, mask=is_channel, other=0)[None, :]
    bonus = tl.load(u + first_d + lane, mask=is_channel, other=0)[None, :]
    here = (sequence * n_chunks + chunk) * 3 * n_channels + first_d + lane
    num, den = tl.zeros([BLOCK_D], tl.float32), tl.zeros([BLOCK_D], tl.float32)
    unit = tl.full([BLOCK_D], NOTHING, tl.float32)
    if entering is not None:
        num = tl.load(entering + here, mask=is_channel, other=0)
        den = tl.load(entering + here + n_channels, mask=is_channel, other=0)
        unit = tl.load(entering + here + 2 * n_channels, mask=is_channel, other=0)
    decay_all = tl.zeros([BLOCK_D], tl.float32)
    for i in range(n_tiles):
        tile = chunk * n_tiles + i
        first = tile * BLOCK_T
        place = (length - 1 - first if REVERSE else first).to(tl.int64)
        if kept is not None:
            at = (sequence * tl.cdiv(length, BLOCK_T) + tile) * 3 * n_channels + first_d + lane
            exists = is_channel & (first < length)
            tl.store(kept + at, num, mask=exists)
            tl.store(kept + at + n_channels, den, mask=exists)
            tl.store(kept + at + 2 * n_channels, unit, mask=exists)
        old_w, old_num, old_den, old_unit = sums_before(
            k_tile, v_tile, marks, place, k_t, v_t, first, length, is_channel, rate, num, den,
            unit, REVERSE, BLOCK_T,
        )  # fmt: skip
        step_w, key, value, real, fresh = load_step(
            k_tile, v_tile, marks, place, k_t, v_t, first + t, length, is_channel, rate
        )
        if out is not None:
            seen = tl.where(fresh, NOTHING, old_unit)
            mean, _, _, _ = mean_of(
                key, value, bonus, tl.where(fresh, 0, old_num), tl.where(fresh, 0, old_den), seen
            )
            inside = (first + t < length)[:, None] & is_channel[None, :]
            mean = tl.where(real, mean, 0)
            tl.store(out_tile + place * out_t, mean.to(out.dtype.element_ty), mask=inside)
        tile_w, num, den, unit = compose(
            row_of(old_w, is_last), row_of(old_num, is_last), row_of(old_den, is_last),
            row_of(old_unit, is_last), row_of(step_w, is_last),
            row_of(value, is_last), row_of(tl.where(real, 1.0, 0.0), is_last),
            row_of(tl.where(real, key, NOTHING), is_last),
        )  # fmt: skip
        decay_all = tl.maximum(decay_all + tile_w, NOTHING)
    tl.store(leaving + here, num, mask=is_channel)
    tl.store(leaving + here + n_channels, den, mask=is_channel)
    tl.store(leaving + here + 2 * n_channels, unit, mask=is_channel)
    if decays is not None:
        here = (sequence * n_chunks + chunk) * n_channels + first_d + lane
        tl.store(decays + here, decay_all, mask=is_channel)


@triton.jit
def carry(
    decays, ends, initial, entering, n_chunks, n_channels, BACK: tl.constexpr, BLOCK: tl.constexpr
):
    """The sums that enter each chunk, or with ``BACK`` their gradients behind it.

    COST: reads 4 and writes 3 numbers a channel and chunk; moves what it must.
    """
    batch = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < n_channels
    num, den = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    unit = tl.full([BLOCK], NOTHING, tl.float32)
    if initial is not None:
        first = initial + batch * 3 * n_channels + channel
        num = tl.load(first, mask=inside, other=0)
        den = tl.load(first + n_channels, mask=inside, other=0)
        unit = tl.load(first + 2 * n_channels, mask=inside, other=0)
    for i in range(n_chunks):
        chunk = batch * n_chunks + (n_chunks - 1 - i if BACK else i)
        here = chunk * 3 * n_channels + channel
        tl.store(entering + here, num, mask=inside)
        tl.store(entering + here + n_channels, den, mask=inside)
        tl.store(entering + here + 2 * n_channels, unit, mask=inside)
        decay = tl.load(decays + chunk * n_channels + channel, mask=inside, other=0)
        _, num, den, unit = compose(
            0.0, num, den, unit, decay,
            tl.load(ends + here, mask=inside, other=0),
            tl.load(ends + here + n_channels, mask=inside, other=0),
            tl.load(ends + here + 2 * n_channels, mask=inside, other=0),
        )  # fmt: skip
