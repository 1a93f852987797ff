"""Inputs as people have had them: made once a session, for the tests whose rows say what is right of each.

from tests.cases import made_inputs
"""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).resolve().parents[2] / 'shared' / 'cases' / 'make_inputs.py'


@pytest.fixture(scope='session')
def made_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with all inputs: `images`, `folders`, `records`, `checkpoints`; skips without ../shared."""
    if not _SCRIPT.exists():
        pytest.skip('no ../shared/cases: these inputs are not part of the clone')
    base = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        base = base.parent  # that of all processes which run tests: the script takes each ten seconds
    made = base / 'made-cases'
    with open(base / 'made-cases.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            _make(base / 'half-made-cases')
            (base / 'half-made-cases').rename(made)
    return Path(shutil.copytree(made, tmp_path_factory.mktemp('cases') / 'all', symlinks=True))


def _make(folder: Path) -> None:
    # In a process of its own: it makes TensorFlow 1's sessions, which must not configure the devices of the tests.
    environment = {**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3'}
    made = subprocess.run(
        [sys.executable, str(_SCRIPT), str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
