"""The examples of several gateways on one PostgreSQL: valid, hardened, and what they name fits together."""

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml

from gateway.config import Config, from_mapping, warnings
from tests.support.tools import require_tool

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/nodes"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
NODES = ["gateway-a", "gateway-b"]
NGINX = (FOLDER / "nginx.conf").read_text()
DOCUMENTS: dict[tuple[str, str], Any] = {
    (each["kind"], each["metadata"]["name"]): each
    for each in yaml.safe_load_all((ROOT / "deploy/kubernetes-nodes.yaml").read_text())
}
DEPLOYMENT = DOCUMENTS["Deployment", "replicate-gateway"]["spec"]
POD = DEPLOYMENT["template"]["spec"]
(CONTAINER,) = POD["containers"]
IMAGE = dict(re.findall(r"(GATEWAY__\w+)=(\S+)", (ROOT / "Dockerfile").read_text()))


def loaded(text: str, secrets: str, environment: dict[str, str], folder: Path) -> Config:
    """Load a config, its secrets made up."""
    for secret in re.findall(rf"{secrets}/(\w+)", text):
        (folder / secret).write_text("r8_0123456789abcdefghij")
    return from_mapping(tomllib.loads(text.replace(secrets, str(folder))), IMAGE | environment)


def test_compose_file_follows_the_specification():
    compose_spec.PyCompose.from_json(json.dumps(COMPOSE)).validate()


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_is_hardened_limited_and_probed(service: str):
    spec = SERVICES[service]
    assert spec["read_only"] is True
    assert spec["cap_drop"] == ["ALL"]
    assert spec["security_opt"] == ["no-new-privileges:true"]
    assert set(spec["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert spec["healthcheck"]["test"][0] == "CMD"
    assert all(port.startswith("127.0.0.1:") for port in spec.get("ports", ()))
    assert "build" in spec or re.fullmatch(r".+:\d+(\.\d+)+", spec["image"])
    for volume in spec.get("volumes", ()):
        outside = volume.split(":")[0]
        assert outside in COMPOSE["volumes"] or (FOLDER / outside).exists()
    for secret in spec.get("secrets", ()):
        assert COMPOSE["secrets"][secret]["file"].startswith("../../secrets/")


def test_nodes_are_alike_and_match_their_config(tmp_path: Path):
    """The same config and database, the extra for it, and time for a clean shutdown."""
    assert SERVICES[NODES[0]] == SERVICES[NODES[1]]
    node = SERVICES[NODES[0]]
    config = loaded((FOLDER / "gateway.toml").read_text(), "/run/secrets", node["environment"], tmp_path)
    assert config.store.url == tomllib.loads((FOLDER / "gateway.toml").read_text())["store"]["url"]
    assert config.store.url.startswith("postgresql://gateway@postgres/gateway")
    assert "postgres" in node["build"]["args"]["EXTRAS"].split(",")
    assert (ROOT / "deploy/nodes" / node["build"]["context"]).resolve() == ROOT
    assert float(node["stop_grace_period"].rstrip("s")) > config.server.shutdown_grace_seconds + 5
    database = SERVICES["postgres"]["environment"]
    assert (database["POSTGRES_USER"], database["POSTGRES_DB"]) == ("gateway", "gateway")
    assert database["POSTGRES_PASSWORD_FILE"] == "/run/secrets/store_password"
    assert not config.server.public_url or "8080" in config.server.public_url


def test_proxy_knows_every_node(tmp_path: Path):
    """Its config is one that nginx takes, and it does not repeat creates."""
    program = require_tool("nginx")
    servers = re.findall(r"server (\S+):(\d+)", NGINX)
    assert servers == [(name, "8080") for name in NODES]
    assert "proxy_next_upstream error;" in NGINX
    config = tmp_path / "nginx.conf"
    text = re.sub(r"gateway-[ab]:8080", "127.0.0.1:8080", NGINX).replace("/var/log/nginx", str(tmp_path))
    config.write_text(
        f"pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}}\n"
        f"http {{ access_log {tmp_path}/access.log; {text} }}\n"
    )
    done = subprocess.run([program, "-t", "-c", config, "-p", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_config_of_the_manifest_loads_and_matches_the_pod(tmp_path: Path):
    """Ports, secrets and volumes; the database in place of the image's file, reached in a way that needs no warning."""
    text = DOCUMENTS["ConfigMap", "replicate-gateway"]["data"]["config.toml"]
    environment = {each["name"]: each["value"] for each in CONTAINER["env"]}
    config = loaded(text, "/run/secrets/gateway", environment, tmp_path)
    assert config.store.url.startswith("postgresql://")
    assert not [each for each in warnings(config, 0.0) if each.path.startswith("store.")]
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert ports == {"http": config.server.port, "ops": config.ops.port}
    mounts = {mount["mountPath"]: mount["name"] for mount in CONTAINER["volumeMounts"]}
    assert {"/etc/gateway", "/run/secrets/gateway", "/data", "/tmp"} == set(mounts)
    assert set(mounts.values()) == {volume["name"] for volume in POD["volumes"]}
    assert POD["terminationGracePeriodSeconds"] > config.server.shutdown_grace_seconds + 5


def test_pods_are_several_and_are_replaced_one_by_one():
    """No pod stops before another is ready, neither in an update nor when machines are drained."""
    assert DEPLOYMENT["replicas"] >= 2
    assert DEPLOYMENT["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    budget = DOCUMENTS["PodDisruptionBudget", "replicate-gateway"]["spec"]
    assert budget["maxUnavailable"] == 1
    labels = DEPLOYMENT["template"]["metadata"]["labels"]
    assert budget["selector"]["matchLabels"] == DEPLOYMENT["selector"]["matchLabels"] == labels
    for name in ("replicate-gateway", "replicate-gateway-ops"):
        assert DOCUMENTS["Service", name]["spec"]["selector"] == labels
    # Prometheus finds every pod by it.
    assert DOCUMENTS["Service", "replicate-gateway-ops"]["spec"]["clusterIP"] == "None"
    assert {each["topologyKey"] for each in POD["topologySpreadConstraints"]} == {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    }


def test_pod_is_as_hardened_as_that_of_one_gateway():
    one = next(
        each
        for each in yaml.safe_load_all((ROOT / "deploy/kubernetes.yaml").read_text())
        if each["kind"] == "Deployment"
    )["spec"]["template"]["spec"]
    assert POD["securityContext"] == one["securityContext"]
    for name in ("securityContext", "startupProbe", "livenessProbe", "readinessProbe", "resources"):
        assert CONTAINER[name] == one["containers"][0][name]
