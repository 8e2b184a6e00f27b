"""Fourier transforms on vectors of 16 positions, without ever sorting a spectrum.

Decimation in frequency takes numbers in order to a spectrum out of order; the transposed network,
decimation in time, takes such a spectrum back. Between them only products of elements stand, which
know no order. The other direction of a transform is the same with the real and the imaginary
numbers exchanged.

A sequence of ``size`` complex numbers, 3 or 5 or 1 times a power of two from 256 on, is two planes
of float32, ``plane`` bytes apart. Passes over it take 5 or 3, then 2, then 4 parts of a block
together until blocks are of 16: these are turned, 16 blocks at a time, so that lanes stand for
blocks. Factors of all passes lie one behind the other: ``exp(-2 pi i j / block)``, real and
imaginary planes.

Addresses are in bytes.
"""

import numpy as np

from tristate.kernels.cpu.vector import (
    LANES,
    VECTOR_BYTES,
    add,
    fma,
    jit,
    load,
    load_one,
    mul,
    neg,
    routine,
    splat,
    store,
    sub,
    transpose,
)

GROUP = LANES * LANES
GROUP_BYTES = 4 * GROUP
_C1, _S1 = np.float32(0.30901699437494745), np.float32(0.9510565162951535)
_C2, _S2 = np.float32(-0.8090169943749475), np.float32(0.5877852522924731)
_S3 = np.float32(0.8660254037844386)


@jit
def times(a, b, c, d):
    """``(a + i b) (c + i d)``."""
    return fma(a, c, neg(mul(b, d))), fma(a, d, mul(b, c))


@jit
def four(a, b, c, d, e, f, g, h):
    """A transform of four complex numbers."""
    s, t, u, v = add(a, e), sub(a, e), add(c, g), sub(c, g)
    o, p, q, r = add(b, f), sub(b, f), add(d, h), sub(d, h)
    return add(s, u), add(o, q), add(t, r), sub(p, v), sub(s, u), sub(o, q), sub(t, r), add(p, v)


@jit
def five(a, b, c, d, e, f, g, h, i, j):
    """A transform of five complex numbers."""
    s1, d1, s2, d2 = add(c, i), sub(c, i), add(e, g), sub(e, g)
    t1, e1, t2, e2 = add(d, j), sub(d, j), add(f, h), sub(f, h)
    c1, c2, n1, n2 = splat(_C1), splat(_C2), splat(_S1), splat(_S2)
    m1, m2 = fma(c1, s1, fma(c2, s2, a)), fma(c2, s1, fma(c1, s2, a))
    o1, o2 = fma(c1, t1, fma(c2, t2, b)), fma(c2, t1, fma(c1, t2, b))
    p1, p2 = fma(n1, d1, mul(n2, d2)), fma(n2, d1, neg(mul(n1, d2)))
    q1, q2 = fma(n1, e1, mul(n2, e2)), fma(n2, e1, neg(mul(n1, e2)))
    return (
        add(a, add(s1, s2)), add(b, add(t1, t2)), add(m1, q1), sub(o1, p1), add(m2, q2),
        sub(o2, p2), sub(m2, q2), add(o2, p2), sub(m1, q1), add(o1, p1),
    )  # fmt: skip


@jit
def three(a, b, c, d, e, f):
    """A transform of three complex numbers."""
    s, t = add(c, e), add(d, f)
    u, v = mul(splat(_S3), sub(c, e)), mul(splat(_S3), sub(d, f))
    half = splat(np.float32(-0.5))
    m, o = fma(half, s, a), fma(half, t, b)
    return add(a, s), add(b, t), add(m, v), sub(o, u), sub(m, v), add(o, u)


@jit
def take(re, im, w, x, towards):
    """A vector of complex numbers, on the way back times its factors ``w + i x``."""
    a, b = load(re), load(im)
    if not towards:
        a, b = times(a, b, w, x)
    return a, b


@jit
def put(re, im, a, b):
    """Write a vector of complex numbers."""
    store(re, a)
    store(im, b)


@jit
def leave(re, im, a, b, w, x, towards):
    """Write a vector of complex numbers, ``towards`` the spectrum times its factors."""
    if towards:
        a, b = times(a, b, w, x)
    put(re, im, a, b)


@routine
def four_rows(re, im, step, w, x, towards):
    """Four vectors ``step`` bytes apart; ``w + i x`` are the factors of the second."""
    w2, x2 = times(w, x, w, x)
    w3, x3 = times(w2, x2, w, x)
    a, b = load(re), load(im)
    c, d = take(re + step, im + step, w, x, towards)
    e, f = take(re + 2 * step, im + 2 * step, w2, x2, towards)
    g, h = take(re + 3 * step, im + 3 * step, w3, x3, towards)
    a, b, c, d, e, f, g, h = four(a, b, c, d, e, f, g, h)
    put(re, im, a, b)
    leave(re + step, im + step, c, d, w, x, towards)
    leave(re + 2 * step, im + 2 * step, e, f, w2, x2, towards)
    leave(re + 3 * step, im + 3 * step, g, h, w3, x3, towards)


@routine
def pass_four(re, im, factors, n_blocks, block, towards):
    """Four parts of each block of ``block`` bytes; ``towards`` the spectrum, or back."""
    q = block // 4
    for _ in range(n_blocks):
        for j in range(0, q, VECTOR_BYTES):
            four_rows(re + j, im + j, q, load(factors + j), load(factors + q + j), towards)
        re, im = re + block, im + block


@routine
def pass_two(re, im, factors, n_blocks, block, towards):
    """Two parts of each block."""
    q = block // 2
    for _ in range(n_blocks):
        for j in range(0, q, VECTOR_BYTES):
            r, i = re + j, im + j
            w, x = load(factors + j), load(factors + q + j)
            a, b = load(r), load(i)
            c, d = take(r + q, i + q, w, x, towards)
            put(r, i, add(a, c), add(b, d))
            leave(r + q, i + q, sub(a, c), sub(b, d), w, x, towards)
        re, im = re + block, im + block


@routine
def pass_three(re, im, factors, q, towards):
    """Three parts, of ``q`` bytes each, of a whole sequence."""
    for j in range(0, q, VECTOR_BYTES):
        r, i = re + j, im + j
        w, x = load(factors + j), load(factors + q + j)
        w2, x2 = times(w, x, w, x)
        a, b = load(r), load(i)
        c, d = take(r + q, i + q, w, x, towards)
        e, f = take(r + 2 * q, i + 2 * q, w2, x2, towards)
        a, b, c, d, e, f = three(a, b, c, d, e, f)
        put(r, i, a, b)
        leave(r + q, i + q, c, d, w, x, towards)
        leave(r + 2 * q, i + 2 * q, e, f, w2, x2, towards)


@routine
def pass_five(re, im, factors, q, towards):
    """Five parts, of ``q`` bytes each, of a whole sequence."""
    for j in range(0, q, VECTOR_BYTES):
        r, i = re + j, im + j
        w, x = load(factors + j), load(factors + q + j)
        w2, x2 = times(w, x, w, x)
        w3, x3 = times(w2, x2, w, x)
        w4, x4 = times(w2, x2, w2, x2)
        a, b = load(r), load(i)
        c, d = take(r + q, i + q, w, x, towards)
        e, f = take(r + 2 * q, i + 2 * q, w2, x2, towards)
        g, h = take(r + 3 * q, i + 3 * q, w3, x3, towards)
        k, n = take(r + 4 * q, i + 4 * q, w4, x4, towards)
        a, b, c, d, e, f, g, h, k, n = five(a, b, c, d, e, f, g, h, k, n)
        put(r, i, a, b)
        leave(r + q, i + q, c, d, w, x, towards)
        leave(r + 2 * q, i + 2 * q, e, f, w2, x2, towards)
        leave(r + 3 * q, i + 3 * q, g, h, w3, x3, towards)
        leave(r + 4 * q, i + 4 * q, k, n, w4, x4, towards)


@routine
def plain_fours(re, im):
    """Four neighbouring rows of 16 together, without factors."""
    s = VECTOR_BYTES
    for j in range(0, GROUP_BYTES, 4 * s):
        r, i = re + j, im + j
        a, b, c, d, e, f, g, h = four(
            load(r), load(i), load(r + s), load(i + s), load(r + 2 * s), load(i + 2 * s),
            load(r + 3 * s), load(i + 3 * s),
        )  # fmt: skip
        put(r, i, a, b)
        put(r + s, i + s, c, d)
        put(r + 2 * s, i + 2 * s, e, f)
        put(r + 3 * s, i + 3 * s, g, h)


@routine
def distant_fours(re, im, factors, towards):
    """Four rows of 16 together, four rows apart."""
    for j in range(4):
        w, x = splat(load_one(factors + 4 * j)), splat(load_one(factors + 16 + 4 * j))
        at = VECTOR_BYTES * j
        four_rows(re + at, im + at, 4 * VECTOR_BYTES, w, x, towards)


@routine
def turn(source, target):
    """Sixteen blocks of 16 numbers, lanes for blocks; or back."""
    transpose(source, VECTOR_BYTES, target, VECTOR_BYTES)


@routine
def groups(re, im, factors, n_groups, tile, towards):
    """Blocks of 16, sixteen at a time: turned and transformed, or back; ``factors`` are of 16."""
    other = tile + GROUP_BYTES
    for _ in range(n_groups):
        if not towards:
            plain_fours(re, im)
            distant_fours(re, im, factors, False)
        turn(re, tile)
        turn(im, other)
        if towards:
            distant_fours(tile, other, factors, True)
            plain_fours(tile, other)
        for j in range(0, GROUP_BYTES, VECTOR_BYTES):
            store(re + j, load(tile + j))
            store(im + j, load(other + j))
        re, im = re + GROUP_BYTES, im + GROUP_BYTES


@routine
def to_spectrum(re, im, factors, size, odd, tile):
    """Numbers in order to a spectrum that is not."""
    block = 4 * size
    if odd == 3:
        pass_three(re, im, factors, block // 3, True)
    if odd == 5:
        pass_five(re, im, factors, block // 5, True)
    if odd > 1:
        block //= odd
        factors += 2 * block
    if is_twice_a_fourth_power(block):
        pass_two(re, im, factors, odd, block, True)
        factors += block
        block //= 2
    while block > 4 * LANES:
        pass_four(re, im, factors, 4 * size // block, block, True)
        factors += block // 2
        block //= 4
    groups(re, im, factors, size // GROUP, tile, True)


@routine
def from_spectrum(re, im, factors, size, odd, tile):
    """A spectrum back to ``size`` times the numbers, in order."""
    # The same network the other way round; exchanged planes are the other direction.
    top = 4 * size // odd
    block = 4 * LANES
    end = factors
    if odd > 1:
        end += 2 * top
    two = is_twice_a_fourth_power(top)
    last = top // 2 if two else top
    if two:
        end += top
    # Behind the factors of all passes of four: half a block each.
    place, b = end, last
    while b > 4 * LANES:
        place += b // 2
        b //= 4
    groups(im, re, place, size // GROUP, tile, False)
    while block < last:
        block *= 4
        place -= block // 2
        pass_four(im, re, place, 4 * size // block, block, False)
    if two:
        pass_two(im, re, end - top, odd, top, False)
    if odd == 3:
        pass_three(im, re, factors, top, False)
    if odd == 5:
        pass_five(im, re, factors, top, False)


@jit
def is_twice_a_fourth_power(block):
    """Whether blocks of 16 are reached by dividing by 4 only after one division by 2."""
    while block > 4 * LANES:
        block //= 4
    return block < 4 * LANES
