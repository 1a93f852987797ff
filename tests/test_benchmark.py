"""`benchmark_image_classifier.py`: which figures each mode gives and how they agree, never how large they are."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from configs.benchmark import BenchmarkConfig
from configs.options import make_config
from engine.speed import benchmark
from engine.speed.benchmark_figures import Block, format_table, summarize
from support.errors import InputError
from tests.runs import SMALL_RUN, flip
from tests.scripts import run_python

BATCH = 32


def config(dataset_dir: Path | None, **options: Any) -> BenchmarkConfig:
    """Returns the config of a short measurement on the digits."""
    lengths = {'num_steps': 10, 'warmup_steps': 2, 'batch_size': BATCH, 'num_epochs': 1.0}
    return make_config(
        BenchmarkConfig, **{**SMALL_RUN, 'dataset_dir': dataset_dir and str(dataset_dir), **lengths, **options}
    )


@pytest.mark.quick('step', 'input')
@pytest.mark.parametrize('mode', ['input', 'step', 'train', 'eval'])
def test_every_mode_gives_consistent_figures(
    mode: str, digits_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_dir, results_path = tmp_path / 'run', tmp_path / 'figures.json'
    options = {'mode': mode, 'train_dir': str(train_dir), 'results_path': str(results_path)}
    figures = benchmark.benchmark(config(digits_dir, **options))

    assert figures['images'] == 10 * BATCH
    speeds = figures['images_per_second']
    assert 0.99 * speeds['low'] <= figures['images'] / figures['seconds'] <= 1.01 * speeds['high']
    for speed in (figures['images_per_second'], figures['images_per_cpu_second']):
        assert 0 < speed['low'] <= speed['median'] <= speed['high']
    assert figures['mode'] == mode
    assert (figures['waiting_share'] is None) == (mode in ('input', 'eval'))
    assert 0 <= (figures['waiting_share'] or 0) <= 1
    assert figures['dataset_name'] == ('synthetic' if mode == 'step' else 'digits')
    assert figures['seconds_to_first_batch'] > 0
    assert figures['peak_rss_mib'] > 100  # TensorFlow alone takes more
    assert json.loads(results_path.read_text()) == figures
    assert capsys.readouterr().out == format_table(figures) + '\n'
    assert not train_dir.exists()


def test_a_block_is_a_tenth_of_the_steps_rounded_up(digits_dir: Path) -> None:
    figures = benchmark.benchmark(config(digits_dir, mode='input', num_steps=11, warmup_steps=1, cache='off'))
    assert figures['images'] == 12 * BATCH  # six blocks of two


def test_replicas_share_the_batch(digits_dir: Path) -> None:
    figures = benchmark.benchmark(config(digits_dir, mode='step', num_clones=2, num_steps=1, warmup_steps=1))
    assert figures['replicas'] == len(figures['devices']) == 2
    assert figures['images'] == BATCH


def test_without_data_the_images_are_synthetic() -> None:
    figures = benchmark.benchmark(config(None, dataset_name=None, mode='train', num_steps=1, warmup_steps=1))
    assert figures['dataset_name'] == 'synthetic'


def test_speeds_are_those_of_the_median_block() -> None:
    blocks = [Block(100, 1.0, 2.0, 0.5), Block(100, 2.0, 4.0, 0.0), Block(100, 5.0, 8.0, 1.5)]
    assert summarize(blocks) == {
        'images_per_second': {'median': 50.0, 'low': 20.0, 'high': 100.0},
        'images_per_cpu_second': {'median': 25.0, 'low': 12.5, 'high': 50.0},
        'waiting_share': 0.25,
        'images': 300,
        'seconds': 8.0,
    }
    assert summarize([Block(10, 1.0, 1.0)])['waiting_share'] is None


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'mode': 'input', 'dataset_name': 'synthetic'}, '--mode=input: synthetic data has no host stage to measure'),
        ({'mode': 'input', 'dataset_name': None}, 'name a --dataset_dir'),
        ({'mode': 'eval', 'eval_split_name': 'tests'}, '--eval_split_name=tests: digits has the splits train, test'),
        (
            {'mode': 'step', 'num_clones': 2, 'gradient_accumulation_steps': 2, 'sync_batch_norm': True},
            '--gradient_accumulation_steps=2: cannot be combined with --sync_batch_norm over several replicas',
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        benchmark.benchmark(config(None, **options))


def test_figures_that_cannot_be_written_are_printed_all_the_same(
    digits_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / 'missing' / 'figures.json'
    with pytest.raises(InputError, match=f'--results_path={path}: '):
        benchmark.benchmark(config(digits_dir, mode='input', num_steps=1, results_path=str(path)))
    assert 'images/s per CPU-second' in capsys.readouterr().out


@pytest.mark.full
def test_a_record_that_cannot_be_used_is_named(digits_dir: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(digits_dir, tmp_path / 'digits'))
    flip(folder / 'digits_train.tfrecord')
    with pytest.raises(InputError, match=r'digits_train\.tfrecord, record \d+: corrupt'):
        benchmark.benchmark(config(folder, mode='input', num_steps=100, cache='off'))


def test_the_script_answers_a_wrong_flag_in_one_line() -> None:
    done = run_python('benchmark_image_classifier.py', '--mode=fast')
    assert (done.returncode, done.stderr) == (1, 'error: --mode=fast: must be one of input, step, train, eval\n')
