"""Facts about a data set that need none of its files."""

import dataclasses
from collections.abc import Callable


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
