"""Files are compared as models see them."""

from gateway.domain.file_content import OCTETS, of_data_uri, of_file

SHA = "ab" * 32


def test_upload_and_data_uri_of_one_type_are_equal():
    for media_type, name in (
        ("image/png", "a.PNG"),
        ("audio/wav", "x.wav"),
        ("text/plain", "a.b.txt"),
        ("x/y", "plain"),
    ):
        assert of_file(SHA.upper(), f"{media_type}; charset=utf-8", name) == of_data_uri(SHA, media_type.upper())


def test_type_and_extension_tell_files_apart():
    files = {
        of_file(SHA, "image/png", "a.png"),
        of_file(SHA, "image/png", "a.jpg"),
        of_file(SHA, "image/png", "png"),
        of_file(SHA, "image/jpeg", "a.png"),
        of_file("cd" * 32, "image/png", "a.png"),
        of_data_uri(SHA, "audio/wav"),
        of_data_uri(SHA, ""),
        of_file(SHA, "", ""),
    }
    assert len(files) == 8
    assert of_file(SHA, "", "").media_type == OCTETS


def test_token_has_no_form_of_json():
    assert bytes(of_file(SHA, 'a/"b', "x.y").token) == f'file:["{SHA}","a/\\"b",".y"]'.encode()
