"""Tables and values as text, for messages and for the scripts' output.

print(format_table([('flag', 'there', 'now'), ('seed', '0', '1')], indent='  '))
"""

from collections.abc import Sequence

_FORMULA = ('=', '+', '-', '@', '\t', '\r')  # first characters of a spreadsheet formula
# Control characters, which a terminal would obey; quoted line breaks and tabs are harmless.
_ESCAPED = {code: f'\\x{code:02x}' for code in (*range(32), *range(127, 160)) if chr(code) not in '\t\n'}


def format_table(rows: Sequence[Sequence[str]], *, indent: str = '', numbers: bool = False) -> str:
    """Returns a table as text with aligned columns.

    Args:
        rows: Rows of cells, all of the same length.
        indent: Text before each line.
        numbers: Whether to right-align all columns but the first.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        first, *others = zip(row, widths, strict=True)
        align = str.rjust if numbers else str.ljust
        lines.append(indent + '  '.join([str.ljust(*first), *(align(*cell) for cell in others)]).rstrip())
    return '\n'.join(lines)


def brief(value: object) -> str:
    """Returns a value as text for a message; of a long tuple, only the first four items."""
    if value is None or value == ():
        return 'none'
    if not isinstance(value, tuple):
        return str(value)
    return '/'.join(map(str, value[:4])) + ('/...' if len(value) > 4 else '')


def csv_cell(text: str) -> str:
    """Returns text safe for spreadsheets and terminals: an apostrophe before formulas, control characters escaped."""
    cell = text.translate(_ESCAPED)
    return f"'{cell}" if text.startswith(_FORMULA) and text != '-' else cell  # '-' is standard input


def shortest_names(paths: Sequence[str]) -> list[str]:
    """Returns the shortest unique end of each path: its name, with as many parent folders as needed."""
    known = {path: path.rstrip('/').split('/') for path in paths}

    def shortest(path: str) -> str:
        parts = known[path]
        for count in range(1, len(parts)):
            end = parts[-count:]
            if not any(other[-count:] == end for name, other in known.items() if name != path):
                return '/'.join(end)
        return path

    return [shortest(path) for path in paths]
