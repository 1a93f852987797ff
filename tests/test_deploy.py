"""The examples of deployment: that schedulers take them as they are, what they do with stand-ins for srun and ssh."""

import functools
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from configs.devices import ClusterOptions
from engine.distributed.tasks import TOKEN, Task, find_task
from tests.scripts import ROOT, flag_names, wait_for_files

DEPLOY = ROOT / 'deploy'
# The long options of sbatch(1), Slurm 22.05.
SBATCH_OPTIONS = """
    account acctg-freq array batch bb bbf begin chdir cluster-constraint clusters comment constraint contiguous
    container core-spec cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline delay-boot dependency distribution
    error exclude exclusive export export-file extra-node-info get-user-env gid gpu-bind gpu-freq gpus gpus-per-node
    gpus-per-socket gpus-per-task gres gres-flags hint hold ignore-pbs input job-name kill-on-invalid-dep licenses
    mail-type mail-user mcs-label mem mem-bind mem-per-cpu mem-per-gpu mincpus network nice no-kill no-requeue nodefile
    nodelist nodes ntasks ntasks-per-core ntasks-per-gpu ntasks-per-node ntasks-per-socket open-mode output overcommit
    oversubscribe parsable partition power prefer priority profile propagate qos quiet reboot requeue reservation signal
    sockets-per-node spread-job switches test-only thread-spec threads-per-core time time-min tmp uid use-min-nodes
    verbose wait wait-all-nodes wckey wrap"""


def manifests() -> dict[str, Any]:
    return {each['kind']: each for each in yaml.safe_load_all((DEPLOY / 'kubernetes.yaml').read_text())}


def job() -> dict[str, Any]:
    return manifests()['Job']['spec']


def pod() -> dict[str, Any]:
    return job()['template']['spec']


def flags_of_training(path: Path) -> set[str]:
    """Returns the names of the flags that stand behind the script of training, comments included."""
    if path.suffix == '.yaml':
        lines = [' '.join(pod()['containers'][0]['command'])]
    else:
        text = re.sub(r'\\\n#?\s*', '', path.read_text())
        lines = [line for line in text.splitlines() if re.search(rf'train_image_classifier|deploy/{path.name}', line)]
    ours = [line.partition('train_image_classifier.py')[2] or line for line in lines]
    return {flag for line in ours for flag in re.findall(r'--(\w+)', line)}


@pytest.mark.parametrize('path', sorted(DEPLOY.iterdir()), ids=lambda path: path.name)
def test_flags_and_recipes_exist(path: Path) -> None:
    flags = flags_of_training(path)
    assert {'flagfile', 'dataset_dir', 'train_dir'} <= flags, 'none are overlooked'
    assert not flags - flag_names('train_image_classifier.py') - {'flagfile', 'nodes'}
    for recipe in re.findall(r'--flagfile=([\w./]+)', path.read_text()):
        assert (ROOT / recipe).exists()


@pytest.mark.parametrize('name', ['slurm.sbatch', 'ssh.sh'])
def test_shell_scripts_can_be_parsed_and_run(name: str) -> None:
    checked = subprocess.run(['bash', '-n', DEPLOY / name], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, '')
    assert os.access(DEPLOY / name, os.X_OK)


# --------------------------------------------------------------------- Kubernetes


@pytest.mark.parametrize('version', ['1.31', '1.36'])
@pytest.mark.parametrize('kind', ['Service', 'PersistentVolumeClaim', 'Job'])
def test_manifests_match_the_schema(kind: str, version: str) -> None:
    kubernetes_validate.validate(manifests()[kind], version, strict=True)


def test_the_schema_refuses_what_is_misspelt() -> None:
    manifest = manifests()['Job']
    manifest['spec']['completionmode'] = manifest['spec'].pop('completionMode')
    with pytest.raises(kubernetes_validate.ValidationError, match='completionmode'):
        kubernetes_validate.validate(manifest, '1.31', strict=True)


def test_names_in_the_manifests_fit() -> None:
    """Names that occur in two places agree, which no schema checks."""
    service, name = manifests()['Service'], manifests()['Job']['metadata']['name']
    assert service['spec']['clusterIP'] == 'None', 'in quotes for YAML, or not: the text, which means headless'
    assert service['spec']['selector'] == {'batch.kubernetes.io/job-name': name}
    assert pod()['subdomain'] == service['metadata']['name']
    claims = {volume['name']: volume['persistentVolumeClaim']['claimName'] for volume in pod()['volumes']}
    assert claims['run'] == manifests()['PersistentVolumeClaim']['metadata']['name']
    (container,) = pod()['containers']
    mounts = {mount['name']: mount['mountPath'] for mount in container['volumeMounts']}
    assert set(mounts) == set(claims)
    assert {f'--dataset_dir={mounts["data"]}', f'--train_dir={mounts["run"]}'} <= set(container['command'])


def test_pods_find_each_other() -> None:
    (container,) = pod()['containers']
    variables = {each['name']: each.get('value', each.get('valueFrom')) for each in container['env']}
    index = variables.pop('RANK')['fieldRef']['fieldPath']
    assert index == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    token = variables.pop(TOKEN)['fieldRef']['fieldPath']
    assert token == "metadata.labels['batch.kubernetes.io/controller-uid']", 'the same in all pods of a Job'
    chief = f'{manifests()["Job"]["metadata"]["name"]}-0.{manifests()["Service"]["metadata"]["name"]}'
    port = container['ports'][0]['containerPort']
    assert port == manifests()['Service']['spec']['ports'][0]['port']
    assert job()['completionMode'] == 'Indexed'
    assert job()['parallelism'] == job()['completions'] > 1
    for rank in range(job()['completions']):
        task = find_task(ClusterOptions(), {**variables, 'RANK': str(rank)})
        address = None if rank else f'{chief}:{port}'
        assert task == Task(rank, job()['completions'], f'{chief}:{port}', address, 'RANK and WORLD_SIZE')


def test_a_failure_starts_all_pods_again() -> None:
    assert pod()['restartPolicy'] == 'OnFailure'
    assert not {'podFailurePolicy', 'backoffLimitPerIndex'} & set(job()), 'Kubernetes allows them with Never only'
    assert job()['backoffLimit'] >= 10 * job()['completions'], 'each failure takes a retry of every worker'
    assert job()['successPolicy']['rules'] == [{'succeededIndexes': '0'}], 'the chief'


# --------------------------------------------------------------------- SLURM


def stand_in(folder: Path, name: str, lines: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f'#!/bin/bash\n{lines}\n')
    (folder / name).chmod(0o755)


def test_sbatch_takes_the_options() -> None:
    text = (DEPLOY / 'slurm.sbatch').read_text()
    options = dict(re.findall(r'^#SBATCH --([\w-]+)(?:=(\S+))?$', text, re.MULTILINE))
    assert len(options) == text.count('#SBATCH '), 'one a line, without a comment behind it'
    assert not set(options) - set(SBATCH_OPTIONS.split())
    assert options['signal'].startswith('TERM@'), 'to the workers, not with B: to the script'
    assert options['ntasks-per-node'] == '1'
    head = text[: text.index('\nset -u')].splitlines()
    assert text.count('#SBATCH ') == sum(line.startswith('#SBATCH ') for line in head), 'before the first command'


@pytest.mark.parametrize(
    ('status', 'restarts', 'is_queued_again'),
    [
        (0, '', False),
        (75, '', True),
        (143, '3', True),
        (137, '', True),
        (1, '', False),
        (2, '', False),
        (75, '20', False),
    ],
)
def test_a_job_is_queued_again(tmp_path: Path, status: int, restarts: str, is_queued_again: bool) -> None:
    stand_in(
        tmp_path / 'bin',
        'srun',
        f'printf "%s\\n" "$@" >{tmp_path}/srun; echo "${TOKEN}" >{tmp_path}/token; exit {status}',
    )
    stand_in(tmp_path / 'bin', 'scontrol', f'echo "$@" >{tmp_path}/scontrol')
    environment = {
        'PATH': f'{tmp_path}/bin:{os.environ["PATH"]}',
        'SLURM_SUBMIT_DIR': str(ROOT),
        'SLURM_JOB_ID': '77',
        'SLURM_RESTART_COUNT': restarts,
        'SLURM_CPUS_PER_TASK': '32',
        'DATASET_DIR': '/the data',
        'TRAIN_DIR': '/run',
    }
    command = ['bash', str(DEPLOY / 'slurm.sbatch'), '--batch_size=64']
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (finished.returncode, finished.stderr) == (status, '')
    called = (tmp_path / 'srun').read_text().splitlines()
    assert {'--cpus-per-task=32', '--dataset_dir=/the data', '--train_dir=/run'} < set(called)
    assert called[-1] == '--batch_size=64', 'last, so that it wins'
    assert re.fullmatch('[0-9a-f]{32}\n', (tmp_path / 'token').read_text())
    assert (tmp_path / 'scontrol').exists() == is_queued_again
    if is_queued_again:
        assert (tmp_path / 'scontrol').read_text() == 'requeue 77\n'


# --------------------------------------------------------------------- ssh

# As sshd does: a shell of the user's, with the connection as standard input.
SSH = """
while [[ $1 == -o ]]; do shift 2; done
export HOST=$1
exec sh -c "$2"
"""
# Worker 1 does what the test wants; the others go on until they are asked to end.
WORKER = """
trap 'echo saved; exit 143' TERM
echo "$WORKERS_TOKEN" >"$FOLDER/token of $HOST"
echo "$HOST $@" >"$FOLDER/$HOST"
if [[ "$*" == *--task=1 ]]; then
    until [ -e "$FOLDER/node1" ] && [ -e "$FOLDER/node3" ]; do sleep 0.02; done
    [ "$ENDS" ] && exit "$ENDS"
elif [ "$ENDS" = 0 ]; then
    exit 0
fi
while sleep 0.05; do :; done
"""


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[Any]:
    """A function that starts ssh.sh on three machines that are all this one."""
    stand_in(tmp_path / 'bin', 'ssh', SSH)
    stand_in(tmp_path / 'bin', 'a python', WORKER)
    started = []

    def start(ends: str) -> subprocess.Popen:
        environment = {
            **os.environ,
            'PATH': f'{tmp_path}/bin:{os.environ["PATH"]}',
            'PYTHON': f'{tmp_path}/bin/a python',
            'FOLDER': str(tmp_path),
            'ENDS': ends,
        }
        command = ['bash', str(DEPLOY / 'ssh.sh'), 'node1,me@node2,node3', '--train_dir=/a run', '--num_epochs=$1']
        options: dict[str, Any] = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
        # Whoever runs the tests in the background lets them, and so bash, ignore SIGINT.
        heed_sigint = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        started.append(subprocess.Popen(command, cwd=ROOT, env=environment, preexec_fn=heed_sigint, **options))
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.communicate(timeout=60)


def test_ssh_hands_on_the_flags(ssh: Any, tmp_path: Path) -> None:
    stdout, stderr = (finished := ssh('0')).communicate(timeout=60)
    assert (finished.returncode, stdout, stderr) == (0, '', '')
    for task, host in enumerate(('node1', 'me@node2', 'node3')):
        flags = f'--train_dir=/a run --num_epochs=$1 --worker_hosts=node1:2222,node2:2222,node3:2222 --task={task}'
        assert (tmp_path / host).read_text() == f'{host} train_image_classifier.py {flags}\n'
    (token,) = {(tmp_path / f'token of {host}').read_text() for host in ('node1', 'me@node2', 'node3')}
    assert re.fullmatch('[0-9a-f]{32}\n', token)


def test_ssh_ends_all_when_one_fails(ssh: Any) -> None:
    stdout, stderr = (finished := ssh('7')).communicate(timeout=60)
    assert (finished.returncode, stdout) == (7, 'saved\n' * 2)
    first, *others = stderr.splitlines()
    assert first == 'worker 1 on me@node2 ended with status 7'
    assert sorted(others) == [f'worker {task} on node{task + 1} ended with status 143' for task in (0, 2)]


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_ssh_ends_all_when_it_is_ended(ssh: Any, tmp_path: Path, number: signal.Signals) -> None:
    started = ssh('')
    wait_for_files(tmp_path, 'node1', 'me@node2', 'node3')
    started.send_signal(number)
    stdout, _ = started.communicate(timeout=60)  # which waits for all who have its standard output
    assert stdout == 'saved\n' * 3
    assert started.returncode == (-9 if number == signal.SIGKILL else 143)
