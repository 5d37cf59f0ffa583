"""docs/compatibility.md is what the results say."""

import compatibility


def test_the_document_is_made_from_the_results() -> None:
    assert compatibility.DOCUMENT.read_text("utf-8") == compatibility.document(compatibility.results())


def test_every_result_is_of_a_known_family() -> None:
    known = {name for row in compatibility.FAMILIES for name in (row.model_type, row.architecture)}
    known |= compatibility.WRAPPERS.keys()
    assert {entry["family"] for entry in compatibility.results()} <= known
