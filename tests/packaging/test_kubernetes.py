"""The manifest: its config is one that loads, and its ports, paths, users and times agree with it."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import yaml

from gateway.config import from_mapping
from tests.support.helm import against_kubernetes

ROOT = Path(__file__).parents[2]
DOCUMENTS: dict[tuple[str, str], Any] = {
    (each["kind"], each["metadata"]["name"]): each
    for each in yaml.safe_load_all((ROOT / "deploy/kubernetes.yaml").read_text())
}
POD = DOCUMENTS["Deployment", "replicate-gateway"]["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


def test_config_loads_and_matches_the_pod(tmp_path):
    """Ports, secrets, volumes, and time for a clean shutdown."""
    text = DOCUMENTS["ConfigMap", "replicate-gateway"]["data"]["config.toml"]
    mounts = {mount["mountPath"]: mount["name"] for mount in CONTAINER["volumeMounts"]}
    for secret in re.findall(r'"(/run/secrets/[^"]+)"', text):
        assert str(Path(secret).parent) in mounts
        (tmp_path / Path(secret).name).write_text("r8_0123456789abcdefghij")
        text = text.replace(secret, str(tmp_path / Path(secret).name))
    image = dict(re.findall(r"(GATEWAY__\w+)=(\S+)", (ROOT / "Dockerfile").read_text()))
    config = from_mapping(tomllib.loads(text), image)
    assert config.server.host == "0.0.0.0"
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert ports == {"http": config.server.port, "ops": config.ops.port}
    assert config.store.url.startswith("sqlite:////data/")
    assert {"/etc/gateway", "/data", "/tmp"} <= set(mounts)
    assert set(mounts.values()) == {volume["name"] for volume in POD["volumes"]}
    assert POD["terminationGracePeriodSeconds"] > config.server.shutdown_grace_seconds + 5


def test_pod_runs_as_the_image_does():
    """The same user, nothing writable but its volumes, and never two of it on one database."""
    (user,) = re.findall(r"^USER (\d+):\1$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert POD["securityContext"]["runAsUser"] == POD["securityContext"]["fsGroup"] == int(user)
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"] is True
    deployment = DOCUMENTS["Deployment", "replicate-gateway"]["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})


def test_selectors_find_the_pod():
    """Services, the disruption budget and the deployment mean the same label, and ports by names that exist."""
    labels = DOCUMENTS["Deployment", "replicate-gateway"]["spec"]["template"]["metadata"]["labels"]
    names = {port["name"] for port in CONTAINER["ports"]}
    for (kind, _), document in DOCUMENTS.items():
        match kind:
            case "Service":
                assert document["spec"]["selector"] == labels
                assert {port["targetPort"] for port in document["spec"]["ports"]} <= names
            case "Deployment" | "PodDisruptionBudget":
                assert document["spec"]["selector"]["matchLabels"] == labels
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert CONTAINER[probe]["httpGet"]["port"] in names
    assert CONTAINER["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_pod_that_restores_is_valid_and_puts_the_backup_in_place(tmp_path):
    """The one of docs/deploy.md: its fields are known, it runs as the gateway's user, and its program does it."""
    text = (ROOT / "docs/deploy.md").read_text()
    (overrides,) = re.findall(r"--overrides='(.*?)' <", text, re.DOTALL)
    pod = json.loads(overrides) | {"kind": "Pod", "metadata": {"name": "restore"}}
    against_kubernetes(pod, "1.37")
    assert pod["spec"]["securityContext"]["runAsUser"] == POD["securityContext"]["runAsUser"]
    (container,) = pod["spec"]["containers"]
    *interpreter, program = container["command"]
    assert interpreter == ["python3", "-c"]
    for name in ("gateway.db", "gateway.db-wal"):
        (tmp_path / name).write_bytes(b"old")
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, input=b"the backup", check=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"gateway.db": b"the backup"}
