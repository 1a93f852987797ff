"""The content of a report, as plain values, which `page.write_report` draws.

Everything that needs a data set, a net or a run is optional: a report of rows alone has none of it.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from engine.evaluation.outcomes import Outcomes
from engine.evaluation.statistics import Difference, Statistics


@dataclasses.dataclass(frozen=True)
class Subject:
    """One classifier of the report.

    Attributes:
        path: Its file, or the file of its rows.
        facts: Facts about it, in the order of display: kind, step, size, images per second.
        outcomes: The outcome of each example.
        statistics: Computed from the outcomes.
    """

    path: str
    facts: Mapping[str, str]
    outcomes: Outcomes
    statistics: Statistics


@dataclasses.dataclass(frozen=True)
class Curve:
    """One scalar of a run over its steps.

    Attributes:
        chart: Title of the chart, shared by all its curves: 'loss'.
        name: Of the curve: 'training', 'test'.
        steps: int64 [points], ascending.
        values: float64 [points]; may hold NaN.
    """

    chart: str
    name: str
    steps: np.ndarray
    values: np.ndarray


@dataclasses.dataclass(frozen=True)
class Picture:
    """One example in a gallery.

    Attributes:
        id: The example.
        image: uint8 [height, width, 3].
        explanation: uint8 [height, width, 3], a heat map over the image as the net sees it; or None.
        label, prediction: Classes.
        confidence: The prediction's probability.
        probability: The label's probability; NaN if unknown.
    """

    id: str
    image: np.ndarray
    explanation: np.ndarray | None
    label: int
    prediction: int
    confidence: float
    probability: float


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Pictures under a title.

    Attributes:
        title: 'Most confident mistakes'.
        note: One sentence on how they were chosen.
        pictures: In the order of display.
    """

    title: str
    note: str
    pictures: Sequence[Picture]


@dataclasses.dataclass(frozen=True)
class Preparation:
    """What preprocessing does to one training image.

    Attributes:
        id: The example.
        image: uint8 [height, width, 3], as stored.
        prepared: uint8 [height, width, 3] each, as the net sees it in training, each with other random numbers.
    """

    id: str
    image: np.ndarray
    prepared: Sequence[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Content:
    """All of a report.

    Attributes:
        title: 'alexnet_v2 on digits, test'.
        subjects: One, or several of a comparison, on the same examples in the same order.
        example_ids: The examples, in the order of the outcomes.
        label_names: Names of the classes; '' where unknown.
        differences: McNemar's test of each pair of subjects.
        curves: Learning curves of the first subject's run.
        galleries: Pictures of the first subject's mistakes and successes.
        filters: uint8 [height, width, 3], filters of the net's first layer as a grid; None if they cannot be shown.
        preparations: What preprocessing does to training images.
        recipe: Options of the run, or of the net, by name.
        environment: Versions and machine, by name.
    """

    title: str
    subjects: Sequence[Subject]
    example_ids: Sequence[str]
    label_names: Sequence[str]
    differences: Sequence[Difference] = ()
    curves: Sequence[Curve] = ()
    galleries: Sequence[Gallery] = ()
    filters: np.ndarray | None = None
    preparations: Sequence[Preparation] = ()
    recipe: Mapping[str, str] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def name_of(self, index: int) -> str:
        """Returns the name of a class; '' if it is unknown."""
        return self.label_names[index] if 0 <= index < len(self.label_names) else ''
