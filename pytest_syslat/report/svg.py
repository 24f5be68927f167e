"""From matplotlib's SVG to what stands in a page.

In a page, several pictures share one space of ids, colours follow the reader's scheme, and a
strict content security policy (as of Jenkins) forbids `style` attributes. So ids get a prefix;
each style becomes presentation attributes, which no policy forbids; and each colour of the palette
gets a class beside its attribute, by which the page's style sheet replaces it.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "{http://www.w3.org/1999/xlink}href"
_NUMBER = re.compile(r"-?[0-9]+\.[0-9]{3,}")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_DROPPED = {
    f"{{{_SVG}}}metadata",
    f"{{{_SVG}}}style",
}
# Kept from the shorthand: the family is the page's matter.
_FONT = re.compile(r"(?:(bold|[0-9]{3}) )?([0-9.]+)px ")
_DEFAULTS = {"stroke-linejoin": "round", "stroke-linecap": "butt"}


def embed(text: str, name: str, title: str, description: str, classes: Mapping[str, str]) -> str:
    """Give a picture as an element for HTML.

    Args:
        text: A whole SVG file of matplotlib, with text as text.
        name: A prefix for its ids, unique in the page.
        title: Its name for those who do not see it.
        description: What it shows, in words.
        classes: By colour (`#rrggbb`) the class that stands for it.

    Returns:
        An `<svg>` element without a file's head. All that came from outside is escaped.
    """
    ET.register_namespace("", _SVG)
    root = ET.fromstring(text)  # noqa: S314 (it comes from matplotlib)
    for element in list(root.iter()):
        for child in list(element):
            if child.tag in _DROPPED:
                element.remove(child)
        _restyle(element, classes)
        _rename(element, name)
    for dropped in ("version", "width", "height"):
        root.attrib.pop(dropped, None)
    _, _, width, height = root.attrib["viewBox"].split()
    root.attrib |= {
        "width": f"{float(width):g}",
        "height": f"{float(height):g}",
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-desc",
        "font-family": "sans-serif",
        **_DEFAULTS,
    }
    for position, (tag, words) in enumerate((("title", title), ("desc", description))):
        told = ET.Element(f"{{{_SVG}}}{tag}", {"id": f"{name}-{tag}"})
        told.text = words
        root.insert(position, told)
    return ET.tostring(root, encoding="unicode")


def _restyle(element: ET.Element, classes: Mapping[str, str]) -> None:
    found: list[str] = []
    styles = element.attrib.pop("style", "")
    # A family's name may hold neither of the two characters.
    for declaration in filter(None, map(str.strip, styles.split(";"))):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font":
            font = _FONT.match(value)
            if font:
                element.set("font-size", font[2])
                if font[1]:
                    element.set("font-weight", font[1])
        elif name == "stroke-dasharray":
            element.set(name, value.replace(",", " "))
        elif name not in ("font-family", "font-variant", "font-stretch", "font-style"):
            element.set(name, value)
    for attribute in ("fill", "stroke"):
        colour = element.get(attribute)
        if colour is not None and colour in classes:
            found.append(f"{attribute[0]}-{classes[colour]}")
    if found:
        element.set("class", " ".join(found))
    for attribute in ("d", "x", "y", "transform"):
        if attribute in element.attrib:
            element.set(attribute, _NUMBER.sub(_rounded, element.attrib[attribute]).strip())
    if "d" in element.attrib:
        element.set("d", " ".join(element.attrib["d"].split()))
    element.tail = None
    if element.text is not None and not element.text.strip():
        element.text = None


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def _rename(element: ET.Element, name: str) -> None:
    if "id" in element.attrib:
        element.set("id", f"{name}-{element.attrib['id']}")
    if _XLINK in element.attrib:
        element.set("href", f"#{name}-{element.attrib.pop(_XLINK)[1:]}")
    for attribute, value in element.attrib.items():
        if "url(#" in value:
            element.set(attribute, _REFERENCE.sub(rf"url(#{name}-\1)", value))
