"""What comes over the workers' channel, mutated: nothing that is no message gets further than its parser."""

import contextlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from engine.distributed import joining
from engine.distributed.connected import is_of_worker
from engine.distributed.joining import are_workers, is_hello, make_hello
from engine.distributed.peer import parse, shown
from engine.distributed.tasks import Task
from support.errors import InputError
from tests.test_fuzz_data import damaged

COUNT = 3
FACTS = {'--seed': '0', 'tensorflow': '2.21.0'}
CHIEF = Task(0, COUNT, 'node1:2222', 'node1:2222', '--worker_hosts')
HELLOS = [make_hello(Task(i, COUNT, 'node1:2222', None, 'SLURM'), f'node{i}:2222', FACTS, 'token') for i in range(3)]
MESSAGES: list[dict[str, Any]] = [
    HELLOS[1],
    {'noted': True},
    {'refused': 'the workers differ:\n  --seed  0  1'},
    {'workers': HELLOS},
    {'value': {'a': [1, 0.5, None]}, 'round': 7},
    {'gathered': [1, 'x', None], 'round': 7},
    {'beat': 12, 'working': True},
    {'lost': 'worker 2 at node2:2222 has ended', 'passing': True},
    {'bye': True},
]
ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    2**70,
    1e400,
    0.5,
    '',
    '\0',
    '\33[2J\n',
    'x' * 5000,
    [],
    [[]],
    {},
    {'a': 1},
    float('nan'),
)


class StrangePeer:
    """A connection over which one thing came."""

    def __init__(self, message: dict[str, Any] | None):
        self._message, self.is_closed = message, False
        self.sent: list[Mapping[str, Any]] = []

    def receive_within(self, seconds: float) -> dict[str, Any] | None:
        del seconds
        return self._message

    def send(self, message: Mapping[str, Any]) -> None:
        json.dumps(message)
        self.sent.append(message)

    def has_gone(self) -> bool:
        return False

    def close(self) -> None:
        self.is_closed = True


def changed_values(chance: random.Random, message: Any) -> Any:
    """Returns a message with one value, at any depth, removed or replaced."""
    if isinstance(message, dict) and message and chance.random() < 0.9:
        name = chance.choice(list(message))
        if chance.random() < 0.2:
            return {other: value for other, value in message.items() if other != name}
        return {**message, name: changed_values(chance, message[name])}
    if isinstance(message, list) and message and chance.random() < 0.7:
        at = chance.randrange(len(message))
        return [*message[:at], changed_values(chance, message[at]), *message[at + 1 :]]
    return chance.choice(ODD)


def mutated(seed: int, messages: Sequence[dict[str, Any]] = MESSAGES) -> Iterator[dict[str, Any] | None]:
    """Yields what a peer would receive of 400 mutated lines."""
    chance = random.Random(seed)
    for _ in range(400):
        message = chance.choice(messages)
        if chance.random() < 0.5:
            yield parse(damaged(json.dumps(message).encode() + b'\n', chance))
        else:
            yield parse(json.dumps(changed_values(chance, message)).encode() + b'\n')


@pytest.mark.parametrize('seed', range(2))
def test_mutated_lines_are_messages_or_nothing(seed: int) -> None:
    for message in mutated(seed):
        assert message is None or isinstance(message, dict)
        if message is None:
            continue
        if is_hello(message):
            assert isinstance(message['process'], str)
        assert isinstance(is_of_worker(message, COUNT), bool)
        if are_workers(message.get('workers'), COUNT):
            assert [hello['index'] for hello in message['workers']] == [0, 1, 2]
        assert shown(message).isprintable()


@pytest.mark.parametrize(
    ('token', 'known', 'outcomes'),
    [
        ('', '', {'goes on', 'taken', 'ends'}),
        ('token', 'token', {'goes on', 'taken'}),  # the latter as some mutations change nothing
        ('token', '', {'goes on'}),
        ('token', 'other', {'goes on'}),
    ],
)
def test_mutated_hellos(token: str, known: str, outcomes: set[str]) -> None:
    """Only with the right token, or where there is none, can a mistake end the start."""
    own, found = make_hello(CHIEF, CHIEF.chief, FACTS, token), set()
    hellos = [make_hello(Task(i, COUNT, CHIEF.chief, None, 'SLURM'), f'node{i}:2222', FACTS, known) for i in (1, 2)]
    for message in mutated(7, hellos):
        meeting, peer = joining.Meeting(CHIEF, own, token), StrangePeer(message)
        refusal = refusal_of(meeting, peer)
        answers = [str(answer['refused']) for answer in peer.sent if 'noted' not in answer]
        assert all(answer.isprintable() for answer in answers)
        assert peer.is_closed == (not meeting.peers)
        assert refusal in (None, *answers)
        assert [*meeting.peers] in ([], [1], [2])
        found.add('ends' if refusal else 'goes on' if peer.is_closed else 'taken')
    assert found == outcomes


def refusal_of(meeting: joining.Meeting, peer: StrangePeer) -> str | None:
    """Returns the error with which a meeting ends the start, or None if the start continues."""
    try:
        meeting.take(peer, '10.0.0.9')  # type: ignore[arg-type]
    except InputError as error:
        return str(error)
    return None


def test_messages_are_what_workers_say() -> None:
    of_start, of_run = MESSAGES[:4], MESSAGES[4:]
    assert all(is_of_worker(message, COUNT) for message in of_run)
    assert not any(is_of_worker(message, COUNT) for message in of_start)
    assert all(map(is_hello, HELLOS))
    assert are_workers(HELLOS, COUNT)
    assert not are_workers(HELLOS[::-1], COUNT)
    assert not are_workers(HELLOS, COUNT + 1)


@pytest.mark.parametrize(
    ('said', 'text'),
    [
        ('process 7 on ä.example', 'process 7 on ä.example'),
        ('\33[31mred\r\n', '\\x1b[31mred\\r\\n'),
        ('\u202etxt', '\\u202etxt'),
        ('\ud800', '\\ud800'),
        (['\33'], "['\\x1b']"),
        ('x' * 2000, 'x' * 1000 + '...'),
    ],
)
def test_what_others_say_is_printable(said: object, text: str) -> None:
    assert shown(said) == text
    with contextlib.suppress(UnicodeEncodeError):
        assert text.encode().decode() == text
