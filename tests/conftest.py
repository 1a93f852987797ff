"""What tests start from: a quiet TensorFlow, two logical CPU devices, the numbers recorded from slim."""

import collections
import fnmatch
import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # read once, when TensorFlow is imported
os.environ['CUDA_VISIBLE_DEVICES'] = '-1'  # the numbers are a CPU's, and two of its devices stand for two GPUs
os.environ['AUTOGRAPH_STRICT_CONVERSION'] = '1'  # what AutoGraph cannot convert is an error, not a log line

from configs import cli
from support import console, library

if TYPE_CHECKING:
    from engine import training
    from tests.browser import Browser
    from tests.processes import Fault

# Files of tests, without `test_`, by the time that they take (`--durations=0`).
_LONGEST = (
    'faults', 'workers', 'reliability', 'training', 'scripts', 'evaluation', 'input_pipeline', 'nets',
    'cases_records', 'importing', 'cases_checkpoints', 'cases', 'bad_images', 'saved_model', 'tflite',
    'preprocessing', 'exported_nets', 'fine_tuning', 'comparison', 'conversion', 'formats', 'onnx', 'export',
    'replicas', 'checkpoints', 'cache', 'keras_models', 'prediction',
)  # fmt: skip
_SHARED = Path(__file__).resolve().parents[2] / 'shared'


def pytest_configure(config: pytest.Config) -> None:
    """Gives TensorFlow two CPU devices, in each process that runs tests: they stand for two GPUs."""
    if config.getoption('dist', 'no') != 'no':
        return  # this process only hands tests to workers: TensorFlow would take it seconds and 700 MB
    library.load_lightly()
    import tensorflow as tf

    with console.kept_stderr():
        # TensorFlow takes this only before it first computes.
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices('CPU')[0], [tf.config.LogicalDeviceConfiguration()] * 2
        )


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses by the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the cases that `quick` does not name as `full`, and puts first what takes longest."""
    cases: dict[str, set[str]] = collections.defaultdict(set)
    marks: dict[str, pytest.Mark] = {}
    for item in items:
        quick, name = item.get_closest_marker('quick'), item.nodeid.partition('[')[0]
        if quick is not None:
            case = item.callspec.id  # type: ignore[attr-defined]
            cases[name].add(case)
            marks[name] = quick
            if not any(_is_case(case, asked) for asked in quick.args):
                item.add_marker(pytest.mark.full)
    for name, quick in marks.items():
        absent = [asked for asked in quick.args if not any(_is_case(case, asked) for case in cases[name])]
        if absent and len(cases[name]) > 1:  # one alone was named on the command line
            raise pytest.UsageError(f'{name}: quick names {absent}, and the cases are {sorted(cases[name])}')
    # A process that runs tests takes whole files: those that take longest come first.
    places = {name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem.removeprefix('test_'), len(places)))


def _is_case(case: str, asked: str) -> bool:
    return case == asked or fnmatch.fnmatchcase(case, asked)


@pytest.fixture(scope='session')
def shared_path() -> Callable[[str], Path]:
    """Returns a function from a path under `shared`, beside the clone, to the file; skips without it."""

    def path(relative: str) -> Path:
        if not (_SHARED / relative).exists():
            pytest.skip(f'no ../shared/{relative}: the numbers recorded from slim are not part of the clone')
        return _SHARED / relative

    return path


@pytest.fixture(scope='session')
def digits_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the TFRecords of the embedded digits."""
    from datasets import digits

    folder = tmp_path_factory.mktemp('digits')
    digits.write(str(folder))
    return folder


@pytest.fixture(scope='session')
def train_digits(digits_dir: Path) -> 'Callable[..., training.TrainResult]':
    """Returns a function that makes a small run, in a folder and with options of its own."""
    from engine import training
    from tests.runs import small_config

    def train(train_dir: Path | str, /, **options: Any) -> training.TrainResult:
        return training.train(small_config(digits_dir, train_dir, **options))

    return train


@pytest.fixture(scope='session')
def trained(
    tmp_path_factory: pytest.TempPathFactory, train_digits: 'Callable[..., training.TrainResult]'
) -> 'training.TrainResult':
    """A run of 300 steps with moving averages, for tests that only look at it."""
    return train_digits(tmp_path_factory.mktemp('trained'), max_number_of_steps=300, moving_average_decay=0.9)


@pytest.fixture(scope='session')
def server() -> Any:
    """Makes processes that have TensorFlow loaded from the start."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['engine.training.train', 'tests.processes'])
    return context


@pytest.fixture(scope='session')
def browser() -> 'Iterator[Browser]':
    """A headless Chromium, one for all tests of a process; skips where there is none and none can be installed."""
    from tests.browser import opened

    with opened() as browser:
        yield browser


@pytest.fixture
def no_process_is_left() -> Iterator[None]:
    """Kills what a test has left running."""
    yield
    for process in multiprocessing.active_children():
        process.kill()  # which ends stopped ones too
        process.join()


@pytest.fixture
def make_fault(record_property: Callable[[str, object], None]) -> 'Callable[[str], Fault]':
    """Returns a function that begins a row of the table of faults."""
    from tests.processes import Fault

    return lambda name: Fault(name, record_property)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints what `test_faults.py` has injected, and what came of it."""
    reports = [report for name in ('passed', 'failed') for report in terminalreporter.stats.get(name, [])]
    rows = [value for report in reports for name, value in report.user_properties if name == 'fault' and value[1]]
    if not rows:
        return
    total = ['total', *(sum(row[column] or 0 for row in rows) for column in (1, 2, 3))]
    width = max(len(fault) for fault, *_ in rows)
    terminalreporter.section('faults')
    terminalreporter.line(f'{"fault":{width}}  injected  survived  differences')
    for fault, injected, survived, differences in [*rows, total]:
        found = 'test failed' if differences is None else differences  # before it came to compare
        terminalreporter.line(f'{fault:{width}}  {injected:8}  {survived:8}  {found:>11}')


@pytest.fixture
def parse() -> Iterator[Callable[..., Any]]:
    """A function from a command line to a config, as `cli.run` makes it; absl's flags are then as they were."""
    known = set(cli.flags.FLAGS)

    def parse(config_class: type, *arguments: str, positional: str | None = None) -> Any:
        cli.define_flags(config_class)
        cli.flags.FLAGS.set_gnu_getopt(positional is not None)
        others = cli.flags.FLAGS(['script', *arguments])[1:]
        return cli.config_from_flags(config_class, positional, others)

    yield parse
    for name in set(cli.flags.FLAGS) - known:
        delattr(cli.flags.FLAGS, name)
    cli.flags.FLAGS.set_gnu_getopt(False)
    cli.flags.FLAGS.unparse_flags()
