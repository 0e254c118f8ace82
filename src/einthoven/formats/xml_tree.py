"""XML without its dangers: no entities, no external references, bounded depth and size.

defusedxml refuses declared entities (billion laughs) and whatever is to be fetched; a document type
alone is allowed, because GE MUSE writes one. The number of elements and their depth are counted
while they are read. The text's encoding is settled here: exporters declare names that the XML
parser does not know ("ISO8859-1").
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

from einthoven.errors import RecordError
from einthoven.formats.content import MAX_XML_MB, finite_number, needs_library

MOST_ELEMENTS = 500_000
DEEPEST_ELEMENT = 100
LARGEST_TAG = 2**19
# What a byte of any of these can do is become a character.
XML_ENCODINGS = frozenset(
    {"utf-8", "ascii", "iso8859-1", "iso8859-15", "cp1252", "utf-16", "utf-16-le", "utf-16-be"}
)

_XML_DECLARATION = re.compile(r"^\s*<\?xml[^>]*?\?>")
_XML_DECLARED_ENCODING = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["']""")


def decode_xml(data: bytes) -> str:
    """The text of an XML file, without its declaration.

    Raises:
        RecordError: its encoding is not known, or it is damaged.
    """
    encoding = _xml_encoding(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise RecordError(f"the XML is no {encoding} text ({error.reason})") from None
    return _XML_DECLARATION.sub("", text.lstrip("\ufeff"), count=1)


def _xml_encoding(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    for start, encoding in ((b"<\0", "utf-16-le"), (b"\0<", "utf-16-be")):
        if data.startswith(start):
            return encoding
    declared = _XML_DECLARED_ENCODING.match(data[:200])
    name = declared[1].decode("ascii", "replace") if declared else "utf-8"
    try:
        known = codecs.lookup(name).name
    except LookupError:
        known = ""
    if known not in XML_ENCODINGS:
        raise RecordError(f"the XML declares the encoding {name[:40]!r}, which is not known")
    # What is declared as UTF-16 and is not has been rewritten by a program that kept the line.
    return "utf-8-sig" if known in ("utf-8", "ascii") or known.startswith("utf-16") else known


class _BoundedTree(TreeBuilder):
    """Builds a tree until it has too many elements or is too deep."""

    def __init__(self) -> None:
        super().__init__()
        self.n_events = 0
        self._n_elements = 0
        self._depth = 0

    def start(self, tag: Any, attrs: Any, /) -> Element:
        self.n_events += 1
        self._n_elements += 1
        self._depth += 1
        if self._n_elements > MOST_ELEMENTS or self._depth > DEEPEST_ELEMENT:
            raise RecordError(
                f"the XML has over {MOST_ELEMENTS:,} elements, or {DEEPEST_ELEMENT} within another"
            )
        return super().start(tag, attrs)

    def end(self, tag: Any, /) -> Element:
        self.n_events += 1
        self._depth -= 1
        return super().end(tag)

    def data(self, data: Any, /) -> None:
        self.n_events += 1
        super().data(data)


def parse_xml(data: bytes) -> Element:
    """The root of an XML file.

    Raises:
        ConfigError: defusedxml is not installed.
        RecordError: it is damaged, too large, or has entities or external references.
    """
    try:
        from defusedxml.common import DefusedXmlException
        from defusedxml.ElementTree import DefusedXMLParser
    except ImportError:
        raise needs_library("defusedxml", "XML") from None
    if len(data) > MAX_XML_MB * 2**20:
        raise RecordError(f"the XML is larger than {MAX_XML_MB} MiB")
    tree = _BoundedTree()
    parser = DefusedXMLParser(
        target=tree, encoding="utf-8", forbid_dtd=False, forbid_entities=True,
        forbid_external=True,
    )  # fmt: skip
    try:
        _feed(parser, tree, decode_xml(data).encode("utf-8"))
        root = parser.close()
    except DefusedXmlException:
        raise RecordError(
            "the XML declares entities or external references; these are not read"
        ) from None
    except (ParseError, UnicodeEncodeError, ValueError) as error:
        raise RecordError(f"the XML is damaged ({error})") from None
    if not isinstance(root, Element):
        raise RecordError("the XML has no element")
    return root


def _feed(parser: Any, tree: _BoundedTree, text: bytes) -> None:
    """Parse in parts; a tag of millions of attributes would fill the memory before it is told."""
    seen = 0
    for start in range(0, len(text), LARGEST_TAG):
        part = text[start : start + LARGEST_TAG]
        parser.feed(part)
        if tree.n_events == seen and len(part) == LARGEST_TAG:
            raise RecordError(f"the XML has a tag or comment of over {LARGEST_TAG:,} bytes")
        seen = tree.n_events


# Looking into a tree, whatever its namespace ---------------------------------------------------


def tag_of(element: Element) -> str:
    """An element's name without its namespace."""
    return str(element.tag).rpartition("}")[2]


def descendants(element: Element, tag: str) -> Iterator[Element]:
    """All elements of a name below an element, itself included, in the file's order."""
    return (found for found in element.iter() if tag_of(found) == tag)


def child(element: Element, *path: str) -> Element | None:
    """The first element along a path of names."""
    found: Element | None = element
    for tag in path:
        found = next((inner for inner in found if tag_of(inner) == tag), None)  # type: ignore[union-attr]
        if found is None:
            return None
    return found


def child_text(element: Element, *path: str) -> str | None:
    """The text of the first element along a path of names; None where there is no element."""
    found = child(element, *path)
    return None if found is None else (found.text or "").strip()


def child_number(element: Element, what: str, *path: str) -> float:
    """The number in the first element along a path of names.

    Raises:
        RecordError: it is absent or none.
    """
    return finite_number(child_text(element, *path), what)


_FIRST_TAG = re.compile(r"<([A-Za-z_][\w.:-]*)")
_NOT_TAGS = re.compile(r"<!--.*?(?:-->|$)|<\?.*?(?:\?>|$)|<!DOCTYPE[^>\[]*", re.DOTALL)


def root_name(head: bytes) -> str:
    """The name of the root element, from a file's first bytes; empty where it is no XML."""
    try:
        encoding = _xml_encoding(head)
    except RecordError:
        encoding = "latin-1"
    text = head.decode(encoding, "ignore").lstrip("\ufeff \t\r\n")
    if not text.startswith("<"):
        return ""
    match = _FIRST_TAG.search(_NOT_TAGS.sub("", text))
    return match[1].rpartition(":")[2] if match else ""
