"""Sixteen float32 numbers at once, as a numba type, and what can be done with them.

The type is LLVM's ``<16 x float>``: one register with AVX-512, two with AVX2, four on arm64. The
same source becomes plain vector code on each, which numba's own loops only do where LLVM can prove
enough about them. Memory is reached by address (an int64, in bytes), aligned or not.

Source: the functions are LLVM's, https://llvm.org/docs/LangRef.html.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

from tristate.kernels.cpu import halves
from tristate.kernels.cpu.halves import FLOATS, INTS, LANES, SHORTS, everywhere
from tristate.kernels.cpu.jit import jit as jit
from tristate.kernels.cpu.jit import routine as routine

VECTOR_BYTES = 4 * LANES


class _Vector(types.Type):
    """The numba type."""

    def __init__(self) -> None:
        super().__init__("float32x16")


vector = _Vector()


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    """Its values are LLVM values."""

    def __init__(self, manager: Any, numba_type: types.Type) -> None:
        super().__init__(manager, numba_type, FLOATS)


def _function(result: types.Type, arguments: tuple[types.Type, ...], build: Callable[..., Any]):
    """A numba function of these types whose body ``build(builder, *values)`` writes in LLVM."""

    def define(typing_context: Any, *given: types.Type):
        def generate(context: Any, builder: Any, signature: Any, values: Any):
            return build(builder, *values)

        return result(*arguments), generate

    # numba wants to see as many names as there are arguments.
    names = ", ".join(f"x{i}" for i in range(len(arguments)))
    scope: dict[str, Any] = {"define": define}
    exec(f"def typed(context, {names}):\n    return define(context, {names})", scope)
    return intrinsic(scope["typed"])


def _pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, ir.PointerType())


def _load(kind: Any, alignment: int, convert: Callable[[Any, Any], Any] | None = None):
    def build(builder: Any, address: Any) -> Any:
        value = builder.load(_pointer(builder, address), typ=kind, align=alignment)
        return convert(builder, value) if convert else value

    return build


def _store(alignment: int, convert: Callable[[Any, Any], Any] | None = None):
    def build(builder: Any, address: Any, value: Any) -> Any:
        value = convert(builder, value) if convert else value
        builder.store(value, _pointer(builder, address), align=alignment)
        return ir.Constant(ir.IntType(8), None)

    return build


def _call(name: str, result: Any, *flags: str):
    def build(builder: Any, *values: Any) -> Any:
        kind = ir.FunctionType(result, [value.type for value in values])
        declared = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        return builder.call(declared, values, fastmath=flags)

    return build


def _splat(builder: Any, value: Any) -> Any:
    one = builder.insert_element(
        ir.Constant(FLOATS, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
    )
    zeros = ir.Constant(INTS, [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(FLOATS, ir.Undefined), zeros)


def _maximum(builder: Any, x: Any, y: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", x, y), y, x)


def _minimum(builder: Any, x: Any, y: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", x, y), y, x)


def _where_negative(builder: Any, x: Any, y: Any, z: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", x, everywhere(FLOATS, 0)), y, z)


def _scale(builder: Any, x: Any, exponent: Any) -> Any:
    bits = builder.bitcast(exponent, INTS)
    sum_ = builder.add(builder.bitcast(x, INTS), builder.shl(bits, everywhere(INTS, 23)))
    return builder.bitcast(sum_, FLOATS)


def _sum_lanes(builder: Any, x: Any) -> Any:
    name, real = "llvm.vector.reduce.fadd.v16f32", ir.FloatType()
    build = _call(name, real, "reassoc")
    return build(builder, ir.Constant(real, 0.0), x)


def _transpose(builder: Any, source: Any, source_step: Any, target: Any, target_step: Any) -> Any:
    """Sixteen rows to sixteen columns by four rounds of exchanges between rows, 1 to 8 apart."""
    rows = []
    for i in range(LANES):
        offset = builder.mul(source_step, ir.Constant(ir.IntType(64), i))
        rows.append(_load(FLOATS, 4)(builder, builder.add(source, offset)))
    for apart in (8, 4, 2, 1):
        low = [i if not i & apart else LANES + i - apart for i in range(LANES)]
        high = [i + apart if not i & apart else LANES + i for i in range(LANES)]
        for i in range(LANES):
            if not i & apart:
                first, second = rows[i], rows[i + apart]
                rows[i] = builder.shuffle_vector(first, second, ir.Constant(INTS, low))
                rows[i + apart] = builder.shuffle_vector(first, second, ir.Constant(INTS, high))
    for i in range(LANES):
        offset = builder.mul(target_step, ir.Constant(ir.IntType(64), i))
        _store(4)(builder, builder.add(target, offset), rows[i])
    return ir.Constant(ir.IntType(8), None)


def _pairs(first: int, second: int):
    """Of each pair of lanes, the ones at these places in it."""
    order = [i // 2 * 2 + (second if i % 2 else first) for i in range(LANES)]

    def build(builder: Any, x: Any) -> Any:
        return builder.shuffle_vector(x, x, ir.Constant(INTS, order))

    return build


def _negate_firsts(builder: Any, x: Any) -> Any:
    signs = ir.Constant(INTS, [0 if i % 2 else 1 << 31 for i in range(LANES)])
    return builder.bitcast(builder.xor(builder.bitcast(x, INTS), signs), FLOATS)


def _store_quarters(builder: Any, address: Any, step: Any, value: Any) -> Any:
    for i in range(4):
        order = ir.Constant(ir.VectorType(ir.IntType(32), 4), [4 * i + k for k in range(4)])
        part = builder.shuffle_vector(value, value, order)
        offset = builder.mul(step, ir.Constant(ir.IntType(64), i))
        builder.store(part, _pointer(builder, builder.add(address, offset)), align=4)
    return ir.Constant(ir.IntType(8), None)


def _stream(builder: Any, address: Any, value: Any) -> Any:
    store = builder.store(value, _pointer(builder, address), align=VECTOR_BYTES)
    mark = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
    store.set_metadata("nontemporal", mark)
    return ir.Constant(ir.IntType(8), None)


def _prefetch(builder: Any, address: Any) -> Any:
    number = ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [ir.PointerType(), number, number, number])
    name = "llvm.prefetch.p0"
    declared = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    # To be read, kept in every level, data.
    flags = [ir.Constant(number, flag) for flag in (0, 3, 1)]
    builder.call(declared, [_pointer(builder, address), *flags])
    return ir.Constant(ir.IntType(8), None)


_int, _float, _none = types.int64, types.float32, types.none

load = _function(vector, (_int,), _load(FLOATS, 4))
"""The 16 float32 at an address."""
load_bfloat16 = _function(vector, (_int,), _load(SHORTS, 2, halves.from_bfloat16))
"""The 16 bfloat16 at an address."""
load_float16 = _function(vector, (_int,), _load(SHORTS, 2, halves.from_float16))
"""The 16 float16 at an address."""
load_one = _function(_float, (_int,), _load(ir.FloatType(), 4))
"""The float32 at an address."""
load_int = _function(types.int32, (_int,), _load(ir.IntType(32), 4))
"""The int32 at an address."""
load_short = _function(types.int16, (_int,), _load(ir.IntType(16), 2))
"""The int16 (or the bits of a 16-bit float) at an address."""
load_word = _function(_int, (_int,), _load(ir.IntType(64), 8))
"""The int64 at an address."""

prefetch = _function(_none, (_int,), _prefetch)
"""Say that the memory at an address will soon be read."""

store = _function(_none, (_int, vector), _store(4))
"""Write 16 float32 to an address."""
stream = _function(_none, (_int, vector), _stream)
"""Write 16 float32 to an address that 64 divides, past the caches: for what is not read soon."""
store_bfloat16 = _function(_none, (_int, vector), _store(2, halves.to_bfloat16))
"""Write 16 bfloat16 to an address, rounded to the nearest."""
store_float16 = _function(_none, (_int, vector), _store(2, halves.to_float16))
"""Write 16 float16 to an address, rounded to the nearest."""
store_quarters = _function(_none, (_int, _int, vector), _store_quarters)
"""Write lanes 0 to 3 to an address, and each further four so many bytes on."""
store_one = _function(_none, (_int, _float), _store(4))
"""Write a float32 to an address."""
store_int = _function(_none, (_int, types.int32), _store(4))
"""Write an int32 to an address."""
store_short = _function(_none, (_int, types.int16), _store(2))
"""Write an int16 to an address."""

splat = _function(vector, (_float,), _splat)
"""One number in all lanes."""
add = _function(vector, (vector, vector), lambda builder, x, y: builder.fadd(x, y))
"""``x + y``."""
sub = _function(vector, (vector, vector), lambda builder, x, y: builder.fsub(x, y))
"""``x - y``."""
mul = _function(vector, (vector, vector), lambda builder, x, y: builder.fmul(x, y))
"""``x * y``."""
div = _function(vector, (vector, vector), lambda builder, x, y: builder.fdiv(x, y))
"""``x / y``."""
neg = _function(vector, (vector,), lambda builder, x: builder.fneg(x))
"""``-x``."""
fma = _function(vector, (vector, vector, vector), _call("llvm.fma.v16f32", FLOATS))
"""``x * y + z``, rounded once."""
absolute = _function(vector, (vector,), _call("llvm.fabs.v16f32", FLOATS))
"""``|x|``."""
sqrt = _function(vector, (vector,), _call("llvm.sqrt.v16f32", FLOATS))
"""The square root."""
maximum = _function(vector, (vector, vector), _maximum)
"""The larger one of ``x`` and ``y``; ``x`` where it is NaN."""
minimum = _function(vector, (vector, vector), _minimum)
"""The smaller one of ``x`` and ``y``; ``x`` where it is NaN."""
where_negative = _function(vector, (vector, vector, vector), _where_negative)
"""``y`` where ``x`` is below 0, else ``z``."""
scale = _function(vector, (vector, vector), _scale)
"""``x`` times two to the whole number that stands in the low bits of the second one's mantissa."""
swap_pairs = _function(vector, (vector,), _pairs(1, 0))
"""Lanes 1, 0, 3, 2, ..."""
firsts = _function(vector, (vector,), _pairs(0, 0))
"""Lanes 0, 0, 2, 2, ..."""
seconds = _function(vector, (vector,), _pairs(1, 1))
"""Lanes 1, 1, 3, 3, ..."""
negate_firsts = _function(vector, (vector,), _negate_firsts)
"""``x`` with lanes 0, 2, ... negated."""
sum_lanes = _function(_float, (vector,), _sum_lanes)
"""The sum of the 16 numbers."""
transpose = _function(_none, (_int, _int, _int, _int), _transpose)
"""Transpose 16 rows of 16 float32: from an address and bytes between rows, to another such pair."""
