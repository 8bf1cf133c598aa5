"""Conditions on the columns of a score table: text to an Arrow expression. Parsed and translated, never executed.

    regrad > 3.2
    entropy > 1 and prediction in (3, 5) or confidence < 0.4
    not starts_with(source, "s3://bucket/trusted/") and label is None

The syntax is that of Python's comparisons, whose parser is at hand; what has no line in the tables below is refused.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from regrad.errors import UsageError

LONGEST = 10_000  # characters
_DEEPEST = 100  # levels of nesting; Arrow follows them on the stack
# What Python's parser ends in where the nesting is deep, besides a syntax error.
_PARSING = (SyntaxError, ValueError, RecursionError, MemoryError, SystemError)

COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: pc.add,
    ast.Sub: pc.subtract,
    ast.Mult: pc.multiply,
    ast.Div: lambda dividend, divisor: pc.divide(dividend.cast(pa.float64()), divisor),
}
FUNCTIONS: dict[str, Callable[[Any, str], Any]] = {
    "starts_with": pc.starts_with,
    "ends_with": pc.ends_with,
    "contains": pc.match_substring,
}
_FORM = (
    "a condition compares columns with numbers or texts, such as 'regrad > 3.2 and prediction in (3, 5)'; there are "
    f"and, or, not, in, is None, + - * /, parentheses, {', '.join(f'{name}(column, text)' for name in FUNCTIONS)}"
)


def parse_condition(text: str, schema: pa.Schema) -> pc.Expression:
    """The condition that ``text`` writes down, on tables with this ``schema``.

    >>> parse_condition("1 < a <= 2", pa.schema([("a", pa.float64())]))
    <pyarrow.compute.Expression ((1 < a) and (a <= 2))>

    Raises:
        UsageError: it is no such condition, names a column that is not there, or compares what does not compare.
    """
    if len(text) > LONGEST:
        raise UsageError(f"a condition of {len(text)} characters; at most {LONGEST} are read")
    shown = text if len(text) <= 200 else f"{text[:200]}..."
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        expression = _translate(tree, schema, 0)
        if not isinstance(expression, pc.Expression):
            raise _Refused("it does not depend on any column")
        # Arrow knows the types only when it binds the expression to columns.
        empty = pa.dataset.dataset(schema.empty_table())
        kind = empty.to_table(columns={"condition": expression}).schema.field("condition").type
    except _Refused as error:
        raise UsageError(f"{shown!r}: {error}") from error
    except (*_PARSING, pa.ArrowException, TypeError) as error:
        raise UsageError(f"{shown!r}: {_first_line(error)}; {_FORM}") from error
    if not pa.types.is_boolean(kind):
        raise UsageError(f"{shown!r}: is a number or a text ({kind}), no condition; {_FORM}")
    return expression


def columns_of(text: str, schema: pa.Schema) -> list[str]:
    """The columns of ``schema`` that a condition, which :func:`parse_condition` understood, names.

    >>> columns_of("b > 1 and a < b", pa.schema([("a", pa.int64()), ("b", pa.int64()), ("c", pa.int64())]))
    ['a', 'b']
    """
    names = {node.id for node in ast.walk(ast.parse(text.strip(), mode="eval")) if isinstance(node, ast.Name)}
    return [name for name in schema.names if name in names]


class _Refused(Exception):
    """What is wrong with a part of the condition."""


def _translate(node: ast.expr, schema: pa.Schema, depth: int) -> Any:
    """The expression of one node; constants stay what they are."""
    if depth > _DEEPEST:
        raise _Refused("nested too deeply")
    below = depth + 1
    match node:
        case ast.Constant(value=value) if isinstance(value, bool | int | float | str):
            return value
        case ast.Name(id=name):
            if name not in schema.names:
                raise _Refused(f"no column {name}; the columns are {', '.join(schema.names)}")
            return pc.field(name)
        case ast.BoolOp(op=op, values=parts):
            join = operator.and_ if isinstance(op, ast.And) else operator.or_
            conditions = [_condition(part, schema, below) for part in parts]
            result = conditions[0]
            for part in conditions[1:]:
                result = join(result, part)
            return result
        case ast.UnaryOp(op=ast.Not(), operand=part):
            return ~_condition(part, schema, below)
        case ast.UnaryOp(op=ast.USub(), operand=part):
            value = _translate(part, schema, below)
            return pc.negate(value) if isinstance(value, pc.Expression) else -_number(value)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
            return ARITHMETIC[type(op)](*(_operand(part, schema, below) for part in (left, right)))
        case ast.Compare(left=first, ops=ops, comparators=others):
            sides = [first, *others]
            conditions = [_compare(sides[place], op, sides[place + 1], schema, below) for place, op in enumerate(ops)]
            result = conditions[0]
            for part in conditions[1:]:
                result = result & part
            return result
        case ast.Call(func=ast.Name(id=name), args=[column, ast.Constant(value=str(part))], keywords=[]) if (
            name in FUNCTIONS
        ):
            return FUNCTIONS[name](_condition(column, schema, below), part)
    raise _Refused(f"{ast.unparse(node)[:60]!r} is not understood; {_FORM}")


def _compare(left: ast.expr, op: ast.cmpop, right: ast.expr, schema: pa.Schema, depth: int) -> pc.Expression:
    by_value = isinstance(op, ast.Is | ast.IsNot | ast.In | ast.NotIn)
    value: Any = _condition(left, schema, depth) if by_value else None
    match op, right:
        case ((ast.Is() | ast.IsNot()), ast.Constant(value=None)):
            return value.is_null() if isinstance(op, ast.Is) else value.is_valid()
        case ((ast.In() | ast.NotIn()), (ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items))):
            wanted = [_translate(item, schema, depth) for item in items]
            if any(isinstance(item, pc.Expression) for item in wanted):
                raise _Refused("what follows `in` must be numbers or texts")
            inside = value.isin(wanted)
            return inside if isinstance(op, ast.In) else ~inside
    if type(op) not in COMPARISONS:
        raise _Refused(f"{ast.unparse(ast.Compare(left, [op], [right]))[:60]!r} is not understood; {_FORM}")
    sides = [_translate(side, schema, depth) for side in (left, right)]
    if not any(isinstance(side, pc.Expression) for side in sides):
        raise _Refused("a comparison needs a column on one side")
    if not isinstance(sides[0], pc.Expression):
        sides[0] = pc.scalar(sides[0])
    result: pc.Expression = COMPARISONS[type(op)](*sides)
    return result


def _condition(node: ast.expr, schema: pa.Schema, depth: int) -> pc.Expression:
    translated = _translate(node, schema, depth)
    if not isinstance(translated, pc.Expression):
        raise _Refused(f"{ast.unparse(node)[:60]!r} does not depend on any column")
    return translated


def _operand(node: ast.expr, schema: pa.Schema, depth: int) -> pc.Expression:
    translated = _translate(node, schema, depth)
    return translated if isinstance(translated, pc.Expression) else pc.scalar(_number(translated))


def _number(value: Any) -> float | int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Refused(f"{value!r} is no number")
    return value


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
