"""Which workers there are, and which of them this process is: from flags, or from what its launcher has set.

task = find_task(config.cluster, os.environ)   # None: it is alone
task.index, task.count, task.chief             # 1, 4, 'node1:2222': all that it needs to join the others

No TensorFlow is imported here, so that what is wrong is said at once.
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

_TORCH_PORT = 29500  # torchrun's, where MASTER_PORT does not say another
_MAX_PORT = 65535
# The ports of SLURM jobs: below those that Linux gives to outgoing connections, from 32768.
_FIRST_SLURM_PORT, _SLURM_PORTS = 10000, 20000
_IGNORE = '--cluster=none ignores it'
_WORKER_HOSTS = '--worker_hosts'
# A secret of the workers of a run, by which they tell each other from whatever else reaches the chief's port.
TOKEN = 'WORKERS_TOKEN'

_RANDOM = random.SystemRandom()  # processes that are forked from one would all find the same ports with a seeded one

Environment = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Task:
    """Which of several workers this process is.

    Attributes:
        index: Its number, from 0, which is the chief's.
        chief: host:port where the chief waits for the others.
        address: Its own host:port; None where it chooses a free port.
        source: Where this is from, for messages.
        local_index: Which of its machine's workers it is, of `local_count`, to divide the GPUs.
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
        """Whether the user has named the machines, so that one without an address is a mistake.

        A scheduler, such as Kubernetes, may make the address of a machine only when the worker starts there.
        """
        return self.source == _WORKER_HOSTS


def is_worker(options: ClusterOptions, environment: Environment) -> bool:
    """Returns whether this process is one of several workers; one that launches workers is none itself.

    Raises:
        InputError: as `find_task`.
    """
    return not options.launch_workers and find_task(options, environment) is not None


def find_task(options: ClusterOptions, environment: Environment) -> Task | None:
    """Returns which worker this process is, or None where it is alone.

    `--worker_hosts` goes before TF_CONFIG, RANK and WORLD_SIZE, Open MPI's variables and those of SLURM.

    Raises:
        InputError: a flag or variable that is malformed, or contradicts another one.
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
    if not cluster:  # as TensorFlow takes it: a process that is alone
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
    """As torchrun sets them, and as manifests of Kubernetes do."""
    given = [name for name in ('RANK', 'WORLD_SIZE') if name in environment]
    if not given:
        return None
    if len(given) == 1:
        missing = 'WORLD_SIZE' if given == ['RANK'] else 'RANK'
        raise InputError(f'{given[0]}={environment[given[0]]} is set, but {missing} is not; set both, or {_IGNORE}')
    index, count = _index_of(environment, 'RANK', 'WORLD_SIZE')
    if count == 1:
        return Task(0, 1, '', None, 'RANK and WORLD_SIZE')
    # Where torchrun's agents hold a store at MASTER_PORT, the next port is free.
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
    """Returns the chief's address, `after` ports behind MASTER_PORT."""
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
    """Returns which this is of how many, as two variables say."""
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
    """Of a step that srun has started: the script of sbatch, which srun has not, is alone."""
    if 'SLURM_STEP_NODELIST' not in environment or 'SLURM_STEP_NUM_TASKS' not in environment:
        return None
    index, count = _index_of(environment, 'SLURM_PROCID', 'SLURM_STEP_NUM_TASKS')
    if count == 1:
        return Task(0, 1, '', None, 'SLURM')
    number = _whole('SLURM_JOB_ID', environment.get('SLURM_JOB_ID', ''))
    number += _whole('SLURM_STEP_ID', environment.get('SLURM_STEP_ID', '0'))  # two steps may share a machine
    chief = f'{_first_host(environment["SLURM_STEP_NODELIST"])}:{_FIRST_SLURM_PORT + number % _SLURM_PORTS}'
    # SLURM itself gives each task its GPUs, so that none are left to divide.
    return Task(index, count, chief, None if index else chief, 'SLURM')


def _first_host(nodes: str) -> str:
    """Returns node01 of node[01-03,07],gpu5: brackets hold ranges and numbers, of which each host has one."""
    first = re.split(r',(?![^\[]*\])', nodes)[0]
    host = re.sub(r'\[(\w+)(?:[-,][\w,-]*)?\]', r'\1', first)
    if not re.fullmatch(r'[\w.-]+', host):
        raise InputError(f'SLURM_STEP_NODELIST={nodes}: must be hosts, such as node[01-03,07],gpu5; {_IGNORE}')
    return host


# --------------------------------------------------------------------- whether an address can be used


def split_address(address: str) -> tuple[str, int]:
    """Returns the host, in small letters and without brackets, and the port of a `host:port` of a Task."""
    host, _, port = address.rpartition(':')
    return host.removeprefix('[').removesuffix(']').lower(), int(port)


def is_address(text: str) -> bool:
    """Returns whether a text is `host:port`, as a Task has it."""
    try:
        _checked_address('', text)
    except InputError:
        return False
    return True


def resolve(address: str, source: str) -> None:
    """Checks that the host of an address is known, to DNS or /etc/hosts.

    Raises:
        InputError: it is not.
    """
    host, port = split_address(address)
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # the latter of what cannot be a name, such as one of 64 letters
        raise InputError(f'{source}: no machine is known as {host!r} ({first_line(error)})') from None


def check_port_is_free(address: str, source: str) -> None:
    """Checks that this process could listen at the port of its address.

    Raises:
        InputError: another process listens there, or this one may not.
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
    """Returns ports of this machine, which has the address `host`, where nothing listens now.

    None is of those that the system gives to connections: one that is made before the port is used could get it.
    """
    candidates = _ports_of_nobody()
    _RANDOM.shuffle(candidates)
    found = (port for port in candidates if _is_free(host, port))
    ports = list(itertools.islice(found, count))
    if len(ports) < count:
        raise InputError(f'no {count} ports are free on this machine')
    return ports


def free_port(host: str) -> int:
    """Returns one port of `free_ports`."""
    return free_ports(host, 1)[0]


def _ports_of_nobody() -> list[int]:
    """Returns the numbers below those that the system chooses from where it is asked for any port."""
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
    # On all interfaces, as TensorFlow's server does: a machine need not have the address that its name leads to.
    family, everywhere = (socket.AF_INET6, '::') if ':' in host else (socket.AF_INET, '')
    probe = socket.socket(family, socket.SOCK_STREAM)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((everywhere, port))
    except OSError:
        probe.close()
        raise
    return probe
