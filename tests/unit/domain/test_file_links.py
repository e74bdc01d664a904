"""Links of files in inputs: led back to the gateway when a prediction is shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import json_scan, large_json, links

BASE = "https://gw.example/v1"
ID = "NGZiNmY2YzQtNzk4YS00NDBkLWE4ZWQtYTEyNjBhMzRhNmQz"
API = "https://api.replicate.com/v1"
LINK = f"{BASE}/files/{ID}"
UPSTREAM = f"{API}/files/{ID}"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (f'{{"image":"{UPSTREAM}", "n":1.50}}', f'{{"image":"{LINK}", "n":1.50}}'),
        (f'["{UPSTREAM}",{{"a" : "{UPSTREAM}"}}]', f'["{LINK}",{{"a" : "{LINK}"}}]'),
        (f'"{UPSTREAM}"', f'"{LINK}"'),
    ],
)
def test_file_links_of_an_input_lead_back(given: str, shown: str) -> None:
    assert links.lead_files_back(given.encode(), API, BASE) == shown.encode()


@pytest.mark.parametrize(
    "given",
    [
        f'{{"{UPSTREAM}" : 1}}',
        f'"see {UPSTREAM}"',
        f'"{UPSTREAM} and more"',
        f'"he says \\"{UPSTREAM}"',
        f'"{UPSTREAM}/download"',
        f'"https://cdn.example.com/v1/files/{"a" * 20}"',
        '"https://api.replicate.com/v1/files/short"',
    ],
)
def test_other_texts_of_an_input_stay_as_they_are(given: str) -> None:
    """Keys, longer texts, other hosts and other routes."""
    assert links.lead_files_back(given.encode(), API, BASE) == given.encode()


@given(
    st.lists(
        st.sampled_from([f'"{UPSTREAM}"', f'"{UPSTREAM}', UPSTREAM, '"', "\\", ":", " ", "\n", ",", '"x"', "xyz"]),
        max_size=20,
    ).map("".join),
    st.integers(1, 120),
)
def test_file_links_of_a_large_input_lead_back_piece_by_piece(given: str, size: int) -> None:
    whole = links.lead_files_back(given.encode(), API, BASE)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(json_scan, "SLICE", size)
        patched.setattr(large_json, "STEP", 2)
        assert links.lead_files_back(given.encode(), API, BASE) == whole
