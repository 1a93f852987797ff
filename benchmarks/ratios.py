"""From measured turns to medians, ratios and verdicts, and what has become of ratios that were recorded.

    summary = spread([410.0, 402.5, 395.1])                  # {'median': 402.5, 'low': 395.1, 'high': 410.0}
    asks = (Ask('ours / PyTorch', 'ours', ('PyTorch eager', 'PyTorch compiled'), 1.4),)
    summarize_ratios({'ours': [...], 'PyTorch eager': [...], 'PyTorch compiled': [...]}, asks)

Machines differ, and so does a machine from hour to hour; so ratios are taken round by round, and are what is compared.
"""

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

TOLERATED_LOSS = 0.15  # of a ratio's median, before it counts as a regression

Spread = dict[str, float]
Ratio = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Ask:
    """A ratio of speeds, and how large it should be.

    Attributes:
        name: In the table.
        over: Whose speed is divided.
        under: By whose: by that of the fastest of these, by the median of its rounds.
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
        there = [name for name in ask.under if speeds.get(name)]
        if not there or not speeds.get(ask.over):
            continue
        best = max(there, key=lambda name: statistics.median(speeds[name]))
        rounds = zip(speeds[ask.over], speeds[best], strict=True)
        ratios[ask.name] = {**spread([ask.factor * a / b for a, b in rounds]), 'ask': ask.least}
    return ratios


def verdict(ratio: Ratio) -> str:
    """Returns 'reached' or 'missed'; nothing where nothing is asked for."""
    if ratio['ask'] is None:
        return ''
    return 'reached' if ratio['median'] >= ratio['ask'] else 'missed'


def medians(tables: Mapping[str, Mapping[str, Any]], guarded: Iterable[str]) -> dict[str, dict[str, float]]:
    """Returns what is recorded of tables whose keys begin with one of `guarded`: the median of each ratio."""
    starts = tuple(guarded)
    return {
        key: {name: round(ratio['median'], 3) for name, ratio in table['ratios'].items()}
        for key, table in tables.items()
        if key.startswith(starts) and table['ratios']
    }


def find_losses(recorded: Mapping[str, Mapping[str, float]], measured: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Returns a line for each recorded ratio that is much lower now, or was not measured.

    Args:
        recorded: Medians by table and name, as `medians` gives them.
        measured: Those of now.
    """
    lines = []
    for key, ratios in recorded.items():
        for name, before in ratios.items():
            now = measured.get(key, {}).get(name)
            if now is None:
                lines.append(f'{key}: {name}: recorded as {before:.2f}, but not measured now')
            elif now < (1 - TOLERATED_LOSS) * before:
                lines.append(f'{key}: {name}: {now:.2f}, recorded as {before:.2f}: {1 - now / before:.0%} lower')
    return lines
