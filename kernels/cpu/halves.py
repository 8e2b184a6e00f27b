"""Sixteen numbers of 16 bits to float32 and back, as LLVM code of whole numbers.

LLVM has conversions of its own, but on x86-64 without F16C those of float16 are calls of functions
(``__truncsfhf2``) that numba's linker does not find: they go to address 0. And it may move them out
of the branch that wants them, to where every kernel that can store float16 comes by.
"""

from typing import Any

from llvmlite import ir

LANES = 16
FLOATS = ir.VectorType(ir.FloatType(), LANES)
INTS = ir.VectorType(ir.IntType(32), LANES)
SHORTS = ir.VectorType(ir.IntType(16), LANES)

# Between the exponents of float32 and float16, in float32's place.
_REBIAS = 112 << 23
# The smallest normal float16, infinity, and 1/2, the last place of which is the smallest float16.
_NORMAL, _INFINITE, _HALF = 113 << 23, 143 << 23, 126 << 23


def everywhere(kind: Any, value: float) -> Any:
    """A constant with the same in all lanes."""
    return ir.Constant(kind, [value] * LANES)


def _ints(value: int) -> Any:
    return everywhere(INTS, value)


def _widened(builder: Any, value: Any, mask: int, places: int) -> Any:
    bits = builder.and_(builder.zext(value, INTS), _ints(mask))
    return builder.shl(bits, _ints(places))


def from_bfloat16(builder: Any, value: Any) -> Any:
    """float32 of bfloat16, which are its upper half."""
    wide = builder.shl(builder.zext(value, INTS), _ints(16))
    return builder.bitcast(wide, FLOATS)


def to_bfloat16(builder: Any, value: Any) -> Any:
    """bfloat16 of float32: to the nearest, ties to the even one; a NaN keeps a bit that says so."""
    bits = builder.bitcast(value, INTS)
    odd = builder.and_(builder.lshr(bits, _ints(16)), _ints(1))
    rounded = builder.add(builder.add(bits, odd), _ints(0x7FFF))
    nan = builder.fcmp_unordered("uno", value, value)
    quiet = builder.or_(bits, _ints(0x400000))
    kept = builder.select(nan, quiet, rounded)
    return builder.trunc(builder.lshr(kept, _ints(16)), SHORTS)


def from_float16(builder: Any, value: Any) -> Any:
    """float32 of float16, exactly."""
    sign = _widened(builder, value, 0x8000, 16)
    magnitude = _widened(builder, value, 0x7FFF, 13)
    bits = builder.add(magnitude, _ints(_REBIAS))
    infinite = builder.icmp_unsigned(">=", bits, _ints(_INFINITE))
    bits = builder.select(infinite, builder.add(bits, _ints(_REBIAS)), bits)
    # Without a leading one: put one there, and take it away as a number.
    with_one = builder.bitcast(builder.add(bits, _ints(1 << 23)), FLOATS)
    less = builder.fsub(with_one, everywhere(FLOATS, 2.0**-14))
    small = builder.icmp_unsigned("<", bits, _ints(_NORMAL))
    bits = builder.select(small, builder.bitcast(less, INTS), bits)
    return builder.bitcast(builder.or_(sign, bits), FLOATS)


def to_float16(builder: Any, value: Any) -> Any:
    """float16 of float32: to the nearest, ties to the even one; too large ones are infinite."""
    bits = builder.bitcast(value, INTS)
    sign = builder.and_(builder.lshr(bits, _ints(16)), _ints(0x8000))
    magnitude = builder.and_(bits, _ints(0x7FFFFFFF))
    odd = builder.and_(builder.lshr(magnitude, _ints(13)), _ints(1))
    rounded = builder.add(builder.sub(magnitude, _ints(_REBIAS - 0xFFF)), odd)
    rounded = builder.lshr(rounded, _ints(13))
    # Below the normal ones an addition rounds: its last place is theirs.
    aligned = builder.fadd(builder.bitcast(magnitude, FLOATS), everywhere(FLOATS, 0.5))
    less = builder.sub(builder.bitcast(aligned, INTS), _ints(_HALF))
    small = builder.icmp_unsigned("<", magnitude, _ints(_NORMAL))
    rounded = builder.select(small, less, rounded)
    nan = builder.icmp_unsigned(">", magnitude, _ints(0x7F800000))
    beyond = builder.select(nan, _ints(0x7E00), _ints(0x7C00))
    large = builder.icmp_unsigned(">=", magnitude, _ints(_INFINITE))
    return builder.trunc(builder.or_(sign, builder.select(large, beyond, rounded)), SHORTS)
