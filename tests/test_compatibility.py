"""docs/compatibility.md is what the results say."""

from gatenorm_stream.families.table import FAMILIES
from gatenorm_stream.families.wrappers import WRAPPERS
from gatenorm_stream.formats.vllm_served import NOT_SERVED, SERVED
from tests import compatibility


def test_the_document_is_made_from_the_results() -> None:
    assert compatibility.DOCUMENT.read_text("utf-8") == compatibility.document(compatibility.results())


def test_every_architecture_is_served_by_vllm_or_has_a_reason() -> None:
    assert {row.architecture for row in FAMILIES} == {*SERVED, *NOT_SERVED}
    assert not set(SERVED) & NOT_SERVED.keys()


def test_every_cell_of_the_families_is_filled() -> None:
    assert "| not run |" not in compatibility.document(compatibility.results())


def test_every_result_is_of_a_known_family() -> None:
    known = {name for row in FAMILIES for name in (row.model_type, row.architecture)}
    known |= WRAPPERS.keys()
    assert {entry["family"] for entry in compatibility.results()} <= known
