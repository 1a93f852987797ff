"""From measured turns to medians, ratios and verdicts.

    summary = spread([410.0, 402.5, 395.1])                  # {'median': 402.5, 'low': 395.1, 'high': 410.0}
    asks = (Ask('ours / PyTorch', 'ours', ('PyTorch eager', 'PyTorch compiled'), 1.4),)
    summarize_ratios({'ours': [...], 'PyTorch eager': [...], 'PyTorch compiled': [...]}, asks)

Machines differ, and so does a machine from hour to hour; so ratios are taken round by round.
"""

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Spread = dict[str, float]
Ratio = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Ask:
    """A ratio of speeds, and how large it should be.

    Attributes:
        name: In the table.
        over: Whose speed is divided.
        under: By whose: by that of the fastest of these, by the median of its rounds. All of them must have run:
            without the fastest the ratio would look better than it is.
        least: What is asked for; None where nothing is.
        factor: What the ratio is multiplied by, where both are not in the same unit.
    """

    name: str
    over: str
    under: tuple[str, ...]
    least: float | None = None
    factor: float = 1.0


def spread(values: Sequence[float]) -> Spread:
    """Returns median, lowest and highest."""
    return {'median': statistics.median(values), 'low': min(values), 'high': max(values)}


def summarize_ratios(speeds: Mapping[str, Sequence[float]], asks: Iterable[Ask]) -> dict[str, Ratio]:
    """Returns the spread of each ratio, taken round by round; without those whose contestants did not run.

    Args:
        speeds: Of each contestant by its name, a value a round.
        asks: The ratios.
    """
    ratios = {}
    for ask in asks:
        if not all(speeds.get(name) for name in (ask.over, *ask.under)):
            continue
        best = max(ask.under, key=lambda name: statistics.median(speeds[name]))
        rounds = zip(speeds[ask.over], speeds[best], strict=True)
        ratios[ask.name] = {**spread([ask.factor * a / b for a, b in rounds]), 'ask': ask.least}
    return ratios


def verdict(ratio: Ratio) -> str:
    """Returns 'reached' or 'missed'; nothing where nothing is asked for."""
    if ratio['ask'] is None:
        return ''
    return 'reached' if ratio['median'] >= ratio['ask'] else 'missed'
