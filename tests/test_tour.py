"""The tour: its stored outputs belong to its code, are small, and come out again; its claims hold.

The whole notebook is run when slow: half a minute on a quiet machine, which is a tenth of what all other tests take together. The
documentation shows the stored outputs, so that it is built in seconds.
"""

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

PATH = Path(__file__).parents[1] / "docs" / "tour.ipynb"
MOST_BYTES, LEAST_FIGURES = 600_000, 7
NUMBERS = "import json; print(json.dumps({'right': right, 'flops': flops, 'pace': pace(times['dense'], times)}))"


@pytest.fixture(scope="module")
def tour():
    return nbformat.read(PATH, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell):
    return "".join(output["text"] for output in cell.outputs if output.get("name") == "stdout")


def test_every_cell_was_run_in_order_and_none_failed(tour):
    nbformat.validate(tour)
    cells = code_cells(tour)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [output["output_type"] for cell in cells for output in cell.outputs]
    assert set(kinds) <= {"stream", "execute_result"}
    figures = [o for cell in cells for o in cell.outputs if "image/png" in o.get("data", {})]
    assert len(figures) >= LEAST_FIGURES
    assert PATH.stat().st_size <= MOST_BYTES


def test_each_section_has_a_figure_or_a_number(tour):
    shown = dict.fromkeys((cell.source.splitlines()[0] for cell in tour.cells if cell.source.startswith("## ")), 0)
    section = None
    for cell in tour.cells:
        if cell.source.startswith("## "):
            section = cell.source.splitlines()[0]
        elif section and cell.cell_type == "code":
            shown[section] += len(cell.outputs)
    assert len(shown) >= 7
    assert all(count for name, count in shown.items() if name != "## Where to go from here"), shown


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_notebook_runs_and_its_claims_hold(tour):
    fresh = nbformat.from_dict(json.loads(json.dumps(tour)))
    fresh.cells.append(nbformat.v4.new_code_cell(NUMBERS))
    NotebookClient(fresh, timeout=500, kernel_name="python3").execute(cwd=str(PATH.parent))
    numbers = json.loads(printed(fresh.cells[-1]))
    right, flops, pace = numbers["right"], numbers["flops"], numbers["pace"]
    assert right["none"] < min(right["time only"], right["convolution only"])
    assert max(right["time only"], right["convolution only"]) < right["decay"] < right["hold"] < right["neighbours"]
    assert right["dense"] - right["neighbours"] < 5
    assert flops["neighbours"] < 0.65 * flops["dense"]
    assert pace["none"] < 0.5
    assert 0.85 < pace["decay"] < 1.15
    assert 0.85 < pace["hold"] < 1.15
    before = [printed(cell) for cell in code_cells(tour)]
    after = [printed(cell) for cell in code_cells(fresh)[:-1]]
    assert [text.count("\n") for text in before] == [text.count("\n") for text in after]
