"""Who is who among several workers: from flags and from what launchers set, and what is refused."""

import json
import re
import socket
from typing import Any

import pytest

from configs.devices import ClusterOptions
from configs.options import make_config
from configs.training import TrainConfig
from engine.distributed.tasks import Task, check_port_is_free, find_task, free_port, resolve, split_address
from support.errors import InputError

HOSTS = ('node1:2222', 'node2:2222', 'node1:2223')
TORCH = {'RANK': '1', 'WORLD_SIZE': '4', 'MASTER_ADDR': 'node1'}
OPEN_MPI = {
    'OMPI_COMM_WORLD_RANK': '3',
    'OMPI_COMM_WORLD_SIZE': '4',
    'OMPI_COMM_WORLD_LOCAL_RANK': '1',
    'OMPI_COMM_WORLD_LOCAL_SIZE': '2',
}
SLURM = {
    'SLURM_JOB_ID': '20007',
    'SLURM_STEP_ID': '1',
    'SLURM_PROCID': '2',
    'SLURM_STEP_NUM_TASKS': '4',
    'SLURM_STEP_NODELIST': 'node[01-03,07],gpu5',
    'SLURM_LOCALID': '1',
}


def tf_config(task: Any = ('worker', 0), **cluster: Any) -> dict[str, str]:
    kind, index = task
    return {'TF_CONFIG': json.dumps({'cluster': cluster, 'task': {'type': kind, 'index': index}})}


def of_workers(**task: Any) -> dict[str, str]:
    return {'TF_CONFIG': json.dumps({'cluster': {'worker': list(HOSTS)}, **task})}


@pytest.mark.parametrize(
    ('flags', 'environment', 'expected'),
    [
        ({}, {}, None),
        (
            {'worker_hosts': HOSTS, 'task': 2},
            {'TF_CONFIG': 'not asked', 'RANK': 'neither'},
            Task(2, 3, 'node1:2222', 'node1:2223', '--worker_hosts', 1, 2),
        ),
        ({'worker_hosts': HOSTS, 'task': 1}, {}, Task(1, 3, 'node1:2222', 'node2:2222', '--worker_hosts', 0, 1)),
        ({'worker_hosts': HOSTS, 'task': 0, 'cluster': 'none'}, {}, Task(0, 3, *HOSTS[:1] * 2, '--worker_hosts', 0, 2)),
        (
            {'worker_hosts': ('[::1]:1', '[fe80::2]:65535'), 'task': 1},
            {},
            Task(1, 2, '[::1]:1', '[fe80::2]:65535', '--worker_hosts'),
        ),
        ({'worker_hosts': ('node1:2222',), 'task': 0}, {}, None),
        ({'task': 0}, {}, None),  # as slim's script was called
        (
            {},
            {**tf_config(('chief', 0), chief=['a:1'], worker=['b:1', 'a:2']), **TORCH},
            Task(0, 3, 'a:1', 'a:1', 'TF_CONFIG', 0, 2),
        ),
        (
            {},
            tf_config(('worker', 1), worker=['b:1', 'a:2'], chief=['a:1']),
            Task(2, 3, 'a:1', 'a:2', 'TF_CONFIG', 1, 2),
        ),
        ({}, tf_config(('worker', '1'), worker=['b:1', 'a:2']), Task(1, 2, 'b:1', 'a:2', 'TF_CONFIG')),
        ({}, tf_config(worker=['a:1']), None),
        ({}, {**tf_config(worker=['a:1']), **TORCH}, None),
        ({}, {'TF_CONFIG': '{}'}, None),
        ({}, {'TF_CONFIG': ''}, None),
        ({}, TORCH, Task(1, 4, 'node1:29500', None, 'RANK and WORLD_SIZE')),
        (
            {},
            {**TORCH, 'RANK': '0', 'MASTER_PORT': '1234', 'LOCAL_RANK': '0', 'LOCAL_WORLD_SIZE': '2'},
            Task(0, 4, 'node1:1234', 'node1:1234', 'RANK and WORLD_SIZE', 0, 2),
        ),
        (
            {},
            {**TORCH, 'TORCHELASTIC_USE_AGENT_STORE': 'True', 'LOCAL_RANK': '1', 'LOCAL_WORLD_SIZE': '2'},
            Task(1, 4, 'node1:29501', None, 'RANK and WORLD_SIZE', 1, 2),
        ),
        ({}, {**TORCH, 'MASTER_ADDR': 'fe80::1'}, Task(1, 4, '[fe80::1]:29500', None, 'RANK and WORLD_SIZE')),
        ({}, {'RANK': '0', 'WORLD_SIZE': '1'}, None),
        ({'cluster': 'none'}, TORCH, None),
        ({'cluster': 'none'}, {'RANK': 'x'}, None),
        ({}, {**OPEN_MPI, 'MASTER_ADDR': 'node1'}, Task(3, 4, 'node1:29500', None, 'Open MPI', 1, 2)),
        (
            {},
            {**OPEN_MPI, 'OMPI_COMM_WORLD_LOCAL_RANK': '3', 'OMPI_COMM_WORLD_LOCAL_SIZE': '4', 'MASTER_PORT': '77'},
            Task(3, 4, '127.0.0.1:77', None, 'Open MPI', 3, 4),
        ),
        ({}, {'OMPI_COMM_WORLD_RANK': '0', 'OMPI_COMM_WORLD_SIZE': '1'}, None),
        ({}, SLURM, Task(2, 4, 'node01:10008', None, 'SLURM')),
        ({}, {**SLURM, 'SLURM_PROCID': '0'}, Task(0, 4, 'node01:10008', 'node01:10008', 'SLURM')),
        ({}, {**SLURM, 'SLURM_STEP_NUM_TASKS': '1', 'SLURM_PROCID': '0'}, None),
        # The script of sbatch itself, before any srun.
        ({}, {'SLURM_JOB_ID': '7', 'SLURM_PROCID': '0', 'SLURM_NTASKS': '4', 'SLURM_NODELIST': 'node[1-4]'}, None),
    ],
)
def test_who_this_process_is(flags: dict[str, Any], environment: dict[str, str], expected: Task | None) -> None:
    assert find_task(ClusterOptions(**flags), environment) == expected


@pytest.mark.parametrize(
    ('nodes', 'first'),
    [
        ('gpu5', 'gpu5'),
        ('gpu5,node[1-2]', 'gpu5'),
        ('node[01-03,07],gpu5', 'node01'),
        ('node[07,01-03]', 'node07'),
        ('a[1-2]b[3-4]', 'a1b3'),
        ('rack-2.node_[010-011]', 'rack-2.node_010'),
    ],
)
def test_first_host_of_slurm(nodes: str, first: str) -> None:
    task = find_task(ClusterOptions(), {**SLURM, 'SLURM_STEP_NODELIST': nodes})
    assert task is not None
    assert split_address(task.chief)[0] == first


@pytest.mark.parametrize(
    ('flags', 'environment', 'message'),
    [
        (
            {'worker_hosts': HOSTS},
            {},
            '--worker_hosts=node1:2222,node2:2222,node1:2223: --task, the index of this process from 0, is missing',
        ),
        ({'worker_hosts': HOSTS, 'task': 3}, {}, '--task=3: must be from 0 to 2, one of the --worker_hosts'),
        ({'worker_hosts': HOSTS, 'task': -1}, {}, '--task=-1: must be at least 0'),
        ({'task': 1}, {}, '--task=1: is an index into --worker_hosts; give --worker_hosts too'),
        ({'task': 1}, TORCH, '--task=1: is an index into --worker_hosts'),
        ({'worker_hosts': ('a:1', 'A:1'), 'task': 0}, {}, '--worker_hosts: A:1 is listed twice'),
        ({'worker_hosts': ('a:1', 'b'), 'task': 0}, {}, "--worker_hosts: 'b' must be host:port, with an IPv6"),
        ({'worker_hosts': ('a:1', 'b:'), 'task': 0}, {}, "--worker_hosts: 'b:' must be host:port"),
        ({'worker_hosts': ('a:1', 'b:x'), 'task': 0}, {}, "--worker_hosts: 'b:x' must be host:port"),
        ({'worker_hosts': ('a:1', 'grpc://b:1'), 'task': 0}, {}, "--worker_hosts: 'grpc://b:1' must be host:port"),
        ({'worker_hosts': ('a:1', '::1:1'), 'task': 0}, {}, "--worker_hosts: '::1:1' must be host:port"),
        ({'worker_hosts': ('a:1', '[b]:1'), 'task': 0}, {}, "--worker_hosts: 'b' is no IPv6 address"),
        ({'worker_hosts': ('a:1', 'b:0'), 'task': 0}, {}, '--worker_hosts=b:0: the port must be from 1 to 65535'),
        ({'worker_hosts': ('a:1', 'b:65536'), 'task': 0}, {}, '--worker_hosts=b:65536: the port must be from 1'),
        (
            {'launch_workers': 2, 'worker_hosts': HOSTS},
            {},
            '--launch_workers=2 chooses the addresses of its workers itself',
        ),
        ({'launch_workers': 65}, {}, '--launch_workers=65: must be at most 64'),
        ({'cluster': 'slurm'}, {}, '--cluster=slurm: must be one of auto, none'),
        ({'worker_timeout_secs': 0.0}, {}, '--worker_timeout_secs=0.0: must be greater than 0.0'),
        ({}, {'TF_CONFIG': '{'}, 'TF_CONFIG={: not JSON (Expecting property name'),
        ({}, {'TF_CONFIG': '[1]'}, 'TF_CONFIG=[1]: must be like {"cluster": {"worker": ["host:port", ...]}'),
        ({}, {'TF_CONFIG': '{"cluster": 1}'}, 'TF_CONFIG={"cluster": 1}: must be like'),
        ({}, of_workers(task=[]), '"task": []}: must be like'),
        ({}, of_workers(), 'TF_CONFIG: task has the type None; it must be chief or worker'),
        ({}, of_workers(task={'type': []}), 'TF_CONFIG: task has the type []; it must be chief or worker'),
        ({}, {'TF_CONFIG': '{\n  1'}, 'TF_CONFIG={ 1: not JSON'),
        ({}, of_workers(task={'type': 'worker'}), 'TF_CONFIG: index of task=None: must be a whole number, from 0'),
        (
            {},
            tf_config(('worker', True), worker=['a:1', 'b:1']),
            'TF_CONFIG: index of task=True: must be a whole number',
        ),
        ({}, tf_config(('worker', 2), worker=['a:1', 'b:1']), 'TF_CONFIG: task is worker 2, but cluster has 2 of them'),
        ({}, tf_config(('chief', 0), worker=['a:1']), 'TF_CONFIG: task is chief 0, but cluster has 0 of them, from 0'),
        ({}, tf_config(worker='a:1'), 'TF_CONFIG: worker of cluster is "a:1"; it must be a list of "host:port"'),
        ({}, tf_config(worker=[1]), 'TF_CONFIG: worker of cluster is [1]; it must be a list'),
        ({}, tf_config(worker=['a:1', 'a:1']), 'TF_CONFIG: a:1 is listed twice'),
        ({}, tf_config(worker=['a', 'b:1']), "TF_CONFIG: 'a' must be host:port"),
        ({}, tf_config(chief=['a:1', 'b:1'], worker=['c:1']), 'TF_CONFIG: cluster has 2 chiefs; it may have one'),
        (
            {},
            tf_config(worker=['a:1'], master=['b:1']),
            "TF_CONFIG: cluster has 'master'; it may have chief and worker",
        ),
        ({}, tf_config(worker=['a:1'], ps=['b:1']), "TF_CONFIG has 'ps', but training is synchronous: there are no"),
        (
            {},
            tf_config(('evaluator', 0), worker=['a:1']),
            "TF_CONFIG has 'evaluator', but training is synchronous: there are no parameter servers, and what "
            'evaluates beside training is eval_image_classifier.py --eval_interval_secs=60',
        ),
        ({}, {'RANK': '1'}, 'RANK=1 is set, but WORLD_SIZE is not; set both, or --cluster=none ignores it'),
        ({}, {'WORLD_SIZE': '2'}, 'WORLD_SIZE=2 is set, but RANK is not'),
        ({}, {**TORCH, 'RANK': 'x'}, 'RANK=x: must be a whole number, from 0; --cluster=none ignores it'),
        ({}, {**TORCH, 'RANK': ''}, 'RANK=: must be a whole number'),  # a fieldRef to an annotation that is not there
        ({}, {**TORCH, 'RANK': '-1'}, 'RANK=-1: must be a whole number'),
        ({}, {**TORCH, 'RANK': '4'}, 'RANK=4: must be from 0 to 3, for WORLD_SIZE=4; --cluster=none ignores it'),
        ({}, {**TORCH, 'RANK': '1', 'WORLD_SIZE': '0'}, 'WORLD_SIZE=0: must be at least 1'),
        ({}, {**TORCH, 'WORLD_SIZE': '4.0'}, 'WORLD_SIZE=4.0: must be a whole number'),
        (
            {},
            {**TORCH, 'LOCAL_RANK': '1'},
            'LOCAL_RANK=1: must be from 0 to 0, for LOCAL_WORLD_SIZE=1; --cluster=none ignores it',
        ),
        ({}, {'RANK': '0', 'WORLD_SIZE': '2'}, 'RANK and WORLD_SIZE: MASTER_ADDR, the host of RANK 0, is missing'),
        (
            {},
            {**TORCH, 'MASTER_ADDR': 'node1:1'},
            'MASTER_ADDR=node1:1: must be a host without a port; MASTER_PORT gives the port',
        ),
        ({}, {**TORCH, 'MASTER_ADDR': 'a::x'}, "MASTER_ADDR: 'a::x' is no IPv6 address"),
        ({}, {**TORCH, 'MASTER_ADDR': 'no de'}, "MASTER_ADDR: 'no de:29500' must be host:port"),
        ({}, {**TORCH, 'MASTER_PORT': '0'}, 'MASTER_PORT=0: the port must be from 1 to 65535'),
        ({}, {**TORCH, 'MASTER_PORT': 'http'}, 'MASTER_PORT=http: must be a whole number'),
        (
            {},
            {**TORCH, 'MASTER_PORT': '65535', 'TORCHELASTIC_USE_AGENT_STORE': 'True'},
            'MASTER_PORT=65535: the port must be from 1 to 65535',
        ),
        (
            {},
            OPEN_MPI,
            'Open MPI (OMPI_COMM_WORLD_SIZE=4): the host of rank 0, mpirun -x MASTER_ADDR=HOST, is missing',
        ),
        ({}, {'OMPI_COMM_WORLD_SIZE': '2'}, 'OMPI_COMM_WORLD_RANK=: must be a whole number'),
        (
            {},
            {**SLURM, 'SLURM_PROCID': '4'},
            'SLURM_PROCID=4: must be from 0 to 3, for SLURM_STEP_NUM_TASKS=4; --cluster=none ignores it',
        ),
        ({}, {**SLURM, 'SLURM_JOB_ID': 'x'}, 'SLURM_JOB_ID=x: must be a whole number'),
        ({}, {**SLURM, 'SLURM_STEP_NODELIST': ''}, 'SLURM_STEP_NODELIST=: must be hosts, such as node[01-03,07],gpu5'),
        ({}, {**SLURM, 'SLURM_STEP_NODELIST': 'node[1-'}, 'SLURM_STEP_NODELIST=node[1-: must be hosts'),
    ],
)
def test_what_is_refused(flags: dict[str, Any], environment: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        find_task(make_config(TrainConfig, **flags).cluster, environment)
    assert '\n' not in str(raised.value)


def test_only_machines_that_the_user_names_must_be_known_at_once() -> None:
    written_out = find_task(ClusterOptions(worker_hosts=HOSTS, task=0), {})
    scheduled = find_task(ClusterOptions(), TORCH)
    assert written_out is not None
    assert scheduled is not None
    assert (written_out.is_written_out, scheduled.is_written_out) == (True, False)


@pytest.mark.parametrize(
    ('address', 'parts'),
    [('Node1:22', ('node1', 22)), ('[::1]:22', ('::1', 22)), ('10.0.0.1:65535', ('10.0.0.1', 65535))],
)
def test_split_address(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


def test_a_machine_that_nobody_knows() -> None:
    resolve('localhost:1', '--worker_hosts')
    for host in ('no-such-host.invalid', 'x' * 64):
        with pytest.raises(InputError, match=f"^--worker_hosts: no machine is known as '{host}' "):
            resolve(f'{host}:2222', '--worker_hosts')


@pytest.mark.parametrize('host', ['127.0.0.1', '[::1]'])
def test_ports(host: str) -> None:
    family = socket.AF_INET6 if '[' in host else socket.AF_INET
    try:
        listener = socket.create_server((host.strip('[]'), 0), family=family)
    except OSError as error:
        pytest.skip(f'this machine has no {host}: {error}')
    with listener:
        address = f'{host}:{listener.getsockname()[1]}'
        with pytest.raises(
            InputError, match=f'is in use; {re.escape(address)} is the address of this worker, from SLURM'
        ):
            check_port_is_free(address, 'SLURM')
        assert free_port(host.strip('[]')) != listener.getsockname()[1]
    check_port_is_free(address, 'SLURM')
