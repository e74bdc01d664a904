"""Problem documents."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.problems import problem
from gateway.errors import InvalidField


def test_problem_has_replicates_shape():
    """The clients' error classes find what they look for, and a newline ends the body."""
    assert problem(404, "Not found", "No.") == b'{"title":"Not found","detail":"No.","status":404}\n'


def test_request_id_is_in_every_document_but_a_404():
    """People paste the document into tickets; a 404 must not differ between unknown ids and those of others."""
    assert msgspec.json.decode(problem(422, "T", "D", request_id="abc"))["request_id"] == "abc"
    assert problem(404, "Not found", "No.", request_id="abc") == problem(404, "Not found", "No.")


def test_extra_fields_are_added():
    """A page can show which field is wrong; a client can wait as long as it should."""
    body = msgspec.json.decode(
        problem(422, "T", "D", invalid_fields=[InvalidField("required", "input", "prompt is required")], retry_after=0)
    )
    assert body == {
        "title": "T",
        "detail": "D",
        "status": 422,
        "invalid_fields": [{"type": "required", "field": "input", "description": "prompt is required"}],
        "retry_after": 0,
    }


@given(st.text(), st.text())
def test_any_text_makes_a_valid_document(title, detail):
    """Quotes and line breaks in a detail break nothing."""
    body = msgspec.json.decode(problem(400, title, detail))
    assert (body["title"], body["detail"]) == (title, detail)
