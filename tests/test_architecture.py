"""The layout that CONTRIBUTING.md describes: imports point down, no folder reaches up, nothing goes in a circle."""

import ast
from pathlib import Path

import pytest

import skimba

ROOT = Path(__file__).parents[1]
PACKAGE = Path(skimba.__file__).parent
# From the top down. A folder may import those after it, and nothing else; what stands in one row does not import each other.
ROWS = (
    ("cli",),
    ("explorer",),
    ("reports", "export", "insight"),
    ("training",),
    ("tasks",),
    ("store",),
    ("pruning", "quantization"),
    ("cost",),
    ("dense",),
    ("models",),
    ("layers",),
    ("tokens",),
    ("ops", "data"),
    ("runtime",),
)
LEVEL = {folder: number for number, row in enumerate(ROWS) for folder in row}
MOST_FILES_AT_TOP = 4


def modules():
    return {path: path.relative_to(PACKAGE).parts for path in sorted(PACKAGE.rglob("*.py"))}


def names():
    """Dotted name of every module of the package."""
    dotted = {".".join(("skimba", *parts)).removesuffix(".py"): path for path, parts in modules().items()}
    return {name.removesuffix(".__init__"): path for name, path in dotted.items()}


def imported(path):
    """Dotted names of the package's modules that a file imports, wherever in the file."""
    known = names()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] == "skimba")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            if node.module and node.module.split(".")[0] == "skimba":
                inner = [f"{node.module}.{name.name}" for name in node.names]
                yield from (name if name in known else node.module for name in inner)


def test_the_top_level_holds_folders_and_the_public_face():
    files = [path.name for path in PACKAGE.iterdir() if path.is_file()]
    assert len(files) <= MOST_FILES_AT_TOP, files
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir() and any(p.glob("*.py"))}
    assert folders <= set(LEVEL), folders - set(LEVEL)


@pytest.mark.parametrize("path", [p for p, parts in modules().items() if len(parts) > 1], ids=str)
def test_imports_point_down(path):
    folder = path.relative_to(PACKAGE).parts[0]
    for name in imported(path):
        assert name != "skimba", f"{path} imports the public face"
        target = name.split(".")[1]
        assert target in LEVEL, f"{path} imports {name}: no such folder in the layout"
        assert target == folder or LEVEL[target] > LEVEL[folder], (
            f"{path} imports {name}, which stands above or beside it"
        )


def test_no_import_goes_in_a_circle():
    edges = {name: {target for target in imported(path) if target != name} for name, path in names().items()}
    done: set[str] = set()

    def visit(name, path):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for target in edges[name]:
                visit(target, [*path, name])
            done.add(name)

    for name in edges:
        visit(name, [])


def test_contributing_names_every_folder():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for folder in (p.name for p in PACKAGE.iterdir() if p.is_dir() and any(p.glob("*.py"))):
        assert f"`{folder}/`" in text, f"CONTRIBUTING.md does not say what {folder}/ is for"


MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION, MOST_ARGUMENTS = 300, 60, 10
# compat: a constructor takes timm's seven arguments beside the sizes of its architecture.
TAKES_MORE = {"local_vim.py:__init__": 11, "mamba_reg.py:__init__": 11, "plain_mamba.py:__init__": 11}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    assert text.count("\n") <= MOST_LINES_OF_A_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            where = f"{path.name}:{node.name}"
            assert node.end_lineno - node.lineno < MOST_LINES_OF_A_FUNCTION, where
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            taken = len([a for a in arguments if a.arg not in ("self", "cls")])
            assert taken <= TAKES_MORE.get(where, MOST_ARGUMENTS), where
