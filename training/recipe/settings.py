"""Declares each setting once: type, default, range, choices and help.

Flags, keys of YAML files, checks, `--help` and the table in the documentation are derived from the declaration.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import math
import os
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from dataset_builder import UserError

_KINDS = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class RecipeError(UserError):
    """A recipe that cannot be run; the message names the field, its value and what is allowed."""


@dataclass(frozen=True)
class Limits:
    """The range of a number."""

    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        if self.at_least is not None and self.at_most is not None:
            return f"between {self.at_least} and {self.at_most}"
        limits = {name.replace("_", " "): limit for name, limit in dataclasses.asdict(self).items()}
        return " and ".join(f"{name} {limit}" for name, limit in limits.items() if limit is not None)


@dataclass(frozen=True)
class Setting:
    """The definition of a setting.

    Attributes:
        name: of the field and, with `--`, of the flag.
        kind: type of the value, or of each value of a list.
        help: one sentence or more.
        default: value if not given.
        is_list: whether the value is a list.
        metavars: names of the values in `--help`, for a list of that many values.
        is_optional: whether None is a value.
        choices: all values, or a function that returns them, for choices that need an expensive import.
        bare: value of a flag without a value; None if the flag requires one.
        limits: range of a number.
    """

    name: str
    kind: type
    help: str = ""
    default: Any = None
    is_list: bool = False
    is_optional: bool = False
    choices: Sequence[str] | Callable[[], Sequence[str]] = ()
    bare: Any = None
    metavars: tuple[str, ...] = ()
    limits: Limits = Limits()

    def parse(self, value: Any, file: str | os.PathLike[str] | None = None) -> Any:
        """Converts and checks a value: text, what YAML makes of it (`3e-5` is text there, `no` is false), or an object.

        Args:
            value: what was given.
            file: where it was given, for the message; a flag or an argument of Python if None.

        Raises:
            RecipeError: naming the setting, the value and what is allowed.
        """
        if value is None and self.is_optional:
            return None
        if not self.is_list:
            return self._parse_one(value, file)
        if not isinstance(value, (str, list, tuple)):
            raise RecipeError(f"{self._subject(file)} must be a list, got {value!r}")
        values = [value] if isinstance(value, str) else value
        if wrong := [item for item in values if isinstance(item, dict)]:
            raise RecipeError(f"{self._subject(file)} must be a list of texts, got {wrong[0]!r} in it")
        if self.metavars and len(values) != len(self.metavars):
            raise RecipeError(f"{self._subject(file)} takes {' and '.join(self.metavars)}, got {value!r}")
        return [self._parse_one(item, file) for item in values]

    def parse_flag(self, text: str) -> Any:
        """A value of a flag; argparse calls it for each value of a list."""
        try:
            return self._parse_one(text, None)
        except RecipeError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    def _parse_one(self, value: Any, file: str | os.PathLike[str] | None) -> Any:
        choices = self.choices() if callable(self.choices) else self.choices
        if value is False and "no" in choices:
            value = "no"
        try:
            converted = _converted(self.kind, value)
        except (TypeError, ValueError, LookupError, AttributeError, OverflowError):
            raise RecipeError(f"{self._subject(file)} must be {_KINDS[self.kind]}, got {value!r}") from None
        if choices and converted not in choices:
            raise RecipeError(f"{f'{file}: ' if file else ''}{unknown_choice(self.name, converted, choices)}")
        if self.kind in (int, float) and not math.isfinite(converted):
            raise RecipeError(f"{self._subject(file)} must be a finite number, got {value}")
        if self.kind in (int, float) and converted not in self.limits:
            raise RecipeError(f"{self._subject(file)} must be {self.limits}, got {value}")
        return converted

    def _subject(self, file: str | os.PathLike[str] | None) -> str:
        return f"--{self.name}" if file is None else f"{file}: {self.name}"

    @property
    def default_and_limits(self) -> str:
        """Both in words, for `--help`; empty if there are none."""
        shown = "" if self.default in (None, "", []) or self.default is False else f"default: {self.default}"
        return ", ".join(part for part in (shown, str(self.limits)) if part)


def unknown_choice(name: str, value: object, choices: Iterable[object]) -> str:
    """An error for a value that is not a choice, with the closest one."""
    names = [str(choice) for choice in choices]
    close = difflib.get_close_matches(str(value), names, n=1)
    listed = f"choose from {', '.join(names)}"
    return f"unknown {name} {value!r}; {f'did you mean {close[0]}? ' if close else ''}{listed}"


def setting(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] | Callable[[], Sequence[str]] = (),
    bare: Any = None,
    metavars: tuple[str, ...] = (),
    **limits: float,
) -> Any:
    """A field of a dataclass; see `Setting`, and `Limits` for the limits."""
    metadata = {"help": help, "choices": choices, "bare": bare, "metavars": metavars, "limits": Limits(**limits)}
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@cache
def settings_of(dataclass_type: type) -> dict[str, Setting]:
    """The settings that are the fields of a dataclass, by name."""
    hints = typing.get_type_hints(dataclass_type)
    found = {}
    for spec in dataclasses.fields(dataclass_type):
        hint = hints[spec.name]
        kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        is_list = typing.get_origin(kinds[0]) is list
        found[spec.name] = Setting(
            spec.name,
            typing.get_args(kinds[0])[0] if is_list else kinds[0],
            default=spec.default_factory() if callable(spec.default_factory) else spec.default,
            is_list=is_list,
            is_optional=type(None) in kinds,
            **spec.metadata,
        )
    return found


def add_flags(parser: argparse.ArgumentParser, settings: Iterable[Setting], *, only_given: bool = False) -> None:
    """Adds a flag for each setting, and `--no_NAME` where the default is true.

    Args:
        parser: parser that receives the flags.
        settings: what the flags are derived from.
        only_given: leave settings that are not given out of what the parser returns, instead of their defaults.
    """
    for spec in settings:
        options: dict[str, Any] = {"type": spec.parse_flag, "help": spec.help}
        if spec.default_and_limits:
            options["help"] += f" ({spec.default_and_limits})"
        if spec.is_list:
            options |= {"nargs": len(spec.metavars), "metavar": spec.metavars} if spec.metavars else {"nargs": "+"}
        elif spec.kind is bool or spec.bare is not None:
            options |= {"nargs": "?", "const": spec.kind is bool or spec.bare}
        if spec.choices and not callable(spec.choices):
            options["choices"] = spec.choices
        default = argparse.SUPPRESS if only_given else spec.default
        parser.add_argument(f"--{spec.name}", default=default, **options)
        if spec.default is True:
            text = f"same as --{spec.name} false"
            parser.add_argument(f"--no_{spec.name}", dest=spec.name, action="store_false", default=default, help=text)


def _converted(kind: type, value: Any) -> Any:
    if kind is bool:
        return value if isinstance(value, bool) else _TRUTHS[value.lower()]
    if isinstance(value, bool):
        raise TypeError
    if kind is str and isinstance(value, dict):
        return json.dumps(value)
    if kind is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    if kind is str and not isinstance(value, (str, int, float)):
        raise TypeError
    if kind is int and float(value) != int(value):
        raise ValueError
    return kind(value)
