"""A data set on disk, in any format, and the built-in facts about slim's data sets."""

import dataclasses
from collections.abc import Callable

from datasets.examples import StoredExamples


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """Facts about one of slim's data sets.

    Attributes:
        splits: Names of the splits; the first is for training, the last for evaluation.
        file_pattern: Glob of a split's files; `{split}` stands for its name.
        num_classes: Number of classes if the folder has no labels.txt, including the background class.
        channels: 1 if the images are gray, else 3.
        write: For an embedded data set: writes its files to a folder.
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
        dataset_dir: The folder that holds them.
        splits: Their names; if there are several, the last is for evaluation.
        num_classes: Number of classes, including the background class.
        label_names: Name of each class, or empty.
        channels: 1 if the images are gray, else 3.
        open_split: Finds the examples of a split.
        is_one_split: Whether the data is not divided and serves as any of `splits`.
    """

    dataset_dir: str
    splits: tuple[str, ...]
    num_classes: int
    label_names: tuple[str, ...]
    channels: int
    open_split: Callable[[str], StoredExamples]
    is_one_split: bool = False
