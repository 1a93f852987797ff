"""The scalars of a run as `engine.runs.history` reads them from its event files."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from engine.evaluation.summaries import SummaryWriter
from engine.runs.history import HistoryReader, read_history
from support.errors import InputError
from tests.processes import ROOT
from tests.runs import steps_in_tensorboard


def event_file(folder: Path | str) -> Path:
    (path,) = Path(folder).glob('*tfevents*')
    return path


@pytest.fixture(name='lines')
def _lines(tmp_path: Path) -> Path:
    """A folder with three log lines."""
    writer = SummaryWriter(str(tmp_path))
    for step in (1, 2, 3):
        writer.scalars(step, {'accuracy': step / 4, 'losses/total_loss': float('nan')})
    writer.flush()
    return tmp_path


def test_where_a_run_went_back_its_later_events_are_void(tmp_path):
    """In another process, as after a kill, and in the same one, as after a recovery."""
    for number, begins_at in enumerate((1, 4, 6, 3)):
        if number != 2:
            writer = SummaryWriter(str(tmp_path))
        writer.begin_at(begins_at)
        for step in range(begins_at, 8 - number):
            writer.scalars(step, {'accuracy': step + number / 10})
        writer.flush()
        found, shown = read_history(str(tmp_path)).training['accuracy'], steps_in_tensorboard(tmp_path)['accuracy']
        assert found.steps.tolist() == shown
        assert np.all(np.diff(found.wall_times) >= 0)
    assert found.values.tolist() == pytest.approx([1.0, 2.0, 3.3, 4.3])


def test_an_event_is_read_when_it_is_complete(lines, tmp_path):
    path = event_file(lines)
    whole, reader = path.read_bytes(), HistoryReader(str(tmp_path))
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        found = reader.read()
        assert found.damaged == ()
        assert found.training.keys() <= {'accuracy', 'losses/total_loss'}
    path.write_bytes(whole)
    found = reader.read()
    assert found.training['accuracy'].values.tolist() == [0.25, 0.5, 0.75]
    assert found.training['accuracy'].steps.tolist() == [1, 2, 3]
    assert np.isnan(found.training['losses/total_loss'].values).all()


def test_a_damaged_file_is_named_and_read_up_to_there(lines):
    path = event_file(lines)
    *_, last = (len(record.numpy()) + 16 for record in tf.data.TFRecordDataset(str(path)))
    content = bytearray(path.read_bytes())
    content[-last] ^= 1  # the length of the last event
    path.write_bytes(content)
    writer = SummaryWriter(str(lines / 'eval_test'))
    writer.scalars(3, {'accuracy': 0.5})
    writer.flush()
    history = read_history(str(lines))
    assert history.training['accuracy'].steps.tolist() == [1, 2]
    assert history.evaluations['test']['accuracy'].steps.tolist() == [3]
    (line,) = history.damaged
    assert line == f'{path}: damaged after byte {len(content) - last}, and read only up to there'
    path.write_bytes(b'\0' * 100)
    assert read_history(str(lines)).damaged == (f'{path}: damaged after byte 0, and read only up to there',)


def test_values_of_slim_and_large_events(tmp_path):
    """Slim wrote scalars as `simple_value`; text and images are no scalars."""
    with tf.io.TFRecordWriter(str(tmp_path / 'events.out.tfevents.1.old')) as file:
        event = tf.compat.v1.Event(wall_time=1.5, step=7)
        event.summary.value.add(tag='total_loss_1', simple_value=2.5)
        large = tf.compat.v1.Event(wall_time=2.0, step=8)
        large.summary.value.add(tag='image').image.encoded_image_string = bytes(2 << 20)
        later = tf.compat.v1.Event(wall_time=3.0, step=7)
        later.summary.value.add(tag='total_loss_1', simple_value=3.5)
        for each in (event, large, later):
            file.write(each.SerializeToString())
    writer = SummaryWriter(str(tmp_path))
    writer.text(9, 'checkpoint_path', 'a')
    writer.flush()
    (series,) = read_history(str(tmp_path)).training.values()
    assert (series.steps.tolist(), series.values.tolist(), series.wall_times.tolist()) == ([7], [3.5], [3.0])


def test_folders_without_events(tmp_path):
    (tmp_path / 'eval_test').mkdir()
    history = read_history(str(tmp_path))
    assert (history.training, history.evaluations, history.damaged) == ({}, {}, ())
    missing = str(tmp_path / 'no')
    with pytest.raises(InputError, match=re.escape(f'{missing}: No such file or directory')):
        read_history(missing)


def test_tensorflow_is_not_loaded():
    code = "import engine.runs.history, sys; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=False).returncode == 0
