"""A data set as it lies on disk, whatever its format, and what is known of slim's without their files."""

import dataclasses
from collections.abc import Callable

from datasets.examples import StoredExamples


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """One of slim's data sets.

    Attributes:
        splits: Names of the splits; the first is trained on, the last evaluated.
        file_pattern: Glob of a split's files; `{split}` stands for its name.
        num_classes: Number of classes where the folder has no labels.txt, the background class included.
        channels: 1 if the images are gray, else 3.
        write: For an embedded data set: writes its files into a folder.
    """

    splits: tuple[str, ...]
    file_pattern: str
    num_classes: int
    channels: int = 3
    write: Callable[[str], None] | None = None


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
