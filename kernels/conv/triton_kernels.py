"""The causal convolution on a GPU, forward and backward.

Positions count in the order in which time is read. Those below 0 are the initial state's, oldest
first: ``1 - WIDTH`` to -1; what lies outside of a sequence or in another segment is ``NOWHERE``.
"""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from tristate.kernels.triton.functions import sigmoid


@triton.jit
def values(
    x, states, place, lane, is_channel, length, x_t, x_d,
    REVERSE: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The inputs at some positions, ``(T, D)``; zeros where there is none."""
    is_input = ((place >= 0) & (place < length))[:, None] & is_channel[None, :]
    at = (length - 1 - place if REVERSE else place).to(tl.int64)[:, None] * x_t
    found = tl.load(x + at + lane[None, :] * x_d, mask=is_input, other=0).to(tl.float32)
    if states is not None:
        is_state = ((place < 0) & (place > -WIDTH))[:, None] & is_channel[None, :]
        slot = (place + (WIDTH - 1))[:, None] + lane[None, :] * (WIDTH - 1)
        found += tl.load(states + slot, mask=is_state, other=0)
    return found


@triton.jit
def forward(
    x, weight, bias, table, states, out,
    n_channels, length, n_blocks, n_tiles, x_b, x_d, x_t, out_b, out_d, out_t,
    SILU: tl.constexpr, REVERSE: tl.constexpr, WIDTH: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """One tile of one sequence. ``table``: where the taps before each position are, or None.

    COST: reads ``x`` and writes ``out`` once, but for ``(WIDTH - 1) / BLOCK_T`` of the inputs that
    two tiles read: 1.05 times the least with tiles of 32 steps and four taps. Bound by memory.
    """
    # All on one axis: along the others a GPU has 65,535 programs at most.
    n_rows = tl.num_programs(0) // n_tiles
    row, tile = tl.program_id(0) % n_rows, tl.program_id(0) // n_rows
    b = (row // n_blocks).to(tl.int64)
    first_d = row % n_blocks * BLOCK_D
    lane, t = tl.arange(0, BLOCK_D), tile * BLOCK_T + tl.arange(0, BLOCK_T)
    is_channel = first_d + lane < n_channels
    is_step = t < length
    x += b * x_b + first_d.to(tl.int64) * x_d
    out += b * out_b + first_d.to(tl.int64) * out_d
    if states is not None:
        states += (b * n_channels + first_d) * (WIDTH - 1)
    y = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    if bias is not None:
        y += tl.load(bias + first_d + lane, mask=is_channel, other=0)[None, :]
    real = is_step
    for back in tl.static_range(WIDTH):
        place = t - back
        if table is not None:
            batch = n_rows // n_blocks
            places = table + ((WIDTH - 1 - back) * batch + b) * length + t
            place = tl.load(places, mask=is_step, other=-WIDTH)
            if back == 0:
                real = place >= 0
        tap = tl.load(
            weight + (first_d + lane) * WIDTH + (WIDTH - 1 - back), mask=is_channel, other=0
        )
        y += tap[None, :] * values(
            x, states, place, lane, is_channel, length, x_t, x_d, REVERSE, WIDTH
        )
    if SILU:
        y *= sigmoid(y)
    if table is not None:
        y = tl.where(real[:, None], y, 0)
    at = (length - 1 - t if REVERSE else t).to(tl.int64)[:, None] * out_t
    inside = is_step[:, None] & is_channel[None, :]
    tl.store(out + at + lane[None, :] * out_d, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def backward(
    grad_out, grad_state, x, weight, bias, table, slots, states, dx, dstates, dweight, dbias,
    n_channels, length, n_blocks, n_tiles,
    grad_b, grad_d, grad_t, x_b, x_d, x_t, dx_b, dx_d, dx_t,
    SILU: tl.constexpr, REVERSE: tl.constexpr, WIDTH: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Gradients of ``n_tiles`` tiles of one sequence, the initial state's positions included.

    ``table``: where the ``WIDTH - 1`` positions before and behind each are, or None. ``slots``:
    where a position's input stands in the last state, below 0 where it doesn't. Sums over time are
    one a program.

    COST: reads ``grad_out`` and ``x`` and writes ``dx`` once, but for ``(WIDTH - 1) / BLOCK_T`` at
    each edge of a program's tiles: 1.1 times the least. Neighbours come from the first cache.
    """
    batch = tl.num_programs(0) // n_blocks
    b = (tl.program_id(0) // n_blocks).to(tl.int64)
    first_d = tl.program_id(0) % n_blocks * BLOCK_D
    lane = tl.arange(0, BLOCK_D)
    is_channel = first_d + lane < n_channels
    grad_out += b * grad_b + first_d.to(tl.int64) * grad_d
    x += b * x_b + first_d.to(tl.int64) * x_d
    dx += b * dx_b + first_d.to(tl.int64) * dx_d
    of_state = (b * n_channels + first_d) * (WIDTH - 1)
    if states is not None:
        states += of_state
    shift = tl.zeros([1, BLOCK_D], tl.float32)
    if bias is not None:
        shift += tl.load(bias + first_d + lane, mask=is_channel, other=0)[None, :]
    k = tl.arange(0, 4)
    dweight_all = tl.zeros([4, BLOCK_D], tl.float32)
    dbias_all = tl.zeros([BLOCK_D], tl.float32)
    n_rows = length + WIDTH - 1
    for i in range(n_tiles):
        row = (tl.program_id(1) * n_tiles + i) * BLOCK_T + tl.arange(0, BLOCK_T)
        is_row = row < n_rows
        t = row - (WIDTH - 1)
        if slots is not None:
            slot = tl.load(slots + b * n_rows + row, mask=is_row, other=-1)
        else:
            slot = tl.where(is_row, row - length, -1)
        is_kept = (slot >= 0)[:, None] & is_channel[None, :]
        kept = grad_state + of_state + slot[:, None] + lane[None, :] * (WIDTH - 1)
        d = tl.load(kept, mask=is_kept, other=0)
        for ahead in tl.static_range(WIDTH):
            # The output that is ``ahead`` of a position, which weighs it so much.
            tap = tl.load(
                weight + (first_d + lane) * WIDTH + (WIDTH - 1 - ahead), mask=is_channel, other=0
            )
            if table is not None:
                place = tl.load(
                    table + ((WIDTH - 1 + ahead) * batch + b) * n_rows + row,
                    mask=is_row,
                    other=-WIDTH,
                )
            else:
                place = t + ahead
            is_out = is_row & (place >= 0)
            g = values(
                grad_out, None, tl.where(is_out, place, -WIDTH), lane, is_channel, length,
                grad_t, grad_d, REVERSE, WIDTH,
            )  # fmt: skip
            if SILU or ahead == 0:
                y = tl.zeros([BLOCK_T, BLOCK_D], tl.float32) + shift
                for back in tl.static_range(WIDTH):
                    other_tap = tl.load(
                        weight + (first_d + lane) * WIDTH + (WIDTH - 1 - back),
                        mask=is_channel,
                        other=0,
                    )
                    if table is not None:
                        source = tl.load(
                            table + ((WIDTH - 1 + ahead - back) * batch + b) * n_rows + row,
                            mask=is_row, other=-WIDTH,
                        )  # fmt: skip
                    else:
                        source = t + ahead - back
                    y += other_tap[None, :] * values(
                        x, states, source, lane, is_channel, length, x_t, x_d, REVERSE, WIDTH
                    )
                if SILU:
                    open_ = sigmoid(y)
                    g *= open_ * (1 + y * (1 - open_))
            if ahead == 0:
                dbias_all += tl.sum(g, 0)
                for back in tl.static_range(WIDTH):
                    if table is not None:
                        source = tl.load(
                            table + ((WIDTH - 1 - back) * batch + b) * n_rows + row,
                            mask=is_row, other=-WIDTH,
                        )  # fmt: skip
                    else:
                        source = t - back
                    met = g * values(
                        x, states, source, lane, is_channel, length, x_t, x_d, REVERSE, WIDTH
                    )
                    is_tap = (k == WIDTH - 1 - back)[:, None]
                    dweight_all += tl.where(is_tap, tl.sum(met, 0)[None, :], 0)
            d += g * tap[None, :]
        is_input = (is_row & (t >= 0))[:, None] & is_channel[None, :]
        at = (length - 1 - t if REVERSE else t).to(tl.int64)[:, None] * dx_t
        tl.store(dx + at + lane[None, :] * dx_d, d.to(dx.dtype.element_ty), mask=is_input)
        is_state = (row < WIDTH - 1)[:, None] & is_channel[None, :]
        tl.store(dstates + of_state + row[:, None] + lane[None, :] * (WIDTH - 1), d, mask=is_state)
    part = (b * tl.num_programs(1) + tl.program_id(1)) * n_channels + first_d + lane
    tl.store(
        dweight + part[None, :] * WIDTH + k[:, None],
        dweight_all,
        mask=(k < WIDTH)[:, None] & is_channel[None, :],
    )
    tl.store(dbias + part, dbias_all, mask=is_channel)


@triton.jit
def update(
    x, state, weight, bias, seen, out,
    n_channels, n_steps, n_slots,
    x_b, x_d, x_t, state_b, state_d, state_s, weight_d, weight_k, out_b, out_d, out_t,
    SILU: tl.constexpr, WIDTH: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """The next steps of a block of channels; ``state`` is written in place.

    With ``seen``, how many inputs came before, the state is a ring.

    COST: reads and writes the state and the steps once, the least there is: bound by memory, and
    for one step by the time that a launch takes.
    """
    b = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    is_channel = d < n_channels
    x += b * x_b + d * x_d
    state += b * state_b + d * state_d
    out += b * out_b + d * out_d
    start = n_slots
    if seen is not None:
        start = tl.load(seen + b).to(tl.int32) % n_slots
    for t in range(n_steps):
        y = tl.zeros([BLOCK_D], tl.float32)
        if bias is not None:
            y += tl.load(bias + d, mask=is_channel, other=0).to(tl.float32)
        for back in tl.static_range(WIDTH):
            tap = tl.load(weight + d * weight_d + (WIDTH - 1 - back) * weight_k, mask=is_channel)
            step = t - back
            new = tl.load(x + step * x_t, mask=is_channel & (step >= 0), other=0)
            slot = (start + step + n_slots) % n_slots
            old = tl.load(state + slot * state_s, mask=is_channel & (step < 0), other=0)
            met = old.to(tl.float32) + new.to(state.dtype.element_ty).to(tl.float32)
            y += tl.where(is_channel, tap.to(tl.float32) * met, 0)
        if SILU:
            y *= sigmoid(y)
        tl.store(out + t * out_t, y.to(out.dtype.element_ty), mask=is_channel)
    slot = tl.arange(0, BLOCK_S)[:, None]
    inside = (slot < n_slots) & is_channel[None, :]
    if seen is not None:
        step = (slot - start + n_slots) % n_slots
        written = inside & (step < n_steps)
        kept = tl.zeros([BLOCK_S, BLOCK_D], state.dtype.element_ty)
    else:
        step = slot + n_steps - n_slots
        written = inside
        kept = tl.load(
            state[None, :] + (slot + n_steps) * state_s, mask=inside & (step < 0), other=0
        )
    fresh = tl.load(x[None, :] + step * x_t, mask=written & (step >= 0), other=0)
    # All slots are read before one is written.
    tl.debug_barrier()
    new_state = tl.where(step >= 0, fresh.to(state.dtype.element_ty), kept)
    tl.store(state[None, :] + slot * state_s, new_state, mask=written)
