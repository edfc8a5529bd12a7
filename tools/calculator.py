"""Toolformer's calculator (Schick et al. 2023, section 3): the four operations, the result rounded to two decimals."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from rag.core.errors import InputError
from rag.core.registry import component

LONGEST = 200
"""Characters of an expression: it also bounds the digits of every number in between."""
DEEPEST = 40
LARGEST = 10**15

_LEXEME = re.compile(r"\s*(?:([0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)|(\*\*|//|[-+*/()]))")
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "（": "(", "）": ")"})
_OPERATIONS: Mapping[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
}


@component
class Calculator:
    """Computes with + - * /, signs and parentheses: "27 + 4 * 2" gives "35", "400 / 1400" gives "0.29".

    Arithmetic is exact and rounded once, half up. Anything else in the expression, a division by zero, more than 200 characters, 40 levels
    or a result beyond 10^15 is an `InputError`. Nothing is ever evaluated as code.
    """

    name = "Calculator"
    description = "computes with + - * / and parentheses, to two decimals"
    schema: Mapping[str, Any] = {
        "type": "object",
        "properties": {"expression": {"type": "string", "description": "such as 27 + 4 * 2"}},
        "required": ["expression"],
        "examples": [{"expression": "400 / 1400"}],
    }

    async def acall(self, arguments: Mapping[str, Any]) -> str:
        """The value of ``arguments["expression"]``."""
        return calculate(arguments["expression"])


def calculate(expression: str) -> str:
    """The value of ``expression``, rounded to two decimals, without trailing zeros. Raises `InputError`."""
    if not isinstance(expression, str) or not expression.strip():
        raise InputError("the expression is empty; give one such as 27 + 4 * 2")
    if len(expression) > LONGEST:
        raise InputError(f"the expression has {len(expression):,} characters; at most {LONGEST} are allowed")
    value = _Parser(_lexemes(expression.translate(_SIGNS)), expression.strip()).value()
    if abs(value) > LARGEST:
        raise InputError(f"'{expression.strip()}' is beyond 10^15, the largest result that is given")
    hundredths = (abs(value.numerator) * 200 + value.denominator) // (2 * value.denominator)
    text = f"{hundredths // 100}.{hundredths % 100:02d}".rstrip("0").rstrip(".")
    return f"-{text}" if value < 0 and hundredths else text


def _lexemes(expression: str) -> list[str]:
    found, at = [], 0
    end = len(expression.rstrip())
    while at < end:
        match = _LEXEME.match(expression, at)
        if match is None or match[2] in ("**", "//"):
            wrong = (match[2] if match else expression[at:].split(maxsplit=1)[0])[:20]
            raise InputError(f"'{wrong}' is not arithmetic; allowed are numbers, + - * / and parentheses")
        found.append((match[1] or match[2]).replace(",", ""))
        at = match.end()
    return found


class _Parser:
    """Recursive descent over sum > product > signed > number | (sum)."""

    def __init__(self, lexemes: list[str], expression: str) -> None:
        self._lexemes = lexemes
        self._expression = expression
        self._at = 0
        self._depth = 0

    def value(self) -> Fraction:
        value = self._sum()
        if self._next() is not None:
            raise self._wrong(f"'{self._next()}' is not expected")
        return value

    def _sum(self) -> Fraction:
        return self._chain(self._product, "+-")

    def _product(self) -> Fraction:
        return self._chain(self._signed, "*/")

    def _chain(self, operand: Callable[[], Fraction], signs: str) -> Fraction:
        value = operand()
        while (sign := self._next()) is not None and sign in signs:
            self._at += 1
            right = operand()
            if sign == "/" and right == 0:
                raise self._wrong("division by zero")
            value = _OPERATIONS[sign](value, right)
        return value

    def _signed(self) -> Fraction:
        negative = False
        while self._next() in ("-", "+"):
            negative ^= self._next() == "-"
            self._at += 1
        value = self._primary()
        return -value if negative else value

    def _primary(self) -> Fraction:
        lexeme = self._next()
        self._at += 1
        if lexeme == "(":
            return self._group()
        if lexeme is None or not lexeme[-1].isdigit():
            raise self._wrong("a number is missing" + (f" before '{lexeme}'" if lexeme else " at the end"))
        return Fraction(lexeme)

    def _group(self) -> Fraction:
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._wrong(f"parentheses nest deeper than {DEEPEST} levels")
        value = self._sum()
        if self._next() != ")":
            raise self._wrong("')' is missing")
        self._at += 1
        self._depth -= 1
        return value

    def _next(self) -> str | None:
        return self._lexemes[self._at] if self._at < len(self._lexemes) else None

    def _wrong(self, what: str) -> InputError:
        return InputError(f"{what} in '{self._expression}'")
