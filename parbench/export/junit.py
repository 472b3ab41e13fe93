"""JUnit's XML, which CI services read."""

from collections import Counter
from xml.etree import ElementTree

from parbench.export.base import Document, Format
from parbench.text import plain


class Junit(Format):
    """A test suite of the document's cases. A failure or an error says why, and so does what was skipped."""

    name = "junit"
    needs = "cases"

    def write(self, document: Document) -> str:
        """One suite, named after the command."""
        suite = ElementTree.Element("testsuite", {"name": f"parbench {document.command}"})
        for case in document.cases:
            attributes = {"classname": plain(case.cell), "name": case.name, "time": "0"}
            element = ElementTree.SubElement(suite, "testcase", attributes)
            if case.outcome != "passed":
                kind = {} if case.outcome == "skipped" else {"type": "parbench"}
                ElementTree.SubElement(element, case.outcome, {"message": plain(case.message), **kind})
        outcomes = Counter(case.outcome for case in document.cases)
        suite.set("failures", str(outcomes["failure"]))
        suite.set("errors", str(outcomes["error"]))
        suite.set("skipped", str(outcomes["skipped"]))
        suite.set("tests", str(len(document.cases)))
        suites = ElementTree.Element("testsuites")
        suites.append(suite)
        ElementTree.indent(suites)
        return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"
