"""Finds this process's worker number and the chief's address, from flags or from the launcher's variables.

task = find_task(config.cluster, os.environ)   # None: a single process
task.index, task.count, task.chief             # 1, 4, 'node1:2222': all that is needed to join the others

This module does not import TensorFlow, so that errors appear at once.
"""

import dataclasses
import errno
import ipaddress
import itertools
import json
import random
import re
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from configs.devices import ClusterOptions
from support.errors import InputError, first_line

_TORCH_PORT = 29500  # torchrun's default of MASTER_PORT
_MAX_PORT = 65535
# Ports of SLURM jobs: below 32768, from which Linux assigns ports to outgoing connections.
_FIRST_SLURM_PORT, _SLURM_PORTS = 10000, 20000
_IGNORE = '--cluster=none ignores it'
_WORKER_HOSTS = '--worker_hosts'
# A secret shared by the workers of a run, which tells them from other connections to the chief's port.
TOKEN = 'WORKERS_TOKEN'

_RANDOM = random.SystemRandom()  # with a seeded generator, forked processes would all find the same ports

Environment = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Task:
    """A worker's place among the workers of a run.

    Attributes:
        index: Its number; 0 is the chief.
        chief: host:port where the chief waits for the others.
        address: Its own host:port; None if it chooses a free port.
        source: The flags or variables that define it, for messages.
        local_index: Its number among the `local_count` workers of its machine, which divide the GPUs.
    """

    index: int
    count: int
    chief: str
    address: str | None
    source: str
    local_index: int = 0
    local_count: int = 1

    @property
    def is_written_out(self) -> bool:
        """Whether the user has named the machines, so that an unknown name is an error.

        A scheduler such as Kubernetes may register a machine's name only when the worker starts there.
        """
        return self.source == _WORKER_HOSTS


def is_worker(options: ClusterOptions, environment: Environment) -> bool:
    """Returns whether this process is one of several workers; False for a process that launches workers.

    Raises:
        InputError: as `find_task`.
    """
    return not options.launch_workers and find_task(options, environment) is not None


def find_task(options: ClusterOptions, environment: Environment) -> Task | None:
    """Returns this process's task, or None for a single process.

    In order of precedence: `--worker_hosts`, TF_CONFIG, RANK and WORLD_SIZE, Open MPI's variables, SLURM's variables.

    Raises:
        InputError: a flag or variable is malformed or contradicts another one.
    """
    if options.worker_hosts:
        task: Task | None = _of_worker_hosts(options)
    elif options.task:
        raise InputError(f'--task={options.task}: is an index into --worker_hosts; give --worker_hosts too')
    elif options.cluster == 'none':
        return None
    else:
        found = (find(environment) for find in (_of_tf_config, _of_ranks, _of_open_mpi, _of_slurm))
        task = next((task for task in found if task), None)
    return task if task and task.count > 1 else None


# --------------------------------------------------------------------- --worker_hosts


def _of_worker_hosts(options: ClusterOptions) -> Task:
    source, hosts = _WORKER_HOSTS, options.worker_hosts
    _check_hosts(source, hosts)
    if options.task is None:
        raise InputError(f'{source}={",".join(hosts)}: --task, the index of this process from 0, is missing')
    if options.task >= len(hosts):
        raise InputError(f'--task={options.task}: must be from 0 to {len(hosts) - 1}, one of the {source}')
    return _of_hosts(options.task, hosts, source)


def _of_hosts(index: int, hosts: Sequence[str], source: str) -> Task:
    of_machine = [i for i, host in enumerate(hosts) if split_address(host)[0] == split_address(hosts[index])[0]]
    return Task(index, len(hosts), hosts[0], hosts[index], source, of_machine.index(index), len(of_machine))


def _check_hosts(name: str, hosts: Sequence[str]) -> None:
    seen: dict[tuple[str, int], str] = {}
    for host in hosts:
        address = _checked_address(name, host)
        if address in seen:
            raise InputError(f'{name}: {host} is listed twice; each worker needs its own address')
        seen[address] = host


def _checked_address(name: str, address: str) -> tuple[str, int]:
    matched = re.fullmatch(r'([^\s\[\]:/,]+|\[[^\s\[\]/,]+\]):(\d{1,9})', address, re.ASCII)
    if not matched:
        raise InputError(f'{name}: {address!r} must be host:port, with an IPv6 address in brackets: [::1]:2222')
    host, port = matched.groups()
    if host.startswith('['):
        _check_ipv6(name, host[1:-1])
    _check_port(name, address, int(port))
    return split_address(address)


def _check_ipv6(name: str, host: str) -> None:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        raise InputError(f'{name}: {host!r} is no IPv6 address') from None


def _check_port(name: str, value: object, port: int) -> None:
    if not 1 <= port <= _MAX_PORT:
        raise InputError(f'{name}={value}: the port must be from 1 to {_MAX_PORT}')


# --------------------------------------------------------------------- TF_CONFIG


def _of_tf_config(environment: Environment) -> Task | None:
    text = environment.get('TF_CONFIG')
    if not text:
        return None
    try:
        config = json.loads(text)
    except ValueError as error:
        raise InputError(f'TF_CONFIG={" ".join(text.split())}: not JSON ({error}); {_IGNORE}') from None
    cluster = _member(config, 'cluster')
    if not cluster:  # as in TensorFlow: a single process
        return None
    task = _member(config, 'task')
    kind, index = task.get('type'), task.get('index')
    job = 'ps' if 'ps' in cluster else kind
    if job in ('ps', 'evaluator'):
        raise InputError(
            f'TF_CONFIG has {job!r}, but training is synchronous: there are no parameter servers, and what evaluates '
            'beside training is eval_image_classifier.py --eval_interval_secs=60'
        )
    for name in cluster:
        if name not in ('chief', 'worker', 'evaluator'):
            raise InputError(f'TF_CONFIG: cluster has {name!r}; it may have chief and worker')
    hosts = {job: _host_list(cluster.get(job, []), job) for job in ('chief', 'worker')}
    if len(hosts['chief']) > 1:
        raise InputError(f'TF_CONFIG: cluster has {len(hosts["chief"])} chiefs; it may have one')
    if kind not in ('chief', 'worker'):
        raise InputError(f'TF_CONFIG: task has the type {kind!r}; it must be chief or worker')
    number = _whole('TF_CONFIG: index of task', index)
    if number >= len(hosts[kind]):
        raise InputError(f'TF_CONFIG: task is {kind} {number}, but cluster has {len(hosts[kind])} of them, from 0')
    everyone = hosts['chief'] + hosts['worker']
    _check_hosts('TF_CONFIG', everyone)
    return _of_hosts(number + (len(hosts['chief']) if kind == 'worker' else 0), everyone, 'TF_CONFIG')


def _member(config: Any, name: str) -> dict[str, Any]:
    value = config.get(name, {}) if isinstance(config, dict) else None
    if not isinstance(value, dict):
        raise InputError(
            f'TF_CONFIG={json.dumps(config)}: must be like {{"cluster": {{"worker": ["host:port", ...]}}, '
            '"task": {"type": "worker", "index": 0}}'
        )
    return value


def _host_list(hosts: Any, job: str) -> list[str]:
    if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
        raise InputError(f'TF_CONFIG: {job} of cluster is {json.dumps(hosts)}; it must be a list of "host:port"')
    return hosts


# --------------------------------------------------------------------- RANK and WORLD_SIZE, Open MPI


def _of_ranks(environment: Environment) -> Task | None:
    """Returns the task from RANK and WORLD_SIZE, which torchrun and Kubernetes manifests set."""
    given = [name for name in ('RANK', 'WORLD_SIZE') if name in environment]
    if not given:
        return None
    if len(given) == 1:
        missing = 'WORLD_SIZE' if given == ['RANK'] else 'RANK'
        raise InputError(f'{given[0]}={environment[given[0]]} is set, but {missing} is not; set both, or {_IGNORE}')
    index, count = _index_of(environment, 'RANK', 'WORLD_SIZE')
    if count == 1:
        return Task(0, 1, '', None, 'RANK and WORLD_SIZE')
    # If torchrun's agents keep a store at MASTER_PORT, take the next port.
    taken = environment.get('TORCHELASTIC_USE_AGENT_STORE') == 'True'
    chief = _master(environment, 'RANK and WORLD_SIZE', 'MASTER_ADDR, the host of RANK 0,', int(taken))
    local = _local_index_of(environment, 'LOCAL_RANK', 'LOCAL_WORLD_SIZE')
    return Task(index, count, chief, None if index else chief, 'RANK and WORLD_SIZE', *local)


def _of_open_mpi(environment: Environment) -> Task | None:
    prefix = 'OMPI_COMM_WORLD'
    if f'{prefix}_SIZE' not in environment:
        return None
    index, count = _index_of(environment, f'{prefix}_RANK', f'{prefix}_SIZE')
    if count == 1:
        return Task(0, 1, '', None, 'Open MPI')
    local = _local_index_of(environment, f'{prefix}_LOCAL_RANK', f'{prefix}_LOCAL_SIZE')
    if local[1] == count:
        environment = {'MASTER_ADDR': '127.0.0.1', **environment}
    needed = 'the host of rank 0, mpirun -x MASTER_ADDR=HOST,'
    chief = _master(environment, f'Open MPI ({prefix}_SIZE={count})', needed)
    return Task(index, count, chief, None if index else chief, 'Open MPI', *local)


def _master(environment: Environment, source: str, needed: str, after: int = 0) -> str:
    """Returns the chief's address: MASTER_ADDR, and MASTER_PORT plus `after`."""
    host = environment.get('MASTER_ADDR', '')
    if not host:
        raise InputError(f'{source}: {needed} is missing; {_IGNORE}')
    if re.fullmatch(r'[^:]+:\d+', host):
        raise InputError(f'MASTER_ADDR={host}: must be a host without a port; MASTER_PORT gives the port')
    if ':' in host:
        host = host.removeprefix('[').removesuffix(']')
        _check_ipv6('MASTER_ADDR', host)
        host = f'[{host}]'
    text = environment.get('MASTER_PORT', str(_TORCH_PORT))
    port = _whole('MASTER_PORT', text) + after
    _check_port('MASTER_PORT', text, port)
    _checked_address('MASTER_ADDR', f'{host}:{port}')
    return f'{host}:{port}'


def _index_of(environment: Environment, index_name: str, count_name: str) -> tuple[int, int]:
    """Returns a worker's number and the number of workers, from two variables."""
    index = _whole(index_name, environment.get(index_name, ''))
    count = _whole(count_name, environment.get(count_name, ''))
    if count < 1:
        raise InputError(f'{count_name}={count}: must be at least 1')
    if index >= count:
        raise InputError(f'{index_name}={index}: must be from 0 to {count - 1}, for {count_name}={count}; {_IGNORE}')
    return index, count


def _local_index_of(environment: Environment, index_name: str, count_name: str) -> tuple[int, int]:
    return _index_of({index_name: '0', count_name: '1', **environment}, index_name, count_name)


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not re.fullmatch(r'\d{1,18}', str(value), re.ASCII):
        raise InputError(f'{name}={value}: must be a whole number, from 0; {_IGNORE}')
    return int(value)


# --------------------------------------------------------------------- SLURM


def _of_slurm(environment: Environment) -> Task | None:
    """Returns the task of a step that srun has started, or None for sbatch's script, which runs without srun."""
    if 'SLURM_STEP_NODELIST' not in environment or 'SLURM_STEP_NUM_TASKS' not in environment:
        return None
    index, count = _index_of(environment, 'SLURM_PROCID', 'SLURM_STEP_NUM_TASKS')
    if count == 1:
        return Task(0, 1, '', None, 'SLURM')
    number = _whole('SLURM_JOB_ID', environment.get('SLURM_JOB_ID', ''))
    number += _whole('SLURM_STEP_ID', environment.get('SLURM_STEP_ID', '0'))  # two steps may share a machine
    chief = f'{_first_host(environment["SLURM_STEP_NODELIST"])}:{_FIRST_SLURM_PORT + number % _SLURM_PORTS}'
    # SLURM itself assigns each task its GPUs, so there is nothing to divide.
    return Task(index, count, chief, None if index else chief, 'SLURM')


def _first_host(nodes: str) -> str:
    """Returns the first host of a SLURM node list: node01 for node[01-03,07],gpu5."""
    first = re.split(r',(?![^\[]*\])', nodes)[0]
    host = re.sub(r'\[(\w+)(?:[-,][\w,-]*)?\]', r'\1', first)
    if not re.fullmatch(r'[\w.-]+', host):
        raise InputError(f'SLURM_STEP_NODELIST={nodes}: must be hosts, such as node[01-03,07],gpu5; {_IGNORE}')
    return host


# --------------------------------------------------------------------- whether an address can be used


def split_address(address: str) -> tuple[str, int]:
    """Splits a Task's `host:port` into the host, in lower case and without brackets, and the port."""
    host, _, port = address.rpartition(':')
    return host.removeprefix('[').removesuffix(']').lower(), int(port)


def is_address(text: str) -> bool:
    """Returns whether a text is a valid `host:port`."""
    try:
        _checked_address('', text)
    except InputError:
        return False
    return True


def resolve(address: str, source: str) -> None:
    """Raises InputError unless the host of an address is known to DNS or /etc/hosts."""
    host, port = split_address(address)
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: not a valid name, e.g. too long
        raise InputError(f'{source}: no machine is known as {host!r} ({first_line(error)})') from None


def check_port_is_free(address: str, source: str) -> None:
    """Checks that this process can listen on the port of its address.

    Raises:
        InputError: another process listens there, or this process lacks permission.
    """
    host, port = split_address(address)
    try:
        _bind(host, port).close()
    except OSError as error:
        problem = 'is in use' if error.errno == errno.EADDRINUSE else f'cannot be used: {first_line(error)}'
        raise InputError(
            f'port {port} {problem}; {address} is the address of this worker, from {source}: choose another one there'
        ) from error


def free_ports(host: str, count: int) -> list[int]:
    """Returns free ports of this machine, whose address is `host`.

    They are outside the range that the system assigns to outgoing connections: a new connection could take the port
    before it is used.
    """
    candidates = _ports_of_nobody()
    _RANDOM.shuffle(candidates)
    found = (port for port in candidates if _is_free(host, port))
    ports = list(itertools.islice(found, count))
    if len(ports) < count:
        raise InputError(f'no {count} ports are free on this machine')
    return ports


def free_port(host: str) -> int:
    """Returns one free port, as `free_ports`."""
    return free_ports(host, 1)[0]


def _ports_of_nobody() -> list[int]:
    """Returns the ports outside the range from which the system assigns ports by itself."""
    try:
        with open('/proc/sys/net/ipv4/ip_local_port_range') as file:
            first = int(file.read().split()[0])
    except OSError:  # not Linux
        first = 49152  # RFC 6335
    return list(range(10000, first)) if first > 11000 else list(range(max(first, 1024), 2**16))


def _is_free(host: str, port: int) -> bool:
    try:
        _bind(host, port).close()
    except OSError:
        return False
    return True


def _bind(host: str, port: int) -> socket.socket:
    # On all interfaces, like TensorFlow's server: a machine may lack the address to which its name resolves.
    family, everywhere = (socket.AF_INET6, '::') if ':' in host else (socket.AF_INET, '')
    probe = socket.socket(family, socket.SOCK_STREAM)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((everywhere, port))
    except OSError:
        probe.close()
        raise
    return probe
