"""Commands that are printed can be pasted into a shell."""

import ast
import shlex
from pathlib import Path

import pytest
from absl import logging

from engine.training.train import log_end
from tests.test_source import SOURCES


def _commands_with_values(path: Path) -> list[int]:
    """Returns the lines of f-strings that hold a command, into which values are put as they are."""
    lines = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else None for part in node.values]
            begins = [
                at for at, part in enumerate(parts) if isinstance(part, str) and ('python ' in part or '.py ' in part)
            ]
            if begins and None in parts[begins[0] :]:
                lines.append(node.lineno)
    return lines


def test_no_command_is_put_together_by_hand() -> None:
    assert not [(path.name, line) for path in SOURCES for line in _commands_with_values(path)]


def test_the_command_that_is_printed_can_be_pasted(caplog: pytest.LogCaptureFixture) -> None:
    logging.set_verbosity(logging.INFO)
    train_dir, split = "/tmp/e_a b/it's", 'train[80%:]'
    log_end(7, train_dir, split, stopped_by=None, is_chief=True)
    command = caplog.messages[-1].partition('evaluate it with: ')[2]
    assert shlex.split(command) == [
        'python',
        'eval_image_classifier.py',
        "--checkpoint_path=/tmp/e_a b/it's",
        '--dataset_split_name=train[80%:]',
    ]
    log_end(7, train_dir, split, stopped_by=15, is_chief=True)
    assert shlex.split(caplog.messages[-1].partition('from there ')[2].strip('()')) == ["--train_dir=/tmp/e_a b/it's"]
