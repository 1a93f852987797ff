"""Readable confusion matrices: confused classes are neighbours, rare mistakes are visible, any number of classes fits.

ordering = similarity_order(counts)                   # sparse [classes, classes], of the classes that occur
grid = make_grid(counts, ordering, name_of)           # at most MOST_ROWS rows
picture = heat(grid.counts)
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse
from scipy.cluster import hierarchy
from scipy.sparse import csgraph
from scipy.spatial import distance

MOST_ROWS = 1200  # of a grid; ImageNet's 1,001 classes fit
_MOST_OPTIMAL = 200  # classes whose order is the optimal one of its tree, which takes cubic time
_MOST_CLUSTERED = 3000  # classes whose distances fit into memory: 72 MB
_FAINTEST = 0.4  # opacity of a cell with few examples, which may be one pixel
_RIGHT, _WRONG = (0, 114, 178), (213, 94, 0)  # blue and vermilion, which colour-blind people tell apart


@dataclasses.dataclass(frozen=True)
class Grid:
    """A confusion matrix, ordered, of classes or of groups of neighbouring classes.

    Attributes:
        counts: int64 [rows, rows], number of examples by label (row) and prediction (column), sparse.
        numbers: int64, of the classes, or of the groups' first.
        names: Of the classes, or of the groups.
        group: Number of classes in a row.
    """

    counts: scipy.sparse.csr_array
    numbers: np.ndarray
    names: Sequence[str]
    group: int


def similarity_order(counts: scipy.sparse.csr_array) -> np.ndarray:
    """Returns an order of classes, int64 [classes], in which confused classes are near each other.

    The leaves of a hierarchical clustering (average linkage over symmetrised confusion rates); above 3,000 classes, the
    reverse Cuthill-McKee order.
    """
    size = counts.shape[0]
    if size < 3:
        return np.arange(size)
    if size > _MOST_CLUSTERED:
        return csgraph.reverse_cuthill_mckee((counts + counts.T).tocsr(), symmetric_mode=True).astype(np.int64)
    shares = counts.toarray() / np.maximum(counts.sum(axis=1), 1)[:, np.newaxis]
    distances = 1 - (shares + shares.T) / 2
    np.fill_diagonal(distances, 0)
    condensed = distance.squareform(distances, checks=False)
    tree = hierarchy.linkage(condensed, 'average', optimal_ordering=size <= _MOST_OPTIMAL)
    return hierarchy.leaves_list(tree).astype(np.int64)


def make_grid(
    counts: scipy.sparse.csr_array, order: np.ndarray, name_of: Callable[[int], str], most: int = MOST_ROWS
) -> Grid:
    """Returns a grid of at most `most` rows.

    Args:
        counts: int64 [classes, classes].
        order: Of the classes that are shown.
        name_of: Returns the name of a class.
        most: Above this number of classes, neighbours are grouped.
    """
    group = max(-(-len(order) // most), 1)
    firsts, lasts = order[::group], order[[*range(group - 1, len(order) - 1, group), -1]] if len(order) else order
    names = [
        name_of(first) if group == 1 else f'{name_of(first)} … {name_of(last)}'
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True)
    ]
    return Grid(_grouped(counts[order][:, order], group), firsts, names, group)


def coarse(counts: scipy.sparse.csr_array, most: int) -> tuple[scipy.sparse.csr_array, int]:
    """Returns counts in blocks so that there are at most `most` rows, and the rows in a block."""
    block = max(-(-counts.shape[0] // most), 1)
    return _grouped(counts, block), block


def heat(counts: scipy.sparse.csr_array) -> np.ndarray:
    """Returns a picture of counts, uint8 [rows, rows, 4]: right answers blue, mistakes orange, nothing transparent."""
    cells = counts.tocoo()
    right = cells.row == cells.col
    picture = np.zeros((*counts.shape, 4), np.uint8)
    picture[cells.row, cells.col, :3] = np.where(right[:, np.newaxis], _RIGHT, _WRONG)
    drawn = _FAINTEST + (1 - _FAINTEST) * strength(cells.data, _totals(counts)[cells.row], right)
    picture[cells.row, cells.col, 3] = np.round(255 * drawn)
    return picture


def strength(counts: np.ndarray, totals: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Returns the opacity of cells, float64 in [0, 1]: shares of the row, enhanced for mistakes.

    Args:
        counts: Numbers of examples in the cells.
        totals: Numbers of examples in the cells' rows.
        right: bool, whether the cells are on the diagonal.
    """
    shares = counts / np.maximum(totals, 1)
    return np.where(right, shares, shares**0.45)


def _totals(counts: scipy.sparse.csr_array) -> np.ndarray:
    return np.asarray(counts.sum(axis=1)).ravel()


def _grouped(counts: scipy.sparse.csr_array, size: int) -> scipy.sparse.csr_array:
    cells = counts.tocoo()
    rows = -(-counts.shape[0] // size)
    return scipy.sparse.coo_array((cells.data, (cells.row // size, cells.col // size)), shape=(rows, rows)).tocsr()
