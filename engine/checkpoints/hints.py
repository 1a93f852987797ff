"""Why a checkpoint does not fit a net, where its names tell: a prefix that all share, averages alone, Python objects.

explain(['tower_0/net/conv1/weights'], ['net/conv1/weights'])      # 'its names begin with tower_0/: give --che...'
"""

import collections
from collections.abc import Iterable, Sequence

from engine.checkpoints.names import is_average
from engine.optim.moving_averages import ExponentialMovingAverage

_OBJECT_GRAPH, _OBJECT_VALUE = '_CHECKPOINTABLE_OBJECT_GRAPH', '/.ATTRIBUTES/VARIABLE_VALUE'
_SUFFIX = ExponentialMovingAverage.SUFFIX


def explain(found: Iterable[str], wanted: Sequence[str]) -> str | None:
    """Describes a checkpoint by its variable names and gives the flag or step that helps; None if they tell nothing.

    Args:
        found: Names in the checkpoint.
        wanted: Names of the net's variables, or of their averages.
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
    """Returns the prefix of most of the wanted names in a checkpoint, or None if it has most of them without one."""
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
