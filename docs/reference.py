"""Generated parts of the documentation site: the API reference, the changelog and linked files.

MkDocs calls the functions `on_...` (`hooks:` in mkdocs.yml). The rest needs only the standard
library, and reads the source without importing it.
"""

import ast
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PACKAGE = "genesis_rl"
API = "API reference"  # title of the section in mkdocs.yml that the modules are appended to
_LINK = re.compile(r"(?<=\]\()(\.\./[^)#\s]+)(?=[)#])")


def modules() -> dict[str, Path]:
    """Return the public modules and packages of the library, by dotted name, sorted."""
    found = {}
    for path in (ROOT / PACKAGE).rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if not any(part.startswith("_") for part in name.split(".")):
            found[name] = path
    return dict(sorted(found.items()))


def defined(tree: ast.Module | ast.ClassDef) -> list[str]:
    """Return the names that a module or class defines itself, without private ones."""
    names = []
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                names.append(name)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names.append(name)
    return [name for name in names if not name.startswith("_") or name == "__init__"]


def pages() -> dict[str, str]:
    """Return the Markdown of every module's page, by its path in docs/."""
    return {
        _page_of(name, path): _module_page(name, path)
        for name, path in modules().items()
        if name != PACKAGE
    }


def navigation() -> list[dict[str, Any]]:
    """Return the entries of the navigation: modules, and packages with their modules."""
    tree: dict[str, Any] = {}
    for name, path in modules().items():
        branch = tree
        for part in name.split(".")[1:]:
            branch = branch.setdefault(part, {})
        if name != PACKAGE:
            branch[""] = _page_of(name, path)
    return _entries(tree)


def on_config(config: "MkDocsConfig") -> "MkDocsConfig":
    """Append the modules to the section of the API reference."""
    (section,) = (item[API] for item in config.nav or [] if isinstance(item, dict) and API in item)
    section.extend(navigation())
    return config


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add the modules' pages, the changelog, and the files outside docs/ that pages link to."""
    from mkdocs.structure.files import File

    for uri, content in pages().items():
        files.append(File.generated(config, uri, content=content))
    changelog = str(ROOT / "CHANGELOG.md")
    files.append(File.generated(config, "changelog.md", abs_src_path=changelog))
    for page in files.documentation_pages():
        for _, outside in _links_outside(page.content_string, page.src_uri):
            if outside not in files.src_uris and (ROOT / outside).is_file():
                source = str(ROOT / outside)
                files.append(File.generated(config, outside, abs_src_path=source))
    return files


def on_page_markdown(markdown: str, page: "Page", config: "MkDocsConfig", files: "Files") -> str:
    """Point links outside docs/ to the copies of their files."""
    if page.file.src_uri == "api/index.md":
        markdown += "\n".join(["", "## Modules", "", *_table(PACKAGE)])
    for link, outside in _links_outside(markdown, page.file.src_uri):
        target = posixpath.relpath(outside, posixpath.dirname(page.file.src_uri))
        markdown = markdown.replace(f"]({link}", f"]({target}")
    return markdown


def _links_outside(markdown: str, uri: str) -> Iterator[tuple[str, str]]:
    """Yield a page's relative links outside docs/, each with its path from the root."""
    for link in sorted(set(_LINK.findall(markdown))):
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(uri), link))
        if not path.startswith("docs/"):
            yield link, path


def _page_of(name: str, path: Path) -> str:
    uri = "/".join(["api", *name.split(".")[1:]])
    return f"{uri}/index.md" if path.name == "__init__.py" else f"{uri}.md"


def _module_page(name: str, path: Path) -> str:
    lines = [
        f"::: {name}",
        "    options:",
        "      show_root_heading: true",
        "      heading_level: 1",
    ]
    if path.name == "__init__.py":
        tree = ast.parse(path.read_text(encoding="utf-8"))
        lines.append(f"      members: {defined(tree) or 'false'}")
        rows = [
            f"| [`{alias.name}`][{node.module}.{alias.name}] | `{node.module}` |"
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{name}.")
            for alias in node.names
            if not alias.name.startswith("_")
        ]
        if rows:
            lines += ["", "## Names", "", "| name | defined in |", "|---|---|", *rows]
        lines += ["", "## Modules", "", *_table(name)]
    return "\n".join([*lines, ""])


def _table(package: str) -> list[str]:
    """Return the table of a package's modules with the first lines of their docstrings."""
    rows = ["| module | contents |", "|---|---|"]
    for name, path in modules().items():
        if name.rpartition(".")[0] == package:
            doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            rows.append(f"| [`{name}`][{name}] | {doc.partition(chr(10))[0]} |")
    return rows


def _entries(tree: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for title, branch in tree.items():
        if title:
            own, rest = branch.get(""), _entries(branch)
            found.append({title: [own, *rest] if rest else own})
    return found
