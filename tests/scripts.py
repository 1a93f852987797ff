"""The scripts of the top level: the config that each makes its flags from, and slim's flags that it answers."""

from collections.abc import Sequence

from configs.benchmark import BenchmarkConfig
from configs.conversion import ConvertConfig
from configs.evaluation import EvalConfig
from configs.export import ExportConfig
from configs.importing import ImportConfig
from configs.options import flat_options
from configs.prediction import PredictConfig
from configs.retired_flags import RETIRED_EVAL_FLAGS, RETIRED_TRAIN_FLAGS, RetiredFlag
from configs.training import TrainConfig

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
