"""The options of `eval_image_classifier.py`: checkpoint, data and outputs.

make_config(EvalConfig, checkpoint_path='/tmp/tfmodel', dataset_split_name='validation')
"""

import dataclasses

from configs.data import RecordNames
from configs.devices import ClusterOptions, DeviceOptions
from configs.foreign import ForeignOptions, NetOverrides, temperature_option
from configs.options import Options, option
from support.errors import InputError

_MAX_SCALES = 10  # all views of a batch are in memory
PREDICTION_ENDINGS = ('.csv', '.jsonl', '.parquet')
REPORT_FILES = (
    *('report.html', 'learning_curves.png', 'confusion.png', 'per_class.png', 'reliability.png'),
    *('confusion.csv', 'confused_pairs.csv', 'per_class.csv', 'calibration.csv', 'learning_curves.csv'),
    'differences.csv',
)  # names in --report_dir
CLASS_MAPS = ('names', 'numbers')  # values of --class_map that are not files


@dataclasses.dataclass(frozen=True)
class EvalOptions(Options):
    """Checkpoint and evaluation data."""

    checkpoint_path: str = option(
        '/tmp/tfmodel/',
        'What to evaluate: a checkpoint, a train_dir (its latest checkpoint), a .keras or .weights.h5 file, a '
        'SavedModel, or a .tflite or .onnx file.',
        path=True,
    )
    compare: tuple[str, ...] = option(
        (),
        'Instead of --checkpoint_path: evaluate several, separated by commas, on the same images, and print a table.',
        path=True,
    )
    dataset_name: str | None = option(None, 'Data set. Default: the one used in training, otherwise imagenet.')
    dataset_dir: str | None = option(None, 'Folder of the data set. Default: the one used in training.', path=True)
    dataset_split_name: str | None = option(
        None,
        "Split to evaluate, or part of one in TFDS notation: 'train[90%:]'. Default: validation or test, whichever "
        'the data set has. A folder of class folders without splits, other than the one used in training, counts as '
        'the split named here. (slim: test)',
    )
    file_pattern: str | None = option(
        None, "Names of a split's TFRecord files, in the format of training. Default: as in training."
    )
    record_keys: tuple[str, ...] = option(
        (),
        'Feature keys in the records, in the format of training: image=image_raw,label=label. Default: as in training.',
    )
    class_map: str | None = option(
        None,
        'For a data set with a subset of the classes of the net: score only these. names matches them by name or '
        'WordNet id; numbers takes their names for class numbers; or a file with a line per class: its name, a tab or '
        "comma, and the name or number of the net's class.",
        path=True,
    )
    real_labels: str | None = option(
        None,
        'JSON file with a list of correct classes for each validation image of ImageNet, such as real.json of ImageNet '
        'ReaL; images with an empty list are left out.',
        path=True,
    )
    batch_size: int = option(100, 'Examples per batch; results do not depend on it.', lower=1, upper=2**20)
    max_num_batches: int | None = option(
        None, 'Maximum number of batches to evaluate. Default: the whole split.', lower=1
    )
    recall_at: tuple[int, ...] = option((5,), 'Values of k for Recall@k, separated by commas.', lower=1)
    eval_crops: int = option(
        1,
        'Number of crops of each image over which probabilities are averaged: 1 (centre), 5 (and the corners) or 10 '
        '(and their mirror images).',
        choices=(1, 5, 10),
    )
    eval_scales: tuple[float, ...] = option(
        (1.0,),
        'Multiples of the size to which images are resized before they are cropped, over which probabilities are '
        'averaged too, separated by commas: 1,1.125,1.25.',
        lower=0.25,
        upper=4.0,
    )
    moving_average_decay: float | None = option(
        None, 'Any value other than 0: evaluate the moving averages of the weights.', lower=0.0, upper=1.0
    )
    temperature: float | None = temperature_option()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= len(set(self.eval_scales)) == len(self.eval_scales) <= _MAX_SCALES:
            shown = ','.join(map(str, self.eval_scales))
            raise InputError(f'--eval_scales={shown}: must be 1 to {_MAX_SCALES} different numbers')
        for path in self.compare:
            if self.compare.count(path) > 1:  # rows and tables tell files apart by their paths
                raise InputError(f'--compare={",".join(self.compare)}: names {path} more than once')
        RecordNames(self.record_keys, self.file_pattern or '')


@dataclasses.dataclass(frozen=True)
class EvalNetOptions(NetOverrides):
    """Net, if there is no model.json. Flags that contradict model.json are an error without --force."""

    force: bool = option(False, 'Allow flags to contradict model.json.')
    mixed_precision: str = option(
        'float32',
        'Type in which layers compute: float32, tf32, bfloat16 or float16.',
        choices=('float32', 'tf32', 'bfloat16', 'float16'),
    )


@dataclasses.dataclass(frozen=True)
class EvalOutputOptions(Options):
    """Results and continuous evaluation."""

    eval_dir: str | None = option(
        None, 'Folder for event files. Default: eval_<split> beside the checkpoint. (slim: /tmp/tfmodel/)', path=True
    )
    summarize_images: bool = option(
        False, 'Also write the confusion matrix, a gallery of mistakes and precision-recall curves for TensorBoard.'
    )
    fit_temperature: bool = option(
        False,
        "Fit the temperature that calibrates a checkpoint's probabilities on the evaluated split, and store it beside "
        'the checkpoint for evaluation, prediction and export.',
    )
    results_path: str | None = option(None, 'JSON file for the results of the last evaluation.', path=True)
    predictions_path: str | None = option(
        None,
        'File with a row for each example, .csv, .jsonl or .parquet: label, prediction, rank of the label, '
        'probabilities.',
        path=True,
    )
    predictions_top_k: int = option(5, 'With --predictions_path: classes of each row, the most likely first.', lower=1)
    predictions_logits: bool = option(False, 'With --predictions_path: write the scores of all classes, too.')
    report_dir: str | None = option(
        None,
        'Folder for report.html, a page with metrics and intervals, confusion matrix, calibration, learning curves and '
        'mistakes with pictures, and for its charts as PNG and tables as CSV.',
        path=True,
    )
    eval_interval_secs: float | None = option(
        None,
        'Keep waiting for new checkpoints and evaluate each, at intervals of at least this many seconds.',
        lower=0.0,
        upper=1e6,
    )
    max_number_of_evaluations: int | None = option(
        None, 'With --eval_interval_secs: stop after this many evaluations.', lower=1
    )
    eval_timeout_secs: float | None = option(
        None, 'With --eval_interval_secs: stop if no new checkpoint appears for this many seconds.', lower=0.0
    )


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """All that `engine.evaluation.evaluate.evaluate` depends on."""

    evaluation: EvalOptions = EvalOptions()
    net: EvalNetOptions = EvalNetOptions()
    foreign: ForeignOptions = ForeignOptions()
    output: EvalOutputOptions = EvalOutputOptions()
    devices: DeviceOptions = DeviceOptions()
    cluster: ClusterOptions = ClusterOptions()


def check_predictions_path(path: str | None) -> None:
    """Raises InputError for a `--predictions_path` whose ending names no format, or none that can be written there."""
    if path is None:
        return
    if not path.lower().endswith(PREDICTION_ENDINGS):
        raise InputError(f'--predictions_path={path}: the name must end in {", ".join(PREDICTION_ENDINGS)}')
    if '://' in path and path.lower().endswith('.parquet'):
        raise InputError(f'--predictions_path={path}: Parquet is written on this machine only; give a .csv or .jsonl')
