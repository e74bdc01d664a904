"""`compose.yaml` and what it mounts: valid, and every path, port, name and secret in it is one that exists."""

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml

from gateway.config import Config, from_mapping
from tests.support.tools import require_tool

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
PROMETHEUS: dict[str, Any] = yaml.safe_load((ROOT / "grafana/prometheus.yml").read_text())
IMAGE = dict(re.findall(r"(GATEWAY__\w+)=(\S+)", (ROOT / "Dockerfile").read_text()))
GATEWAYS = {"gateway": "deploy/gateway.toml", "demo": "deploy/demo.toml"}


def mounts(service: str) -> dict[str, str]:
    """What is mounted into a service, by where."""
    pairs = [volume.split(":")[:2] for volume in SERVICES[service].get("volumes", ())]
    return {inside: outside for outside, inside in pairs}


def config_of(service: str, folder: Path) -> Config:
    """Load a gateway's config as the service would, its secrets made up."""
    text = (ROOT / GATEWAYS[service]).read_text()
    for secret in re.findall(r"/run/secrets/(\w+)", text):
        assert secret in SERVICES[service]["secrets"]
        (folder / secret).write_text("r8_0123456789abcdefghij")
    text = text.replace("/run/secrets", str(folder))
    return from_mapping(tomllib.loads(text), IMAGE | SERVICES[service].get("environment", {}))


def test_compose_file_follows_the_specification():
    """Keys, forms, and every network, volume and secret that is named."""
    compose_spec.PyCompose.from_json(json.dumps(COMPOSE)).validate()


@pytest.mark.parametrize("service", SERVICES)
def test_mounted_paths_exist(service):
    """A missing path would become an empty folder owned by root."""
    for outside in mounts(service).values():
        assert not outside.startswith("./") or (ROOT / outside).exists(), outside
        assert outside.startswith("./") or outside in COMPOSE["volumes"]


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_is_hardened_limited_and_probed(service):
    """A read-only root, no capabilities, resource limits, a health check, and no port open to the world."""
    spec = SERVICES[service]
    assert spec["read_only"] is True
    assert spec["cap_drop"] == ["ALL"]
    assert spec["security_opt"] == ["no-new-privileges:true"]
    assert set(spec["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert spec["healthcheck"]["test"][0] == "CMD"
    assert all(port.startswith("127.0.0.1:") for port in spec.get("ports", ()))
    assert "build" in spec or re.fullmatch(r".+:v?\d+\.\d+\.\d+", spec["image"])


@pytest.mark.parametrize("service", GATEWAYS)
def test_gateway_service_matches_its_config(service, tmp_path):
    """Its listeners are where ports, probes and Prometheus expect them; it has time for a clean shutdown."""
    config = config_of(service, tmp_path)
    assert mounts(service)["/etc/gateway/config.toml"] == f"./{GATEWAYS[service]}"
    ports = (config.server.port, config.ops.port)
    assert SERVICES[service]["ports"] == [f"127.0.0.1:{port}:{port}" for port in ports]
    assert (config.server.host, config.ops.host) == ("0.0.0.0", "0.0.0.0")
    assert config.store.url == "sqlite:////data/gateway.db"
    assert "/data" in mounts(service)
    names = {service, *SERVICES[service].get("networks", {}).get("default", {}).get("aliases", ())}
    targets = PROMETHEUS["scrape_configs"][0]["static_configs"][0]["targets"]
    assert [f"{name}:{config.ops.port}" for name in names if name == "gateway"] == targets
    assert float(SERVICES[service]["stop_grace_period"].rstrip("s")) > config.server.shutdown_grace_seconds + 5


def test_demo_gateway_uses_the_simulator(tmp_path):
    """Its only other secret is the scraper's."""
    command = SERVICES["simulator"]["command"]
    port = command[command.index("--port") + 1]
    config = config_of("demo", tmp_path)
    assert config.upstream.base_url == f"http://simulator:{port}/v1"
    assert command[command.index("--public-host") + 1] == "simulator"
    assert f"'127.0.0.1', {port}" in SERVICES["simulator"]["healthcheck"]["test"][-1]
    assert "simulator" in SERVICES["simulator"]["build"]["args"]["EXTRAS"]
    assert SERVICES["demo"]["secrets"] == ["ops_token"]


def test_prometheus_scrapes_with_the_token_and_loads_the_rules():
    """The ops listener refuses requests without it."""
    require_tool("promtool")
    path = ROOT / "grafana/prometheus.yml"
    subprocess.run(["promtool", "check", "config", "--syntax-only", str(path)], check=True, capture_output=True)
    credentials = Path(PROMETHEUS["scrape_configs"][0]["authorization"]["credentials_file"])
    assert credentials.parent == Path("/run/secrets")
    assert credentials.name in SERVICES["prometheus"]["secrets"]
    inside = mounts("prometheus")
    assert inside["/etc/prometheus/prometheus.yml"] == "./grafana/prometheus.yml"
    for pattern in PROMETHEUS["rule_files"]:
        assert inside[f"/etc/prometheus/{Path(pattern).parent}"] == f"./grafana/{Path(pattern).parent}"


def test_grafana_is_provisioned():
    """Datasource and dashboards need no clicks."""
    inside = mounts("grafana")
    assert inside["/etc/grafana/provisioning"] == "./grafana/provisioning"
    (source,) = yaml.safe_load((ROOT / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert SERVICES["prometheus"]["ports"] == ["127.0.0.1:9090:9090"]
    assert source["jsonData"]["timeInterval"] == PROMETHEUS["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((ROOT / "grafana/provisioning/dashboards/gateway.yml").read_text())["providers"]
    assert inside[provider["options"]["path"]] == "./grafana/dashboards"


def test_secrets_are_files_that_are_not_committed():
    """None of them is in the environment, which every child process and every dump contains."""
    ignored = (ROOT / ".gitignore").read_text().split()
    for secret in COMPOSE["secrets"].values():
        assert secret["file"].startswith("./secrets/")
    assert "/secrets/" in ignored
    reported = json.dumps({name: spec.get("environment") for name, spec in SERVICES.items()})
    assert re.findall(r"r8_\w+", reported) == ["r8_simulator00000000000000000000000000000"]
