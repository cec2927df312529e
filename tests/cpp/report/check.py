"""Checks a page of examples-cpp/report: well-formed XML, nothing that runs or is fetched, and every given text in it.

    check.py PAGE TEXT...
"""
import sys
import xml.etree.ElementTree as ElementTree


def check(page, texts):
    root = ElementTree.parse(page).getroot()
    for element in root.iter():
        tag = element.tag.rpartition("}")[2]
        assert tag not in ("script", "img", "link", "iframe", "object", "embed", "base"), f"there is a <{tag}>"
        for name, value in element.attrib.items():
            assert not name.lower().startswith("on") and name != "src", f"<{tag}> has {name}"
            assert name != "href" or value.startswith("#"), f"<{tag}> leads to {value}"
    head = ElementTree.tostring(root, encoding="unicode")
    assert "url(" not in head and "@import" not in head, "the style fetches something"
    words = " ".join(" ".join(root.itertext()).split())
    for text in texts:
        assert text in words, f"no {text!r} in the page"


check(sys.argv[1], sys.argv[2:])
