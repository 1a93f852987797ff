"""The scripts of the top level, run in a process of their own: their configs, and slim's flags that they answer."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from configs.benchmark import BenchmarkConfig
from configs.conversion import ConvertConfig
from configs.evaluation import EvalConfig
from configs.export import ExportConfig
from configs.importing import ImportConfig
from configs.options import flat_options
from configs.prediction import PredictConfig
from configs.retired_flags import RETIRED_EVAL_FLAGS, RETIRED_TRAIN_FLAGS, RetiredFlag
from configs.training import TrainConfig

ROOT = Path(__file__).parents[1]
SCRIPTS: dict[str, tuple[type, Sequence[RetiredFlag]]] = {
    'train_image_classifier.py': (TrainConfig, RETIRED_TRAIN_FLAGS),
    'eval_image_classifier.py': (EvalConfig, RETIRED_EVAL_FLAGS),
    'predict_image_classifier.py': (PredictConfig, ()),
    'export_image_classifier.py': (ExportConfig, ()),
    'import_weights.py': (ImportConfig, ()),
    'download_and_convert_data.py': (ConvertConfig, ()),
    'benchmark_image_classifier.py': (BenchmarkConfig, RETIRED_TRAIN_FLAGS),
}


def flag_names(script: str) -> set[str]:
    """Returns the names of all flags of a script."""
    config, retired = SCRIPTS[script]
    return {*flat_options(config), *(flag.name for flag in retired)}


def run_python(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `python ARGUMENTS` in the clone, with some variables of the environment set."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Waits for something that other processes or threads bring about, and fails if it does not come in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f'waited for {seconds} s'
        time.sleep(0.01)


def wait_for_files(folder: Path, *names: str) -> None:
    wait_until(lambda: all((folder / name).exists() for name in names))
