"""The image: built from the Dockerfile on a fresh Debian, and run as it is run elsewhere: read-only, by nobody.

Building takes about a minute and needs root, buildah and debootstrap; so it is done where IMAGE_TESTS is set.
Without it the linter reads the Dockerfile, and `test_wheel.py` takes the same steps in an environment of its own.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.tools import require_tool

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
USER = 65532
_CONFIG = """
[server]
port = 0
[ops]
port = 0
[upstream]
base_url = "http://127.0.0.1:9/v1"
[store]
url = "sqlite:////data/gateway.db"
[[teams]]
name = "acme"
"""

needs_image = [
    pytest.mark.image,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not os.environ.get("IMAGE_TESTS"), reason="IMAGE_TESTS is not set"),
]


def test_dockerfile_passes_the_linter():
    """Pinned, quiet, in exec form: what hadolint knows."""
    subprocess.run([Path(sys.executable).parent / "hadolint", ROOT / "Dockerfile"], check=True)


def test_build_context_contains_only_the_sources():
    """No secret, database or virtual environment of the checkout can be in a layer."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    for line in lines[1:]:
        assert not line.startswith("!") or (ROOT / line[1:]).exists()
    assert "!gateway" in lines


class Builder:
    """buildah, with a store of its own that goes when the tests have gone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environ = os.environ | {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}
        self._stores = ["--root", str(folder / "root"), "--runroot", str(folder / "run")]

    def do(self, *arguments: str) -> str:
        command = [require_tool("buildah"), *self._stores, *arguments]
        done = subprocess.run(command, cwd=ROOT, env=self._environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout.strip()


def _of_the_host() -> list[str]:
    """What the host has to say about where packages come from holds in the build too."""
    certificates = os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
    mounts = {certificates: "/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf": "/etc/pip.conf"}
    return [f"--volume={outside}:{inside}:ro" for outside, inside in mounts.items() if Path(outside).is_file()]


@pytest.fixture(scope="module")
def builder() -> Iterator[Builder]:
    """The image, built on a Debian that has Python and nothing else. It has a copy of it for each layer: on a disk."""
    folder = Path(tempfile.mkdtemp(prefix="image", dir="/var/tmp"))
    made = Builder(folder)
    container = made.do("from", "scratch")
    base = Path(made.do("mount", container))
    with_python = "--include=python3,python3-venv"
    subprocess.run(
        [require_tool("debootstrap"), "--variant=minbase", with_python, "bookworm", str(base)],
        check=True, capture_output=True,
    )  # fmt: skip
    # Half of it is what a slim image has not, and each layer would be a copy of it.
    for each in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man"):
        shutil.rmtree(base / each)
    made.do("umount", container)
    made.do("commit", "-q", container, "localhost/base")
    made.do("rm", container)
    made.do(
        "bud", "--pull-never", "--network", "host", "--format", "docker", *_of_the_host(),
        "--build-arg", "BASE=localhost/base", "-t", "localhost/gateway", ".",
    )  # fmt: skip
    try:
        yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def root(builder: Builder) -> Iterator[Path]:
    """The file system of a container."""
    container = builder.do("from", "--pull-never", "localhost/gateway")
    yield Path(builder.do("mount", container))
    builder.do("umount", container)


@pytest.mark.usefixtures("builder")
class TestImage:
    """What was built."""

    pytestmark = needs_image

    def test_image_declares_user_volume_and_probe(self, builder: Builder):
        """It runs unprivileged, with a volume for its data, and a probe that needs no shell."""
        config = json.loads(builder.do("inspect", "--type", "image", "--format", "{{.Config}}", "localhost/gateway"))
        config = config["config"]
        assert config["User"] == f"{USER}:{USER}"
        assert config["Volumes"] == {"/data": {}}
        assert "TMPDIR=/data" in config["Env"], "a spooled upload does not fit into a small /tmp"
        assert "GATEWAY__SERVER__HOST=0.0.0.0" in config["Env"], "loopback cannot be reached from outside"
        assert "GATEWAY__STORE__URL=sqlite:////data/gateway.db" in config["Env"], "the volume is at /data"
        assert config["Entrypoint"] == ["gateway"]
        assert config["Cmd"] == ["serve"]
        assert config["Healthcheck"]["Test"] == ["CMD", "gateway", "check", "--health"]
        assert set(config["ExposedPorts"]) == {"8080/tcp", "9464/tcp"}

    def test_image_contains_no_build_tools(self, root: Path):
        """No compiler, no pip beside the gateway, no cache, no source; and the data folder belongs to the user."""
        for name in ("gcc", "cc", "make", "pip", "pip3", "git", "curl"):
            assert not list(root.glob(f"usr/bin/{name}")), name
        assert not list(root.glob("opt/gateway/bin/pip*"))
        assert not list(root.glob("opt/gateway/lib/python3*/site-packages/pip*"))
        for folder in ("src", "tools", "wheels", "root/.cache"):
            assert not (root / folder).exists()
        assert (root / "data").stat().st_uid == USER
        owned = [path for path in (root / "opt/gateway").rglob("*") if not path.is_symlink() and path.stat().st_uid]
        assert not owned

    def test_image_serves_read_only_and_unprivileged(self, root: Path, tmp_path: Path):
        """Its root cannot be written to, its user is none of the host's, and its own probe passes."""
        config = tmp_path / "config.toml"
        config.write_text(_CONFIG)
        # A namespace of mounts of its own: the root read-only, /data and /tmp fresh, as compose.yaml has it.
        script = """
            set -e
            mount --bind "$ROOT" "$ROOT"; mount -t tmpfs none "$ROOT/tmp"
            mount -t tmpfs -o uid=$ID,gid=$ID none "$ROOT/data"
            cp "$CONFIG" "$ROOT/data/config.toml"; mount -o remount,ro,bind "$ROOT"
            if touch "$ROOT/written" 2>/dev/null; then echo "the root can be written to"; exit 1; fi
            exec chroot --userspec=$ID:$ID "$ROOT" /usr/bin/env -i PATH="/opt/gateway/bin:/usr/bin:/bin" \
              REPLICATE_API_TOKEN=r8_0123456789abcdefghij GATEWAY_CONFIG=/data/config.toml PYTHONUNBUFFERED=1 "$@"
        """
        environ = os.environ | {"ROOT": str(root), "CONFIG": str(config), "ID": str(USER)}
        command = ["unshare", "--mount", "sh", "-c", script, "run", "gateway", "serve"]
        with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                found = re.search(r"serves (http://\S+)/v1; operators: (http://\S+)", line)
                assert found is not None, line
                with urllib.request.urlopen(f"{found[1]}/healthz", timeout=10) as answer:
                    assert json.load(answer) == {"status": "ok"}
                status = Path(f"/proc/{process.pid}/status").read_text()
                assert re.search(rf"^Uid:\t{USER}\t{USER}\t{USER}\t{USER}$", status, re.MULTILINE)
                probe = [*command[:-1], "check", "--health", f"{found[1]}/healthz"]
                assert subprocess.run(probe, env=environ, capture_output=True, text=True, check=False).stdout == "ok\n"
            finally:
                process.terminate()
                assert process.wait(timeout=20) == 0
