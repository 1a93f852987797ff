"""A data set as it lies on disk: what the factory needs of it, whatever its format."""

import dataclasses
from collections.abc import Callable

from datasets.examples import StoredExamples


@dataclasses.dataclass(frozen=True)
class Collection:
    """The splits of a data set.

    Attributes:
        dataset_dir: The folder that they were found in.
        splits: Their names; the last is the one to evaluate, if there is more than one.
        num_classes: Number of classes, the background class included.
        label_names: Name of each class, or empty.
        channels: 1 if the images are gray, else 3.
        open_split: Finds the examples of a split.
        is_one_split: Whether all of it is one split, whichever of `splits` is asked for.
    """

    dataset_dir: str
    splits: tuple[str, ...]
    num_classes: int
    label_names: tuple[str, ...]
    channels: int
    open_split: Callable[[str], StoredExamples]
    is_one_split: bool = False
