from __future__ import annotations

import re
from pathlib import Path

project = "django-tenant-messaging"
author = copyright = "django-tenant-messaging contributors"  # noqa: A001 - Sphinx's name
_package = Path(__file__).resolve().parents[1] / "src/django_tenant_messaging/__init__.py"
release = re.search(r'__version__ = "(.+)"', _package.read_text())[1]  # type: ignore[index] # else it must fail
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nitpicky = True
html_theme = "furo"
html_title = project
exclude_patterns = ["_build"]
