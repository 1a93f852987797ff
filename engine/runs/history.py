"""Reads the scalars in a run's event files, without TensorFlow.

history = read_history('/tmp/digits')
history.training['losses/total_loss'].values        # float64 [log lines]
history.evaluations['test']['accuracy'].steps       # int64 [evaluations]
"""

import dataclasses
import os
import struct
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from tensorboard.compat.proto import event_pb2
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.util.tensor_util import make_ndarray

from support.errors import InputError

_EVAL_FOLDER = 'eval_'
_HEADER, _FOOTER_BYTES = struct.Struct('<QI'), 4  # of a TFRecord: length and its checksum; checksum of the data
_LARGEST = 1 << 20  # bytes of an event that may have scalars; grids of images are larger, and are skipped


@dataclasses.dataclass(frozen=True)
class Series:
    """The values of a tag, one for each step.

    Attributes:
        steps: int64 [n], increasing.
        values: float64 [n]; may be NaN or infinite.
        wall_times: float64 [n]; time of writing, in seconds since 1970.
    """

    steps: np.ndarray
    values: np.ndarray
    wall_times: np.ndarray


@dataclasses.dataclass(frozen=True)
class History:
    """The scalars of a run, by tag.

    Attributes:
        training: Those of its log lines, such as `losses/total_loss`, `accuracy`, `images_per_second`.
        evaluations: Those of its evaluations, such as `accuracy`, `losses/cross_entropy`, by what follows `eval_` in
            the folder's name: the split, such as `test`, or, of averaged weights, `test_averages`.
        began: When training last started, resumed or went back, in seconds since 1970; 0 if unknown.
        damaged: A line for each event file that could be read only in part.
    """

    training: dict[str, Series]
    evaluations: dict[str, dict[str, Series]]
    began: float
    damaged: tuple[str, ...]


def read_history(train_dir: str) -> History:
    """Reads the scalars of a run; without event files, there are none.

    Where a run has gone back to an earlier step, its later events are void, as in TensorBoard. Of several values of a
    step, the last one counts. An event that is not yet complete is left out.

    Raises:
        InputError: the folder cannot be read.
    """
    return HistoryReader(train_dir).read()


class HistoryReader:
    """Reads the scalars of a run as `read_history` does; after the first `read`, only new events."""

    def __init__(self, train_dir: str):
        self._train_dir = train_dir
        self._folders: dict[str, _Folder] = {}

    def read(self) -> History:
        """Returns all scalars so far.

        Raises:
            InputError: the folder cannot be read.
        """
        try:
            names = sorted(entry.name for entry in os.scandir(self._train_dir) if entry.is_dir())
            folders = ['', *(name for name in names if name.startswith(_EVAL_FOLDER))]
            for name in folders:
                self._folders.setdefault(name, _Folder(os.path.join(self._train_dir, name))).read()
        except OSError as error:
            raise InputError(f'{error.filename or self._train_dir}: {error.strerror}') from error
        scalars = {name: self._folders[name].series() for name in folders}
        damaged = (line for name in folders for line in self._folders[name].damaged.values())
        training = scalars.pop('')
        evaluations = {name.removeprefix(_EVAL_FOLDER): found for name, found in scalars.items() if found}
        return History(training, evaluations, self._folders[''].began, tuple(damaged))


class _Folder:
    """The event files of one folder, and the events read so far."""

    def __init__(self, path: str):
        self._path = path
        self._offsets: dict[str, int] = {}  # of the first byte not read, by file, in the order of their beginnings
        self._values: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
        self._series: dict[str, Series] | None = None  # after the last event
        self.began = 0.0
        self.damaged: dict[str, str] = {}

    def read(self) -> None:
        files = {entry.path for entry in os.scandir(self._path) if 'tfevents' in entry.name and entry.is_file()}
        new = sorted(files - self._offsets.keys(), key=lambda path: (_beginning(path), path))
        for path in [*(path for path in self._offsets if path in files), *new]:
            self._offsets.setdefault(path, 0)
            self.damaged.pop(path, None)
            try:
                for event, end in _events(path, self._offsets[path]):
                    self._add(event)
                    self._offsets[path] = end
            except (ValueError, DecodeError):
                place = self._offsets[path]
                self.damaged[path] = f'{path}: damaged after byte {place}, and read only up to there'

    def _add(self, event: Any) -> None:
        if event.WhichOneof('what') == 'session_log' and event.session_log.status == event_pb2.SessionLog.START:
            self.began = event.wall_time
            for tag, values in self._values.items():
                self._values[tag] = {step: value for step, value in values.items() if step < event.step}
        for value in event.summary.value:
            if value.HasField('simple_value'):  # as slim wrote them
                self._values[value.tag][event.step] = value.simple_value, event.wall_time
            elif value.metadata.plugin_data.plugin_name == 'scalars':
                # `make_ndarray` reads every form of a number, but would take twice as long as all else.
                numbers = value.tensor.float_val
                number = numbers[0] if len(numbers) == 1 else float(make_ndarray(value.tensor))
                self._values[value.tag][event.step] = number, event.wall_time
        self._series = None

    def series(self) -> dict[str, Series]:
        if self._series is None:
            self._series = self._make_series()
        return self._series

    def _make_series(self) -> dict[str, Series]:
        found = {}
        for tag, values in sorted(self._values.items()):
            if values:
                steps = sorted(values)
                numbers, times = zip(*(values[step] for step in steps), strict=True)
                found[tag] = Series(np.array(steps, np.int64), np.array(numbers, np.float64), np.array(times))
        return found


def _beginning(path: str) -> float:
    """Returns the time at which an event file was created; its name has whole seconds only."""
    try:
        return next((event.wall_time for event, _ in _events(path, 0)), np.inf)
    except (ValueError, DecodeError):
        return np.inf


def _events(path: str, offset: int) -> Iterator[tuple[Any, int]]:
    """Yields the complete events of a file from an offset on, each with the offset of its end.

    The checksum of the data is not verified: in Python this would take longer than all else.

    Raises:
        ValueError, DecodeError: the file is damaged.
    """
    with open(path, 'rb') as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(offset)
        while len(header := file.read(_HEADER.size)) == _HEADER.size:
            length, checksum = _HEADER.unpack(header)
            if masked_crc32c(header[:8]) != checksum:
                raise ValueError(path)
            offset += _HEADER.size + length + _FOOTER_BYTES
            if offset > size:  # not yet complete
                return
            if length <= _LARGEST:
                yield event_pb2.Event.FromString(file.read(length + _FOOTER_BYTES)[:-_FOOTER_BYTES]), offset
            else:
                file.seek(offset)
