"""Checks a page that ringroom wrote, with parsers of the standard library: well formed, self-contained, readable by those who can't see it."""

import html.parser
import re
import sys
import xml.etree.ElementTree as tree

VOID = {"meta", "br", "hr", "img", "input", "link"}
FORBIDDEN_TAGS = {"script", "link", "img", "iframe", "object", "embed", "form", "base", "use", "image", "foreignObject", "a"}


class Balance(html.parser.HTMLParser):
    """An HTML parser's view: every tag that needs it is closed, in order."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.wrong += [f"attribute {name}" for name, _ in attrs if name.startswith("on") or name in ("src", "href", "action", "style")]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}>")


def main(path, hostile):
    text = open(path, encoding="utf-8").read()
    balance = Balance()
    balance.feed(text)
    balance.close()
    wrong = balance.wrong + [f"left open: {tag}" for tag in balance.open]
    root = tree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))
    tags = [element.tag for element in root.iter()]
    wrong += [f"<{tag}>" for tag in tags if tag in FORBIDDEN_TAGS]
    spoken = ("aria-label", "content")
    active = [value for element in root.iter() for name, value in element.attrib.items() if name not in spoken] + [root.findtext("./head/style")]
    wrong += [word for word in ("http:", "https:", "url(", "@import", "NaN", "inf", "javascript:") if any(word in value for value in active)]
    pictures = [svg for svg in root.iter("svg") if svg.get("role") == "img"]
    for svg in pictures:
        if not (svg.get("aria-label") and svg.findtext("title") and svg.findtext("desc")):
            wrong.append("a picture without words")
        if not [t for t in svg.iter("text") if "axis" in t.get("class", "")]:
            wrong.append("a picture without an axis label")
        for number in re.findall(r'-?\d+\.?\d*(?:e-?\d+)?', " ".join(p.get("d", "") for p in svg.iter("path"))):
            if abs(float(number)) > 2_000:
                wrong.append(f"drawn far outside: {number}")
    for table in root.iter("table"):
        heads = len(table.findall("./thead/tr/th"))
        wrong += [f"a row of {len(row)} cells under {heads} heads" for row in table.findall("./tbody/tr") if len(row) != heads]
        if not table.findtext("caption"):
            wrong.append("a table without a caption")
    shown = "".join(root.itertext())
    if hostile and hostile not in shown:
        wrong.append("a name from outside is not shown as it is")
    print(f"{len(pictures)} pictures, {tags.count('table')} tables")
    sys.exit("\n".join(wrong) if wrong else 0)


main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "")
