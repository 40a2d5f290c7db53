"""deploy/: the manifests have the schemas of their systems, and fit the server and the image."""

import json
import re
import socket
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import compose_spec
import kubernetes_validate
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from pdeinfer import __version__
from serving.app import create_app
from serving.engine.sources import split_name
from serving.grpc.messages import SERVICE
from serving.interface.statuses import STATUSES
from serving.settings import Settings
from tests.servers import ROOT, running_server

DEPLOY = ROOT / "deploy"
PORT = 8000  # of the image


def read(path: str) -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / path).read_text(encoding="utf-8"))


KUSTOMIZATION = read("kubernetes/kustomization.yaml")
DEPLOYMENT = read("kubernetes/deployment.yaml")
SCALED_OBJECT = read("kubernetes/scaled-object.yaml")
RUNTIME = read("kserve/serving-runtime.yaml")
COMPOSE = read("compose/compose.yaml")
ALERTS = [rule for group in read("compose/alerts.yaml")["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((DEPLOY / "compose/grafana/dashboards/pdeinfer.json").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")

POD = DEPLOYMENT["spec"]["template"]["spec"]
INFERENCE_SERVICE = read("kserve/inference-service.yaml")
PREDICTOR = INFERENCE_SERVICE["spec"]["predictor"]
RUNTIME_POD = {
    "terminationGracePeriodSeconds": PREDICTOR["terminationGracePeriodSeconds"],
    "containers": RUNTIME["spec"]["containers"],
    "volumes": RUNTIME["spec"]["volumes"],
    "securityContext": {},
}
PODS = pytest.mark.parametrize("pod", [POD, RUNTIME_POD], ids=["Deployment", "ServingRuntime"])


def settings_of(container: dict[str, Any]) -> Settings:
    """Return the settings that a container's arguments make; unknown ones raise an error."""
    flags = dict(argument.removeprefix("--").split("=") for argument in container["args"] if argument.startswith("--"))
    return Settings(**{name.replace("-", "_"): value for name, value in flags.items()})


class TestKubernetes:
    @pytest.mark.parametrize("name", KUSTOMIZATION["resources"])
    def test_the_resources_have_their_schemas(self, name: str) -> None:
        manifest = read(f"kubernetes/{name}")
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)

    def test_a_wrong_field_would_be_found(self) -> None:
        wrong = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {**POD, "tollerations": []}}
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)

    def test_every_resource_is_about_the_pods_of_the_deployment(self) -> None:
        labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
        selectors = [
            DEPLOYMENT["spec"]["selector"]["matchLabels"],
            read("kubernetes/service.yaml")["spec"]["selector"],
            read("kubernetes/disruption-budget.yaml")["spec"]["selector"]["matchLabels"],
            read("kubernetes/network-policy.yaml")["spec"]["podSelector"]["matchLabels"],
            read("kubernetes/pod-monitor.yaml")["spec"]["selector"]["matchLabels"],
        ]
        assert selectors == [labels] * len(selectors)
        assert SCALED_OBJECT["spec"]["scaleTargetRef"]["name"] == DEPLOYMENT["metadata"]["name"]

    def test_ports_are_named_as_in_the_deployment(self) -> None:
        (port,) = POD["containers"][0]["ports"]
        (policy,) = read("kubernetes/network-policy.yaml")["spec"]["ingress"]
        named = [
            read("kubernetes/service.yaml")["spec"]["ports"][0]["targetPort"],
            policy["ports"][0]["port"],
            read("kubernetes/pod-monitor.yaml")["spec"]["podMetricsEndpoints"][0]["port"],
        ]
        assert named == [port["name"]] * len(named)

    def test_variables_are_settings(self) -> None:
        names = [variable["name"] for variable in POD["containers"][0]["env"]]
        assert {name.removeprefix("PDEINFER_").lower() for name in names} <= set(Settings.model_fields)
        assert all(name.startswith("PDEINFER_") for name in names)

    def test_the_variables_of_a_service_are_not_taken_for_settings(self) -> None:
        assert POD["enableServiceLinks"] is False

    def test_pods_are_added_before_the_queue_is_full(self) -> None:
        (trigger,) = SCALED_OBJECT["spec"]["triggers"]
        assert trigger["metricType"] == "AverageValue"
        assert int(trigger["metadata"]["threshold"]) <= settings_of(POD["containers"][0]).max_queue / 2


class TestKServe:
    def test_the_containers_have_the_schema_of_a_pod(self) -> None:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "runtime"}, "spec": RUNTIME_POD}
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)

    def test_the_inference_service_asks_for_what_the_runtime_serves(self) -> None:
        model = PREDICTOR["model"]
        (model_format,) = RUNTIME["spec"]["supportedModelFormats"]

        assert model["runtime"] == RUNTIME["metadata"]["name"]
        assert model["modelFormat"]["name"] == model_format["name"]
        assert [model["protocolVersion"]] == RUNTIME["spec"]["protocolVersions"] == ["v2"]

    def test_the_mode_is_the_one_that_takes_a_grace_period(self) -> None:
        """Knative refuses it. Every version of KServe takes this name of the other mode."""
        assert "terminationGracePeriodSeconds" in PREDICTOR
        annotations = INFERENCE_SERVICE["metadata"]["annotations"]
        assert annotations == {"serving.kserve.io/deploymentMode": "RawDeployment"}

    def test_the_model_has_the_name_of_the_inference_service(self) -> None:
        source = RUNTIME["spec"]["containers"][0]["args"][0].replace("{{.Name}}", "first")
        assert split_name(source) == ("first", "/mnt/models")  # where KServe mounts storageUri

    def test_the_metrics_are_where_the_annotations_say(self) -> None:
        assert RUNTIME["spec"]["annotations"] == {
            "prometheus.kserve.io/path": "/metrics",
            "prometheus.kserve.io/port": str(PORT),
        }


@PODS
class TestPods:
    def test_there_is_time_to_drain(self, pod: dict[str, Any]) -> None:
        settings = settings_of(pod["containers"][0])
        assert pod["terminationGracePeriodSeconds"] > settings.drain_seconds + settings.shutdown_timeout
        probe = pod["containers"][0]["readinessProbe"]
        assert settings.drain_seconds > probe["periodSeconds"] * probe.get("failureThreshold", 3)

    def test_probes_ask_the_server_for_its_life_and_readiness(self, pod: dict[str, Any]) -> None:
        (container,) = pod["containers"]
        paths = set(create_app(Settings()).openapi()["paths"])
        asked = {name: container[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}

        assert {probe["path"] for probe in asked.values()} <= paths
        assert "ready" in asked["readinessProbe"]["path"]
        assert "ready" not in asked["livenessProbe"]["path"]
        names = {port.get("name") for port in container["ports"]} | {PORT}
        assert {probe["port"] for probe in asked.values()} <= names

    def test_a_start_may_take_as_long_as_loading_a_model(self, pod: dict[str, Any]) -> None:
        probe = pod["containers"][0]["startupProbe"]
        allowed = probe["periodSeconds"] * probe["failureThreshold"]
        assert allowed >= settings_of(pod["containers"][0]).load_timeout

    def test_the_container_has_the_port_and_the_user_of_the_image(self, pod: dict[str, Any]) -> None:
        (container,) = pod["containers"]
        contexts = {**pod["securityContext"], **container["securityContext"]}

        assert [port["containerPort"] for port in container["ports"]] == [PORT]
        assert f"USER {contexts['runAsUser']}:" in DOCKERFILE

    def test_the_container_is_unprivileged_and_can_write_only_to_tmp(self, pod: dict[str, Any]) -> None:
        (container,) = pod["containers"]
        contexts = {**pod["securityContext"], **container["securityContext"]}

        assert contexts["runAsNonRoot"] is True
        assert contexts["seccompProfile"] == {"type": "RuntimeDefault"}
        assert contexts["allowPrivilegeEscalation"] is False
        assert contexts["readOnlyRootFilesystem"] is True
        assert contexts["capabilities"] == {"drop": ["ALL"]}
        assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]  # noqa: S108  # in the container

    def test_cpus_are_whole_and_guaranteed(self, pod: dict[str, Any]) -> None:
        resources = pod["containers"][0]["resources"]
        assert resources["requests"] == resources["limits"]
        assert int(resources["limits"]["cpu"]) > 0  # the server starts as many threads or workers


def test_every_image_has_the_version_of_the_package() -> None:
    (image,) = KUSTOMIZATION["images"]
    (label,) = re.findall(r'org\.opencontainers\.image\.version="([^"]*)"', DOCKERFILE)
    images = [RUNTIME["spec"]["containers"][0]["image"], COMPOSE["services"]["pdeinfer"]["image"]]

    assert image["name"] == POD["containers"][0]["image"]
    assert {image["newTag"], label, *(name.rpartition(":")[2] for name in images)} == {__version__}


class TestCompose:
    def test_the_file_has_the_schema_of_compose(self) -> None:
        text = (DEPLOY / "compose/compose.yaml").read_text(encoding="utf-8")
        compose_spec.PyCompose.from_yaml(text).validate()
        with pytest.raises(ValueError, match="red_only"):
            compose_spec.PyCompose.from_yaml(text.replace("read_only", "red_only"))

    def test_every_file_and_volume_is_there(self) -> None:
        for service in COMPOSE["services"].values():
            for volume in service.get("volumes", []):
                source = volume.partition(":")[0]
                assert source in COMPOSE["volumes"] or (DEPLOY / "compose" / source).exists(), volume
        assert (DEPLOY / "compose" / COMPOSE["services"]["pdeinfer"]["build"] / "Dockerfile").exists()

    def test_only_this_machine_reaches_the_ports(self) -> None:
        ports = [port for service in COMPOSE["services"].values() for port in service["ports"]]
        assert [port for port in ports if not port.startswith("127.0.0.1:")] == []

    def test_there_is_time_to_drain(self) -> None:
        settings = Settings()
        allowed = int(COMPOSE["services"]["pdeinfer"]["stop_grace_period"].removesuffix("s"))
        assert allowed > settings.drain_seconds + settings.shutdown_timeout

    def test_prometheus_reads_the_server_and_the_rules(self) -> None:
        prometheus = read("compose/prometheus.yaml")
        (job,) = prometheus["scrape_configs"]
        mounted = {volume.split(":")[1] for volume in COMPOSE["services"]["prometheus"]["volumes"]}

        assert job["static_configs"] == [{"targets": [f"pdeinfer:{PORT}"]}]
        assert set(prometheus["rule_files"]) <= mounted

    def test_grafana_reads_prometheus_and_the_dashboards(self) -> None:
        (source,) = read("compose/grafana/provisioning/datasources/prometheus.yaml")["datasources"]
        (provider,) = read("compose/grafana/provisioning/dashboards/pdeinfer.yaml")["providers"]
        mounted = {volume.split(":")[1] for volume in COMPOSE["services"]["grafana"]["volumes"]}

        assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
        assert provider["options"]["path"] in mounted


def queries() -> Iterator[str]:
    """Yield every PromQL expression in deploy/, with values for Grafana's variables."""
    yield SCALED_OBJECT["spec"]["triggers"][0]["metadata"]["query"]
    for rule in ALERTS:
        yield rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")


def parts(expression: Any) -> Iterator[Any]:
    """Yield an expression of PromQL and all expressions in it."""
    yield expression
    for name in ("expr", "lhs", "rhs", "args", "vector_selector"):
        part = getattr(expression, name, None)
        for each in part if isinstance(part, list) else [part]:
            if each is not None:
                yield from parts(each)


@pytest.fixture(scope="module")
def samples(package_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The names of the samples in the real /metrics, with the labels of each."""

    def get(port: int, head: str, body: bytes = b"", headers: str = "") -> str:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            ending = f"{headers}Host: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(f"{head} HTTP/1.1\r\n{ending}".encode() + body)
            answer = b"".join(iter(lambda: connection.recv(65_536), b""))
        return answer.partition(b"\r\n\r\n")[2].decode()

    log = tmp_path_factory.mktemp("server") / "log"
    with running_server(log, str(package_folder)) as server:
        for content in ((ROOT / "examples/seven.png").read_bytes(), b"no image"):
            get(server.port, "POST /classify", content)
        get(server.port, "POST /classify", b"no image", "Content-Type: image/png\r\nAccept: application/x-ndjson\r\n")
        families = list(text_string_to_metric_families(get(server.port, "GET /metrics")))
    found: dict[str, set[str]] = {}
    for sample in (sample for family in families for sample in family.samples):
        found.setdefault(sample.name, set()).update(sample.labels)
    return found


class TestQueries:
    def test_every_metric_and_label_is_one_of_the_server(self, samples: dict[str, set[str]]) -> None:
        seen = set()
        for query in queries():
            names, grouped = set(), set()
            for part in parts(promql_parser.parse(query)):
                if isinstance(part, promql_parser.VectorSelector):
                    labels = {matcher.name for matcher in part.matchers.matchers}
                    if part.name != "up":  # Prometheus' own
                        assert labels <= samples[part.name] | {"instance", "job"}, query
                        names.add(part.name)
                elif isinstance(part, promql_parser.AggregateExpr) and part.modifier is not None:
                    grouped |= set(part.modifier.labels)
            assert grouped <= {"instance", "job"}.union(*(samples[name] for name in names)), query
            seen |= names
        assert "pdeinfer_admitted_images" in seen
        assert len(seen) > 5

    def test_matched_values_are_the_servers(self) -> None:
        values: dict[str, set[str]] = {}
        for query in queries():
            for part in parts(promql_parser.parse(query)):
                for matcher in part.matchers.matchers if isinstance(part, promql_parser.VectorSelector) else ():
                    values.setdefault(matcher.name, set()).update(matcher.value.split("|"))

        assert values["reason"] <= set(STATUSES)
        methods = [f"/{SERVICE}/{name}" for name in ("ModelInfer", "ServerLive", "ServerReady", "ModelReady")]
        routes = [*create_app(Settings()).openapi()["paths"], *methods, "/grpc.health.v1.Health/Check"]
        for value in values["route"]:
            assert any(re.fullmatch(value, route) for route in routes), value

    def test_the_variables_of_the_dashboard_are_defined(self) -> None:
        used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(DASHBOARD)))
        assert used == {variable["name"] for variable in DASHBOARD["templating"]["list"]}

    def test_every_alert_says_what_is_wrong_and_how_bad_it_is(self) -> None:
        assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS)
        for rule in ALERTS:
            assert rule["annotations"]["summary"]
            assert rule["labels"]["severity"] in ("critical", "warning")
            assert rule["for"]


def test_kustomize_renders_the_resources() -> None:
    try:
        done = subprocess.run(["kubectl", "kustomize", DEPLOY / "kubernetes"], capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip("there is no kubectl here")
    rendered = list(yaml.safe_load_all(done.stdout))
    images = [
        container["image"]
        for manifest in rendered
        for container in manifest["spec"].get("template", {}).get("spec", {}).get("containers", [])
    ]

    assert len(rendered) == len(KUSTOMIZATION["resources"])
    assert images == [f"{KUSTOMIZATION['images'][0]['newName']}:{__version__}"]


def test_the_citation_has_the_version_of_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"] == citation["license"]
