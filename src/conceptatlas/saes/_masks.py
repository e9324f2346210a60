"""Sixty-four comparisons at once, as the bits of one number: vector instructions that a compiler does not find by itself.

Written in LLVM's vector types, which it turns into whatever the processor has. They read ``LANES`` numbers whatever the
array's length: arrays need so much room behind the last number that counts, and bits of what is there are to be cleared.

Compiled loops that use these are kept on disk until *their* file changes: touch ``_kernels.py`` after a change here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 64
_BITS = ir.IntType(LANES)


def _loader(context: Any, builder: Any, element: Any, size: int) -> Callable[[Any, Any, Any], Any]:
    """Return what loads ``LANES`` numbers of ``size`` bytes from a contiguous array, from an index on."""
    vector = ir.VectorType(element, LANES)

    def load(array_type: Any, array: Any, index: Any) -> Any:
        first = builder.gep(context.make_array(array_type)(context, builder, array).data, [index])
        loaded = builder.load(builder.bitcast(first, vector.as_pointer()))
        loaded.align = size
        return loaded

    return load


@intrinsic
def at_most(_typing: Any, numbers: Any, bounds: Any, index: Any) -> Any:
    """Return a bit for each of ``numbers[i] <= bounds[i]``, i from ``index`` to ``index + 63``; int16 arrays [F]."""
    signature = types.uint64(numbers, bounds, index)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        load = _loader(context, builder, ir.IntType(16), 2)
        number, bound = (load(signature.args[i], given[i], given[2]) for i in range(2))
        return builder.bitcast(builder.icmp_signed("<=", number, bound), _BITS)

    return signature, generate


@intrinsic
def sum_above(_typing: Any, numbers: Any, more: Any, bounds: Any, index: Any) -> Any:
    """Return a bit for each of ``numbers[i] + more[i] > bounds[i]``, as :func:`at_most`; float32 arrays [F]."""
    signature = types.uint64(numbers, more, bounds, index)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        load = _loader(context, builder, ir.FloatType(), 4)
        number, plus, bound = (load(signature.args[i], given[i], given[3]) for i in range(3))
        return builder.bitcast(builder.fcmp_ordered(">", builder.fadd(number, plus), bound), _BITS)

    return signature, generate


@intrinsic
def sum_above_one(_typing: Any, numbers: Any, _more: Any, _bound: Any, index: Any) -> Any:
    """As :func:`sum_above`, with the same ``more`` and ``bound`` for all."""
    signature = types.uint64(numbers, types.float32, types.float32, index)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        number = _loader(context, builder, ir.FloatType(), 4)(signature.args[0], given[0], given[3])
        plus, limit = (_everywhere(builder, given[i]) for i in (1, 2))
        return builder.bitcast(builder.fcmp_ordered(">", builder.fadd(number, plus), limit), _BITS)

    return signature, generate


def _everywhere(builder: Any, number: Any) -> Any:
    """Return ``LANES`` times the same number."""
    vector = ir.VectorType(number.type, LANES)
    nothing, places = ir.Constant(vector, ir.Undefined), ir.VectorType(ir.IntType(32), LANES)
    one = builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, nothing, ir.Constant(places, [0] * LANES))


@intrinsic
def lowest(_typing: Any, _word: Any) -> Any:
    """Return the place of the lowest bit that is set, of a number that is not zero."""
    signature = types.intp(types.uint64)

    def generate(_context: Any, builder: Any, _signature: Any, given: Any) -> Any:
        return builder.cttz(given[0], ir.Constant(ir.IntType(1), 1))

    return signature, generate
