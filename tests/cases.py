"""Inputs as people have had them: made once a session, for the tests whose rows say what is right of each.

from tests.cases import made_inputs
"""

import os
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
    folder = tmp_path_factory.mktemp('cases')
    # In a process of its own: it makes TensorFlow 1's sessions, which must not configure the devices of the tests.
    environment = {**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3'}
    made = subprocess.run(
        [sys.executable, str(_SCRIPT), str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    return folder
