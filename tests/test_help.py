"""`--help` of each script: groups, values, defaults, width; and absl's flags for help."""

import re
import subprocess
import sys
import time

import pytest

from configs import names
from configs.help_text import help_text
from configs.options import flat_options
from tests.scripts import ROOT, SCRIPTS, run_python


@pytest.mark.parametrize('script', SCRIPTS)
def test_help_is_in_groups(script: str) -> None:
    finished = run_python(script, '--help')
    assert finished.returncode == 0
    assert not finished.stderr
    text = finished.stdout
    config_class, retired = SCRIPTS[script]
    for name in {*flat_options(config_class), *(flag.name for flag in retired)}:
        assert len(re.findall(rf'^  (?:.*, )?--(?:\[no\])?{name}(?=[=,\n])', text, re.MULTILINE)) == 1, name
    assert max(map(len, text.splitlines())) <= 121  # an example is one line, to be copied
    assert all(len(line) <= 100 for line in text.splitlines() if 'python' not in line)
    example = text[text.index('Example:') :].split('\n')[1].strip()
    assert example.startswith(f'python {script} --')
    assert text.index('Example:') < text.index('Common options:')


@pytest.mark.quick('-h-train_image_classifier.py', '-?-predict_image_classifier.py')
@pytest.mark.parametrize('script', SCRIPTS)
@pytest.mark.parametrize('flag', ['-h', '-help', '--helpshort', '-?'])
def test_other_ways_to_ask(script: str, flag: str) -> None:
    finished = run_python(script, flag)
    assert (finished.returncode, finished.stderr) == (0, '')
    assert 'Common options:' in finished.stdout


@pytest.mark.parametrize(('flag', 'words'), [('--helpfull', 'absl.logging'), ('--helpxml', '<name>verbosity</name>')])
def test_absls_own_flags_are_still_shown(flag: str, words: str) -> None:
    finished = run_python('import_weights.py', flag)
    assert (finished.returncode, finished.stderr) == (0, '')
    assert words in finished.stdout
    assert 'labels_path' in finished.stdout


def test_a_reader_that_has_gone() -> None:
    command = f'{sys.executable} train_image_classifier.py --help'
    script = f'set -o pipefail; {command} | head -1'
    finished = subprocess.run(['bash', '-c', script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.stdout.startswith('Trains an image classifier')
    assert not finished.stderr


@pytest.mark.parametrize(
    ('script', 'values'),
    [
        ('train_image_classifier.py', (*names.NETS, *names.PREPROCESSINGS, *names.DATASETS, *names.OPTIMIZERS)),
        ('train_image_classifier.py', names.SCHEDULES),
        ('eval_image_classifier.py', (*names.NETS, *names.PREPROCESSINGS, 'NHWC', 'NCHW', 'BGR')),
        (
            'export_image_classifier.py',
            (*names.EXPORT_FORMATS, *names.NETS, 'NHWC', 'NCHW', 'qdq', 'com.microsoft:QGemm'),
        ),
        ('predict_image_classifier.py', ('text', 'csv', 'json', 'NHWC')),
    ],
)
def test_help_lists_what_is_valid(script: str, values: tuple[str, ...]) -> None:
    config_class, retired = SCRIPTS[script]
    words = help_text('', config_class, retired)
    assert [value for value in values if value not in words] == []


def test_help_is_as_wide_as_the_terminal() -> None:
    narrow = run_python('export_image_classifier.py', '--help', COLUMNS='60').stdout
    assert max(len(line) for line in narrow.splitlines() if 'python' not in line and '=' not in line) <= 60


def test_defaults_and_sections() -> None:
    text = run_python('benchmark_image_classifier.py', '--help').stdout
    own = [text.index(f'--{name}=') for name in ('mode', 'num_steps', 'warmup_steps', 'results_path')]
    assert own == sorted(own)
    assert own[-1] < text.index('--dataset_name=')
    assert '--batch_size=N\n      Examples per step, over all devices (slim: per clone). (default: 32)' in text
    heading = 'Flags of slim without effect here; refused if the run would differ:'
    assert heading in ' '.join(text.split())  # wherever the terminal breaks the line
    last = text[text.index('Flags of slim without') :]
    assert '--master' in last
    assert '--model_name' not in last


def test_help_is_quick() -> None:
    start = time.monotonic()
    run_python('train_image_classifier.py', '--help')
    assert time.monotonic() - start < 5  # 0.3 s on an idle machine
