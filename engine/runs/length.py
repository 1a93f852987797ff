"""The length of training: how many steps a run has left."""

import math

from configs.training import LengthOptions

_EMBEDDED, _EPOCHS_OF_EMBEDDED = 'digits', 15.0


def steps_left(
    length: LengthOptions,
    dataset_name: str,
    num_examples: float,
    examples_per_step: int,
    step: int = 0,
    images_seen: int = 0,
) -> float:
    """Returns the number of steps that remain at a position, infinity if training has no end.

    The length is the shorter of `--max_number_of_steps` and `--num_epochs`; with neither, it is 15 epochs on the
    embedded data set, and endless on any other, as in slim.

    Args:
        dataset_name: The training data set.
        num_examples: Its number of examples, infinity if unknown.
        examples_per_step: Examples per step.
        step: Number of steps made.
        images_seen: Number of examples trained on.
    """
    steps, epochs = length.max_number_of_steps, length.num_epochs
    if steps is None and epochs is None and dataset_name == _EMBEDDED:
        epochs = _EPOCHS_OF_EMBEDDED
    images = math.inf if epochs is None else epochs * num_examples - images_seen
    by_epochs = images if math.isinf(images) else math.ceil(images / examples_per_step - 1e-9)
    by_steps = math.inf if steps is None else steps - step
    return max(min(by_epochs, by_steps), 0)
