"""What an option is, and configs made of them: frozen dataclasses, flat by name, or written as a flagfile.

    config = make_config(TrainConfig, dataset_name='digits', batch_size=64)
    config.optimizer.momentum                      # groups of options, handed whole to the factory that reads them
    flat_options(TrainConfig)['batch_size'].help   # what `configs/cli.py` makes the absl flags from

A config class has one field for each group; an option's name is its flag's name and is unique within a config.
"""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

from configs.errors import InputError

ConfigT = TypeVar('ConfigT')


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    lower: float | None = None,
    upper: float | None = None,
    above: float | None = None,
    regex: bool = False,
    fixed: bool = False,
) -> Any:
    """Declares one option: its default, its help, and what is allowed (a choice, a bound, or a regular expression).

    Bounds are closed, but for `above`. A run that goes on must have the same value as before of one that is `fixed`.
    """
    allowed = {'choices': choices, 'lower': lower, 'upper': upper, 'above': above, 'regex': regex}
    return dataclasses.field(default=default, metadata={'help': help, **allowed, 'fixed': fixed})


class Options:
    """Base of a group of options: refuses values outside what each option allows, whoever makes the group."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # only dataclasses derive from this
            _check_option(field, getattr(self, field.name))


def _check_option(field: dataclasses.Field, value: Any) -> None:
    if value is None or not field.metadata:
        return
    allowed = field.metadata
    for item in value if isinstance(value, tuple) else (value,):
        if isinstance(item, str) and '\0' in item:
            raise InputError(f'--{field.name}={item!r}: has a zero byte, which no name can have')
        if allowed['choices'] and item not in allowed['choices']:
            raise InputError(f'--{field.name}={item}: must be one of {", ".join(allowed["choices"])}')
        if isinstance(item, float) and not math.isfinite(item):
            raise InputError(f'--{field.name}={item}: must be a finite number')
        if allowed['lower'] is not None and item < allowed['lower']:
            raise InputError(f'--{field.name}={item}: must be at least {allowed["lower"]}')
        if allowed['above'] is not None and item <= allowed['above']:
            raise InputError(f'--{field.name}={item}: must be greater than {allowed["above"]}')
        if allowed['upper'] is not None and item > allowed['upper']:
            raise InputError(f'--{field.name}={item}: must be at most {allowed["upper"]}')
        if allowed['regex']:
            _check_regex(field.name, item)


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


def flat_options(config_class: type) -> dict[str, Option]:
    """Returns every option of a config class by its name, in the order of declaration."""
    options: dict[str, Option] = {}
    for group in dataclasses.fields(config_class):
        group_class = typing.cast(type, group.type)
        hints = typing.get_type_hints(group_class)
        for field in dataclasses.fields(group_class):
            if field.name in options:
                raise AssertionError(f'option {field.name} stands in two groups of {config_class.__name__}')
            kind, many = _option_type(hints[field.name])
            metadata = field.metadata
            options[field.name] = Option(
                field.name, kind, many, field.default, metadata['help'], group.name, metadata['fixed']
            )
    return options


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
