"""Finds flags that have no effect with the chosen options: which choice reads which option, and the warnings.

    for line in unread(config, given={'momentum'}): logging.warning('%s', line)
    # --momentum=0.9 has no effect with --optimizer=sgd; only momentum and lars use it

`READERS` lists every option of every script with its reader, or None if it always has an effect. Most unread flags
cause only a warning: slim's own commands pass flags of optimizers and schedules that they do not use.
"""

import dataclasses
import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from configs.benchmark import BenchmarkConfig
from configs.conversion import ConvertConfig
from configs.evaluation import EvalConfig
from configs.export import ExportConfig
from configs.importing import ImportConfig
from configs.names import BATCH_NORM_NETS, POOLING_NETS, PREPROCESSING_FAMILIES, RECORD_DATASETS, preprocessing_family
from configs.options import flat_options, flat_values
from configs.prediction import PredictConfig
from configs.training import TrainConfig

Values = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class With:
    """An option that is read with some values of another one.

    Of this and the other kinds, `refused` is whether the work itself refuses other values than the default, so that
    nothing need be said of them.
    """

    option: str
    values: Collection[str]
    refused: bool = False

    def reads(self, values: Values) -> bool:
        return values[self.option] is None or values[self.option] in self.values

    def explain(self, values: Values) -> str:
        *others, last = self.values
        readers = f'only {", ".join(others)} and {last} use it' if others else f'only {last} uses it'
        return f'has no effect with --{self.option}={values[self.option]}; {readers}'


@dataclasses.dataclass(frozen=True)
class Without:
    """An option that is read only where one of some others, or each of them (`all`), is given, and is not 0."""

    options: tuple[str, ...]
    all: bool = False
    refused: bool = False

    def reads(self, values: Values) -> bool:
        given = [values[name] not in (None, False, 0, ()) for name in self.options]
        return all(given) if self.all else any(given)

    def explain(self, values: Values) -> str:
        del values
        joined = (' and ' if self.all else ' or ').join(f'--{name}' for name in self.options)
        return f'has no effect without {joined}'


@dataclasses.dataclass(frozen=True)
class Unless:
    """An option that is not read beside some values of another one, or beside any that is given."""

    option: str
    values: tuple[Any, ...] = ()
    refused: bool = False

    def reads(self, values: Values) -> bool:
        value = values[self.option]
        return value not in self.values if self.values else not value

    def explain(self, values: Values) -> str:
        return f'has no effect with {_flag(self.option, values[self.option])}'


@dataclasses.dataclass(frozen=True)
class Where:
    """An option that is read where a fact holds, which `_as_read` finds out; `words` say where it does not."""

    fact: str
    words: str
    refused: bool = False

    def reads(self, values: Values) -> bool:
        return bool(values[self.fact])

    def explain(self, values: Values) -> str:
        del values
        return f'has no effect {self.words}'


Reader = With | Without | Unless | Where | None

_DECAYING = ('exponential', 'polynomial')
_EVALUATED = Without(('eval_every_epochs', 'eval_every_steps'))
# Facts derived from the paths: whether one may be an exported file, and whether one may be a checkpoint.
_MAY_BE_RUN, _MAY_BE_RESTORED = 'may be run', 'may be restored'
_WAITS = 'waits'  # for checkpoints, also with an interval of 0 seconds
_RUN_FILE = Where(_MAY_BE_RUN, 'on a checkpoint; it applies to SavedModels, .tflite and .onnx files')
_DEVICES = Where(_MAY_BE_RESTORED, 'with --compare, and on SavedModels, .tflite and .onnx files')

_TRAIN: dict[str, Reader] = {
    **dict.fromkeys(('model_name', 'depth_multiplier', 'dropout_keep_prob', 'train_image_size', 'weight_decay')),
    'global_pool': With('model_name', POOLING_NETS, refused=True),
    'weight_decay_exclude': Without(('weight_decay',), refused=True),
    'mixed_precision': None,
    'sync_batch_norm': With('model_name', BATCH_NORM_NETS),
    'freeze_batch_norm': With('model_name', BATCH_NORM_NETS),
    # data
    'dataset_name': None,
    'dataset_dir': Unless('dataset_name', ('synthetic',)),
    **dict.fromkeys(('dataset_split_name', 'labels_offset', 'batch_size', 'gradient_accumulation_steps')),
    **dict.fromkeys(('preprocessing_name', 'use_grayscale', 'channels', 'seed')),
    'record_keys': With('dataset_name', RECORD_DATASETS, refused=True),
    'file_pattern': With('dataset_name', RECORD_DATASETS, refused=True),
    'on_bad_image': Unless('dataset_name', ('synthetic',)),
    'max_bad_images': With('on_bad_image', ('skip',)),
    'cache': Unless('dataset_name', ('synthetic',)),
    'data_service': Unless('dataset_name', ('synthetic',)),
    'worker_files': None,  # depends on the number of workers, which a launcher may set
    'synthetic_images': With('dataset_name', ('synthetic',)),
    # augmentation
    'random_flip': With('preprocessing_name', tuple(name for name in PREPROCESSING_FAMILIES if name != 'lenet')),
    'min_crop_area': With('preprocessing_name', ('inception',), refused=True),
    'color_distortion': With('preprocessing_name', ('inception',), refused=True),
    'use_bounding_boxes': With('preprocessing_name', ('inception',), refused=True),
    **dict.fromkeys(('random_shift', 'rand_augment_ops', 'random_erasing_prob', 'mixup_alpha', 'cutmix_alpha')),
    'rand_augment_magnitude': Without(('rand_augment_ops',)),
    'mixup_prob': Without(('mixup_alpha', 'cutmix_alpha')),
    'mixup_switch_prob': Without(('mixup_alpha', 'cutmix_alpha'), all=True),
    'mixup_off_epoch': Without(('mixup_alpha', 'cutmix_alpha')),
    # optimizer
    'optimizer': None,
    'adadelta_rho': With('optimizer', ('adadelta',)),
    'adagrad_initial_accumulator_value': With('optimizer', ('adagrad',)),
    'adam_beta1': With('optimizer', ('adam', 'lamb')),
    'adam_beta2': With('optimizer', ('adam', 'lamb')),
    'opt_epsilon': With('optimizer', ('adadelta', 'adam', 'rmsprop')),
    'ftrl_learning_rate_power': With('optimizer', ('ftrl',)),
    'ftrl_initial_accumulator_value': With('optimizer', ('ftrl',)),
    'ftrl_l1': With('optimizer', ('ftrl',)),
    'ftrl_l2': With('optimizer', ('ftrl',)),
    'momentum': With('optimizer', ('momentum', 'lars')),
    'rmsprop_momentum': With('optimizer', ('rmsprop',)),
    'rmsprop_decay': With('optimizer', ('rmsprop',)),
    'lars_eta': With('optimizer', ('lars',)),
    'lamb_epsilon': With('optimizer', ('lamb',)),
    'trust_ratio_exclude': With('optimizer', ('lars', 'lamb')),
    **dict.fromkeys(('clip_gradient_norm', 'gradient_dtype')),
    # schedule
    **dict.fromkeys(('learning_rate_decay_type', 'learning_rate', 'scale_learning_rate', 'warmup_epochs')),
    'end_learning_rate': With('learning_rate_decay_type', ('polynomial', 'cosine')),
    'scale_learning_rate_from': Unless('scale_learning_rate', ('none',)),
    'learning_rate_decay_factor': With('learning_rate_decay_type', ('exponential', 'piecewise')),
    'num_epochs_per_decay': With('learning_rate_decay_type', _DECAYING),
    'polynomial_power': With('learning_rate_decay_type', ('polynomial',)),
    'learning_rate_boundaries': With('learning_rate_decay_type', ('piecewise',)),
    # loss, length
    **dict.fromkeys(('label_smoothing', 'moving_average_decay', 'max_number_of_steps', 'num_epochs')),
    # checkpoints
    **dict.fromkeys(('train_dir', 'save_interval_secs', 'save_interval_steps', 'max_checkpoints_to_keep')),
    'keep_checkpoint_every_n_hours': Unless('max_checkpoints_to_keep', (0,)),
    'best_metric': _EVALUATED,
    'checkpoint_path': None,
    'checkpoint_exclude_scopes': Without(('checkpoint_path',)),
    'ignore_missing_vars': Without(('checkpoint_path',)),
    'checkpoint_scope': Without(('checkpoint_path',)),
    **dict.fromkeys(('trainable_scopes', 'force_resume', 'recover_from_nonfinite')),
    # log
    **dict.fromkeys(('summary', 'log_every_n_steps', 'save_summaries_secs', 'save_summaries_steps')),
    'summarize_histograms': Without(('save_summaries_secs', 'save_summaries_steps')),
    'summarize_images': Without(
        ('save_summaries_secs', 'save_summaries_steps', 'eval_every_epochs', 'eval_every_steps')
    ),
    'profile_steps': None,
    # devices, evaluation
    **dict.fromkeys(('devices', 'num_clones', 'xla', 'fast_convolutions', 'all_reduce')),
    **dict.fromkeys(('eval_every_epochs', 'eval_every_steps')),
    'early_stopping_patience': dataclasses.replace(_EVALUATED, refused=True),
    'eval_split_name': _EVALUATED,
    'recall_at': _EVALUATED,
    # workers, whose number is not known here; and the plan, which checks its own options
    **dict.fromkeys(('worker_hosts', 'task', 'launch_workers', 'cluster')),
    **dict.fromkeys(('worker_timeout_secs', 'worker_join_timeout_secs')),
    **dict.fromkeys(('plan', 'plan_workers', 'plan_devices_per_worker', 'plan_images_per_second', 'plan_link_gbits')),
    **dict.fromkeys(('plan_bus_gbytes', 'plan_latency_us', 'plan_examples')),
}

# A benchmark takes any command of training; options of checkpoints, logs and evaluation have no effect on it.
_BENCHMARK: dict[str, Reader] = {
    **_TRAIN,
    **dict.fromkeys(
        name for name, option in flat_options(TrainConfig).items() if option.group in ('checkpoint', 'log')
    ),
    **dict.fromkeys(name for name, option in flat_options(TrainConfig).items() if option.group == 'evaluation'),
    'synthetic_images': None,  # --mode=step uses synthetic data for any data set
    **dict.fromkeys(('mode', 'num_steps', 'warmup_steps', 'results_path')),
}

_OF_RUN_FILES: dict[str, Reader] = {
    'checkpoint_scope': None,
    'output_name': _RUN_FILE,
    'allow_any_operator': _RUN_FILE,
    'layout': _RUN_FILE,
    'channel_order': _RUN_FILE,
    'includes_preprocessing': _RUN_FILE,
    'labels_path': None,
}

_EVAL: dict[str, Reader] = {
    'checkpoint_path': Unless('compare'),
    **dict.fromkeys(('compare', 'dataset_name', 'dataset_dir', 'dataset_split_name', 'batch_size', 'max_num_batches')),
    **dict.fromkeys(('class_map', 'real_labels')),
    **dict.fromkeys(('recall_at', 'moving_average_decay', 'model_name', 'preprocessing_name', 'image_size')),
    **dict.fromkeys(('eval_crops', 'eval_scales')),
    **dict.fromkeys(('labels_offset', 'use_grayscale', 'channels', 'depth_multiplier', 'global_pool')),
    **dict.fromkeys(('force', 'mixed_precision', 'fit_temperature')),
    'temperature': Unless('fit_temperature'),
    'record_keys': With('dataset_name', RECORD_DATASETS, refused=True),
    'file_pattern': With('dataset_name', RECORD_DATASETS, refused=True),
    **_OF_RUN_FILES,
    **dict.fromkeys(('eval_dir', 'summarize_images', 'results_path', 'predictions_path', 'report_dir')),
    'eval_interval_secs': None,
    **dict.fromkeys(('predictions_top_k', 'predictions_logits'), Without(('predictions_path',))),
    **dict.fromkeys(('max_number_of_evaluations', 'eval_timeout_secs'), Where(_WAITS, 'without --eval_interval_secs')),
    **dict.fromkeys(('devices', 'num_clones', 'xla', 'fast_convolutions', 'all_reduce'), _DEVICES),
    **dict.fromkeys(('worker_hosts', 'task', 'launch_workers', 'cluster')),
    **dict.fromkeys(('worker_timeout_secs', 'worker_join_timeout_secs')),
}

_PREDICT: dict[str, Reader] = {
    **dict.fromkeys(('images', 'checkpoint_path', 'moving_average_decay', 'mixed_precision', 'devices', 'batch_size')),
    **dict.fromkeys(('top_k', 'format', 'output_path', 'visualize', 'apply_exif_orientation', 'temperature')),
    'explain': Without(('visualize',), refused=True),
    'explain_layer': With('explain', ('grad_cam',), refused=True),
    **dict.fromkeys(('model_name', 'preprocessing_name', 'image_size', 'labels_offset', 'use_grayscale')),
    **dict.fromkeys(('channels', 'depth_multiplier', 'global_pool')),
    **_OF_RUN_FILES,
}

_RUN_FORMATS = ('saved_model', 'tflite', 'onnx')
_EXPORT: dict[str, Reader] = {
    **dict.fromkeys(('checkpoint_path', 'format', 'output_path', 'overwrite', 'moving_average_decay')),
    'quantize': With('format', ('tflite', 'onnx'), refused=True),
    'output': With('format', _RUN_FORMATS, refused=True),
    'temperature': With('format', _RUN_FORMATS, refused=True),
    'layout': With('format', _RUN_FORMATS, refused=True),
    'channel_order': With('format', _RUN_FORMATS, refused=True),
    'includes_preprocessing': With('format', _RUN_FORMATS, refused=True),
    'verification_images': With('format', _RUN_FORMATS, refused=True),
    'batch_size': With('format', _RUN_FORMATS, refused=True),
    'opset': With('format', ('onnx',), refused=True),
    'checkpoint_scope': None,
    'encoded_input': With('format', ('saved_model',), refused=True),
    'inference_type': With('quantize', ('int8',), refused=True),
    'calibration_images': With('quantize', ('int8', 'qdq'), refused=True),
    'sample_test_data': With('format', ('onnx',), refused=True),
    **dict.fromkeys(('model_name', 'preprocessing_name', 'image_size', 'labels_offset', 'use_grayscale')),
    **dict.fromkeys(('channels', 'depth_multiplier', 'global_pool', 'dataset_name', 'dataset_dir')),
}

_IMPORT: dict[str, Reader] = {
    **dict.fromkeys(('source', 'model_name', 'train_dir', 'overwrite', 'image_size', 'preprocessing_name')),
    **dict.fromkeys(('dataset_name', 'dataset_dir', 'labels_offset', 'labels_path')),
}

_NOT_VERIFYING = Unless('verify')
_CONVERT: dict[str, Reader] = {
    **dict.fromkeys(('dataset_dir', 'verify', 'num_processes', 'dataset_name')),
    'source_dir': _NOT_VERIFYING,
    'validation_labels_file': With('dataset_name', ('imagenet',), refused=True),
    'class_names_file': With('dataset_name', ('imagenet',), refused=True),
    'bounding_box_dir': With('dataset_name', ('imagenet',), refused=True),
    'train_shards': _NOT_VERIFYING,
    'validation_shards': _NOT_VERIFYING,
    'resize_shorter_side': _NOT_VERIFYING,
    'jpeg_quality': Without(('resize_shorter_side',), refused=True),
    'max_bad_images': _NOT_VERIFYING,
    'unpack': None,
}

READERS: dict[type, dict[str, Reader]] = {
    TrainConfig: _TRAIN,
    BenchmarkConfig: _BENCHMARK,
    EvalConfig: _EVAL,
    PredictConfig: _PREDICT,
    ExportConfig: _EXPORT,
    ImportConfig: _IMPORT,
    ConvertConfig: _CONVERT,
}


def unread(config: Any, given: Collection[str]) -> list[str]:
    """Returns a warning for each given option that has no effect with the other options.

    Args:
        given: Names of options that count as given, in addition to those with a value other than the default.
    """
    values = flat_values(config)
    if values.get('plan') or values.get('summary'):  # they are added to the command of any run
        return []
    return [
        line
        for name, line, differs, is_refused in _without_effect(config, values)
        if (differs and not is_refused) or (not differs and name in given)
    ]


def refused(config: Any) -> list[str]:
    """Returns an error line for each option without effect that the later work would refuse."""
    found = _without_effect(config, flat_values(config))
    return [line for _, line, differs, is_refused in found if differs and is_refused]


def _without_effect(config: Any, values: Values) -> Iterator[tuple[str, str, bool, bool]]:
    """Yields each option without effect: name, line, whether its value is not the default, whether it is refused."""
    options, seen = flat_options(type(config)), _as_read(config, values)
    for name, reader in READERS[type(config)].items():
        if reader is not None and not reader.reads(seen):
            line = f'{_flag(name, values[name])} {reader.explain(seen)}'
            yield name, line, values[name] != options[name].default, reader.refused


def advice(config: Any, given: Collection[str]) -> list[str]:
    """Returns a line for each of slim's defaults that does not suit the chosen options."""
    if not isinstance(config, TrainConfig) or 'opt_epsilon' in given:
        return []
    default = flat_options(TrainConfig)['opt_epsilon'].default
    if config.optimizer.optimizer != 'adam' or config.optimizer.opt_epsilon != default:
        return []
    return [
        f"--optimizer=adam: slim's default --opt_epsilon={default} makes steps so small that a rate such as 1e-4 "
        f'learns next to nothing; set --opt_epsilon=1e-7, or --opt_epsilon={default} to keep it'
    ]


def _flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f'--{name}' if value else f'--no{name}'
    return f'--{name}={",".join(map(str, value)) if isinstance(value, tuple) else "" if value is None else value}'


def _as_read(config: Any, values: Values) -> Values:
    """Returns the effective values: with defaults that depend on other options, and facts about the paths."""
    seen = dict(values)
    if isinstance(config, TrainConfig):
        seen['preprocessing_name'] = preprocessing_family(values['preprocessing_name'], values['model_name'])
        if values['dataset_name'] is None and values['dataset_dir'] is None:
            if isinstance(config, BenchmarkConfig):
                seen['dataset_name'] = 'synthetic'
            else:  # the embedded digits, which are evaluated
                seen |= {'dataset_name': 'digits', 'eval_every_epochs': values['eval_every_epochs'] or 5.0}
    elif isinstance(config, EvalConfig | PredictConfig):
        compared = values.get('compare')
        seen[_WAITS] = values.get('eval_interval_secs') is not None
        seen[_MAY_BE_RUN] = any(map(_may_be_run, compared or (values['checkpoint_path'],)))
        seen[_MAY_BE_RESTORED] = not compared and not _is_run(values['checkpoint_path'])
    return seen


def _is_run(path: str) -> bool:
    """Returns whether a path is known to be an exported file."""
    is_saved_model = os.path.isfile(os.path.join(path, 'saved_model.pb'))
    return is_saved_model or path.lower().endswith(('.tflite', '.onnx'))


def _may_be_run(path: str) -> bool:
    """Returns whether a path is not known to be a checkpoint."""
    if os.path.isdir(path):
        return _is_run(path)
    return not (path.endswith(('.index', '.keras', '.h5')) or os.path.exists(f'{path}.index'))
