"""Results as Markdown tables, and where they go in a document.

print(format_ratios(results['ratios']))
text = replace_between_markers(text, new)
"""

from collections.abc import Mapping, Sequence
from typing import Any


def format_speeds(speeds: Mapping[str, Mapping[str, float]], head: str, unit: str, digits: int = 0) -> str:
    """Returns a row for each contestant.

    Args:
        speeds: median, low and high of each by its name.
        head: Of the first column.
        unit: Of the speeds.
        digits: Behind the point.
    """
    rows = [(name, format_spread(of_one, digits)) for name, of_one in speeds.items()]
    return format_rows((head, f'{unit}: median (low to high)'), rows)


def format_ratios(ratios: Mapping[str, Mapping[str, Any]], verdicts: Mapping[str, str]) -> str:
    """Returns a row for each ratio: its spread, what was asked for, and whether that was reached."""
    rows = []
    for name, ratio in ratios.items():
        ask = '-' if ratio['ask'] is None else f'{ratio["ask"]:.3g}'
        rows.append((name, format_spread(ratio, 2), ask, verdicts[name]))
    return format_rows(('ratio', 'median (low to high)', 'asked for', ''), rows)


def format_spread(values: Mapping[str, float], digits: int) -> str:
    """Returns median (low to high); the one number where there is only one."""
    median, low, high = (f'{values[key]:.{digits}f}' for key in ('median', 'low', 'high'))
    return median if values['low'] == values['high'] else f'{median} ({low} to {high})'


def format_rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table of Markdown."""
    lines = [f'| {" | ".join(cells)} |' for cells in (heads, *rows)]
    return '\n'.join([lines[0], '|---' * len(heads) + '|', *lines[1:]])


def replace_between_markers(text: str, new: str, name: str = 'bench') -> str:
    """Returns a document with `new` between the comments that begin and end the part of that name.

    Raises:
        ValueError: it does not have both of them once, in their order.
    """
    begin, end = f'<!-- {name}: begin -->', f'<!-- {name}: end -->'
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f'there must be one {begin} and behind it one {end}')
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f'{before}{begin}\n\n{new.strip()}\n\n{end}{after}'
