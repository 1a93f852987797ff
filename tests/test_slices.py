"""The notation of slices, against TFDS's own."""

import re

import pytest
import tensorflow_datasets as tfds

from datasets.slices import overlap, parse
from support.errors import InputError

SIZES = {'train': 1437, 'validation': 7}

PARTITIONS = [
    ('train[:90%]', 'train[90%:]'),
    ('train[:33%]', 'train[33%:67%]', 'train[67%:]'),
    ('train[:-10%]', 'train[-10%:]'),
    ('validation[:50%]', 'validation[50%:]'),
    ('validation[:5]', 'validation[5:]'),
    ('validation[:-2]', 'validation[-2:]'),
    tuple(f'train[{i}%:{i + 1}%]' for i in range(100)),
]


def numbers(text: str) -> list[tuple[str, int]]:
    return [
        (part.split, number)
        for part in parse(text, 'f')
        for number in range(SIZES[part.split])[part.numbers(SIZES[part.split], 'f')]
    ]


def numbers_of_tfds(text: str) -> list[tuple[str, int]]:
    infos = {
        name: tfds.core.SplitInfo(
            name=name, shard_lengths=[size], num_bytes=0, filename_template=tfds.core.ShardedFileTemplate(data_dir='')
        )
        for name, size in SIZES.items()
    }
    instructions = tfds.core.ReadInstruction.from_spec(text).to_absolute(tfds.core.SplitDict(infos.values()))
    return [
        (part.splitname, number)
        for part in instructions
        for number in range(part.from_ or 0, SIZES[part.splitname] if part.to is None else part.to)
    ]


@pytest.mark.parametrize('parts', PARTITIONS, ids=lambda parts: f'{parts[0]} and {len(parts) - 1} more')
def test_slices_that_meet_cover_a_split_without_overlap(parts: tuple[str, ...]) -> None:
    (split, _), *_ = numbers(parts[0])
    assert [number for part in parts for number in numbers(part)] == [(split, i) for i in range(SIZES[split])]


@pytest.mark.parametrize(
    'text',
    [
        'train',
        'train[100:200]',
        'train[:1]',
        'train[99%:]',
        'train[-200:-100]',
        'train[:35%]+validation[1:]',
        'train+validation',
        *PARTITIONS[1],
    ],
)
def test_slices_are_those_of_tfds(text: str) -> None:
    assert numbers(text) == numbers_of_tfds(text)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('train[', '--f=train[: write split, split[from:to] with numbers or percentages, or several joined by +'),
        ('train[5]', '--f=train[5]: write split, split[from:to]'),
        ('', '--f=: write split'),
        ('train+', '--f=train+: write split'),
        ('train[:101%]', '--f: train[:101%]: 101% is beyond the 1437 examples of train'),
        ('train[:2000]', '--f: train[:2000]: 2000 is beyond the 1437 examples of train'),
        ('train[7:7]', '--f: train[7:7] is empty: it goes from 7 to 7 of 1437 examples'),
        ('validation[:1%]', '--f: validation[:1%] is empty: it goes from 0 to 0 of 7 examples'),
    ],
)
def test_what_is_wrong_with_a_slice(text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        numbers(text)


@pytest.mark.parametrize(
    ('first', 'second', 'expected'),
    [
        ('train[:80%]', 'train[80%:]', False),
        ('train[:80%]', 'train[79%:]', True),
        ('train', 'train[5:6]', True),
        ('train', 'validation', False),
        ('train[:5]+validation', 'train[5:]+test', False),
        ('train[:5]+validation', 'validation[-1:]', True),
        ('train[-5:]', 'train[:1432]', False),
    ],
)
def test_splits_that_share_examples(first: str, second: str, expected: bool) -> None:
    sizes = {'train': 1437, 'validation': 7}
    assert overlap(first, second, sizes.__getitem__) is expected
    assert overlap(second, first, sizes.__getitem__) is expected
