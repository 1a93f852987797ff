"""Scripts whose standard streams are closed: `2>&-` and its like."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts import SCRIPTS
from tests.test_scripts import ENVIRONMENT, ROOT, TINY

CLOSED = [closed for count in (1, 2, 3) for closed in itertools.combinations((0, 1, 2), count)]


def run(closed: tuple[int, ...], script: str, *flags: str) -> subprocess.CompletedProcess:
    def close() -> None:
        for number in closed:
            os.close(number)

    command = [sys.executable, str(ROOT / script), *flags]
    return subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, preexec_fn=close, check=False
    )


@pytest.mark.quick('2-train_image_classifier.py', '012-predict_image_classifier.py')
@pytest.mark.parametrize('script', SCRIPTS)
@pytest.mark.parametrize('closed', CLOSED, ids=lambda closed: ''.join(map(str, closed)))
def test_help_and_bad_flags(closed: tuple[int, ...], script: str) -> None:
    helped = run(closed, script, '--help')
    assert (helped.returncode, helped.stderr) == (0, b'')
    assert bool(helped.stdout) == (1 not in closed)
    refused = run(closed, script, '--no_such_flag=1')
    assert refused.returncode == 2
    assert bool(refused.stderr) == (2 not in closed)
    assert not refused.stdout


@pytest.mark.full
@pytest.mark.parametrize('closed', [(2,), (0, 1, 2)], ids=['2', '012'])
def test_a_run(closed: tuple[int, ...], tmp_path: Path) -> None:
    trained = run(closed, 'train_image_classifier.py', *TINY, f'--train_dir={tmp_path}', '--max_number_of_steps=2')
    assert (trained.returncode, trained.stderr) == (0, b'')
    assert (tmp_path / 'model.ckpt-2.index').exists()
    evaluated = run(closed, 'eval_image_classifier.py', f'--checkpoint_path={tmp_path}')
    assert (evaluated.returncode, evaluated.stderr) == (0, b'')
    assert (b'evaluated 360 of 360' in evaluated.stdout) == (1 not in closed)
    names = [path for path in tmp_path.rglob('*') if path.is_file()]
    assert not [path for path in names if b'evaluated 360 of 360' in path.read_bytes()]
