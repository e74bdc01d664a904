"""The Helm chart: Helm renders it, Kubernetes' schemas know every field, and it is what the manifests are."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gateway import __version__
from gateway.config import Config, from_mapping, warnings
from tests.support.helm import CHART, ROOT, against_kubernetes, lint, refusal, render

pytestmark = pytest.mark.timeout(60)
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
IMAGE = dict(re.findall(r"(GATEWAY__\w+)=(\S+)", (ROOT / "Dockerfile").read_text()))
ONE: dict[str, Any] = {}
SEVERAL: dict[str, Any] = {
    "replicas": 3,
    "database": {"url": "postgresql://gateway@postgres.example.com/gateway?sslmode=verify-full&sslrootcert=/ca.pem"},
}
EVERYTHING: dict[str, Any] = SEVERAL | {
    "image": {"repository": "registry.example.com/gateway", "tag": "1.2.3"},
    "imagePullSecrets": [{"name": "registry"}],
    "ingress": {"enabled": True, "className": "nginx", "host": "gw.example.com", "tlsSecret": "gw-tls",
                "annotations": {"nginx.ingress.kubernetes.io/proxy-buffering": "off"}},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "networkPolicy": {
        "enabled": True,
        "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}],
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "extraEgress": [{"ports": [{"port": 8443, "protocol": "TCP"}]}],
    },
    "extraEnv": [{"name": "GATEWAY__LOGS__LEVEL", "value": "warning"}],
    "podAnnotations": {"example.com/team": "web"}, "podLabels": {"tier": "edge"}, "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "edge", "operator": "Exists"}], "priorityClassName": "high",
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]}}},
}  # fmt: skip
CASES = {"one": ONE, "several": SEVERAL, "everything": EVERYTHING}
# ServiceMonitor is a definition of the Prometheus Operator.
FOREIGN = {"ServiceMonitor"}


def pod(values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    spec = render(**values)["Deployment"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    return spec, container


def manifest(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the pod of a manifest, and its container."""
    documents = yaml.safe_load_all((ROOT / "deploy" / name).read_text())
    spec = next(each for each in documents if each["kind"] == "Deployment")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    return spec, container


@pytest.mark.parametrize("case", CASES)
def test_linter_finds_nothing(case: str):
    """Warnings included."""
    assert lint(CASES[case]) == ""


@pytest.mark.parametrize("version", ["1.25", "1.37"])
@pytest.mark.parametrize("case", CASES)
def test_kubernetes_knows_every_field(case: str, version: str):
    """From the oldest version that the chart admits to the newest."""
    for kind, document in render(**CASES[case]).items():
        if kind not in FOREIGN:
            against_kubernetes(document, version)


@pytest.mark.parametrize("name", ["kubernetes.yaml", "kubernetes-nodes.yaml"])
def test_kubernetes_knows_every_field_of_the_manifests(name: str):
    for document in yaml.safe_load_all((ROOT / "deploy" / name).read_text()):
        against_kubernetes(document, "1.37")


@pytest.mark.parametrize(("name", "values"), [("kubernetes.yaml", ONE), ("kubernetes-nodes.yaml", SEVERAL)])
def test_chart_is_what_the_manifest_is(name: str, values: dict[str, Any]):
    """The same pod: security, probes, resources, ports, volumes, and how it is replaced."""
    (chart, container), (plain, its) = pod(values), manifest(name)
    for key in ("securityContext", "ports", "startupProbe", "livenessProbe", "readinessProbe", "resources"):
        assert container[key] == its[key], key
    assert container["volumeMounts"] == its["volumeMounts"]
    for key in (
        "securityContext",
        "terminationGracePeriodSeconds",
        "automountServiceAccountToken",
        "enableServiceLinks",
    ):
        assert chart[key] == plain[key], key
    assert [volume.keys() for volume in chart["volumes"]] == [volume.keys() for volume in plain["volumes"]]
    spread = [each["topologyKey"] for each in chart.get("topologySpreadConstraints", ())]
    assert spread == [each["topologyKey"] for each in plain.get("topologySpreadConstraints", ())]
    documents = list(yaml.safe_load_all((ROOT / "deploy" / name).read_text()))
    (deployment,) = (each["spec"] for each in documents if each["kind"] == "Deployment")
    rendered = render(**values)
    assert rendered["Deployment"]["spec"]["strategy"] == deployment["strategy"]
    assert {each["kind"] for each in rendered.values()} == {each["kind"] for each in documents}
    (budget,) = (each["spec"] for each in documents if each["kind"] == "PodDisruptionBudget")
    assert rendered["PodDisruptionBudget"]["spec"]["maxUnavailable"] == budget["maxUnavailable"]


def loaded(values: dict[str, Any], folder: Path) -> Config:
    """Load the config as the pod does, its secrets made up."""
    _, container = pod(values)
    text = render(**values)["ConfigMap"]["data"]["config.toml"]
    environment = {}
    for each in container["env"]:
        value = each["value"]
        if value.startswith("/run/secrets/gateway/"):
            (folder / Path(value).name).write_text("r8_0123456789abcdefghij")
            value = str(folder / Path(value).name)
        environment[each["name"]] = value
    return from_mapping(tomllib.loads(text), IMAGE | environment)


@pytest.mark.parametrize("case", CASES)
def test_config_loads_and_matches_the_pod(case: str, tmp_path: Path):
    """Ports, the store, and time for a clean shutdown."""
    config = loaded(CASES[case], tmp_path)
    spec, container = pod(CASES[case])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": config.server.port, "ops": config.ops.port}
    assert (config.server.host, config.ops.host) == ("0.0.0.0", "0.0.0.0")
    assert spec["terminationGracePeriodSeconds"] > config.server.shutdown_grace_seconds + 5
    assert config.store.url.startswith("sqlite:////data/" if case == "one" else "postgresql://")
    assert not [each for each in warnings(config, 0.0) if each.path.startswith("store.")]
    assert [team.name for team in config.teams] == ["acme"]


def test_selectors_find_the_pod():
    """Services, policy, budget and monitor mean the same pods and ports."""
    documents = render(**EVERYTHING)
    labels = documents["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selector = documents["Deployment"]["spec"]["selector"]["matchLabels"]
    assert selector.items() <= labels.items()
    names = {port["name"] for port in pod(EVERYTHING)[1]["ports"]}
    for kind in ("Service", "Service-ops"):
        assert documents[kind]["spec"]["selector"] == selector
        assert {port["targetPort"] for port in documents[kind]["spec"]["ports"]} <= names
    assert documents["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == selector
    policy = documents["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == selector
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == ["http", "ops"]
    assert 5432 in [port["port"] for rule in policy["egress"] for port in rule["ports"]]
    monitor = documents["ServiceMonitor"]["spec"]
    service = documents["Service-ops"]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= service.items()
    assert "app.kubernetes.io/component" not in documents["Service"]["metadata"]["labels"], "it would be scraped too"
    # The alert rules name the job.
    assert service[monitor["jobLabel"]] == "replicate-gateway"
    backend = documents["Ingress"]["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": documents["Service"]["metadata"]["name"], "port": {"name": "http"}}


def test_metrics_are_closed_unless_somebody_is_named():
    """A policy without `from` would open the port to everybody."""
    (rule,) = render(networkPolicy={"enabled": True})["NetworkPolicy"]["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == ["http"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replicas": 2}, "need database.url"),
        ({"replica": 2}, "replica"),
        ({"publicUrl": "gateway.example.com"}, "publicUrl"),
        ({"database": {"url": "redis://cache"}}, "database"),
        ({"service": {"port": 0}}, "port"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], said: str):
    """Before anything reaches a cluster."""
    assert said in refusal(values)


def test_schema_describes_every_value():
    """And no others."""

    def compare(values: dict[str, Any], schema: dict[str, Any], path: str) -> None:
        properties = schema.get("properties")
        if properties is None:
            return
        assert properties.keys() - {"global"} == values.keys(), path
        for name, value in values.items():
            if isinstance(value, dict):
                compare(value, properties[name], f"{path}.{name}")

    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(VALUES, SCHEMA)
    compare(VALUES, SCHEMA, "values")


def test_volume_outlives_the_release():
    """`helm uninstall` deletes no ledger."""
    claim = render()["PersistentVolumeClaim"]
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert "PersistentVolumeClaim" not in render(persistence={"existingClaim": "mine"})


def test_version_is_that_of_the_gateway():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__


def test_values_of_the_docs_are_rendered():
    """docs/deploy.md, Helm: an Ingress that does not buffer, in front of the public address."""
    section = (ROOT / "docs/deploy.md").read_text().partition("\n## Helm\n")[2]
    values = yaml.safe_load(section.partition("```yaml\n")[2].partition("```")[0])
    documents = render(**values)
    (rule,) = documents["Ingress"]["spec"]["rules"]
    assert values["publicUrl"] == f"https://{rule['host']}"
    assert documents["Ingress"]["spec"]["tls"][0]["hosts"] == [rule["host"]]
