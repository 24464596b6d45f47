from __future__ import annotations

import gettext
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from django.utils.translation.template import templatize

import django_tenant_messaging

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(django_tenant_messaging.__file__).parent
CATALOGUES = sorted(PACKAGE.glob("locale/*/LC_MESSAGES/django.po"))
TEXT = r'((?:"(?:[^"\\]|\\.)*"\s*)+)'
ENTRY = re.compile(rf"^(?:msgid|msgid_plural|msgstr|msgstr\[\d\]) {TEXT}", re.MULTILINE)
#: Calls of gettext in Python, and in what Django makes of a template.
CALL = re.compile(r"(?:\b_|gettext|gettext_lazy)\(\s*u?((?:\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')\s*)+\)")
LITERAL = re.compile(r"\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'")


def entries(catalogue: Path) -> Iterator[list[str]]:
    """The texts of each entry: the original, its plural if it has one, and the translations."""
    for block in catalogue.read_text().split("\n\n")[1:]:
        yield ["".join(text for text, _ in LITERAL.findall(part)) for part in ENTRY.findall(block)]


def used() -> set[str]:
    """Every text that the package gives to gettext, plurals apart."""
    found = set()
    sources = [(path, path.read_text()) for path in PACKAGE.rglob("*.py")]
    sources += [(path, templatize(path.read_text())) for path in PACKAGE.rglob("*.html")]
    for _path, source in sources:
        for call in CALL.finditer(source):
            found.add("".join(one or other for one, other in LITERAL.findall(call[0])))
    return {text.replace("\\'", "'") for text in found}


@pytest.mark.parametrize("catalogue", CATALOGUES, ids=lambda path: path.parts[-3])
class TestCatalogue:
    def test_every_text_is_there(self, catalogue: Path) -> None:
        texts = used()
        assert len(texts) > 100
        assert texts - {original for original, *_ in entries(catalogue)} == set()

    def test_every_text_is_translated(self, catalogue: Path) -> None:
        source = catalogue.read_text()
        assert "fuzzy" not in source
        assert "#~" not in source
        for original, *translations in entries(catalogue):
            assert all(translations), original

    def test_translations_keep_what_is_filled_in(self, catalogue: Path) -> None:
        for original, *translations in entries(catalogue):
            names = set(re.findall(r"%\(\w+\)[sd]", original))
            for translation in translations:
                assert set(re.findall(r"%\(\w+\)[sd]", translation)) == names

    def test_it_is_compiled(self, catalogue: Path) -> None:
        with catalogue.with_suffix(".mo").open("rb") as file:
            compiled = gettext.GNUTranslations(file)
        for original, *translations in entries(catalogue):
            if len(translations) == 1:
                assert compiled.gettext(original) == translations[0]
            else:
                plural, *forms = translations
                assert {compiled.ngettext(original, plural, number) for number in (1, 2)} == set(forms)


def test_there_is_french() -> None:
    assert [path.parts[-3] for path in CATALOGUES] == ["fr"]
