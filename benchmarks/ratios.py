"""Summarizes measured turns as medians, ratios and verdicts, in Markdown tables for a document.

    summary = spread([410.0, 402.5, 395.1])                  # {'median': 402.5, 'low': 395.1, 'high': 410.0}
    asks = (Ask('ours / PyTorch', 'ours', ('PyTorch eager', 'PyTorch compiled'), 1.4),)
    ratios = summarize_ratios({'ours': [...], 'PyTorch eager': [...], 'PyTorch compiled': [...]}, asks)
    text = replace_between_markers(text, format_ratios(ratios))

Machines differ, and a machine varies from hour to hour; so ratios are computed per round.
"""

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Spread = dict[str, float]
Ratio = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Ask:
    """A ratio of speeds, with its target.

    Attributes:
        name: Its name in the table.
        over: The contestant in the numerator.
        under: Candidates for the denominator: the fastest by the median of its rounds is used. All of them must have
            run: without the fastest the ratio would look better than it is.
        least: The target; None for no target.
        factor: Factor of the ratio, if the units differ.
    """

    name: str
    over: str
    under: tuple[str, ...]
    least: float | None = None
    factor: float = 1.0


def spread(values: Sequence[float]) -> Spread:
    """Returns median, minimum and maximum."""
    return {'median': statistics.median(values), 'low': min(values), 'high': max(values)}


def summarize_ratios(speeds: Mapping[str, Sequence[float]], asks: Iterable[Ask]) -> dict[str, Ratio]:
    """Returns the spread of each ratio over the rounds; omits ratios whose contestants did not run.

    Args:
        speeds: Contestant -> speed in each round.
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
    """Returns 'reached' or 'missed'; '' without a target."""
    if ratio['ask'] is None:
        return ''
    return 'reached' if ratio['median'] >= ratio['ask'] else 'missed'


def format_speeds(speeds: Mapping[str, Spread], unit: str, digits: int) -> str:
    """Returns a table of the contestants' speeds in `unit`, with `digits` decimals."""
    rows = [(name, format_spread(of_one, digits)) for name, of_one in speeds.items()]
    return _format_rows(('', f'{unit}: median (low to high)'), rows)


def format_ratios(ratios: Mapping[str, Ratio]) -> str:
    """Returns a table of the ratios: spread, target, and verdict."""
    rows = []
    for name, ratio in ratios.items():
        ask = '-' if ratio['ask'] is None else f'{ratio["ask"]:.3g}'
        rows.append((name, format_spread(ratio, 2), ask, verdict(ratio)))
    return _format_rows(('ratio', 'median (low to high)', 'asked for', ''), rows)


def format_spread(values: Mapping[str, Any], digits: int) -> str:
    """Returns `median (low to high)`, or only the median if all are equal."""
    median, low, high = (f'{values[key]:.{digits}f}' for key in ('median', 'low', 'high'))
    return median if values['low'] == values['high'] else f'{median} ({low} to {high})'


def _format_rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f'| {" | ".join(cells)} |' for cells in (heads, *rows)]
    return '\n'.join([lines[0], '|---' * len(heads) + '|', *lines[1:]])


def replace_between_markers(text: str, new: str, name: str = 'bench') -> str:
    """Returns a document with `new` between the comments that mark the part called `name`.

    Raises:
        ValueError: The document does not have both comments once, in order.
    """
    begin, end = f'<!-- {name}: begin -->', f'<!-- {name}: end -->'
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f'there must be one {begin} and behind it one {end}')
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f'{before}{begin}\n\n{new.strip()}\n\n{end}{after}'
