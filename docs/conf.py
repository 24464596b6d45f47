from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import django

_root = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_root / "docs/_ext"), str(_root / "example_project")]
# Models are imported to be documented, with the example's settings; no database is asked.
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example.settings")
django.setup()

project = "django-tenant-messaging"
author = copyright = "django-tenant-messaging contributors"  # noqa: A001 - Sphinx's name
_package = _root / "src/django_tenant_messaging/__init__.py"
release = re.search(r'__version__ = "(.+)"', _package.read_text())[1]  # type: ignore[index] # else it must fail
extensions = ["generated_reference", "myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nitpicky = True
# Code and what people type stay as written.
smartquotes = False
# Types of Django and of the standard library have no page here.
nitpick_ignore_regex = [("py:.*", r"(?!django_tenant_messaging\.).*")]
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
html_theme = "furo"
html_title = project
exclude_patterns = ["_build", "_generated"]
