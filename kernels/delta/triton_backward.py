"""The gradients of the gated delta rule on a GPU."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from tristate.kernels.delta.triton_gradients import add_up_decays, gradients
from tristate.kernels.delta.triton_walks import find_errors, find_slopes
from tristate.kernels.triton.axes import uncounted
from tristate.kernels.triton.memory import put_state, state_ends


@triton.jit
def backward(
    grad_out, q, k, v, beta, g, segments, kept, incoming, dq, dk, dv, dbeta, dg, outgoing,
    own, at_errors, at_d_errors, at_d_writes, at_flows, tables, at_ends, own_size,
    length, n, n_places, n_heads, d_key, d_value, n_parts, scale,
    grad_b, grad_t, grad_h, grad_c, q_b, q_t, q_h, q_c, k_b, k_t, k_h, k_c, v_b, v_t, v_h, v_c,
    beta_b, beta_t, beta_h, beta_c, g_b, g_t, g_h, g_c,
    REVERSE: tl.constexpr, BY_KEY: tl.constexpr, BY_VALUE: tl.constexpr, KEPT: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr, N_LEVELS: tl.constexpr,
):  # fmt: skip
    """A head, ``n_parts`` times ``KEPT`` tiles of steps, the last part first.

    Each part is taken three times. Forwards from the kept state: ``errors`` takes what each step
    corrects, ``v - k^T S``, and ``ends`` the products of the state behind it with its gradient.
    Backwards with the gradient of the state: ``d_errors``, and ``d_writes``, what comes to the keys
    from what they wrote. Forwards again, what comes to queries and keys from what they read. So one
    state at a time is at work, in ``states`` or, of gradients, in ``outgoing``; ``incoming`` is the
    gradient behind all tiles. Without ``dq`` only what the tiles do to that of zero is found.

    Where an error has the gradient ``e`` and a step writes ``x``, the gradient of a key is that of
    writing, ``w = x (dS)^T``, and of reading, ``r = -e S^T``. By the recurrence that of the
    logarithm of a decay is the sum of ``q dq + k r - k w`` (``flows``) from its step to the end of
    the part, and of ``S dS`` behind it.

    COST: reads ``q``, ``k``, ``v``, ``grad_out``, ``beta``, ``g`` and writes their gradients once,
    the least there is, and reads ``K / (KEPT BLOCK_T)`` numbers a step and value channel of
    ``kept``: 1.07 times the least with float32 and as many keys as values, 1.14 in bfloat16. What a
    program keeps of a part lies in memory of its own and is written over for the next part: two
    states, and ``KEPT BLOCK_T (2 V + K)`` numbers, by key ``K`` more of a step, half a megabyte for
    128 channels; it stays in the second cache as far as that reaches. States are read or written
    there ten times a tile, ``40 K / BLOCK_T`` bytes a step and value channel, 86 GB for 16 heads of
    131,072 steps of 128 channels: the caches bound it, not the 1.1 ms that an H100 takes to move
    the least at 3.35 TB/s. A split sequence is read twice more. Operations of a step and value
    channel: ``18 K`` for products with the states, ``12 T + (14 K + 24 T) T / V`` for those between
    steps; by key more, since decays are summed by products.
    """
    program, chunk = tl.program_id(0), tl.program_id(1)
    n_chunks = tl.num_programs(1)
    head = program % n_heads
    b = (program // n_heads).to(tl.int64)
    far = head.to(tl.int64)
    grads = grad_out + b * grad_b + far * grad_h, grad_t, grad_c
    queries = q + b * q_b + far * q_h, q_t, q_c
    keys = k + b * k_b + far * k_h, k_t, k_c
    rate = beta + b * beta_b + far * beta_h, beta_t, beta_c
    gate, values = (g, g_t, g_c), (v, v_t, v_c)
    if g is not None:
        gate = g + b * g_b + far * g_h, g_t, g_c
    if segments is not None:
        segments += b * n_places
    own += (program.to(tl.int64) * n_chunks + chunk) * own_size
    n_steps = KEPT * BLOCK_T
    if dq is not None:
        values = v + b * v_b + far * v_h, v_t, v_c
    # Rows of (B, L, H): of tokens and of steps.
    token_row, step_row = b * length * n_heads + head, b * length * n * n_heads + head
    here = ((b * n_chunks + chunk) * n_heads + head) * d_key * d_value
    slope = outgoing + here
    n_values = tl.cdiv(d_value, BLOCK_V)
    first = None if incoming is None else incoming + here
    put_state(first, slope, True, chunk, 0, n_values, d_key, d_value, BLOCK_K, BLOCK_V)
    for p in tl.range(0, n_parts, disable_licm=True):
        part = (chunk + 1) * n_parts - 1 - p
        # Tiles that there are; less than none is none to a loop, and a limit fills a register.
        n_here = tl.minimum(tl.cdiv(length * n, BLOCK_T) - part * KEPT, KEPT)
        if dq is not None:
            n_kept = tl.cdiv(length * n, n_steps)
            before = kept + ((b * n_kept + part) * n_heads + head) * d_key * d_value
            put_state(before, own, n_here > 0, part, 0, n_values, d_key, d_value, BLOCK_K, BLOCK_V)
            for m in tl.range(0, n_here, disable_licm=True):
                i = uncounted(m, d_value)
                find_errors(
                    part * KEPT + i, i, keys, values, rate, gate, segments, own, at_errors, tables,
                    length, n, d_key, d_value,
                    REVERSE, BY_KEY, BY_VALUE, BLOCK_K, BLOCK_V, BLOCK_T, N_LEVELS,
                )  # fmt: skip
            if g is not None:
                state_ends(
                    part, own, slope, own + at_ends, d_key, d_value, BY_KEY, BLOCK_K, BLOCK_V
                )
        for m in tl.range(0, n_here, disable_licm=True):
            i = uncounted(n_here - 1 - m, d_value)
            find_slopes(
                part * KEPT + i, i, grads, queries, keys, rate, gate, segments, slope,
                own, at_errors, at_d_errors, at_d_writes, tables, dv, dbeta, step_row,
                length, n, n_heads, d_key, d_value, scale,
                REVERSE, BY_KEY, BY_VALUE, BLOCK_K, BLOCK_V, BLOCK_T, N_LEVELS,
            )  # fmt: skip
        if dq is not None:
            put_state(before, own, n_here > 0, part, 0, n_values, d_key, d_value, BLOCK_K, BLOCK_V)
            for m in tl.range(0, n_here, disable_licm=True):
                i = uncounted(m, d_value)
                gradients(
                    part * KEPT + i, i, grads, queries, keys, rate, gate, segments,
                    own, at_errors, at_d_errors, at_d_writes, at_flows, tables, dq, dk,
                    token_row, step_row, length, n, n_heads, d_key, d_value, scale,
                    REVERSE, BY_KEY, BY_VALUE, BLOCK_K, BLOCK_V, BLOCK_T,
                )  # fmt: skip
            if g is not None:
                add_up_decays(
                    part * KEPT, n_here, segments, own, at_flows, at_ends, dg, token_row,
                    length, n, n_heads, d_key, REVERSE, BY_KEY, BLOCK_K, BLOCK_T,
                )  # fmt: skip
