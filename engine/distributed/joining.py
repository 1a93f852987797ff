"""Connects the workers of a run.

with join_cluster(config) as cluster: ...

The workers connect to the chief at its own port before TensorFlow's server takes the port. So a cluster needs no ports
beyond TensorFlow's, and a worker needs only the chief's address and its own number. If the environment has a token, the
chief rejects connections without it. The token tells runs apart; it does not protect against eavesdroppers.
"""

import contextlib
import hashlib
import hmac
import importlib.metadata
import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import logging

from configs.devices import ClusterOptions
from configs.options import flat_options, flat_values
from engine.distributed.cluster import SINGLE_PROCESS, Cluster, differences
from engine.distributed.connected import ConnectedCluster, Worker
from engine.distributed.peer import Peer, shown
from engine.distributed.tasks import (
    TOKEN,
    Task,
    check_port_is_free,
    find_task,
    free_port,
    is_address,
    resolve,
    split_address,
)
from support import console
from support.errors import InputError, first_line

_PROTOCOL = 2
_HELLO_SECONDS = 5.0
_FIRST_REMINDER, _REMINDERS = 3.0, 60.0  # seconds
_MOST_STRAYS = 5  # rejected connections to log

# Options that may differ between workers: paths on each machine, and options that only the chief uses.
_OWN_OPTIONS = ('dataset_dir', 'train_dir', 'checkpoint_path', 'cache', 'eval_dir', 'results_path')
_PACKAGES = ('tensorflow', 'keras', 'numpy')
SOURCE_FOLDERS = ('configs', 'datasets', 'engine', 'nets', 'preprocessing', 'support')  # all code that a worker runs

Facts = Mapping[str, Any]
_Hello = dict[str, Any]


def join_cluster(config: Any) -> Cluster:
    """Joins the other workers named by flags or environment; from then on, log lines carry the worker's number.

    Args:
        config: Has ClusterOptions as `cluster`; must be the same on all workers, except for paths on each machine.

    Raises:
        InputError: as `join`, or flags or environment are malformed.
    """
    task = find_task(config.cluster, os.environ)
    if task is None:
        return SINGLE_PROCESS
    console.speak_as(f'worker {task.index}')
    return join(task, config.cluster, facts_of(config), os.environ.get(TOKEN, ''))


def facts_of(config: Any) -> dict[str, Any]:
    """Returns the facts that workers must agree on before they start: options, versions, source code."""
    options = flat_options(type(config))
    facts = {
        f'--{name}': value
        for name, value in flat_values(config).items()
        if options[name].group not in ('cluster', 'plan') and name not in _OWN_OPTIONS
    }
    return {**facts, **{name: importlib.metadata.version(name) for name in _PACKAGES}, 'source': _source_digest()}


def _source_digest() -> str:
    digest = hashlib.sha256()
    root = Path(__file__).parents[2]
    for folder in SOURCE_FOLDERS:
        for path in sorted((root / folder).rglob('*.py')):
            digest.update(f'{path.relative_to(root)}\n'.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def join(task: Task, options: ClusterOptions, facts: Facts, token: str = '') -> Cluster:
    """Joins the other workers of a task.

    Args:
        facts: Values that must be the same on all workers, by name; compared as text.
        token: A secret that only the run's workers share; empty: none.

    Raises:
        InputError: an address cannot be used, workers are missing at the deadline, or the workers' facts differ.
    """
    if task.is_written_out:
        for address in dict.fromkeys([task.chief, task.address or task.chief]):
            resolve(address, task.source)
    if task.address is not None:
        check_port_is_free(task.address, task.source)
    waiting = _Waiting(task, options.worker_join_timeout_secs)
    texts = {name: str(value) for name, value in facts.items()}
    peers, hellos = (_receive_workers if task.index == 0 else _meet_chief)(task, texts, token, waiting)
    workers = [Worker(hello['index'], hello['address'], hello['process']) for hello in hellos]
    return ConnectedCluster(task, workers, peers, options.worker_timeout_secs)


class _Waiting:
    """Logs from time to time which workers are missing, and raises at the deadline."""

    def __init__(self, task: Task, seconds: float):
        now = time.monotonic()
        self.seconds = seconds
        self._task, self._end, self._next_reminder = task, now + seconds, now + _FIRST_REMINDER

    def check(self, who: str) -> None:
        """Logs a reminder if one is due; raises InputError after the deadline."""
        now, task = time.monotonic(), self._task
        if now > self._end:
            raise InputError(
                f'worker {task.index} of {task.count} ({task.source}) has waited {self.seconds:g} s '
                f'(--worker_join_timeout_secs) for {who}; start all workers, and check that they can reach that address'
            )
        if now > self._next_reminder:
            logging.info('worker %d of %d (%s): waiting for %s', task.index, task.count, task.source, who)
            self._next_reminder = now + _REMINDERS


def _receive_workers(
    task: Task, facts: dict[str, str], token: str, waiting: _Waiting
) -> tuple[dict[int, Peer], list[_Hello]]:
    """Waits on the chief for all other workers and sends them the list of all workers."""
    meeting = Meeting(task, make_hello(task, task.chief, facts, token), token)
    try:
        with _listen(task) as listener:
            while meeting.missing:
                waiting.check(f'{_name(meeting.missing)} to come to {task.chief}')
                with contextlib.suppress(TimeoutError):
                    connection, address = listener.accept()
                    meeting.take(Peer(connection), address[0])
        refusal = differences([_shown_facts(hello) for hello in meeting.hellos])
        if refusal:
            raise InputError(refusal)
    except InputError as error:
        meeting.answer({'refused': str(error)})
        meeting.close()
        raise
    meeting.answer({'workers': [{**hello, 'facts': {}, 'proof': ''} for hello in meeting.hellos]})
    return meeting.peers, meeting.hellos


class Meeting:
    """The workers that have connected to the chief so far."""

    def __init__(self, task: Task, own_hello: _Hello, token: str):
        self._task, self._token = task, token
        self._hellos = {0: own_hello}
        self.peers: dict[int, Peer] = {}

    @property
    def missing(self) -> list[int]:
        """Numbers of the workers that have not connected, or have disconnected again."""
        others = range(1, self._task.count)
        return [index for index in others if index not in self.peers or self.peers[index].has_gone()]

    @property
    def hellos(self) -> list[_Hello]:
        return [self._hellos[index] for index in sorted(self._hellos)]

    def take(self, peer: Peer, host: str) -> None:
        """Admits a worker that has connected from a host; rejects connections that do not belong to this run.

        Raises:
            InputError: the worker's number or count is wrong; the worker receives the reason too.
        """
        hello = peer.receive_within(_HELLO_SECONDS)
        stranger = self._stranger(hello)
        if stranger or hello is None:
            logging.log_first_n(
                logging.WARNING, '%s: what has connected from %s %s', _MOST_STRAYS, self._task.chief, host, stranger
            )
            if hello and is_hello(hello):
                _refuse(peer, f'the chief at {self._task.chief} says: this {stranger}')
            peer.close()
            return
        hello = {**hello, 'process': shown(hello['process'], 100)}
        problem = self._problem(hello)
        if problem:
            _refuse(peer, problem)
            peer.close()
            raise InputError(problem)
        if hello['index'] in self.peers:
            self.peers[hello['index']].close()
        self._hellos[hello['index']] = hello
        self.peers[hello['index']] = peer
        with contextlib.suppress(OSError):
            peer.send({'noted': True})

    def _stranger(self, hello: _Hello | None) -> str:
        """Returns the reason why a connection is not a worker of this run, or '' if it is one."""
        if hello is None or not is_hello(hello):
            return 'is no worker of this version'
        if not hmac.compare_digest(hello['proof'], _prove(hello, self._token)):
            return f'is no worker of this run: its {TOKEN} differs from that of the chief'
        if not self._token and set(hello['facts']) != set(self._hellos[0]['facts']):
            # With a token it is a worker, and all get a table of differences; else a stranger must not abort the start.
            return 'is no worker of this version: it has other options'
        return ''

    def _problem(self, hello: _Hello) -> str | None:
        index, count, process = hello['index'], self._task.count, hello['process']
        if hello['count'] != count:
            return f'worker {index} ({process}) counts {hello["count"]} workers, the chief {count}'
        if index in self._hellos and not (index in self.peers and self.peers[index].has_gone()):  # gone: restarted
            return f'{process} and {self._hellos[index]["process"]} both say that they are worker {index}'
        return None if 0 < index < count else f'{process} says that it is worker {index} of {count}'

    def answer(self, message: Mapping[str, Any]) -> None:
        for peer in self.peers.values():
            with contextlib.suppress(OSError):  # a lost worker is noticed later
                peer.send(message)

    def close(self) -> None:
        for peer in self.peers.values():
            peer.close()


def _refuse(peer: Peer, why: str) -> None:
    with contextlib.suppress(OSError):
        peer.send({'refused': why})


def make_hello(task: Task, address: str, facts: Mapping[str, str], token: str = '') -> _Hello:
    """Returns a worker's first message, with a proof that it knows the token."""
    hello = {
        'protocol': _PROTOCOL,
        'index': task.index,
        'count': task.count,
        'address': address,
        'process': f'process {os.getpid()} on {socket.gethostname()}',
        'facts': dict(facts),
    }
    return {**hello, 'proof': _prove(hello, token)}


def _prove(hello: _Hello, token: str) -> str:
    """Returns an HMAC of the message under the token, which itself is never sent; '' without a token."""
    text = json.dumps({name: value for name, value in hello.items() if name != 'proof'}, sort_keys=True)
    return hmac.new(os.fsencode(token), text.encode(), 'sha256').hexdigest() if token else ''


def is_hello(hello: Mapping[str, Any]) -> bool:
    """Returns whether a message is a worker's first message in this protocol version."""
    kinds = {'protocol': int, 'index': int, 'count': int, 'address': str, 'process': str, 'facts': dict, 'proof': str}
    if any(type(hello.get(name)) is not kind for name, kind in kinds.items()) or hello['protocol'] != _PROTOCOL:
        return False
    is_text = all(isinstance(value, str) for value in hello['facts'].values())
    return is_text and hello['proof'].isascii() and is_address(hello['address'])


def are_workers(answer: Any, count: int) -> bool:
    """Returns whether the chief's answer lists `count` workers, in order."""
    if not isinstance(answer, list) or not all(isinstance(hello, dict) and is_hello(hello) for hello in answer):
        return False
    return [hello['index'] for hello in answer] == list(range(count))


def _shown_facts(hello: _Hello) -> dict[str, str]:
    facts = {str(name): str(value) for name, value in hello['facts'].items()}
    return {shown(name): shown(value, len(value)) for name, value in facts.items()}  # not shortened: compared


def _listen(task: Task) -> socket.socket:
    host, port = split_address(task.chief)
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except (OSError, UnicodeError):  # a scheduler may register the name later
        family = socket.AF_INET
    # On the chief, the name may resolve to another interface: /etc/hosts often says 127.0.1.1.
    everywhere = '::' if family == socket.AF_INET6 else '0.0.0.0'
    is_local = host in ('localhost', '::1') or host.startswith('127.')
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Lets TensorFlow's server take the port while the connections are open.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host if is_local else everywhere, port))
        listener.listen(task.count)
        listener.settimeout(0.5)
    except OSError as error:
        listener.close()
        raise InputError(f'{task.source}: worker 0 cannot listen at {task.chief}: {first_line(error)}') from error
    return listener


def _meet_chief(
    task: Task, facts: dict[str, str], token: str, waiting: _Waiting
) -> tuple[dict[int, Peer], list[_Hello]]:
    """Connects to the chief, waiting until it listens, and receives the list of all workers."""
    found = ''
    while True:
        waiting.check(f'worker 0 at {task.chief}{found}')
        with contextlib.suppress(OSError, UnicodeError):  # not listening yet, or its name is not registered yet
            peer = Peer(socket.create_connection(split_address(task.chief), timeout=_HELLO_SECONDS))
            with contextlib.ExitStack() as ending:
                ending.callback(peer.close)
                address = task.address or _address(peer.own_host, free_port(peer.own_host))
                peer.send(make_hello(task, address, facts, token))
                # Longer, as the chief may be waiting for other connections first, one after the other.
                reply = peer.receive_within(4 * _HELLO_SECONDS) or {}
                found = '' if reply else ', where something else listens now'
                if 'noted' in reply:
                    # Longer than the chief's own timeout, so that the chief reports which workers are missing.
                    reply = peer.receive_within(waiting.seconds + _HELLO_SECONDS) or {}
                if 'refused' in reply:
                    raise InputError(shown(reply['refused'], 20_000, keep='\n'))
                if 'workers' in reply:
                    if not are_workers(reply['workers'], task.count):
                        raise InputError(
                            f'worker 0 at {task.chief} lists workers that cannot be right: '
                            f'{shown(json.dumps(reply["workers"]), 100)}; start all from the same source'
                        )
                    ending.pop_all()
                    return {0: peer}, reply['workers']
        time.sleep(0.2)


def _address(host: str, port: int) -> str:
    return f'[{host}]:{port}' if ':' in host else f'{host}:{port}'


def _name(indices: list[int]) -> str:
    shown = ', '.join(map(str, indices[:8])) + (', ...' if len(indices) > 8 else '')
    return f'worker {shown}' if len(indices) == 1 else f'workers {shown}'
