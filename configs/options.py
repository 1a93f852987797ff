"""Options and configs as frozen dataclasses, as a flat dict, and as a flagfile.

    config = make_config(TrainConfig, dataset_name='digits', batch_size=64)
    config.optimizer.momentum                      # options come in groups, one per factory that reads them
    flat_options(TrainConfig)['batch_size'].help   # from these, `configs/cli.py` defines the absl flags

A config class has one field per group; an option's name is its flag's name and is unique within a config.
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

# Limits of every number in addition to its own bounds: int64, and no overflow or underflow in float32.
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
    """Declares an option: its default, its help, and its allowed values (choices, bounds, or any regular expression).

    `lower` and `upper` are inclusive, `above` is exclusive. A resumed run must keep the value of a `fixed` option.
    In a `path`, `~` and `~user` are expanded, wherever the value comes from. An `alias` is another name of the option.
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
    """Returns a path with a leading `~` or `~user` replaced by the home folder.

    Raises:
        InputError: there is no such user, and no file of this name.
    """
    text = str(path) if isinstance(path, int) else os.fspath(path)  # some path options also take a number
    expanded = os.path.expanduser(text)
    if not expanded.startswith('~') or os.path.lexists(expanded):  # a file such as `~$draft.png`
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
    """Raises InputError for text that is not valid Unicode or does not fit into a line of a flagfile.

    With `is_name` the text is one of several file names, and may be any name that a file system allows.
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
    except UnicodeEncodeError:  # Python turns bytes that are not UTF-8 into lone surrogates
        message = f'--{name}={text!r}: not UTF-8, which TensorFlow requires for names; rename it'
        raise InputError(message) from None


def _check_size(name: str, number: Any) -> None:
    """Raises InputError for numbers that int64 or float32 cannot represent, in addition to an option's own bounds."""
    if isinstance(number, float):
        if number and abs(number) < MIN_FLOAT:
            raise InputError(f'--{name}={number}: too small to compute with; must be 0 or at least {MIN_FLOAT}')
        if abs(number) > MAX_FLOAT:
            raise InputError(f'--{name}={number}: must be at most {MAX_FLOAT}')
    elif isinstance(number, int) and abs(number) > MAX_INT:
        raise InputError(f'--{name}={_shown(number)}: must be at most {MAX_INT}')


def _shown(value: Any) -> str:
    """Returns a value as text for messages; of a huge integer, which Python may refuse to print, only its size."""
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
    """Returns all options of a config class by name, in the order of declaration."""
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
    """Returns a dict from each alias to the name of its option."""
    return {option.alias: option.name for option in flat_options(config_class).values() if option.alias is not None}


def _option_type(hint: Any) -> tuple[type, bool]:
    if isinstance(hint, types.UnionType):  # X | None
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], True
    return hint, False


def make_config(config_class: type[ConfigT], **values: Any) -> ConfigT:
    """Creates a config from flat option values; other options keep their defaults.

    Raises:
        InputError: an option does not allow its value, or a name is not an option of this config.
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
    """Returns a copy of `config` with some options replaced, given by their flat names."""
    return make_config(type(config), **{**flat_values(config), **values})


def flat_values(config: Any) -> dict[str, Any]:
    """Returns the values of all options of `config` by name."""
    options = flat_options(type(config))
    return {name: getattr(getattr(config, option.group), name) for name, option in options.items()}


def to_flagfile(config: Any, without: Sequence[str] = ()) -> str:
    """Returns `config` as an absl flagfile from which the same config can be read, without the groups `without`."""
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
    """Returns the option values in a text of `to_flagfile`, without options unknown to this version.

    Raises:
        ValueError: a value does not have its option's type.
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
