"""Content-Disposition of a form's parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.form_parts import Disposition, read_disposition


@pytest.mark.parametrize(
    ("header", "name", "filename", "spelled"),
    [
        ('form-data; name="content"', "content", "", ""),
        ("form-data; name=content", "content", "", ""),
        ('Form-Data;NAME="content";', "content", "", ""),
        ('form-data; name="content"; filename="a.txt"', "content", "a.txt", '; filename="a.txt"'),
        ('form-data; name="content"; filename="a;b;c"', "content", "a;b;c", '; filename="a;b;c"'),
        (r'form-data; name="content"; filename="a\"b\\c\d"', "content", r'a"b\c\d', r'; filename="a\"b\\c\d"'),
        ('form-data; name="content"; filename="a%22b"', "content", "a%22b", '; filename="a%22b"'),
        ("form-data; name=\"content\"; filename*=UTF-8''%e2%82%ac", "content", "€", "; filename*=UTF-8''%e2%82%ac"),
        (
            'form-data; filename="x"; filename*=utf-8\'en\'y; name="content"',
            "content",
            "y",
            "; filename=\"x\"; filename*=utf-8'en'y",
        ),
        ('form-data; name="content"; filename*=bad; filename="x"', "content", "x", '; filename="x"; filename*=bad'),
        ('form-data; name="content"; filename="a\r\nb"', "content", "ab", '; filename="ab"'),
        ('form-data; name="con\\"tent"', 'con"tent', "", ""),
    ],
)
def test_names_are_read_and_their_spelling_is_kept(header, name, filename, spelled):
    """Upstream gets what the caller wrote; the record has what it means."""
    assert read_disposition(header) == Disposition(name, filename, spelled)


@pytest.mark.parametrize(
    "header",
    [
        "", "form-data", "form-data; filename=x", 'attachment; name="content"', 'form-data; name="content',
        'form-data; name="content"; name="metadata"', 'form-data; name="content"; filename="a"b"',
        'form-data; name="content"; filename="a"; filename="b"', 'form-data; name="content"; x',
        'form-data name="content"', 'form-data; name="a" name="content"',
    ],
)  # fmt: skip
def test_header_that_parsers_read_differently_is_refused(header):
    """What was checked must be what upstream reads."""
    assert read_disposition(header) is None


@given(st.text("form-data;\"\\=name *'x", max_size=60))
def test_spelled_parameters_are_those_of_the_header(text):
    """Whatever the header is, nothing but its own parameters is passed on, and they are read the same again."""
    header = f'form-data; name="content"{text}'
    found = read_disposition(header)
    if found is not None:
        again = read_disposition(f'form-data; name="content"{found.spelled}')
        assert again is not None
        assert (again.filename, again.spelled) == (found.filename, found.spelled)
