"""Every example in the documentation runs, and every link in it leads somewhere.

A page's ```python blocks are executed in order, as if they were one module. Behind each block stands
a comment, hidden where Markdown is rendered, that uses what the block defines:

    <!-- test
    async with serving(app) as server:
        assert (await server.get("/")).json() == {}
    -->

It is executed in the same namespace, may await, and finds there what `tools()` gives it. One that
begins with `<!-- test asyncio`, or `trio`, is for that backend alone. A page that needs threads says
so by the comment `<!-- real_time -->`. Files that examples write go to an empty folder.
"""

import ast
import inspect
import re
import tomllib
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest

import fastapi_tasks
from tests_trio.support import Server, serving, settle

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
LANGUAGES = {"python", "sh", "text", "toml"}
PART = re.compile(
    r"^```(\w*)\n(.*?)^```$|^<!-- (test(?: asyncio| trio)?)\n(.*?)^-->$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")


class Part(NamedTuple):
    """A block of code, or a test of the one before it."""

    kind: str  # "test", perhaps with its backend, or the language
    source: str
    line: int  # how many lines stand before the source

    @property
    def is_test(self) -> bool:
        return self.kind.startswith("test")


def parts(page: Path) -> Iterator[Part]:
    text = page.read_text()
    for match in PART.finditer(text):
        kind, source = match[1] or match[3], match[2] or match[4]
        yield Part(kind, source, text.count("\n", 0, match.start()) + 1)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def all_pages() -> list[Any]:
    return [pytest.param(page, id=name_of(page)) for page in PAGES]


def pages_with_examples() -> list[Any]:
    return [
        pytest.param(page, id=name_of(page), marks=marks(page))
        for page in PAGES
        if any(part.kind == "python" for part in parts(page))
    ]


def marks(page: Path) -> list[pytest.MarkDecorator]:
    return [pytest.mark.real_time] if "<!-- real_time -->" in page.read_text() else []


async def post(server: Server, path: str, **options: Any) -> Any:
    async with server.client as client:
        return await client.post(path, **options)


def is_documented(documented: Any, real: Any) -> None:
    """A stub in the reference has the real thing's parameters; a class's, its public members."""
    if inspect.isfunction(documented):
        assert parameters(documented) == parameters(real), documented
        return
    names = {*public(vars(documented)), *public(inspect.get_annotations(documented))}
    for base in documented.__bases__:
        names |= set(public(dir(base)))
    made = getattr(real.__init__, "__code__", None)  # attributes of instances alone
    assert set(public(dir(real))) <= names, real
    assert names <= {*dir(real), *(made.co_names if made else ())}, real
    for name, member in vars(documented).items():
        if inspect.isfunction(member):
            is_documented(member, getattr(real, name))


def public(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith("_")]


def parameters(function: Any) -> list[Any]:
    signature = inspect.signature(function)
    return [(p.name, p.kind, p.default) for p in signature.parameters.values()]


def tools(page: Path, printed: list[str], caplog: Any) -> dict[str, Any]:
    return {
        "__name__": page.stem,
        "print": lambda *values: printed.append(" ".join(map(str, values))),
        "printed": printed,
        "caplog": caplog,
        "anyio": anyio,
        "fastapi_tasks": fastapi_tasks,
        "is_documented": is_documented,
        "post": post,
        "pytest": pytest,
        "serving": serving,
        "settle": settle,
    }


@pytest.mark.parametrize("page", pages_with_examples())
async def test_examples(page, caplog, backend_name, tmp_path, monkeypatch):
    """What a page shows is what runs."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO", "fastapi_tasks")
    printed: list[str] = []
    namespace = tools(page, printed, caplog)
    for part in parts(page):
        source = "\n" * part.line + part.source  # tracebacks show the page's lines
        if part.kind == "python":
            exec(compile(source, page, "exec", dont_inherit=True), namespace)
        elif part.kind in ("test", f"test {backend_name}"):
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            coroutine = eval(compile(source, page, "exec", flags, dont_inherit=True), namespace)
            if coroutine is not None:
                await coroutine
            printed.clear()
            caplog.clear()


@pytest.mark.parametrize("page", all_pages())
def test_no_example_is_left_out(page):
    """Each Python block has its test, and nothing passes for something else."""
    text = page.read_text()
    found = list(parts(page))
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * sum(
        not part.is_test for part in found
    )
    assert text.count("<!-- test") == sum(part.is_test for part in found)
    assert {part.kind for part in found if not part.is_test} <= LANGUAGES
    code = [part for part in found if part.is_test or part.kind == "python"]
    for part, following in zip_longest(code, code[1:]):
        if part.kind == "python":
            assert following is not None, f"line {part.line}: an example without a test"
            assert following.is_test, f"line {part.line}: an example without a test"


@pytest.mark.parametrize("page", all_pages())
def test_links(page):
    """Every relative link leads to a file that exists, and to a heading in it."""
    for target, heading in LINK.findall(prose(page)):
        if not target.startswith(("https:", "http:")):
            file = (page.parent / target).resolve() if target else page
            assert file.is_relative_to(ROOT), target
            assert file.exists(), target
            if heading:
                assert heading in headings(file), f"{target}#{heading}"


def prose(page: Path) -> str:
    return PART.sub("", page.read_text())


def headings(page: Path) -> list[str]:
    """Their addresses, made as Markdown's renderers do."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


def test_the_map_shows_every_page():
    """`docs/index.md` links to each of the other pages."""
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / target).resolve() for target, _ in LINK.findall(prose(index))}
    assert linked >= {page for page in PAGES if page.is_relative_to(index.parent)} - {index}


def test_the_design_shows_every_file():
    """Its tables have each file of the library, in the order of the import contracts."""
    page, source = ROOT / "docs" / "design" / "index.md", ROOT / "src" / "fastapi_tasks"
    rows = re.findall(r"^\| \[`\w+\.py`\]\((.*?)\)", page.read_text(), re.MULTILINE)
    shown = [(page.parent / row).resolve() for row in rows]
    assert sorted(shown) == sorted(file for file in source.rglob("*.py") if file.stat().st_size)
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for contract in config["tool"]["importlinter"]["contracts"]:
        for wing in contract.get("containers", ()):
            files = [file.stem for file in shown if file.parent.name == wing.split(".")[-1]]
            for layer in contract["layers"]:
                names = layer.split(" | ")
                assert sorted(files[: len(names)]) == sorted(names)
                del files[: len(names)]


@pytest.mark.parametrize("name", fastapi_tasks.__all__)
def test_the_reference_has_every_name(name):
    """A public name has a heading of its own."""
    assert name.lower() in headings(ROOT / "docs" / "reference.md")


def test_every_guarantee_is_there():
    """G1 to G23, in that order."""
    text = (ROOT / "docs" / "design" / "guarantees.md").read_text()
    assert re.findall(r"^\*\*(G\d+)\*\*", text, re.MULTILINE) == [f"G{n}" for n in range(1, 25)]


def test_every_proof_is_there():
    """Each guarantee names tests that prove it, and each of those tests exists."""
    text = (ROOT / "docs" / "design" / "guarantees.md").read_text()
    assert text.count("- *Proof:* `test_") == 24
    for file, test in re.findall(r"`(test_\w+\.py)::(test_\w+)`", text):
        folder = "tests_asyncio" if file == "test_asyncio_only.py" else "tests_trio"
        source = (ROOT / folder / file).read_text()
        assert re.search(rf"^(async )?def {test}\(", source, re.MULTILINE), f"{file}::{test}"
