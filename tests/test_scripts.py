"""The scripts as users run them: real processes, their exit status, and what they print."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Of the embedded digits, and not the user's; each of several workers has its own.
CACHE = ROOT / 'build' / 'test_cache' / os.environ.get('PYTEST_XDIST_WORKER', '')
ENVIRONMENT = {**os.environ, 'XDG_CACHE_HOME': str(CACHE)}
TINY = ('--model_name=lenet', '--dataset_name=digits', '--depth_multiplier=0.25', '--log_every_n_steps=2')


def run(script: str, *flags: object, **kwargs) -> subprocess.CompletedProcess:
    """Runs a script from the clone and returns its exit status and output."""
    command = [sys.executable, f'{script}_image_classifier.py', *map(str, flags)]
    options = {'cwd': ROOT, 'env': ENVIRONMENT, 'capture_output': True, 'text': True, 'timeout': 280, **kwargs}
    return subprocess.run(command, **options)


def only_error(finished: subprocess.CompletedProcess, status: int) -> str:
    """Returns the one line that a script ended with, after checking that there is no traceback."""
    assert finished.returncode == status, finished.stderr
    assert 'Traceback' not in finished.stderr
    errors = [line for line in finished.stderr.splitlines() if line.startswith('error: ')]
    assert len(errors) == 1, finished.stderr
    return errors[0]


@pytest.fixture(scope='module')
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A train_dir of a few real steps, with summaries of every kind and an evaluation."""
    train_dir = tmp_path_factory.mktemp('digits') / 'run'
    finished = run(
        'train',
        *TINY,
        f'--train_dir={train_dir}',
        '--max_number_of_steps=6',
        '--eval_every_steps=6',
        '--save_summaries_steps=3',
        '--summarize_histograms',
        '--summarize_images',
    )
    assert finished.returncode == 0, finished.stderr
    return train_dir


# --------------------------------------------------------------------- the commands of slim's users


def test_the_bare_command_trains_and_evaluates_the_embedded_digits(tmp_path: Path) -> None:
    narrow = '--depth_multiplier=0.25'  # slim's command in README is run at full width, by test_readme.py
    length = ('--max_number_of_steps=2', '--batch_size=4')
    finished = run('train', '--model_name=alexnet_v2', f'--train_dir={tmp_path}', narrow, *length)
    assert finished.returncode == 0, finished.stderr
    assert 'no --dataset_dir: using the embedded digits' in finished.stderr
    assert 'evaluated 360 of 360' in finished.stdout


@pytest.mark.full
@pytest.mark.timeout(900)  # only against hanging: it takes 100 s on two idle cores, and shares them with other tests
def test_the_digits_recipe_reaches_its_accuracy(tmp_path: Path) -> None:
    train = run('train', '--flagfile=configs/alexnet_v2_digits.cfg', f'--train_dir={tmp_path}', timeout=700)
    assert train.returncode == 0, train.stderr
    results_path = tmp_path / 'R.json'
    evaluation = run('eval', f'--checkpoint_path={tmp_path}', f'--results_path={results_path}')
    assert evaluation.returncode == 0, evaluation.stderr
    results = json.loads(results_path.read_text())
    assert results['accuracy'] >= 0.98
    assert results['recall_at_5'] >= results['accuracy']
    assert results['num_examples'] == 360
    assert results['checkpoint_path'] == f'{tmp_path}/model.ckpt-{results["step"]}'


# Recipe -> its data, flags that shorten it, and the accuracy that it then had on 1000 test images, on 2 cores of an
# Intel Xeon with AMX, 2026-11-26.
SHORT_RUNS = {
    'alexnet_mnist': ('mnist', ('--dataset_split_name=train[:5%]', '--num_epochs=1'), 0.798),
    'alexnet_bn_cifar10': (
        'cifar10',
        ('--dataset_split_name=train[:20%]', '--num_epochs=2', '--warmup_epochs=0.5', '--depth_multiplier=0.25'),
        0.324,
    ),
}


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize('recipe', SHORT_RUNS)
def test_a_recipe_cut_short_learns_as_recorded(recipe: str, shared_path: Callable[[str], Path], tmp_path: Path) -> None:
    data, flags, recorded = SHORT_RUNS[recipe]
    finished = run(
        'train',
        f'--flagfile=configs/{recipe}.cfg',
        f'--dataset_dir={shared_path("data")}/{data}',
        f'--train_dir={tmp_path}',
        '--eval_split_name=test[:10%]',
        '--eval_every_epochs=2',
        *flags,
        timeout=700,
    )
    assert finished.returncode == 0, finished.stderr
    (evaluation,) = json.loads((tmp_path / 'evaluations.json').read_text())
    assert evaluation['accuracy'] == pytest.approx(recorded, abs=0.06)  # other processors round otherwise


# --------------------------------------------------------------------- TensorBoard


@pytest.mark.full
def test_tensorboard_shows_the_run(digits_run: Path) -> None:
    command = [sys.executable, '-m', 'tensorboard.main', f'--logdir={digits_run}', '--port=0', '--load_fast=false']
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        address = _address(server)
        tags = _wait_for_tags(address, runs=2)
        assert {'losses/total_loss', 'losses/cross_entropy', 'losses/regularization_loss'} <= tags['.']
        assert {'accuracy', 'learning_rate', 'images_per_second', 'data_wait_share'} <= tags['.']
        assert {'accuracy', 'recall_at_5', 'losses/cross_entropy', 'num_examples', 'step'} <= tags['eval_test']
        steps = [point[1] for point in _get(address, 'scalars/scalars?run=.&tag=losses/total_loss')]
        assert steps[:5] == [1, 2, 3, 4, 6]  # with each log line, and what was asked for
        grids = _get(address, 'images/images?run=.&tag=training_images&sample=0')
        assert [grid['step'] for grid in grids][:2] == [3, 6]
        (accuracy,) = _get(address, 'scalars/scalars?run=eval_test&tag=accuracy')
        assert accuracy[1] == 6
        assert 0 <= accuracy[2] <= 1
        assert 'training_images' in _get(address, 'images/tags')['.']
        assert {'LeNet/conv1/weights', 'activations/conv1'} <= set(_get(address, 'histograms/tags')['.'])
    finally:
        server.kill()
        server.communicate()


def _address(server: subprocess.Popen) -> str:
    assert server.stdout is not None
    for line in server.stdout:
        if 'http://' in line:
            return line[line.index('http://') :].split()[0].rstrip('/')
    raise AssertionError('tensorboard ended')


def _get(address: str, path: str):
    with urllib.request.urlopen(f'{address}/data/plugin/{path}', timeout=30) as response:
        return json.load(response)


def _wait_for_tags(address: str, runs: int) -> dict[str, set[str]]:
    for _ in range(100):
        tags = _get(address, 'scalars/tags')
        if len(tags) >= runs:
            return {name: set(of_run) for name, of_run in tags.items()}
        time.sleep(0.2)
    raise AssertionError(f'tensorboard shows only {tags}')


# --------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ('script', 'flags', 'status', 'message'),
    [
        ('train', ['--modl_name=alexnet_v2'], 2, "Unknown command line flag 'modl_name'. Did you mean: model_name ?"),
        ('train', ['--batch_size=many'], 2, 'flag --batch_size=many'),
        ('train', ['alexnet_v2'], 2, 'not a flag: alexnet_v2'),
        ('train', ['--worker_replicas=2'], 1, '--worker_replicas=2 cannot be honoured: list the workers in'),
        ('eval', ['--recall_at=3,x'], 1, '--recall_at=3,x: must be int values separated by commas'),
        ('eval', ['--flagfile=no/such.cfg'], 2, 'Unable to open flagfile'),
    ],
)
def test_bad_flags(script: str, flags: list[str], status: int, message: str) -> None:
    assert message in only_error(run(script, *flags), status)


def test_flags_of_slim_without_meaning_are_answered(tmp_path: Path) -> None:
    finished = run('train', '--master=', '--num_readers=8', f'--train_dir={tmp_path}', '--dataset_dir=/no/such')
    assert '--master is no longer needed: there are no sessions' in finished.stderr
    assert '--num_readers is no longer needed: the input pipeline tunes' in finished.stderr
    assert '--dataset_dir=/no/such: no such folder' in only_error(finished, 1)
