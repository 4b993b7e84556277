"""Griffe extension: read the docstring section `Example:` as the section `Examples:` with code."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):  # type: ignore[misc, unused-ignore]
    """Rename the section, which griffe knows in the plural only."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rename it in the docstring of a module, class or function."""
        if obj.docstring:
            obj.docstring.value = re.sub(
                r"^Example:$", "Examples:", obj.docstring.value, flags=re.M
            )
