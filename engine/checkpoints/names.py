"""Kinds of names in a checkpoint: counters, slots, moving averages, the head."""

from collections.abc import Iterable

from configs.training import OptimizerOptions
from engine.optim.loss_scale import LossScale
from engine.optim.moving_averages import ExponentialMovingAverage
from engine.optim.optimizers import OPTIMIZERS

STEP_KEY = 'global_step'
IMAGES_SEEN_KEY = 'images_seen'
IMAGES_SKIPPED_KEY, RECOVERIES_KEY = 'images_skipped', 'nonfinite_recoveries'


def is_training_state(name: str) -> bool:
    """Returns whether a name in a checkpoint is a counter, an optimizer slot or a moving average, not a weight."""
    return name in _SCALARS or name.endswith(_SLOTS) or name.startswith(_KERAS_OPTIMIZER)


def is_average(name: str) -> bool:
    """Returns whether it is the moving average of a weight."""
    return name.endswith(ExponentialMovingAverage.SUFFIX)


def is_counter(name: str) -> bool:
    """Returns whether it is the step, or another number that tells how far training has come."""
    return name in _COUNTERS


def is_slot(name: str) -> bool:
    """Returns whether it is what an optimizer keeps, of a weight or of its own."""
    return is_training_state(name) and not is_average(name) and not is_counter(name)


def optimizer_of(names: Iterable[str]) -> str | None:
    """Returns the `--optimizer` whose slots are among the names; sgd has none; None for several optimizers' slots."""
    found = {name.rpartition('/')[2] for name in names if is_slot(name) and '/' in name}
    return next((key for key, rule in zip(OPTIMIZERS, _KEPT, strict=True) if set(rule.slot_starts()) == found), None)


def head_names(names: Iterable[str]) -> list[str]:
    """Returns the weights and biases of the last layer, on whose width the number of classes shows.

    Args:
        names: Of a net's variables, from the first layer to the last; slots and averages may be among them.
    """
    weights = list(dict.fromkeys(name.removesuffix(ExponentialMovingAverage.SUFFIX) for name in names))
    weights = [name for name in weights if not is_training_state(name)]
    scope = weights[-1].rpartition('/')[0] if weights else ''
    return [name for name in weights if name.rpartition('/')[0] == scope]


_KERAS_OPTIMIZER = 'optimizer/'  # in a .keras file of a model that Keras trained
_KEPT = tuple(rule(OptimizerOptions()) for rule in OPTIMIZERS.values())
_COUNTERS = {STEP_KEY, IMAGES_SEEN_KEY, IMAGES_SKIPPED_KEY, RECOVERIES_KEY}
_SCALARS = {*_COUNTERS, LossScale.SCALE, LossScale.STEPS, *(name for rule in _KEPT for name in rule.power_bases())}
_SLOTS = (ExponentialMovingAverage.SUFFIX, *(f'/{slot}' for rule in _KEPT for slot in rule.slot_starts()))
