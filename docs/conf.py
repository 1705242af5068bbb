"""
How Sphinx makes a site of the documents: ``make docs``.

The documents are plain reStructuredText with relative links, as a code host shows them.
So the source folder is the root of the tree, where each link means what it means there,
and this module turns links to documents into links to pages, and links to other files
into downloads.
"""

from __future__ import annotations

import os
import posixpath
import shutil
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

from kvd import __version__

project = "kvd"
release = __version__

root_doc = "README"
include_patterns = ["*.rst", "docs/**.rst"]
# Not walked through.
exclude_patterns = [".*", "bench", "build", "kvd", "tests"]

html_theme = "furo"
html_title = f"kvd {release}"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_use_index = False

# The order of the pages, which no document says.
_CONTENTS = """

.. toctree::
   :hidden:
   :caption: Use

   docs/running
   docs/operating
   docs/security
   docs/policies
   docs/client
   docs/moving
   docs/engines
   docs/wire
   docs/browser

.. toctree::
   :hidden:
   :caption: Clients
   :glob:

   docs/clients/*

.. toctree::
   :hidden:
   :caption: Understand

   docs/design
   docs/article
   docs/performance
   docs/laboratory
   docs/scale

.. toctree::
   :hidden:
   :caption: Change

   CONTRIBUTING
   NEWS
"""


class RelativeLinks(SphinxTransform):
    """
    Resolves links to files of the tree.
    """

    default_priority = 5

    def apply(self, **kwargs: Any) -> None:
        folder = posixpath.dirname(self.env.docname)
        for link in list(self.document.findall(nodes.reference)):
            target = link.get("refuri", "")
            if not target or ":" in target:
                continue
            path = posixpath.normpath(posixpath.join(folder, target))
            name, suffix = posixpath.splitext(path)
            text = nodes.inline()
            text.extend(link.children)
            if suffix == ".rst":
                resolved: nodes.Element = addnodes.pending_xref(
                    refdomain="std",
                    reftype="doc",
                    refdoc=self.env.docname,
                    # A file's name is for the code host; here a page has a title.
                    refexplicit=not link.astext().endswith(".rst"),
                    reftarget=f"/{name}",
                    refwarn=True,
                )
            else:
                resolved = addnodes.download_reference(reftarget=f"/{path}")
            resolved.append(text)
            resolved.source, resolved.line = link.source, link.line
            link.replace_self(resolved)


def _add_contents(app: Sphinx, docname: str, source: list[str]) -> None:
    if docname == root_doc:
        source[0] += _CONTENTS


def _add_index(app: Sphinx, exception: Exception | None) -> None:
    """
    A browser that asks for the folder gets the first page.
    """
    if exception is None:
        first = os.path.join(app.outdir, f"{root_doc}.html")
        shutil.copyfile(first, os.path.join(app.outdir, "index.html"))


def setup(app: Sphinx) -> dict[str, Any]:
    """
    Called by Sphinx.
    """
    app.add_transform(RelativeLinks)
    app.connect("source-read", _add_contents)
    app.connect("build-finished", _add_index)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
