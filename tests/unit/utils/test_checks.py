"""Validation of the fields of configs by their annotations."""

import math
import re
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from genesis_rl.utils.checks import (
    DIFFERENT,
    LENGTH,
    Checked,
    Count,
    Counts,
    EnvSeed,
    Finite,
    Names,
    Natural,
    NonNegative,
    PartialShare,
    Positive,
    PositiveShare,
    Seed,
    Share,
    at_least,
    one_of,
    parse_object,
    within,
)


@dataclass(frozen=True)
class Config(Checked):
    """One field of each kind."""

    count: Count = 1
    natural: Natural = 0
    seed: Seed = 0
    env_seed: EnvSeed = 0
    finite: Finite = -1.5
    positive: Positive = 1
    non_negative: NonNegative = 0.0
    positive_share: PositiveShare = 1.0
    partial_share: PartialShare = 0.0
    share: Share = 0.5
    at_least_two: Annotated[int, at_least(2)] = 2
    range: Annotated[int, within(1, 2_000)] = 1
    choice: Literal["a", "b"] = "a"
    name: Annotated[str, one_of({"c": 1, "d": 2})] = "c"
    maybe: Count | None = None
    maybe_choice: Literal["a"] | None = None
    maybe_different: Annotated[tuple[int, ...] | None, DIFFERENT] = None
    counts: Counts = (1,)
    names: Names = ("x",)
    choices: tuple[Literal["a", "b"], ...] = ()
    pair: tuple[Count, Natural] = (1, 0)
    hidden_size: int = 1
    channels: tuple[int, ...] = (1,)
    plain: int | tuple[float, ...] | str = "anything"


@pytest.mark.parametrize(
    "changes",
    [
        {"count": np.int64(3), "positive": np.float32(0.5), "share": 1},
        {"seed": 2**63 - 1, "env_seed": 2**31 - 1, "range": 2_000},
        {"maybe": 2, "maybe_choice": "a", "maybe_different": (1, 2)},
        {"counts": [1, 2], "choices": ("b", "a", "b")},  # JSON has lists
        {"hidden_size": 16_384, "plain": (math.nan,)},
    ],
)
def test_valid_values(changes: dict[str, Any]) -> None:
    replace(Config(), **changes)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("count", 0, "at least 1, got 0"),
        ("count", True, "an integer, got True"),
        ("count", 1.0, "an integer, got 1.0"),
        ("count", "1", "an integer, got '1'"),
        ("count", None, "an integer, got None"),
        ("natural", -1, "at least 0, got -1"),
        ("seed", 2**63, f"in 0..2**63 - 1, got {2**63}"),
        ("env_seed", -1, "in 0..2**31 - 1, got -1"),
        ("finite", math.inf, "finite, got inf"),
        ("positive", 0, "> 0, got 0"),
        ("positive", math.nan, "finite, got nan"),
        ("positive", False, "a number, got False"),
        ("positive", "2", "a number, got '2'"),
        ("non_negative", -0.5, "at least 0, got -0.5"),
        ("non_negative", math.inf, "finite, got inf"),
        ("positive_share", 0, "in (0, 1], got 0"),
        ("partial_share", 1, "in [0, 1), got 1"),
        ("share", 1.5, "in [0, 1], got 1.5"),
        ("at_least_two", 1, "at least 2, got 1"),
        ("range", 2_001, "from 1 to 2,000, got 2001"),
        ("choice", "c", "one of a, b, got 'c'"),
        ("choice", None, "one of a, b, got None"),
        ("name", "e", "one of c, d, got 'e'"),
        ("maybe", 0, "at least 1, got 0"),
        ("maybe_choice", "b", "one of a, got 'b'"),
        ("maybe_different", (1, 1), "different values, got (1, 1)"),
        ("counts", (), "at least one value, got ()"),
        ("counts", (1, 0), "at least 1, got 0"),
        ("counts", 1, "a tuple, got 1"),
        ("names", ("x", "x"), "different values, got ('x', 'x')"),
        ("choices", ("a", "c"), "one of a, b, got 'c'"),
        ("pair", (1, -1), "at least 0, got -1"),
        ("hidden_size", 16_385, "at most 16,384, got 16385"),
        ("channels", (1, 4_097), "at most 4,096, got 4097"),
    ],
)
def test_other_values_are_named(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{field} must be {re.escape(message)}[.]$"):
        replace(Config(), **{field: value})


def test_lengths_of_tuples() -> None:
    changes: dict[str, Any] = {"pair": (1,)}
    with pytest.raises(ValueError, match=r"^pair must have 2 values, got \(1,\)\.$"):
        replace(Config(), **changes)
    with pytest.raises(
        ValueError, match=rf"^channels must have at most {LENGTH} values, got 65\.$"
    ):
        replace(Config(), channels=(1,) * (LENGTH + 1))


def test_json_objects() -> None:
    assert parse_object("options", '{"a": [1, null]}') == {"a": [1, None]}
    for text, message in (("{", "JSON, got '{': "), ("[1]", r"a JSON object, got '\[1\]'\.$")):
        with pytest.raises(ValueError, match=f"^options must be {message}"):
            parse_object("options", text)
