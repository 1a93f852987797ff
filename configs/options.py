"""Options, and configs made of them: frozen dataclasses, flat by name, or written as a flagfile.

    config = make_config(TrainConfig, dataset_name='digits', batch_size=64)
    config.optimizer.momentum                      # groups of options, handed whole to the factory that reads them
    flat_options(TrainConfig)['batch_size'].help   # what `configs/cli.py` makes the absl flags from

A config class has one field for each group; an option's name is its flag's name and is unique within a config.
"""

import dataclasses
import functools
import math
import os
import re
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from support.errors import InputError

ConfigT = TypeVar('ConfigT')

# What every number is kept to, whatever its own bounds: int64, and what neither overflows nor vanishes in float32.
MAX_INT = 2**63 - 1
MIN_FLOAT, MAX_FLOAT = 1e-30, 3.4e38


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] | tuple[int, ...] = (),
    lower: float | None = None,
    upper: float | None = None,
    above: float | None = None,
    regex: bool = False,
    fixed: bool = False,
    path: bool = False,
    alias: str | None = None,
) -> Any:
    """Declares one option: its default, its help, and what is allowed (a choice, a bound, or a regular expression).

    Bounds are closed, but for `above`. A resumed run must have the same value of one that is `fixed`.
    Of a `path`, `~` and `~user` are expanded, wherever the value comes from. An `alias` is another name of the option.
    """
    allowed = {'choices': choices, 'lower': lower, 'upper': upper, 'above': above, 'regex': regex}
    metadata = {'help': help, **allowed, 'fixed': fixed, 'path': path, 'alias': alias}
    return dataclasses.field(default=default, metadata=metadata)


class Options:
    """Base of a group of options: expands paths, and refuses values that an option does not allow, whoever makes it."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # only dataclasses derive from this
            value = getattr(self, field.name)
            if value is None or not field.metadata:
                continue
            if field.metadata['path']:
                expanded = _each(value, functools.partial(_expand, field.name))
                object.__setattr__(self, field.name, expanded)  # frozen
            _check_option(field, getattr(self, field.name))


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    return tuple(map(change, value)) if isinstance(value, tuple | list) else change(value)


def _expand(name: str, path: str | os.PathLike[str] | int) -> str:
    """Returns a path with the home folder in the place of a leading `~` or `~user`.

    Raises:
        InputError: there is no such user, and no such file here either.
    """
    text = str(path) if isinstance(path, int) else os.fspath(path)  # a number, where one may stand for a path
    expanded = os.path.expanduser(text)
    if not expanded.startswith('~') or os.path.lexists(expanded):  # `~$draft.png`, as a shell lists it
        return expanded
    user = text.partition('/')[0][1:]
    whose = f'this machine has no user {user!r}' if user else 'the home folder of this user is unknown'
    raise InputError(f'--{name}={text}: {whose}; write the folder out, or ./{text} if its name begins with ~')


def _check_option(field: dataclasses.Field, value: Any) -> None:
    name, allowed, is_list = field.name, field.metadata, isinstance(value, tuple | list)
    for item in value if is_list else (value,):
        shown = _shown(item)
        if isinstance(item, str):
            check_text(name, item, is_name=is_list)
        if allowed['choices'] and item not in allowed['choices']:
            raise InputError(f'--{name}={shown}: must be one of {", ".join(map(str, allowed["choices"]))}')
        if isinstance(item, float) and not math.isfinite(item):
            raise InputError(f'--{name}={shown}: must be a finite number')
        if allowed['lower'] is not None and item < allowed['lower']:
            raise InputError(f'--{name}={shown}: must be at least {allowed["lower"]}')
        if allowed['above'] is not None and item <= allowed['above']:
            raise InputError(f'--{name}={shown}: must be greater than {allowed["above"]}')
        if allowed['upper'] is not None and item > allowed['upper']:
            raise InputError(f'--{name}={shown}: must be at most {allowed["upper"]}')
        _check_size(name, item)
        if allowed['regex']:
            _check_regex(name, item)


def check_text(name: str, text: str, is_name: bool = False) -> None:
    """Refuses text that no line of a flagfile can hold, or that is not Unicode.

    With `is_name` it is one of several names of files, which may be anything that a file system has.
    """
    if '\0' in text:
        raise InputError(f'--{name}={text!r}: contains a zero byte, which no name may contain; remove it')
    if is_name:
        return
    if text and text.splitlines() != [text]:
        raise InputError(
            f'--{name}={text!r}: contains a line break, which flagfiles cannot hold; remove it, or rename the file'
        )
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of the command line that are not UTF-8 come as lone surrogates
        message = f'--{name}={text!r}: not UTF-8, which TensorFlow requires for names; rename it'
        raise InputError(message) from None


def _check_size(name: str, number: Any) -> None:
    """Refuses numbers that cannot be computed with, of which an option's own bounds need not say anything."""
    if isinstance(number, float):
        if number and abs(number) < MIN_FLOAT:
            raise InputError(f'--{name}={number}: too small to compute with; must be 0 or at least {MIN_FLOAT}')
        if abs(number) > MAX_FLOAT:
            raise InputError(f'--{name}={number}: must be at most {MAX_FLOAT}')
    elif isinstance(number, int) and abs(number) > MAX_INT:
        raise InputError(f'--{name}={_shown(number)}: must be at most {MAX_INT}')


def _shown(value: Any) -> str:
    """Returns a value as messages show it: of a huge integer, which Python may not write out, only its size."""
    is_huge = isinstance(value, int) and value.bit_length() > 100
    return f'(an integer of {value.bit_length()} bits)' if is_huge else str(value)


def _check_regex(name: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise InputError(f'--{name}={pattern}: not a regular expression: {error}') from error


@dataclasses.dataclass(frozen=True)
class Option:
    """One option as a flag sees it: `kind` is str, int, float or bool; `many` a comma list of it."""

    name: str
    kind: type
    many: bool
    default: Any
    help: str
    group: str
    fixed: bool
    path: bool
    choices: tuple[str, ...]
    alias: str | None


def flat_options(config_class: type) -> dict[str, Option]:
    """Returns every option of a config class by its name, in the order of declaration."""
    options: dict[str, Option] = {}
    for group in dataclasses.fields(config_class):
        group_class = typing.cast(type, group.type)
        hints = typing.get_type_hints(group_class)
        for field in dataclasses.fields(group_class):
            if field.name in options:
                raise AssertionError(f'option {field.name} stands in two groups of {config_class.__name__}')
            kept = {name: field.metadata[name] for name in ('help', 'fixed', 'path', 'choices', 'alias')}
            kind, many = _option_type(hints[field.name])
            options[field.name] = Option(field.name, kind, many, field.default, group=group.name, **kept)
    return options


def aliases(config_class: type) -> dict[str, str]:
    """Returns the name of each option that has another one, by that."""
    return {option.alias: option.name for option in flat_options(config_class).values() if option.alias is not None}


def _option_type(hint: Any) -> tuple[type, bool]:
    if isinstance(hint, types.UnionType):  # X | None
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], True
    return hint, False


def make_config(config_class: type[ConfigT], **values: Any) -> ConfigT:
    """Makes a config from flat option values; what is not named keeps its default.

    Raises:
        InputError: a value outside what its option allows, or a name that is no option of this config.
    """
    options = flat_options(config_class)
    names = aliases(config_class)
    values = {names.get(name, name): value for name, value in values.items()}
    unknown = sorted(set(values) - set(options))
    if unknown:
        raise InputError(f'no option named {", ".join(unknown)} in {config_class.__name__}')
    groups = {}
    for group in dataclasses.fields(config_class):  # type: ignore[arg-type]
        chosen = {name: value for name, value in values.items() if options[name].group == group.name}
        groups[group.name] = typing.cast(type, group.type)(**chosen)
    return config_class(**groups)


def replace_options(config: ConfigT, **values: Any) -> ConfigT:
    """Returns `config` with some flat option values replaced."""
    return make_config(type(config), **{**flat_values(config), **values})


def flat_values(config: Any) -> dict[str, Any]:
    """Returns the value of every option of `config` by its name."""
    options = flat_options(type(config))
    return {name: getattr(getattr(config, option.group), name) for name, option in options.items()}


def to_flagfile(config: Any, without: Sequence[str] = ()) -> str:
    """Returns `config` as an absl flagfile that makes the same config again, but for the groups that are left out."""
    options = flat_options(type(config))
    lines = []
    for name, value in flat_values(config).items():
        if options[name].group in without or value is None or value == options[name].default == ():
            continue
        if isinstance(value, bool):
            lines.append(f'--{name}' if value else f'--no{name}')
        else:
            lines.append(f'--{name}={",".join(map(str, value)) if isinstance(value, tuple) else value}')
    return '\n'.join(lines) + '\n'


def from_flagfile(config_class: type, text: str) -> dict[str, Any]:
    """Returns the option values that `to_flagfile` wrote; those that this version does not know are left out.

    Raises:
        ValueError: a value that is not of its option's type.
    """
    options = flat_options(config_class)
    values: dict[str, Any] = {name: option.default for name, option in options.items()}
    for line in text.splitlines():
        name, given, value = line.strip().removeprefix('--').partition('=')
        if not given and name.removeprefix('no') in options:
            values[name.removeprefix('no')] = not name.startswith('no')
        elif given and name in options:
            option = options[name]
            items = value.split(',') if value else ()  # `--name=`: an empty list
            values[name] = tuple(map(option.kind, items)) if option.many else option.kind(value)
    return values
