"""The text of `--help`: the common options first, then the others in the groups of their config.

print(help_text(__doc__, TrainConfig, RETIRED_TRAIN_FLAGS, usual=('model_name', 'dataset_dir'), example='python ...'))
"""

import dataclasses
import re
import shutil
import textwrap
import typing
from collections.abc import Iterable, Sequence
from typing import Any

from configs import names
from configs.options import Option, flat_options
from configs.retired_flags import RetiredFlag

_WIDEST, _NARROWEST = 100, 50
_INDENT = ' ' * 6
_LONGEST_CHOICE = 60  # most characters of the values if they are listed in the flag's own line
_KINDS = {int: 'N', float: 'X', str: 'TEXT'}


def help_text(
    docstring: str,
    config_class: type,
    retired_flags: Sequence[RetiredFlag] = (),
    usual: Sequence[str] = (),
    example: str = '',
) -> str:
    """Returns the help of a script, as wide as the terminal, at most 100 columns.

    The common options, `usual`, are the first section, then each group of options, headed by its docstring, then the
    retired flags.
    """
    width = min(max(shutil.get_terminal_size((_WIDEST, 24)).columns, _NARROWEST), _WIDEST)
    options = flat_options(config_class)
    sections = [_wrap(paragraph, width) for paragraph in docstring.strip().split('\n\n')]
    if example:
        sections.append(f'Example:\n  {example}')
    if usual:
        sections.append(_section('Common options', (options[name] for name in usual), width))
    for group in dataclasses.fields(config_class):
        others = [option for name, option in options.items() if option.group == group.name and name not in usual]
        if others:
            sections.append(_section(_heading(typing.cast(type, group.type)), others, width))
    if retired_flags:
        sections.append(_retired_section(retired_flags, width))
    sections.append(
        _wrap("--flagfile=PATH reads flags from a file, one per line; --helpfull also shows absl's flags.", width)
    )
    return '\n\n'.join(sections)


def _heading(group_class: type) -> str:
    return (group_class.__doc__ or '').strip().split('\n')[0].rstrip('.')


def _section(heading: str, options: Iterable[Option], width: int) -> str:
    return '\n'.join([_wrap(f'{heading}:', width), *(_describe(option, width) for option in options)])


def _describe(option: Option, width: int) -> str:
    """Returns the flag as written and, below it, its help, values and default."""
    valid = tuple(map(str, option.choices or _names(option)))
    in_line = '|'.join(valid) if option.choices and len('|'.join(valid)) <= _LONGEST_CHOICE else ''
    text = option.help
    if not in_line and _lacks(text, valid):
        text += f' One of: {", ".join(valid)}.'
    if (default := _default(option)) is not None:
        text += f' (default: {default})'
    return f'{_wrap(_written(option, in_line), width, "  ")}\n{_wrap(text, width, _INDENT)}'


def _written(option: Option, choices: str) -> str:
    if option.kind is bool:
        return f'--[no]{option.name}'
    kind = choices or ('PATH' if option.path else 'NAME' if _names(option) else _KINDS[option.kind])
    return f'--{option.name}={kind}' + (f',{kind},...' if option.many else '')


def _names(option: Option) -> tuple[str, ...]:
    kind_and_names = names.OF_OPTIONS.get(option.name)
    return kind_and_names[1] if kind_and_names else ()


def _lacks(text: str, values: Sequence[str]) -> bool:
    """Returns whether a help text lacks most of the values; it may leave out some that the script does not take."""
    words = {word.strip('.:') for word in re.findall(r'[\w.<>:]+', text)}
    return sum(value not in words for value in values) > len(values) / 2


def _default(option: Option) -> str | None:
    default: Any = option.default
    if default is None or default == () or default == '':
        return None
    if isinstance(default, bool):
        return 'true' if default else 'false'
    return ','.join(map(str, default)) if isinstance(default, tuple) else str(default)


def _retired_section(retired_flags: Sequence[RetiredFlag], width: int) -> str:
    answers: dict[str, list[str]] = {}
    for flag in retired_flags:
        answers.setdefault(flag.answer, []).append(f'--[no]{flag.name}' if flag.kind is bool else f'--{flag.name}')
    lines = [_wrap('Flags of slim without effect here; refused if the run would differ:', width)]
    for answer, written in answers.items():
        lines += [_wrap(', '.join(written), width, '  '), _wrap(f'{answer}.', width, _INDENT)]
    return '\n'.join(lines)


def _wrap(text: str, width: int, indent: str = '') -> str:
    return textwrap.fill(
        ' '.join(text.split()),
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
