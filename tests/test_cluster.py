"""How workers meet, speak and lose each other: as threads, or as small processes where one is killed or stopped."""

import contextlib
import dataclasses
import functools
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from configs.devices import ClusterOptions
from engine.distributed import connected, joining
from engine.distributed.cluster import SINGLE_PROCESS, Cluster, WorkerLostError, differences
from engine.distributed.connected import ConnectedCluster, Worker
from engine.distributed.joining import join, make_hello
from engine.distributed.peer import Peer
from engine.distributed.tasks import Task, check_port_is_free, free_port
from support.errors import InputError
from tests.scripts import ROOT, run_python, wait_until

HOST = '127.0.0.1'
ENDED = ', so all others end too; start all again: a training goes on from its last checkpoint'
# A worker in a process of its own: it meets the others, says its process' number, and waits for what does not come.
WORKER = """
import os, sys
sys.path.insert(0, {root!r})
from configs.devices import ClusterOptions
from engine.distributed.joining import join, make_hello
from engine.distributed.tasks import Task

options = ClusterOptions(worker_timeout_secs={timeout}, worker_join_timeout_secs=20)
with join(Task({index}, {count}, {chief!r}, None, 'SLURM'), options, {{}}) as cluster:
    while cluster.gather(os.getpid())[0] is not None:
        pass
"""
Work = Callable[[Cluster], Any]


def task_of(index: int, count: int, port: int, host: str = HOST) -> Task:
    chief = f'[{host}]:{port}' if ':' in host else f'{host}:{port}'
    return Task(index, count, chief, None if index else chief, 'SLURM')


def options_of(timeout: float = 20.0, join_timeout: float = 20.0) -> ClusterOptions:
    return ClusterOptions(worker_timeout_secs=timeout, worker_join_timeout_secs=join_timeout)


def outcome(call: Callable[[], Any]) -> Any:
    """Returns the result of a call, or the error that it raises."""
    try:
        return call()
    except InputError as error:
        return error


def all_outcomes(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Makes calls at the same time, each in a thread of its own."""
    with ThreadPoolExecutor(len(calls)) as threads:
        return [future.result() for future in [threads.submit(outcome, call) for call in calls]]


def work_as(task: Task, work: Work, options: ClusterOptions | None = None, facts: Any = None, token: str = '') -> Any:
    with join(task, options or options_of(), facts or {}, token) as cluster:
        return work(cluster)


def meet(tasks: Sequence[Task], work: Work, options: ClusterOptions | None = None) -> list[Any]:
    """Returns the outcomes of workers that all do the same."""
    return all_outcomes([functools.partial(work_as, task, work, options) for task in tasks])


def run(*works: Work, options: ClusterOptions | None = None) -> list[Any]:
    """Returns the outcomes of workers that meet and then each do some work."""
    port = free_port(HOST)
    tasks = [task_of(index, len(works), port) for index in range(len(works))]
    calls = [functools.partial(work_as, task, work, options) for task, work in zip(tasks, works, strict=True)]
    return all_outcomes(calls)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fails where a test leaves a thread or a socket behind."""
    process = psutil.Process()
    before = set(threading.enumerate()), len(process.net_connections())
    yield
    wait_until(lambda: set(threading.enumerate()) <= before[0], seconds=5)
    wait_until(lambda: len(process.net_connections()) <= before[1], seconds=5)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen]]:
    """A function that starts a worker in a process of its own."""
    workers = []

    def start(index: int, count: int, port: int, timeout: float = 20.0) -> subprocess.Popen:
        code = WORKER.format(root=str(ROOT), index=index, count=count, chief=f'{HOST}:{port}', timeout=timeout)
        workers.append(subprocess.Popen([sys.executable, '-c', code], stderr=subprocess.PIPE, text=True))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()
        worker.communicate()


def raw_peers(count: int, timeout: float = 20.0) -> tuple[ConnectedCluster, list[socket.socket]]:
    """Returns a chief, and the bare sockets of workers that say only what a test lets them."""
    pairs = []
    with socket.create_server((HOST, 0)) as listener:
        for _ in range(count - 1):
            other = socket.create_connection(listener.getsockname())
            pairs.append((listener.accept()[0], other))
    workers = [Worker(index, f'h{index}:1', f'process {index} on h{index}') for index in range(count)]
    peers = {index: Peer(pair[0]) for index, pair in enumerate(pairs, 1)}
    return ConnectedCluster(task_of(0, count, 1), workers, peers, timeout), [pair[1] for pair in pairs]


def loss_of(cluster: Cluster, work: Callable[[], Any]) -> str:
    """Does some work in a cluster that loses a worker meanwhile; returns what is said of that."""
    with pytest.raises(WorkerLostError) as raised, cluster:
        work()
    return str(raised.value)


def call(port: int) -> socket.socket:
    """Returns a connection to the chief, as soon as it listens."""
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection((HOST, port))


def say(connection: socket.socket, **message: Any) -> None:
    connection.sendall(json.dumps(message).encode() + b'\n')


# --------------------------------------------------------------------- what they say to each other


def test_one_alone_answers_as_a_cluster_of_one() -> None:
    with SINGLE_PROCESS as cluster:
        assert (cluster.index, cluster.count, cluster.addresses, cluster.is_chief) == (0, 1, (), True)
        assert cluster.gather('x') == ['x']
        assert (cluster.share(1), cluster.on_chief(lambda: 2), cluster.after_chief(lambda: 3)) == (1, 2, 3)
        assert (cluster.any(True), cluster.any(False), cluster.loss()) == (True, False, None)
        cluster.check_same({'seed': 0})
        cluster.watch(lambda: 0, lambda _: None)
        with cluster.working():
            pass


VALUES = [None, True, 0, -1, 2**70, 0.1, -1e300, '', 'ä\n"\0', [], [1, [None]], {}, {'a': {'b': [0.5]}}, 'x' * 2**20]


def test_gather_many_values_in_many_rounds() -> None:
    def work(cluster: Cluster) -> list[Any]:
        return [cluster.gather([cluster.index, value]) for value in VALUES + list(range(300))]

    expected = [[[index, value] for index in range(3)] for value in VALUES + list(range(300))]
    assert run(work, work, work) == [expected] * 3


def test_what_is_decided_together() -> None:
    called: list[int] = []

    def work(cluster: Cluster) -> tuple[Any, ...]:
        index = cluster.index
        return (
            cluster.share(f'of {index}'),
            cluster.on_chief(lambda: [called.append(index), 'computed'][1]),  # type: ignore[func-returns-value]
            [cluster.any(index == only) for only in (0, 2, 3)],
            cluster.loss(),
            (cluster.index, cluster.count, cluster.is_chief),
        )

    results = run(work, work, work)
    assert results == [('of 0', 'computed', [True, True, False], None, (index, 3, index == 0)) for index in range(3)]
    assert called == [0]


def test_after_chief_the_others_find_what_it_wrote() -> None:
    written: list[int] = []

    def write(index: int) -> list[int]:
        if index == 0:
            time.sleep(0.1)
        written.append(index)
        return written[:1]

    assert run(*[lambda cluster: cluster.after_chief(lambda: write(cluster.index))] * 3) == [[0]] * 3
    assert sorted(written) == [0, 1, 2]


def test_check_same_refuses_in_all_workers() -> None:
    def work(cluster: Cluster) -> None:
        cluster.check_same({'seed': 7})
        cluster.check_same({'seed': 7, 'examples': 10 + cluster.index // 2})

    results = run(work, work, work)
    assert [type(result) for result in results] == [InputError] * 3
    assert {str(result) for result in results} == {differences([{'examples': str(count)} for count in (10, 10, 11)])}


@pytest.mark.parametrize(
    ('facts', 'rows'),
    [
        ([{}, {}], None),
        ([{'a': '1', 'b': '2'}, {'b': '2', 'a': '1'}], None),
        ([{'a': '1'}, {'a': '2'}], ['     worker 0  worker 1', '  a  1         2']),
        ([{'a': '1', 'same': 'x'}, {'same': 'x'}], ['     worker 0  worker 1', '  a  1         none']),
        (
            [{'--seed': '1'}, {'--seed': '1', 'new': 'x'}, {'--seed': '22'}],
            [
                '          worker 0  worker 1  worker 2',
                '  --seed  1         1         22',
                '  new     none      x         none',
            ],
        ),
    ],
)
def test_differences(facts: list[dict[str, str]], rows: list[str] | None) -> None:
    advice = 'Start all with the same flags, data and versions; only --task, and where files lie, may differ'
    expected = None if rows is None else '\n'.join(['the workers differ:', *rows, advice])
    assert differences(facts) == expected


# --------------------------------------------------------------------- how they meet


@pytest.mark.parametrize('host', [HOST, '::1', 'localhost'])
@pytest.mark.parametrize('first', [0, 2])
def test_they_meet_in_any_order(host: str, first: int) -> None:
    try:
        port = free_port(host)
        check_port_is_free(task_of(0, 3, port, host).chief, 'SLURM')
    except (OSError, InputError) as error:
        pytest.skip(f'this machine has no {host}: {error}')

    def come(index: int) -> tuple[str, ...]:
        if index != first:
            time.sleep(0.1)
        return work_as(task_of(index, 3, port, host), lambda cluster: cluster.addresses)

    seen = all_outcomes([functools.partial(come, index) for index in range(3)])
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][0] == task_of(0, 3, port, host).chief
    numbers = [address.rpartition(':')[2] for address in seen[0]]
    assert len(set(numbers)) == 3
    if host != 'localhost':
        assert {address.rpartition(':')[0] for address in seen[0]} == {f'[{host}]' if ':' in host else host}


def test_a_worker_keeps_the_address_that_it_was_given() -> None:
    port = free_port(HOST)
    address = f'{HOST}:{free_port(HOST)}'
    others = dataclasses.replace(task_of(1, 2, port), address=address)
    tasks = [task_of(0, 2, port), others]
    assert meet(tasks, lambda cluster: cluster.addresses) == [(f'{HOST}:{port}', address)] * 2


def test_another_can_listen_at_the_port_of_the_chief_while_they_are_connected() -> None:
    """As TensorFlow's server does."""

    def work(cluster: Cluster) -> Any:
        cluster.gather(None)
        if cluster.is_chief:
            port = int(cluster.addresses[0].rpartition(':')[2])
            with socket.socket() as server:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                server.bind((HOST, port))
                server.listen()
        return cluster.gather(cluster.index)

    assert run(work, work, work) == [[0, 1, 2]] * 3


def refusals(tasks: Sequence[Task], facts: Sequence[dict[str, Any]] | None = None) -> list[Any]:
    """Returns the refusals that the workers receive; the last worker arrives while the others wait."""
    facts = facts or [{}] * len(tasks)

    def come(number: int) -> Any:
        if number == len(tasks) - 1:
            time.sleep(0.3)
        return work_as(tasks[number], lambda cluster: None, None, facts[number])

    return all_outcomes([functools.partial(come, number) for number in range(len(tasks))])


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'count': 4}, 'worker 2 (PROCESS) counts 4 workers, the chief 3'),
        ({'index': 1}, 'PROCESS and PROCESS both say that they are worker 1'),
        ({'index': 3}, 'PROCESS says that it is worker 3 of 3'),
    ],
)
def test_a_worker_that_cannot_be_right_is_refused_to_all(changes: dict[str, Any], message: str) -> None:
    port = free_port(HOST)
    tasks = [task_of(0, 3, port), task_of(1, 3, port), dataclasses.replace(task_of(2, 3, port), **changes)]
    results = refusals(tasks)
    assert [type(result) for result in results] == [InputError] * 3
    assert {re.sub(r'process \d+ on [\w.-]+', 'PROCESS', str(result)) for result in results} == {message}


def test_workers_with_other_facts_are_refused() -> None:
    port = free_port(HOST)
    facts: list[dict[str, Any]] = [{'--seed': 0, '--x': (1,)}, {'--seed': 0, '--x': (1,)}, {'--seed': 1, '--x': (1,)}]
    results = refusals([task_of(index, 3, port) for index in range(3)], facts)
    assert {str(result) for result in results} == {differences([{'--seed': str(seed)} for seed in (0, 0, 1)])}
    assert [type(result) for result in results] == [InputError] * 3


def test_facts_that_differ_at_their_end_are_refused() -> None:
    port = free_port(HOST)
    results = refusals([task_of(index, 2, port) for index in range(2)], [{'--x': 'x' * 5000 + end} for end in 'ab'])
    assert all('the workers differ:' in str(result) for result in results)


def test_who_does_not_come_is_named() -> None:
    port = free_port(HOST)
    tasks = [task_of(index, 4, port) for index in (0, 2)]
    results = meet(tasks, lambda cluster: None, options_of(join_timeout=0.3))
    message = (
        'worker 0 of 4 (SLURM) has waited 0.3 s (--worker_join_timeout_secs) for workers 1, 3 to come to '
        f'{HOST}:{port}; start all workers, and check that they can reach that address'
    )
    assert [str(result) for result in results] == [message] * 2
    check_port_is_free(f'{HOST}:{port}', 'SLURM')


def test_a_chief_that_does_not_come_is_named() -> None:
    message = (
        r'^worker 1 of 3 \(SLURM\) has waited 0.3 s \(--worker_join_timeout_secs\) for worker 0 at 127.0.0.1:\d+; '
        'start all workers, and check that they can reach that address$'
    )
    with pytest.raises(InputError, match=message):
        join(task_of(1, 3, free_port(HOST)), options_of(join_timeout=0.3), {})


def test_what_is_no_chief_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, '_HELLO_SECONDS', 0.2)
    with (
        socket.create_server((HOST, 0)) as silent,
        pytest.raises(InputError, match=r' for worker 0 at 127\.0\.0\.1:\d+, where something else listens now; '),
    ):
        join(task_of(1, 2, silent.getsockname()[1]), options_of(join_timeout=0.2), {})


def test_a_port_in_use() -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(InputError, match=rf'^port {port} is in use; {HOST}:{port} is the address of this worker'):
            join(task_of(0, 2, port), options_of(), {})
        task = dataclasses.replace(task_of(0, 2, port), address=None)
        with pytest.raises(InputError, match=rf'^SLURM: worker 0 cannot listen at {HOST}:{port}: .*in use'):
            join(task, options_of(), {})


def test_a_name_that_is_not_known_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes may make it known only when the chief is ready; it needs it only for the others."""
    port = free_port(HOST)
    chief = dataclasses.replace(task_of(0, 2, port), chief=f'no-such-host.invalid:{port}')
    assert meet([chief, task_of(1, 2, port)], lambda cluster: cluster.gather(cluster.index)) == [[0, 1]] * 2
    with pytest.raises(InputError, match=r'has waited 0\.1 s'):
        join(dataclasses.replace(task_of(1, 2, port), chief=f'{"x" * 64}:1'), options_of(join_timeout=0.1), {})


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    connection.close()


def _drip(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection.sendall(b'{')
            time.sleep(0.05)


def _flood(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        for _ in range(40):
            connection.sendall(b'x' * 2**20)


GARBAGE = ['http', 'http2', 'random', 'deep', 'list', 'version', 'address', 'index', 'closed', 'half', 'silent']
GARBAGE += ['reset', 'drip', 'flood']
HELLO = {'protocol': 2, 'index': 1, 'count': 2, 'address': f'{HOST}:1', 'process': 'p', 'facts': {}, 'proof': ''}


@pytest.mark.parametrize(
    'garbage',
    [
        lambda connection: connection.sendall(b'GET / HTTP/1.1\r\nHost: x\r\n\r\n'),
        lambda connection: connection.sendall(b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
        lambda connection: connection.sendall(os.urandom(5000) + b'\n'),
        lambda connection: connection.sendall(b'[' * 100_000 + b'\n'),
        lambda connection: connection.sendall(b'[]\n'),
        lambda connection: say(connection, **{**HELLO, 'protocol': 1}),
        lambda connection: say(connection, **{**HELLO, 'address': 'nowhere'}),
        lambda connection: say(connection, **{**HELLO, 'index': '1'}),
        lambda connection: connection.close(),
        lambda connection: connection.shutdown(socket.SHUT_WR),
        lambda connection: None,
        _reset,
        _drip,
        _flood,
    ],
    ids=GARBAGE,
)
def test_garbage_at_the_port_of_the_chief_disturbs_nobody(
    garbage: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, '_HELLO_SECONDS', 0.3)
    port = free_port(HOST)
    before = psutil.Process().memory_info().rss

    def disturb() -> None:
        connection = call(port)
        garbage(connection)
        work_as(task_of(1, 2, port), lambda cluster: cluster.gather(None))
        connection.close()

    began = time.monotonic()
    chief, other = all_outcomes([lambda: work_as(task_of(0, 2, port), lambda cluster: cluster.gather(None)), disturb])
    assert (chief, other) == ([None, None], None)
    assert time.monotonic() - began < 5
    assert psutil.Process().memory_info().rss - before < 100 * 2**20


OTHER_TOKEN = 'is no worker of this run: its WORKERS_TOKEN differs from that of the chief'
OTHER_OPTIONS = 'is no worker of this version: it has other options'


@pytest.mark.parametrize(
    ('token', 'hello', 'why'),
    [
        ('ours', HELLO, OTHER_TOKEN),
        ('ours', {**HELLO, 'count': 7}, OTHER_TOKEN),
        ('ours', {**HELLO, 'proof': '0' * 64}, OTHER_TOKEN),
        ('ours', make_hello(task_of(1, 2, 1), f'{HOST}:1', {'--seed': '0'}, 'theirs'), OTHER_TOKEN),
        ('', make_hello(task_of(1, 2, 1), f'{HOST}:1', {'--seed': '0'}, 'theirs'), OTHER_TOKEN),
        ('', {**HELLO, 'index': 9}, OTHER_OPTIONS),
        ('', {**HELLO, 'facts': {'--seed': '0', '--other': '1'}}, OTHER_OPTIONS),
    ],
)
def test_a_stranger_is_told_so_and_the_start_goes_on(
    token: str, hello: dict[str, Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    port, facts = free_port(HOST), {'--seed': '0'}

    def intrude() -> Any:
        stranger = Peer(call(port))
        stranger.send({**hello, 'process': '\33[2Jx\nerror: y'})
        answers = [stranger.receive(), stranger.receive()]
        stranger.close()
        gathered = work_as(task_of(1, 2, port), lambda cluster: cluster.gather(1), None, facts, token)
        return answers, gathered

    chief = functools.partial(work_as, task_of(0, 2, port), lambda cluster: cluster.gather(0), None, facts, token)
    gathered, (answers, of_worker) = all_outcomes([chief, intrude])
    assert gathered == of_worker == [0, 1]
    assert answers == [{'refused': f'the chief at {HOST}:{port} says: this {why}'}, None]


def test_what_a_worker_says_of_itself_is_printed_escaped() -> None:
    port = free_port(HOST)

    def come() -> Any:
        worker = Peer(call(port))
        worker.send({**HELLO, 'index': 5, 'process': '\33[2Jx\nerror: \u202ey' + 'z' * 1000})
        answer = worker.receive()
        worker.close()
        return answer

    error, answer = all_outcomes([functools.partial(work_as, task_of(0, 2, port), lambda cluster: None), come])
    assert str(error) == '\\x1b[2Jx\\nerror: \\u202ey' + 'z' * 85 + '... says that it is worker 5 of 2'
    assert answer == {'refused': str(error)}


@pytest.mark.parametrize(
    ('answers', 'message'),
    [
        ([{'refused': 'a\33[2J\nb'}], 'a\\x1b[2J\nb'),
        ([{'noted': True}, {'refused': ['\33']}], r"['\x1b']"),
        ([{'noted': True}, {'workers': 5}], 'worker 0 at CHIEF lists workers that cannot be right: 5; start'),
        ([{'workers': []}], 'worker 0 at CHIEF lists workers that cannot be right: []; start all from the same'),
        ([{'workers': [{}, {}]}], 'worker 0 at CHIEF lists workers that cannot be right: [{}, {}]; start all fr'),
        ([{'workers': ['\33' * 200] * 2}], 'worker 0 at CHIEF lists workers that cannot be right: ["\\u001b'),
        ([{'workers': [HELLO, HELLO]}], 'worker 0 at CHIEF lists workers that cannot be right: [{"protocol": 2'),
    ],
)  # fmt: skip
def test_a_chief_that_talks_nonsense_is_one_line(answers: list[dict[str, Any]], message: str) -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            chief = Peer(listener.accept()[0])
            chief.receive()
            for said in answers:
                chief.send(said)
            chief.receive()
            chief.close()

        error, _ = all_outcomes([lambda: join(task_of(1, 2, port), options_of(), {}), answer])
    assert isinstance(error, InputError)
    assert str(error).startswith(message.replace('CHIEF', f'{HOST}:{port}'))
    assert str(error).isprintable() or message.count('\n') == str(error).count('\n') == 1


def test_a_worker_that_was_started_again_while_the_others_were_waited_for() -> None:
    port = free_port(HOST)

    def come_twice() -> Any:
        with call(port) as connection:
            say(connection, **{**HELLO, 'count': 3})
            time.sleep(0.1)
        return work_as(task_of(1, 3, port), lambda cluster: cluster.gather('again'))

    def come_last() -> Any:
        time.sleep(0.4)
        return work_as(task_of(2, 3, port), lambda cluster: cluster.gather('last'))

    chief = lambda: work_as(task_of(0, 3, port), lambda cluster: cluster.gather('chief'))  # noqa: E731
    assert all_outcomes([chief, come_twice, come_last]) == [['chief', 'again', 'last']] * 3


# --------------------------------------------------------------------- how they end


@pytest.mark.parametrize('last', [0, 2])
def test_nobody_ends_before_all_are_through(last: int) -> None:
    ended: list[int] = []

    def work_and_note(index: int, port: int) -> None:
        with join(task_of(index, 3, port), options_of(), {}):
            if index == last:
                time.sleep(0.2)
                assert ended == []
        ended.append(index)

    port = free_port(HOST)
    assert all_outcomes([functools.partial(work_and_note, index, port) for index in range(3)]) == [None] * 3
    assert sorted(ended) == [0, 1, 2]


@pytest.mark.parametrize('failing', [0, 2])
@pytest.mark.parametrize('waits_in', ['gather', 'end', 'loss'])
def test_a_failure_is_quoted_by_all_others(failing: int, waits_in: str) -> None:
    def fail(cluster: Cluster) -> None:
        cluster.gather(None)
        time.sleep(0.1)
        raise InputError('--seed=x: must be a number\nand more')

    def wait(cluster: Cluster) -> None:
        cluster.gather(None)
        if waits_in == 'gather':
            cluster.gather(None)
        elif waits_in == 'loss':
            raise cluster.loss(within=20) or AssertionError

    works: list[Work] = [wait, wait, wait]
    works[failing] = fail
    results = run(*works)
    assert str(results.pop(failing)) == '--seed=x: must be a number\nand more'
    assert [type(result) for result in results] == [WorkerLostError] * 2
    for result in results:
        matched = rf'worker {failing} at {HOST}:\d+ \(process \d+ on .+\) has failed: --seed=x: must be a number'
        assert re.fullmatch(matched, str(result))


def test_what_ends_a_worker_is_named_even_without_a_message() -> None:
    def fail(cluster: Cluster) -> None:
        with contextlib.suppress(KeyboardInterrupt), cluster:
            raise KeyboardInterrupt

    port = free_port(HOST)
    chief = lambda: work_as(task_of(0, 2, port), lambda cluster: cluster.gather(None))  # noqa: E731
    results = all_outcomes([chief, lambda: fail(join(task_of(1, 2, port), options_of(), {}))])
    assert str(results[0]).endswith('has failed: KeyboardInterrupt')


def test_a_process_that_is_killed_is_noticed_at_once(start: Callable[..., subprocess.Popen]) -> None:
    port = free_port(HOST)
    worker = start(1, 3, port)

    def work(cluster: Cluster) -> float:
        cluster.gather(0)
        killed = time.monotonic()
        if cluster.is_chief:
            worker.kill()
        loss = cluster.loss(within=20)
        assert loss is not None
        assert re.fullmatch(rf'worker 1 at {HOST}:\d+ \(process {worker.pid} on .+\) has ended{ENDED}', str(loss))
        with pytest.raises(WorkerLostError, match=re.escape(str(loss))):
            cluster.gather(0)
        assert cluster.loss() == loss
        noticed = time.monotonic() - killed
        raise WorkerLostError(str(noticed))

    results = meet([task_of(index, 3, port) for index in (0, 2)], work)
    assert all(float(str(result)) < 1.5 for result in results)


def test_a_process_that_loses_its_chief_ends_by_itself(start: Callable[..., subprocess.Popen]) -> None:
    port = free_port(HOST)
    worker = start(1, 2, port)
    with pytest.raises(InputError, match='mine'):
        work_as(task_of(0, 2, port), lambda cluster: _fail_after(cluster, 'mine'))
    _, stderr = worker.communicate(timeout=20)
    assert worker.returncode != 0
    assert stderr.splitlines()[-1].endswith('has failed: mine')


def _fail_after(cluster: Cluster, message: str) -> None:
    cluster.gather(0)
    raise InputError(message)


@pytest.mark.parametrize('size', [1, 2**23], ids=['small', 'large'])
def test_a_process_that_is_stopped_is_noticed_in_time(start: Callable[..., subprocess.Popen], size: int) -> None:
    """Also where a value does not fit into the buffers of its connection, so that sending it waits."""
    port = free_port(HOST)
    worker = start(1, 3, port, timeout=1.0)
    values: list[Any] = []

    def work(cluster: Cluster) -> None:
        cluster.gather(0)
        if cluster.is_chief:
            time.sleep(0.1)  # until its next value is there, so that the chief has an answer to send
            worker.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        try:
            while True:
                values.append(cluster.share('x' * size))
        finally:
            assert 0.5 < time.monotonic() - stopped < 4

    options = options_of(timeout=1.0)
    results = meet([task_of(index, 3, port) for index in (0, 2)], work, options)
    message = rf'worker 1 at .* has not been heard of for 1 s \(--worker_timeout_secs\){ENDED}'
    for result in results:
        assert re.fullmatch(message, str(result))


def test_a_process_that_goes_on_in_time_disturbs_nobody(start: Callable[..., subprocess.Popen]) -> None:
    port = free_port(HOST)
    worker = start(1, 2, port, timeout=2.0)

    def work(cluster: Cluster) -> None:
        cluster.gather(0)
        worker.send_signal(signal.SIGSTOP)
        threading.Timer(1.0, worker.send_signal, [signal.SIGCONT]).start()
        assert cluster.gather(0) == [0, worker.pid]
        assert cluster.loss(within=0.3) is None
        cluster.gather(None)

    work_as(task_of(0, 2, port), work, options_of(timeout=2.0))
    assert worker.wait(timeout=20) == 0


@pytest.mark.parametrize(
    ('progress', 'stuck'),
    [((5, 4, 5), 'worker 1 at .* has not'), ((4, 5, 5), 'worker 0 at .* has not'), ((5, 5, 5), 'no worker has')],
)
def test_who_does_not_go_on_is_named(progress: tuple[int, ...], stuck: str) -> None:
    losses: list[list[str]] = [[], [], []]

    def work(cluster: Cluster) -> None:
        steps = 2
        cluster.watch(lambda: steps, losses[cluster.index].append)
        with cluster.working():
            time.sleep(0.2)
            steps = progress[cluster.index]
            wait_until(lambda: losses[cluster.index])
        cluster.gather(None)

    message = rf'{stuck} gone on for 0.6 s \(--worker_timeout_secs\), as if its data did not come{ENDED}'
    for result, loss in zip(run(work, work, work, options=options_of(timeout=0.6)), losses, strict=True):
        assert re.fullmatch(message, str(result))
        assert loss == [str(result)], 'told once'


@pytest.mark.parametrize('why', ['compiles', 'goes on', 'does something else'])
def test_what_is_not_stuck(why: str) -> None:
    def work(cluster: Cluster) -> None:
        began = time.monotonic()
        cluster.watch(lambda: {'compiles': 1, 'goes on': int(10 * (time.monotonic() - began))}.get(why, 5), pytest.fail)
        with cluster.working() if why != 'does something else' or cluster.index else contextlib.nullcontext():
            time.sleep(0.8)
        assert cluster.loss() is None

    assert run(work, work, options=options_of(timeout=0.5)) == [None, None]


def test_a_loss_before_anybody_watches_is_told_once() -> None:
    cluster, (other,) = raw_peers(2)
    losses: list[str] = []

    def work() -> None:
        other.close()
        assert str(cluster.loss(within=5)) == f'worker 1 at h1:1 (process 1 on h1) has ended{ENDED}'
        cluster.watch(lambda: 0, losses.append)
        cluster.gather(None)

    assert [loss_of(cluster, work)] == losses


def test_a_loss_while_somebody_begins_to_watch_is_told_once() -> None:

    def work(cluster: Cluster, other: socket.socket, losses: list[str]) -> None:
        other.close()
        cluster.watch(lambda: 0, losses.append)
        cluster.loss(within=5)
        wait_until(lambda: losses)
        cluster.gather(None)

    for _ in range(30):
        cluster, (other,) = raw_peers(2)
        losses: list[str] = []
        said = loss_of(cluster, lambda: work(cluster, other, losses))  # noqa: B023
        assert losses == [said]


def test_a_value_that_came_before_the_loss_is_taken() -> None:
    cluster, (other,) = raw_peers(2)

    def work() -> None:
        say(other, value='last', round=0)
        other.close()
        assert cluster.loss(within=5) is not None
        assert cluster.gather('mine') == ['mine', 'last']
        cluster.gather('nobody is there')

    assert loss_of(cluster, work).endswith(f'has ended{ENDED}')


def test_goodbye_and_the_end_of_the_connection_in_one() -> None:
    for _ in range(20):
        cluster, others = raw_peers(3)
        with cluster:
            for other in others:
                say(other, bye=True)
                other.close()


@pytest.mark.parametrize(
    'line',
    [
        b'nonsense\n',
        b'{"beat": "x", "working": true}\n',
        b'{"beat": 1}\n',
        b'{"beat": [], "working": true}\n',
        b'{"beat": Infinity, "working": true}\n',
        b'{"value": 1}\n',
        b'{"value": 1, "round": []}\n',
        b'{"gathered": 5, "round": 0}\n',
        b'[]\n',
    ],
)
def test_a_worker_that_talks_nonsense_is_lost(line: bytes) -> None:
    cluster, others = raw_peers(3)
    others[1].sendall(line)
    said = loss_of(cluster, lambda: cluster.gather(None))
    assert said == f'worker 2 at h2:1 (process 2 on h2) has ended{ENDED}'
    hearing = Peer(others[0])
    assert {'lost': said, 'passing': True} in iter(hearing.receive, None)
    hearing.close()
    others[1].close()


@pytest.mark.full
def test_one_that_does_not_read_keeps_nobody_from_hearing_of_it() -> None:
    cluster, (deaf, other) = raw_peers(3, timeout=3.0)
    hearing, told = Peer(other), []

    def listen() -> None:
        while (message := hearing.receive()) is not None:
            told.append(message)
            with contextlib.suppress(OSError):
                hearing.send({'beat': 1, 'working': False})

    listening = threading.Thread(target=listen)
    listening.start()
    say(deaf, value=None, round=0)
    hearing.send({'value': 'x' * 2**23, 'round': 0})  # one line at a time: the thread above sends, too
    # The answer of the first round does not fit into the buffers of the one that does not read.
    said = loss_of(cluster, lambda: [cluster.gather(None) for _ in range(2)])
    assert said.startswith('worker 1 at h1:1 (process 1 on h1) has not been heard of for 3 s')
    listening.join()
    assert told[-1] == {'lost': said, 'passing': True}
    deaf.close()
    hearing.close()


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[WorkerLostError]:
    """Collects the errors that would have ended the process, each after 0.2 s."""
    errors: list[WorkerLostError] = []
    monkeypatch.setattr(connected, '_SECONDS_TO_END', 0.2)
    monkeypatch.setattr(connected, '_end_process', errors.append)
    return errors


def test_a_main_thread_that_does_not_end_is_ended(ended: list[WorkerLostError]) -> None:
    cluster, (other,) = raw_peers(2)
    say(other, lost='worker 1 has failed: x')

    def work() -> None:
        wait_until(lambda: ended)
        cluster.gather(None)

    assert [loss_of(cluster, work)] == list(map(str, ended)) == ['worker 1 has failed: x']
    other.close()


def test_a_main_thread_that_ends_in_time_is_not_ended_later(ended: list[WorkerLostError]) -> None:
    for _ in range(20):
        cluster, (other,) = raw_peers(2)
        say(other, lost='worker 1 has failed: y')
        assert loss_of(cluster, lambda: cluster.gather(None)) == 'worker 1 has failed: y'  # noqa: B023
        other.close()
    time.sleep(0.3)
    assert ended == []


@pytest.mark.parametrize(('is_transient', 'status'), [(True, 75), (False, 1)])
def test_the_last_resort_ends_the_process_with_a_status(is_transient: bool, status: int) -> None:
    code = (
        'from support.errors import WorkerLostError; from engine.distributed.connected import _end_process; '
        f'_end_process(WorkerLostError("x", {is_transient}))'
    )
    finished = run_python('-c', code)
    assert (finished.returncode, finished.stderr) == (status, 'error: x\n')
