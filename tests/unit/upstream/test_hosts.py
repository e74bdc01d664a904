"""Which addresses are files of upstream's."""

import pytest

from gateway.upstream.hosts import is_base_host, is_output

API = "https://api.replicate.com/v1"
STAND_IN = "http://127.0.0.1:9090/v1"
HOSTS = ("replicate.delivery", "*.replicate.delivery", "*.replicate.com", "10.1.2.3")


@pytest.mark.parametrize(
    ("url", "base_url", "is_file"),
    [
        ("https://replicate.delivery/pbxt/a/out-0.png", API, True),
        ("https://yhqm.replicate.delivery/a/out-0.png", API, True),
        ("https://REPLICATE.delivery:443/a.png", API, True),
        ("http://replicate.delivery/a.png", API, False),
        ("https://replicate.delivery.evil.example/a.png", API, False),
        ("https://evil.example/https://replicate.delivery/a.png", API, False),
        ("https://replicate.delivery@evil.example/a.png", API, False),
        ("https://user@replicate.delivery/a.png", API, False),
        ("https://api.replicate.com/v1/account", API, False),
        ("https://API.replicate.com/v1/account", API, False),
        ("https://10.1.2.3/a.png", API, True),
        ("https://10.1.2.4/a.png", API, False),
        ("ftp://replicate.delivery/a.png", API, False),
        ("https://replicate.delivery/a.png ", API, False),
        ("https://replicate.delivery/a\nb.png", API, False),
        ("https://replicate.delivery\\@evil.example/a.png", API, False),
        ("https://replicate.delivery/é.png", API, True),
        ("data:image/png;base64,AAAA", API, False),
        ("https://replicate.delivery:99999/a.png", API, True),
        ("https://[::1/a.png", API, False),
        ("https://replicate.delivery/" + "a" * 5000, API, False),
        ("http://127.0.0.1:9091/pbxt/a/out-0.png", STAND_IN, True),
        ("https://127.0.0.1:9443/pbxt/a/out-0.png", STAND_IN, True),
        ("http://127.0.0.1:9090/v1/account", STAND_IN, False),
        ("http://replicate.delivery/a.png", STAND_IN, False),
        ("http://localhost:9091/a.png", STAND_IN, False),
    ],
)
def test_files_are_on_trusted_hosts_and_not_on_the_apis(url: str, base_url: str, is_file: bool):
    """Plain http is for a simulator on this machine; a host that only looks trusted is not."""
    assert is_output(url, base_url, HOSTS) is is_file


def test_api_host_counts_on_any_port():
    assert is_base_host("http://127.0.0.1:1/x", STAND_IN)
    assert is_base_host("https://API.replicate.com/x", API)
    assert not is_base_host("https://replicate.com/x", API)
