"""Names in a checkpoint: counters, slots, moving averages, the head; explains why they differ from a net's names.

is_training_state('net/conv1/weights/Momentum')                   # True
explain(['tower_0/net/conv1/weights'], ['net/conv1/weights'])      # 'its names begin with tower_0/: give --che...'
"""

import collections
from collections.abc import Iterable, Sequence

from configs.training import OptimizerOptions
from engine.optim.loss_scale import LossScale
from engine.optim.moving_averages import ExponentialMovingAverage
from engine.optim.optimizers import OPTIMIZERS
from nets import nets_factory

STEP_KEY = 'global_step'
IMAGES_SEEN_KEY = 'images_seen'
IMAGES_SKIPPED_KEY, RECOVERIES_KEY = 'images_skipped', 'nonfinite_recoveries'
_OBJECT_GRAPH, _OBJECT_VALUE = '_CHECKPOINTABLE_OBJECT_GRAPH', '/.ATTRIBUTES/VARIABLE_VALUE'
_SUFFIX = ExponentialMovingAverage.SUFFIX


def is_training_state(name: str) -> bool:
    """Returns whether a name in a checkpoint is a counter, an optimizer slot or a moving average, not a weight."""
    return name in _SCALARS or name.endswith(_SLOTS) or name.startswith(_KERAS_OPTIMIZER)


def is_average(name: str) -> bool:
    """Returns whether a name in a checkpoint is the moving average of a weight."""
    return name.endswith(_SUFFIX)


def is_counter(name: str) -> bool:
    """Returns whether a name in a checkpoint is the step or another counter of training progress."""
    return name in _COUNTERS


def is_slot(name: str) -> bool:
    """Returns whether a name in a checkpoint is an optimizer's state, for one weight or for the whole net."""
    return is_training_state(name) and not is_average(name) and not is_counter(name)


def optimizer_of(names: Iterable[str]) -> str | None:
    """Returns the `--optimizer` whose slots are among the names, 'sgd' if there are no slots, None if it is unclear."""
    found = {name.rpartition('/')[2] for name in names if is_slot(name) and '/' in name}
    return next((key for key, rule in zip(OPTIMIZERS, _KEPT, strict=True) if set(rule.slot_starts()) == found), None)


def head_names(names: Iterable[str]) -> list[str]:
    """Returns the names of the weights and biases whose width is the number of classes, auxiliary ones too.

    Args:
        names: Names of a net's variables from the first layer to the last; slots and averages may be among them. Of a
            net that is not in the factory, the head is the last layer.
    """
    weights = list(dict.fromkeys(name.removesuffix(_SUFFIX) for name in names))
    weights = [name for name in weights if not is_training_state(name)]
    if not weights:
        return []
    scopes = nets_factory.heads().get(weights[0].partition('/')[0], (weights[-1].rpartition('/')[0],))
    return [name for name in weights if name.rpartition('/')[0] in scopes]


def explain(found: Iterable[str], wanted: Sequence[str]) -> str | None:
    """Explains from the names why a checkpoint does not fit a net, with advice; returns None if no cause is found.

    Args:
        found: Names in the checkpoint.
        wanted: Names of the net's variables or of their averages.
    """
    names, weights = set(found), [name.removesuffix(_SUFFIX) for name in wanted if name]
    if _OBJECT_GRAPH in names or any(name.endswith(_OBJECT_VALUE) for name in names):
        return (
            "it is a checkpoint of Python objects (tf.train.Checkpoint, or Keras 2's save_weights), whose names are "
            'paths of attributes; load it in the program that wrote it, and save the model as .keras'
        )
    prefix = shared_prefix(names, weights)
    if prefix is not None:
        return f'its names begin with {prefix}/: give --checkpoint_scope={prefix}'
    if not any(map(is_average, wanted)) and _are_averages_alone(names, weights):
        return (
            'it holds only the moving averages of the weights: evaluation, prediction and export take them with '
            '--moving_average_decay=0.999'
        )
    return None


def shared_prefix(found: Iterable[str], wanted: Sequence[str]) -> str | None:
    """Returns the prefix that most wanted names have in a checkpoint, or None if most are found without a prefix."""
    names = {name.removesuffix(_SUFFIX) for name in found}
    if not wanted or 2 * sum(name in names for name in wanted) >= len(wanted):
        return None
    endings = {f'/{name}': name for name in wanted}
    counts = collections.Counter(
        name.removesuffix(ending) for name in sorted(names) for ending in endings if name.endswith(ending)
    )
    prefix, count = next(iter(counts.most_common(1)), ('', 0))
    return prefix if prefix and 2 * count > len(wanted) else None


def _are_averages_alone(found: set[str], weights: Sequence[str]) -> bool:
    return not any(name in found for name in weights) and any(name + _SUFFIX in found for name in weights)


_KERAS_OPTIMIZER = 'optimizer/'  # in a .keras file of a model that Keras trained
_KEPT = tuple(rule(OptimizerOptions()) for rule in OPTIMIZERS.values())
_COUNTERS = {STEP_KEY, IMAGES_SEEN_KEY, IMAGES_SKIPPED_KEY, RECOVERIES_KEY}
_SCALARS = {*_COUNTERS, LossScale.SCALE, LossScale.STEPS, *(name for rule in _KEPT for name in rule.power_bases())}
_SLOTS = (_SUFFIX, *(f'/{slot}' for rule in _KEPT for slot in rule.slot_starts()))
