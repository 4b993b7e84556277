"""The documentation site: its pages exist, and the API reference has every public name."""

import ast
import importlib.util
import pkgutil
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import genesis_rl

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
LINKING = [*PAGES, ROOT / "README.md", ROOT / "CHANGELOG.md"]
MARKDOWN_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
REFERENCE = re.compile(r"\]\[(genesis_rl[\w.]*)\]|^::: (genesis_rl[\w.]*)", re.M)


def load_reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = load_reference()


def entries(navigation: list[Any]) -> list[str]:
    """The paths of all pages of a navigation."""
    found: list[str] = []
    for item in navigation:
        values = item.values() if isinstance(item, dict) else [item]
        for value in values:
            found += entries(value) if isinstance(value, list) else [value]
    return found


def library(folder: Path, prefix: str = "genesis_rl.") -> set[str]:
    """The dotted names of all modules, without importing them."""
    names = set()
    for module in pkgutil.iter_modules([str(folder)]):
        if not module.name.startswith("_"):
            names.add(prefix + module.name)
            names |= library(folder / module.name, f"{prefix}{module.name}.")
    return names


def exists(name: str) -> bool:
    """Whether a module, or a name that it defines, has an entry in the API reference."""
    found = reference.modules()
    module = name
    while module and module not in found:
        module = module.rpartition(".")[0]
    tree: Any = ast.parse(found[module].read_text(encoding="utf-8"))
    for part in name[len(module) + 1 :].split(".") if name != module else []:
        if part not in reference.defined(tree):
            return False
        tree = next((node for node in tree.body if getattr(node, "name", None) == part), None)
    return True


def test_every_module_has_one_page() -> None:
    pages = reference.pages()
    shown = [name for page in pages.values() for name in re.findall(r"^::: (\S+)", page, re.M)]
    assert len(shown) == len(set(shown))
    assert set(shown) == library(ROOT / "genesis_rl")
    assert sorted(entries(reference.navigation())) == sorted(pages)


@pytest.mark.parametrize("name", genesis_rl.__all__)
def test_every_public_name_is_listed(name: str) -> None:
    text = (DOCS / "api" / "index.md").read_text(encoding="utf-8")
    home = genesis_rl._HOMES.get(name)
    assert (f"[`{name}`][{home}.{name}]" if home else f"`{name}`") in text
    assert home is None or exists(f"{home}.{name}")


def test_packages_list_what_they_define_and_import() -> None:
    page = reference.pages()["api/envs/index.md"]
    assert "members: ['TASKS', 'FETCH_TASKS', 'register_envs']" in page
    assert "[`genesis_rl.envs.make`][genesis_rl.envs.make]" in page
    page = reference.pages()["api/world_model/index.md"]
    assert "[`WorldModel`][genesis_rl.world_model.model.WorldModel]" in page


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_references_resolve(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in MARKDOWN_LINK.findall(text):
        if not link.startswith(("http://", "https://")):
            assert (page.parent / link).exists(), link
    for match in REFERENCE.finditer(text):
        assert exists(match[1] or match[2]), match[0]


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r"(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)
    written = {page.relative_to(DOCS).as_posix() for page in PAGES}
    assert set(listed) == written | {"changelog.md"}
    assert len(listed) == len(set(listed))
