"""The options against slim's own table of flags."""

import ast
import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.evaluation import EvalConfig
from configs.export import ExportConfig
from configs.options import Option, aliases, flat_options, flat_values, from_flagfile, make_config, to_flagfile
from configs.retired_flags import RETIRED_EVAL_FLAGS, RETIRED_TRAIN_FLAGS, RetiredFlag
from configs.training import TrainConfig
from support import console
from support.errors import InputError
from tests.scripts import SCRIPTS

# What differs from slim on purpose; docs/slim.md says why.
OTHER_DEFAULTS: dict[str, dict[str, Any]] = {
    'train': {'model_name': 'alexnet_v2', 'num_clones': None, 'dataset_name': None, 'task': None},
    'eval': {
        'eval_dir': None,
        'model_name': None,
        'dataset_name': None,
        'dataset_split_name': None,
        'labels_offset': None,
        'use_grayscale': None,
    },
}


def ours(script: str) -> dict[str, Option | RetiredFlag]:
    """Returns the option or retired flag behind each flag of a script, former names included."""
    config_class, retired = (
        (TrainConfig, RETIRED_TRAIN_FLAGS) if script == 'train' else (EvalConfig, RETIRED_EVAL_FLAGS)
    )
    options = flat_options(config_class)
    former = {alias: options[name] for alias, name in aliases(config_class).items()}
    return {**options, **former, **{flag.name: flag for flag in retired}}


def slims(inventory: str, script: str) -> dict[str, str]:
    """Returns the flags of a script of slim's with their defaults, as the inventory writes them."""
    start = inventory.index(f'### {script}_image_classifier.py')
    section = inventory[start : inventory.index('###', start + 3)]
    if script == 'eval':
        return dict(re.findall(r'(?:^|; )(\w+) (?:\*\*)?([^\s;(*]+)', ' '.join(section.splitlines()[1:])))
    flags: dict[str, str] = {}
    for names, defaults in re.findall(r'^\| (\w[\w /]*?) +\| (.*?) +\|', section, re.MULTILINE):
        if names != 'flag':
            flags |= dict(zip(names.split(' / '), defaults.split(' / '), strict=True))
    return flags


@pytest.mark.parametrize(('script', 'count'), [('train', 43), ('eval', 15)])
def test_slims_flags_are_here_with_slims_defaults(script: str, count: int, shared_path: Callable[[str], Path]) -> None:
    expected = slims(shared_path('goldens/INVENTORY.md').read_text(), script)
    assert len(expected) >= count, sorted(expected)
    for name, default in expected.items():
        option = ours(script)[name]
        if name in OTHER_DEFAULTS[script]:
            assert option.default == OTHER_DEFAULTS[script][name]
        elif default == 'None':
            assert option.default in (None, ()), name
        else:
            assert str(option.default) == str(option.kind(value_of(default))), name


def value_of(text: str) -> Any:
    """Returns the value that the inventory writes: '' for nothing, True, a number, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'batch_size': 0}, '--batch_size=0: must be at least 1'),
        ({'batch_size': 10**12}, '--batch_size=1000000000000: must be at most 1048576'),
        ({'learning_rate': float('nan')}, '--learning_rate=nan: must be a finite number'),
        ({'num_epochs_per_decay': float('inf')}, '--num_epochs_per_decay=inf: must be a finite number'),
        ({'depth_multiplier': 0.0}, '--depth_multiplier=0.0: must be greater than 0.0'),
        ({'seed': 2**63}, f'--seed={2**63}: must be at most {2**63 - 1}'),
        ({'xla': 'maybe'}, '--xla=maybe: must be one of auto, on, off'),
        ({'recall_at': (5, 0)}, '--recall_at=0: must be at least 1'),
        ({'polynomial_power': 0.0}, '--polynomial_power=0.0: must be greater than 0.0'),
        ({'scale_learning_rate': 'cubic'}, '--scale_learning_rate=cubic: must be one of none, linear, sqrt'),
        ({'trust_ratio_exclude': ('a', '[')}, '--trust_ratio_exclude=[: not a regular expression: unterminated'),
        ({'weight_decay_exclude': ('*',)}, '--weight_decay_exclude=*: not a regular expression: nothing to repeat'),
        ({'bach_size': 1}, 'no option named bach_size in TrainConfig'),
        ({'num_clones': 10**21}, f'--num_clones={10**21}: must be at most 1024'),
        ({'num_clones': 10**5000}, '--num_clones=(an integer of 16610 bits): must be at most 1024'),
        (
            {'eval_every_epochs': 5e-324},
            '--eval_every_epochs=5e-324: too small to compute with; must be 0 or at least 1e-30',
        ),
        ({'learning_rate': 1e300}, '--learning_rate=1e+300: must be at most 3.4e+38'),
        ({'save_interval_steps': 2**63}, f'--save_interval_steps={2**63}: must be at most {2**63 - 1}'),
        ({'train_dir': '/tmp/a\0b'}, "--train_dir='/tmp/a\\x00b': contains a zero byte, which no name may contain"),
        (
            {'train_dir': 'a\n--batch_size=1'},
            "--train_dir='a\\n--batch_size=1': contains a line break, which flagfiles cannot hold",
        ),
        ({'dataset_dir': '\udcff'}, "--dataset_dir='\\udcff': not UTF-8, which TensorFlow requires for names"),
    ],
)
def test_values_outside_what_an_option_allows(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        make_config(TrainConfig, **values)


CONFIGS = list(dict.fromkeys(config for config, _ in SCRIPTS.values()))
EXTREMES: dict[type, tuple[Any, ...]] = {
    int: (10**21, -(10**21), 10**5000, -(10**5000), 2**63, -(2**63) - 1),
    float: (5e-324, -5e-324, 1e-310, 1e308, -1e308, float('inf'), float('-inf'), float('nan')),
    str: ('a\0b', 'a\nb', 'a\r', 'a\u2028b', '\ud800'),
}


@pytest.mark.parametrize(('config_class', 'option'), [(c, o) for c in CONFIGS for o in flat_options(c).values()])
def test_what_no_option_takes(config_class: type, option: Option) -> None:
    """Numbers that cannot be computed with, and text that no file, flagfile or message can hold."""
    for value in EXTREMES.get(option.kind, ()):
        if option.many and value in ('a\nb', 'a\r', 'a\u2028b', '\ud800'):
            continue  # names of images come as they are
        with pytest.raises(InputError) as raised:
            make_config(config_class, **{option.name: (value,) if option.many else value})
        message = str(raised.value)
        assert message.startswith(f'--{option.name}=')
        assert message.isprintable()
        assert len(message) < 2000  # names of preprocessings


@pytest.mark.parametrize(
    'values',
    [
        {},
        {'trust_ratio_exclude': (), 'recall_at': ()},
        {'trust_ratio_exclude': ('gamma$', '^fc8/'), 'weight_decay_exclude': ('fc8',), 'recall_at': (1, 3)},
    ],
)
def test_lists_survive_flagfiles(values: dict[str, Any], tmp_path: Path, parse: Callable[..., Any]) -> None:
    """An empty list too, where the default is not empty: by what reads them back, and on the command line."""
    config = make_config(TrainConfig, **values)
    text = to_flagfile(config)
    assert ('--trust_ratio_exclude=\n' in text) == (values.get('trust_ratio_exclude') == ())
    assert from_flagfile(TrainConfig, text) == flat_values(config)
    path = tmp_path / 'config.cfg'
    path.write_text(text)
    assert parse(TrainConfig, f'--flagfile={path}') == config


@pytest.mark.parametrize(
    ('config_class', 'argument', 'values'),
    [
        (EvalConfig, '--eval_image_size=32', {'image_size': 32}),
        (EvalConfig, '--image_size=32', {'eval_image_size': 32}),
        (ExportConfig, '--include_preprocessing', {'includes_preprocessing': True}),
        (ExportConfig, '--noinclude_preprocessing', {'include_preprocessing': False}),
    ],
)
def test_an_option_has_its_former_name_too(
    parse: Callable[..., Any], config_class: type, argument: str, values: dict[str, Any]
) -> None:
    assert parse(config_class, argument) == make_config(config_class, **values)


@pytest.mark.parametrize(('error', 'shown'), [(ImportError, 'broken\n'), (KeyboardInterrupt, ''), (None, '')])
def test_what_libraries_write_while_they_load_is_shown_if_that_fails(capfd, error, shown):
    with contextlib.suppress(ImportError, KeyboardInterrupt), console.kept_stderr():
        os.write(2, b'broken\n')
        if error is not None:
            raise error
    assert capfd.readouterr().err == shown
