"""PromQL, as much of it as our rules and panels use: parsed strictly, and worked out over samples.

After https://prometheus.io/docs/prometheus/latest/querying/. A range is from one scrape to the next
one, two of which are given: `rate` and `increase` are what lies between them.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

TOKENS = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)"
    r'|(?P<string>"(?:[^"\\]|\\.)*")|(?P<range>\[\d+[smhd]\])'
    r"|(?P<sign>=~|!~|!=|==|>=|<=|[-+*/(){},=<>]))"
)
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
LEVELS = (("or",), ("and", "unless"), ("==", "!=", "<", ">", "<=", ">="), ("+", "-"), ("*", "/"))
ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul,
    "/": lambda a, b: a / b if b else math.nan,
}  # fmt: skip
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt,
    ">": operator.gt, "<=": operator.le, ">=": operator.ge,
}  # fmt: skip
AGGREGATIONS: dict[str, Callable[[list[float]], float]] = {"sum": sum, "max": max, "min": min}

Labels = dict[str, str]
Sample = tuple[str, Labels, float]
Vector = list[tuple[Labels, float]]


class PromqlError(ValueError):
    """Not PromQL, or more of it than is known here."""


@dataclass(frozen=True)
class Scrapes:
    """What was found at two moments."""

    before: list[Sample]
    now: list[Sample]


Node = Callable[[Scrapes], "Vector | float"]


class Parser:
    """One expression: `node` works it out, `names` are the metrics that it asks for."""

    def __init__(self, text: str) -> None:
        self.names: set[str] = set()
        self._tokens = list(_tokens(text))
        self.node = self._binary(0)
        if self._tokens:
            raise PromqlError(f"{text!r}: what is {self._tokens[0][1]!r}?")

    def _next(self) -> tuple[str, str]:
        if not self._tokens:
            raise PromqlError("it ends too early")
        return self._tokens.pop(0)

    def _peek(self) -> str:
        return self._tokens[0][1] if self._tokens else ""

    def _take(self, wanted: str) -> None:
        if (found := self._next()[1]) != wanted:
            raise PromqlError(f"{found!r} where {wanted!r} was expected")

    def _binary(self, level: int) -> Node:
        if level == len(LEVELS):
            return self._primary()
        left = self._binary(level + 1)
        while self._peek() in LEVELS[level]:
            sign, on = self._next()[1], self._on()
            left = _binary(sign, on, left, self._binary(level + 1))
        return left

    def _on(self) -> list[str] | None:
        if self._peek() != "on":
            return None
        self._next()
        return self._names()

    def _names(self) -> list[str]:
        self._take("(")
        found = []
        while self._peek() != ")":
            found.append(self._next()[1])
            if self._peek() == ",":
                self._next()
        self._take(")")
        return found

    def _primary(self) -> Node:
        kind, text = self._next()
        if kind == "number":
            return lambda _: float(text)
        if text == "(":
            inner = self._binary(0)
            self._take(")")
            return inner
        if kind != "name":
            raise PromqlError(f"{text!r} begins nothing")
        if text in AGGREGATIONS:
            return self._aggregation(text)
        if self._peek() == "(":
            return self._call(text)
        return self._selector(text)

    def _aggregation(self, name: str) -> Node:
        by: list[str] = []
        if self._peek() == "by":
            self._next()
            by = self._names()
        self._take("(")
        inner = self._binary(0)
        self._take(")")

        def aggregate(scrapes: Scrapes) -> Vector:
            groups: dict[tuple[tuple[str, str], ...], list[float]] = {}
            for labels, value in _vector(inner(scrapes)):
                key = tuple((label, labels[label]) for label in by if label in labels)
                groups.setdefault(key, []).append(value)
            return [(dict(key), AGGREGATIONS[name](values)) for key, values in groups.items()]

        return aggregate

    def _call(self, name: str) -> Node:
        self._take("(")
        if name in ("rate", "increase"):
            kind, metric = self._next()
            if kind != "name":
                raise PromqlError(f"{name} takes a range of a metric")
            found = self._range(metric, name)
        elif name == "vector":
            number = self._binary(0)
            found = lambda scrapes: [({}, float(number(scrapes)))]  # type: ignore[arg-type] # noqa: E731 - a node
        elif name == "histogram_quantile":
            share = self._binary(0)
            self._take(",")
            buckets = self._binary(0)
            found = lambda scrapes: _quantile(share(scrapes), _vector(buckets(scrapes)))  # type: ignore[arg-type] # noqa: E731 - a node
        else:
            raise PromqlError(f"there is no {name}()")
        self._take(")")
        return found

    def _selector(self, name: str) -> Node:
        self.names.add(name)
        matches = self._matchers()
        return lambda scrapes: _chosen(scrapes.now, name, matches)

    def _range(self, name: str, how: str) -> Node:
        self.names.add(name)
        matches = self._matchers()
        kind, text = self._next()
        if kind != "range":
            raise PromqlError(f"{name} needs a range")
        seconds = int(text[1:-2]) * SECONDS[text[-2]]

        def difference(scrapes: Scrapes) -> Vector:
            before = {_key(labels): v for labels, v in _chosen(scrapes.before, name, matches)}
            over = seconds if how == "rate" else 1
            now = _chosen(scrapes.now, name, matches)
            return [(x, (v - before[_key(x)]) / over) for x, v in now if _key(x) in before]

        return difference

    def _matchers(self) -> list[Callable[[Labels], bool]]:
        if self._peek() != "{":
            return []
        self._next()
        found = []
        while self._peek() != "}":
            (_, label), (_, sign), (kind, text) = self._next(), self._next(), self._next()
            if sign not in ("=", "!=", "=~", "!~") or kind != "string":
                raise PromqlError(f"{label}{sign}{text} matches nothing")
            found.append(_matcher(label, sign, text[1:-1]))
            if self._peek() == ",":
                self._next()
        self._take("}")
        return found


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    place = 0
    while place < len(text.rstrip()):
        found = TOKENS.match(text, place)
        if found is None:
            raise PromqlError(f"{text[place:]!r} can't be read")
        assert found.lastgroup is not None
        yield found.lastgroup, found[found.lastgroup]
        place = found.end()


def _matcher(label: str, sign: str, text: str) -> Callable[[Labels], bool]:
    shape = re.compile(text if sign.endswith("~") else re.escape(text))
    return lambda labels: bool(shape.fullmatch(labels.get(label, ""))) is not sign.startswith("!")


def _chosen(samples: list[Sample], name: str, matches: list[Callable[[Labels], bool]]) -> Vector:
    return [
        (labels, value)
        for metric, labels, value in samples
        if metric == name and all(match(labels) for match in matches)
    ]


def _vector(found: Vector | float) -> Vector:
    if isinstance(found, float | int):
        raise PromqlError("a number where a vector is needed")
    return found


def _key(labels: Labels, on: list[str] | None = None) -> frozenset[tuple[str, str]]:
    return frozenset(each for each in labels.items() if on is None or each[0] in on)


def _binary(sign: str, on: list[str] | None, left: Node, right: Node) -> Node:
    def work_out(scrapes: Scrapes) -> Vector | float:
        a, b = left(scrapes), right(scrapes)
        if sign in ("and", "unless", "or"):
            mine, theirs = _vector(a), _vector(b)
            there = {_key(labels, on) for labels, _ in theirs}
            if sign == "or":
                here = {_key(labels, on) for labels, _ in mine}
                return mine + [each for each in theirs if _key(each[0], on) not in here]
            return [each for each in mine if (_key(each[0], on) in there) is (sign == "and")]
        if isinstance(b, float | int):
            pairs = [(labels, value, float(b)) for labels, value in _vector(a)]
        else:
            others = {_key(labels, on): value for labels, value in b}
            mine = [each for each in _vector(a) if _key(each[0], on) in others]
            pairs = [(labels, value, others[_key(labels, on)]) for labels, value in mine]
        if sign in ARITHMETIC:
            return [(labels, ARITHMETIC[sign](x, y)) for labels, x, y in pairs]
        return [(labels, x) for labels, x, y in pairs if COMPARISONS[sign](x, y)]

    return work_out


def _quantile(share: float, buckets: Vector) -> Vector:
    """By the bucket in which it lies, evenly within that: as Prometheus has it."""
    groups: dict[frozenset[tuple[str, str]], list[tuple[float, float]]] = {}
    for labels, value in buckets:
        rest = {name: text for name, text in labels.items() if name != "le"}
        groups.setdefault(_key(rest), []).append((float(labels["le"]), value))
    found = []
    for key, bounds in groups.items():
        bounds.sort()
        total, low, below = bounds[-1][1], 0.0, 0.0
        for bound, count in bounds:
            if count >= share * total > 0:
                inside = (share * total - below) / (count - below) if count > below else 1.0
                value = low if math.isinf(bound) else low + (bound - low) * inside
                found.append((dict(key), value))
                break
            low, below = bound, count
    return found
