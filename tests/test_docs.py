"""What README and the documentation show runs: every block of Python, every option of a command, every module and target."""

import importlib.util
import pkgutil
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from skimba.cli._commands import app

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")) if path.name != "results.md")
MOST_WORDS = 900  # of the README
NOT_RUN = "<!-- not run: "  # before a block, with the reason


def blocks(page, language):
    """The code blocks of a language, but those that say why they do not run."""
    text = page.read_text()
    for match in re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        before = text[: match.start()].rstrip().splitlines()
        if not (before and before[-1].startswith(NOT_RUN)):
            yield match[1]


def shell_commands():
    for page in PAGES:
        for block in blocks(page, "sh"):
            yield from (line for line in block.splitlines() if line.strip())
        yield from re.findall(r"`((?:skimba|make|python -m) [^`]+)`", page.read_text())


@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks(page, "python"))], ids=lambda page: page.name)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "docs"}
    for code in blocks(page, "python"):
        exec(compile(code, str(page), "exec"), names)


@pytest.mark.parametrize("line", sorted(set(shell_commands())))
def test_shell_commands_exist(line):
    words = shlex.split(line, comments=True)
    words = words[words.index("-m") + 1 :] if "-m" in words else words
    program, *arguments = words
    options = [word.split("=")[0] for word in arguments if word.startswith("--")]
    if program == "skimba":
        commands = get_command(app).commands
        names = [word for word in arguments if not word.startswith("-")][:1]
        known = {option for name in names for parameter in commands[name].params for option in parameter.opts}
        assert set(options) <= known | {"--help"}
    elif program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(arguments) <= set(targets)
    elif program.startswith("benchmarks."):
        assert importlib.util.find_spec(program) is not None
        files = (
            f"{program.replace('.', '/')}.py",
            "benchmarks/running.py",
        )  # the latter has what studies have in common
        source = "".join((ROOT / file).read_text() for file in files)
        assert all(f'"{option}"' in source for option in options)
    else:
        assert program in {"pip", "python", "venv", "git", "cd"}


def test_the_readme_is_an_introduction():
    words = [word for word in (ROOT / "README.md").read_text().split() if re.search(r"\w", word)]  # no edges of tables
    assert len(words) <= MOST_WORDS


def test_the_commands_of_the_pages_are_found():
    assert len(list(shell_commands())) > 10


def test_the_names_that_pages_link_to_exist():
    linked = {
        name
        for page in (ROOT / "docs").rglob("*.md")
        for name in re.findall(r"\{py:\w+\}`(?:[^`<]*<|~)?([\w.]+)>?`", page.read_text())
    }
    assert len(linked) > 5
    for name in linked:
        assert pkgutil.resolve_name(name).__doc__
