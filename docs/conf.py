"""The site: `scripts/docs` builds it. Pages are Markdown (MyST) that reads on GitHub as well."""

import re
from typing import Any

from docutils import nodes
from pydantic import BaseModel
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from fluidgate import __all__ as public
from fluidgate import __version__

project = "fluidgate"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
nitpicky = True
# Nothing is fetched while the pages are built or read.
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_title = f"fluidgate {release}"
html_copy_source = False
html_show_copyright = False
pygments_style = "friendly"
# Tables of numbers with a quote in them are no shell.
suppress_warnings = ["misc.highlighting_failure"]

# Docstrings and help texts put names between single backticks.
default_role = "code"
smartquotes = False
napoleon_use_ivar = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
python_use_unqualified_type_names = True
# What is not on the site: types of other packages, and those within fluidgate that are no public names.
nitpick_ignore_regex = [(r"py:(class|obj|data|exc)", r".*")]

# The anchors that GitHub gives to headings.
myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]

copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"

PAGE_ELSEWHERE = re.compile(r"\[([^\]]+)\]\(\.\./\.\./([\w/.-]+\.md)\)")


def setup(app: Sphinx) -> None:
    app.connect("source-read", _name_pages_elsewhere)
    app.connect("autodoc-process-docstring", _list_fields, priority=1)
    app.connect("autodoc-process-signature", _name_fields)
    app.connect("missing-reference", _lead_to_public_name)


def _name_pages_elsewhere(app: Sphinx, page: str, source: list[str]) -> None:
    """Pages of the repository that are not of the site are named, not linked."""
    source[0] = PAGE_ELSEWHERE.sub(r"\1 (`\2`)", source[0])


def _list_fields(app: Sphinx, what: str, name: str, documented: Any, options: Any, lines: list[str]) -> None:
    """The fields of a table of the scenario file are listed with what their descriptions say."""
    if what == "class" and issubclass(documented, BaseModel):
        fields = documented.model_fields.items()
        lines += ["Attributes:", *(f"    {each}: {field.description or ''}" for each, field in fields), ""]


def _name_fields(
    app: Sphinx, what: str, name: str, documented: Any, options: Any, signature: str, returned: str
) -> tuple[str, str] | None:
    """The signature of such a table is its keys; what they are by default stands in the list below it."""
    if what == "class" and issubclass(documented, BaseModel):
        return f"(*, {', '.join(documented.model_fields)})", returned
    return None


def _lead_to_public_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: nodes.Element
) -> nodes.Element | None:
    """A type that has a public name is on the site under that, wherever it is defined."""
    name = node.get("reftarget", "").rpartition(".")[2]
    if node.get("refdomain") != "py" or name not in public:
        return None
    python, page = env.domains.python_domain, node.get("refdoc", "")
    return python.resolve_xref(env, page, app.builder, "obj", f"fluidgate.{name}", node, shown)
