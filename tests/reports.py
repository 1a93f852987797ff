"""Contents of reports, made up: any number of classes and examples, and names that try to break out of a page."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.evaluation.outcomes import Outcomes, make_outcomes
from engine.evaluation.report.content import Content, Curve, Gallery, Picture, Preparation, Subject
from engine.evaluation.statistics import compare_pairs, compute

HOSTILE = (
    '</script><script>window.broken=1</script>',
    '"><img src=x onerror="window.broken=1">',
    "'onmouseover='window.broken=1",
    '<!--<script>',
    '=HYPERLINK("http://localhost")',
    'reversed \u202e and \x1b[31m red \x00',
    '日本語の名前',
    'سگ',
    '$x_1$ \\frac & ]]> {}',
    'long ' * 500,
)


def outcomes_of(classes: int, count: int, seed: int = 0, share: float = 0.7) -> Outcomes:
    """Returns outcomes of a classifier that mostly confuses classes whose numbers are near."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    near = (labels + random.integers(1, 4, count)) % classes
    predictions = np.where(random.random(count) < share, labels, near)
    confidences = random.uniform(1 / classes, 1, count)
    correct = predictions == labels
    return make_outcomes(
        numbers=np.arange(count),
        labels=labels,
        predictions=predictions,
        correct=correct,
        ranks=np.where(correct, 1, 2),
        probabilities=np.where(correct, confidences, confidences / 3),
        confidences=confidences,
    )


def content_of(outcomes: Sequence[Outcomes], names: Sequence[str] = (), **parts: Any) -> Content:
    """Returns the content of a report of rows, with other parts as given."""
    paths = [f'/runs/{chr(ord("a") + i)}/model.ckpt-100' for i in range(len(outcomes))]
    subjects = [
        Subject(path, {'kind': 'checkpoint'}, each, compute(each, (1, 5), with_intervals=len(each) <= 1000))
        for path, each in zip(paths, outcomes, strict=True)
    ]
    ids = [f'test.tfrecord, record {i}' for i in range(len(outcomes[0]))]
    differences = compare_pairs(paths, outcomes)
    return Content('lenet on digits, test', subjects, ids, names, **{'differences': differences, **parts})


def every_part(names: Sequence[str], side: int = 24) -> dict[str, Any]:
    """Returns curves, galleries, filters, prepared images, recipe and environment; `side`: of pictures, in pixels."""
    random = np.random.default_rng(0)

    def image() -> np.ndarray:
        return random.integers(0, 256, (side, side, 3), np.uint8)

    steps = np.arange(0, 3000, 2)
    values = np.exp(-steps / 500.0)
    values[100:150] = np.nan
    pictures = [
        Picture(names[i % len(names)], image(), image() if i % 2 else None, i % len(names), 0, 0.9, np.nan)
        for i in range(24)
    ]
    return {
        'curves': [
            Curve('loss', 'training', steps, values),
            Curve('loss', names[0], steps[:1], values[:1]),
            Curve('accuracy', 'test', steps[:2], np.array([np.nan, np.inf])),
        ],
        'galleries': [Gallery('Most confident mistakes', 'Chosen by confidence.', pictures), Gallery('None', '', [])],
        'filters': image(),
        'preparations': [Preparation(names[0], image(), [image()] * 4)] * 8,
        'recipe': dict(zip(names, names, strict=True)),
        'environment': {'Python': '3.11'},
    }
