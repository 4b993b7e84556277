"""Flags and exit statuses of programs, and errors that name flags instead of Python arguments."""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import tyro

from genesis_rl.utils.process import report_stop

_T = TypeVar("_T")
_VALUE = r"""=(?:"([^"]*)"|'([^']*)'|(\w+))"""
# image_layout="HWC", and GenesisObs(render=True).
_SETTING = re.compile(rf"""(?<![\w.('"-])(?<!, )([\w.]*\w){_VALUE}""")
_CALL = re.compile(rf"\b[\w.]+\((\w+){_VALUE}\)")
# The subjects of a message: "n_envs must", "validation and test must".
_SUBJECTS = re.compile(
    r"(?:^|(?<=[.:] )|(?<=\bone of ))(?:[\w.]+, )*(?:[\w.]+ (?:and|or) )?[\w.]+(?= must\b)"
)
# "with minari, ...", "for obs 'state'".
_CONDITION = re.compile(r"(?<=\bwith )\w+(?=,| got\b)|(?<=\bfor )\w+(?= ')")
# Names with an underscore are always arguments.
_NAME = re.compile(r"""(?<![\w.\-/'"(\[])(?:\w+\.)*\w+_\w+(?![\w\-/'"(\[=]|\.\w| of )""")


class _InvalidError(Exception):
    """Wrapper of a ValueError of the settings, which tyro would print before exiting."""


def program(
    name: str,
    settings: type[_T],
    description: str | None = None,
    *,
    advice: str = "",
    parse: Callable[[Sequence[str] | None], _T] | None = None,
    errors: tuple[type[Exception], ...] = (ValueError, TypeError, OSError),
    failures: tuple[type[Exception], ...] = (),
    ignored: Sequence[str] = (),
) -> Callable[[Callable[[_T], int]], Callable[..., int]]:
    """Decorate a program's ``main``: parse its flags, and report errors and stops in one line.

    The decorated function has one argument, the flags (default: those of the process). It returns
    the exit status: that of ``main``, 2 for invalid settings or data, 1 for a failure, or that of
    a stop, see `report_stop`.

    Args:
        name: name of the program, for messages.
        settings: dataclass of the flags, possibly with markers of `tyro.conf`.
        description: text of --help.
        advice: next step for the user after an interrupt.
        parse: parser of the flags instead of `parse_flags`, which raises the same errors.
        errors: errors of settings or data.
        failures: errors of a program with valid settings and data, such as a diverged training.
        ignored: fields whose flags have no effect, see `report_error`.
    """

    def decorate(main: Callable[[_T], int]) -> Callable[..., int]:
        @report_stop(name, advice)
        @wraps(main)
        def wrapped(argv: Sequence[str] | None = None) -> int:
            try:
                config = parse(argv) if parse else parse_flags(settings, argv, description)
                return main(config)
            except (*failures, *errors) as error:
                report_error(name, error, settings, ignored)
                return 1 if isinstance(error, failures) else 2

        return wrapped

    return decorate


def parse_flags(
    settings: type[_T], argv: Sequence[str] | None, description: str | None = None, **options: Any
) -> _T:
    """Parse the flags of a program.

    Args:
        settings: dataclass of the flags, possibly with markers of `tyro.conf`.
        argv: the flags; None for those of the process.
        description: text of --help.
        options: other arguments of `tyro.cli`.

    Raises:
        ValueError: if the settings reject a value; the message names a field, see `report_error`.
        SystemExit: for --help, and for unknown flags or values of another type.
    """
    try:
        with ExitStack() as stack:
            for part in {part for _, part in _dataclasses(settings)}:
                stack.enter_context(_unprinted(part))
            parsed: _T = tyro.cli(settings, args=argv, description=description, **options)
            return parsed
    except _InvalidError as error:
        raise error.args[0] from None


@contextmanager
def _unprinted(part: Any) -> Iterator[None]:
    """Replace the ValueErrors of a dataclass's validation by _InvalidError."""
    validate = getattr(part, "__post_init__", None)
    if validate is None:
        yield
        return

    def validate_or_raise(self: Any, *values: Any) -> None:
        try:
            validate(self, *values)
        except ValueError as error:
            raise _InvalidError(error) from None

    own = "__post_init__" in vars(part)
    part.__post_init__ = validate_or_raise
    try:
        yield
    finally:
        if own:
            part.__post_init__ = validate
        else:
            del part.__post_init__


def report_error(
    program: str, error: Exception, settings: Any, ignored: Sequence[str] = ()
) -> None:
    """Print an error to stderr, in one line and with the flags of a program.

    Args:
        program: name of the program.
        error: the error.
        settings: dataclass of the program's flags, as passed to `tyro.cli`.
        ignored: fields whose flags have no effect, such as "agent.seed".
    """
    text = " ".join(str(error).split())
    sys.stderr.write(f"{program}: {name_flags(text, settings, ignored)}\n")


def name_flags(text: str, settings: Any, ignored: Sequence[str] = ()) -> str:
    """Replace arguments in an error message by the flags that set them.

    Args:
        text: a message of form "<argument> must be <what is valid>, got <value>."
        settings: dataclass of the flags, as passed to `tyro.cli`.
        ignored: fields whose flags have no effect.

    Returns:
        The message; arguments without a flag, or with several, are unchanged.
    """
    flags = flags_of(settings, ignored)

    def setting(match: re.Match[str]) -> str:
        flag, value = flags.get(match[1]), match[match.lastindex or 0]
        if flag is None or value == "None":
            return match[0]
        if value == "False":
            return re.sub(r"([a-z][\w-]*)$", r"no-\1", flag)
        return flag if value == "True" else f"{flag} {value}"

    def words(match: re.Match[str]) -> str:
        return re.sub(r"\w[\w.]*", lambda word: flags.get(word[0], word[0]), match[0])

    for pattern in (_CALL, _SETTING):
        text = pattern.sub(setting, text)
    for pattern in (_SUBJECTS, _CONDITION, _NAME):
        text = pattern.sub(words, text)
    return text


def flags_of(settings: Any, ignored: Sequence[str] = ()) -> dict[str, str]:
    """Return the flags of a dataclass by the names of its fields, with and without parents.

    Positional and ``ignored`` arguments are omitted, as are names of fields in several nested
    dataclasses.
    """
    found: dict[str, set[str]] = {}
    _, *markers = _unpack(settings)
    for prefix, part in _dataclasses(settings):
        hints = get_type_hints(part, include_extras=True)
        for field in fields(part):
            kind, *own_markers = _unpack(hints[field.name])
            required = field.default is MISSING and field.default_factory is MISSING
            positional = tyro.conf.Positional in own_markers or (
                required and tyro.conf.PositionalRequiredArgs in markers
            )
            if positional or _nested(kind):
                continue
            parts = [*prefix, field.name]
            if ".".join(parts) in ignored:
                continue
            flag = f"--{'.'.join(parts).replace('_', '-')}"
            for start in range(len(parts)):
                found.setdefault(".".join(parts[start:]), set()).add(flag)
    return {name: next(iter(flags)) for name, flags in found.items() if len(flags) == 1}


def _dataclasses(settings: Any, *prefix: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield a dataclass and all nested ones, each after its path of field names."""
    settings = _unpack(settings)[0]
    yield prefix, settings
    hints = get_type_hints(settings)
    for field in fields(settings):
        for part in _nested(hints[field.name]):
            yield from _dataclasses(part, *prefix, field.name)


def _nested(kind: Any) -> list[Any]:
    """Return the dataclasses of a field's type, which is one or a union of several."""
    return [part for part in (kind, *get_args(kind)) if is_dataclass(part)]


def _unpack(annotation: Any) -> tuple[Any, ...]:
    """Return a type and the markers around it."""
    return get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
