"""The names in a checkpoint that are not weights of the net."""

from configs.config import OptimizerOptions
from engine.moving_averages import ExponentialMovingAverage
from engine.optimizers import OPTIMIZERS

STEP_KEY = 'global_step'
IMAGES_SEEN_KEY = 'images_seen'


def is_training_state(name: str) -> bool:
    """Says whether a name in a checkpoint is a counter, an optimizer slot or a moving average, not a weight."""
    return name in _SCALARS or name.endswith(_SLOTS)


_KEPT = tuple(rule(OptimizerOptions()) for rule in OPTIMIZERS.values())
_SCALARS = {STEP_KEY, IMAGES_SEEN_KEY, *(name for rule in _KEPT for name in rule.power_bases())}
_SLOTS = (ExponentialMovingAverage.SUFFIX, *(f'/{slot}' for rule in _KEPT for slot in rule.slot_starts()))
