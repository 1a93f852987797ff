"""docs/walkthrough.ipynb runs from the first cell to the last, and its committed outputs are small."""

import nbclient
import nbformat
import pytest

from tests.test_source import ROOT

PAGE = ROOT / 'docs' / 'walkthrough.ipynb'


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(PAGE, as_version=4)


def test_it_has_twelve_cells_with_outputs_and_is_small(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == 'code']
    assert len(cells) == 12
    assert all(cell.outputs for cell in cells)
    assert not [output for cell in cells for output in cell.outputs if output.output_type == 'error']
    assert PAGE.stat().st_size < 100_000


@pytest.mark.full
def test_it_runs(notebook):
    nbclient.NotebookClient(notebook, timeout=600, resources={'metadata': {'path': PAGE.parent}}).execute()
