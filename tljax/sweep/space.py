"""The space of a sweep: which keys it sets, to what, under which condition.

    optim.lr_peak=log(1e-5,1e-2)                   a range, even in the logarithm
    model.dropout=uniform(0,0.3)                   a range, even
    optim.weight_decay=0,0.01,0.1                  values
    transfer.rank=4,8,16 if transfer.method=lora   only where another key says so

A point is what one draw of the unit cube means. Knows no settings: who calls reads the
texts of values as the types that their keys have.
"""

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tljax.settings import InputError

_RANGE = re.compile(r"(\w+)\((.*)\)")
_SCALES = ("log", "uniform")
_PLACES = 6  # significant digits of a drawn number: enough, and readable
FORMS = "KEY=log(LOW,HIGH), KEY=uniform(LOW,HIGH) or KEY=VALUE,VALUE,..."

Point = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Only:
    """Where a dimension counts: another key has one of these values."""

    key: str
    values: tuple


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One key and what it may be.

    Attributes:
      key: dotted, without 'config.'.
      kind: 'choice', 'float' or 'int'.
      low, high: of a range, both included; 0 of a choice.
      log: whether a range is even in the logarithm.
      choices: the values of a choice; () of a range.
      only: where it counts; None = always.
    """

    key: str
    kind: str
    low: float = 0
    high: float = 0
    log: bool = False
    choices: tuple = ()
    only: Only | None = None

    def counts(self, point: Point) -> bool:
        """Whether it does, beside what the keys before it are."""
        only = self.only
        return only is None or point.get(only.key) in only.values

    def __str__(self) -> str:
        """As --over has it, without the key: 'log(1e-05,0.01)', '4,8 if KEY=lora'."""
        said = _listed(self.choices)
        if self.kind != "choice":
            said = f"{'log' if self.log else 'uniform'}({self.low},{self.high})"
        if self.only is None:
            return said
        return f"{said} if {self.only.key}={_listed(self.only.values)}"

    def value(self, share: float) -> Any:
        """What a share of the way, 0 to 1 without 1, means."""
        if self.kind == "choice":
            return self.choices[int(share * len(self.choices))]
        whole = self.kind == "int"
        low, high = self.low, self.high + whole  # whole numbers have equal shares
        if self.log:
            found = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            found = low + share * (high - low)
        if whole:
            return min(math.floor(found), int(self.high))
        return min(max(float(f"{found:.{_PLACES}g}"), self.low), self.high)


@dataclasses.dataclass(frozen=True)
class Space:
    """All dimensions, those with a condition behind the key that they ask."""

    dimensions: tuple[Dimension, ...]

    def point(self, shares: Sequence[float]) -> Point:
        """The point of a draw: one share a dimension, in order."""
        values = [
            one.value(share) for one, share in zip(self.dimensions, shares, strict=True)
        ]
        return self._where_it_counts(values)

    def grid(self) -> list[Point]:
        """Every point of a space of choices, the last key changing fastest.

        Raises:
          InputError: a dimension is a range.
        """
        for one in self.dimensions:
            if one.kind != "choice":
                raise InputError(
                    f"--search=grid needs values, but {one.key} is a range; write them"
                    f" out (--over={one.key}=A,B,C), or take --search=qmc"
                )
        found = {}
        for values in itertools.product(*(one.choices for one in self.dimensions)):
            point = self._where_it_counts(values)
            found.setdefault(identity(point), point)
        return list(found.values())

    @property
    def size(self) -> float:
        """How many points there are; infinite where a range has no steps."""
        if all(one.kind == "choice" for one in self.dimensions):
            return len(self.grid())
        return math.inf

    def _where_it_counts(self, values: Sequence[Any]) -> Point:
        point = {}
        for one, value in zip(self.dimensions, values, strict=True):
            if one.counts(point):
                point[one.key] = value
        return point


def identity(point: Mapping[str, Any]) -> str:
    """Equal for equal points."""
    return json.dumps(point, sort_keys=True)


def parse_space(overs: Sequence[str], *, read: Callable[[str, str], Any]) -> Space:
    """Reads dimensions as users write them.

    Args:
      overs: each FORMS, perhaps with ' if OTHER_KEY=VALUE,...' behind.
      read: (key, text) -> value of the key's type; InputError where it is none.

    Raises:
      InputError: a text is of no form, its key is not a setting or given twice, a range
        is empty, reversed or has no logarithm, a condition that never holds.
    """
    dimensions: dict[str, Dimension] = {}
    for text in overs:
        one = _dimension(text, read)
        if one.key in dimensions:
            raise InputError(f"--over={text}: {one.key} is swept already; name it once")
        if one.only:
            _check_condition(text, one.only, dimensions)
        dimensions[one.key] = one
    if not dimensions:
        raise InputError(f"a sweep needs --over={FORMS}, or sweep() in the config file")
    return Space(tuple(dimensions.values()))


def _dimension(text: str, read) -> Dimension:
    body, _, condition = text.partition(" if ")
    key, equals, values = (part.strip() for part in body.partition("="))
    if not (key and equals and values):
        raise InputError(f"--over={text} is empty or of no form; write {FORMS}")
    only = None
    if condition:
        other, _, allowed = (part.strip() for part in condition.partition("="))
        only = Only(other, tuple(_values(other, allowed, read)))
    if values.startswith(tuple(f"{name}(" for name in _SCALES)) and values[-1] != ")":
        raise InputError(f"--over={text}: {values} lacks its ')'; write {FORMS}")
    scale = _RANGE.fullmatch(values)
    if not scale:
        return Dimension(
            key, "choice", choices=_choices(text, key, values, read), only=only
        )
    name, ends = scale[1], [end.strip() for end in scale[2].split(",")]
    if name not in _SCALES or len(ends) != 2:
        raise InputError(f"--over={text}: {values} is no range; write {FORMS}")
    low, high = (read(key, end) for end in ends)
    numbers = (int, float)
    if type(low) not in numbers or type(high) not in numbers:
        raise InputError(
            f"--over={text}: {key} is not a number; give values: --over={key}=A,B"
        )
    if not low < high:
        raise InputError(
            f"--over={text}: the range is {'empty' if low == high else 'reversed'};"
            " the first number must be below the second"
        )
    if name == "log" and low <= 0:
        raise InputError(
            f"--over={text}: {low:g} has no logarithm; begin above 0, or take uniform()"
        )
    kind = "int" if type(low) is int else "float"
    return Dimension(key, kind, low=low, high=high, log=name == "log", only=only)


def _choices(text: str, key: str, values: str, read) -> tuple:
    found = tuple(_values(key, values, read))
    if any(isinstance(one, list | dict) for one in found):
        raise InputError(f"--over={text}: {key} is a list, which no sweep can set")
    if len({identity({"": one}) for one in found}) < len(found):
        raise InputError(f"--over={text} names a value twice; name each once")
    return found


def _values(key: str, text: str, read) -> Iterator[Any]:
    """'a,b', or JSON where a value has a comma: '["a,b", "c"]'."""
    parts = text.split(",")
    if text.startswith("["):
        try:
            parts = [
                one if isinstance(one, str) else json.dumps(one)
                for one in json.loads(text)
            ]
        except ValueError as error:
            raise InputError(f"--over={key}={text} is not JSON: {error}") from error
    for part in parts:
        if not part.strip():
            raise InputError(f"--over={key}={text} has an empty value; write {FORMS}")
        yield read(key, part.strip())


def _listed(values: Sequence[Any]) -> str:
    """What `_values` reads: other text for other values."""
    texts = [str(one) for one in values]
    return json.dumps(texts) if any("," in one for one in texts) else ",".join(texts)


def _check_condition(text: str, only: Only, before: Mapping[str, Dimension]) -> None:
    other = before.get(only.key)
    if other is None or other.kind != "choice":
        raise InputError(
            f"--over={text}: {only.key} must be swept over values, by an --over before"
            " this one; else it is always so or never"
        )
    never = [one for one in only.values if one not in other.choices]
    if never:
        raise InputError(
            f"--over={text}: {only.key} is never {never[0]!r}; it is swept over"
            f" {', '.join(map(repr, other.choices))}"
        )


def to_rows(space: Space) -> list[dict[str, Any]]:
    """The space as JSON."""
    return json.loads(json.dumps([dataclasses.asdict(one) for one in space.dimensions]))


def from_rows(rows: Sequence[Mapping[str, Any]]) -> Space:
    """What `to_rows` wrote."""
    return Space(
        tuple(
            Dimension(
                **{
                    **row,
                    "choices": tuple(row["choices"]),
                    "only": row["only"]
                    and Only(row["only"]["key"], tuple(row["only"]["values"])),
                }
            )
            for row in rows
        )
    )
