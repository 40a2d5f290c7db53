"""The alerts of deploy/ fire for the metrics that the server and its scrape configurations give."""

import re
from typing import Any

import pytest
import yaml

from serving.app import create_app
from serving.grpc.messages import SERVICE
from serving.interface.statuses import STATUSES
from serving.settings import Settings
from tests.servers import ROOT

DEPLOY = ROOT / "deploy"


def read(path: str) -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / path).read_text(encoding="utf-8"))


def expression(alert: str) -> str:
    rules = [rule for group in read("compose/alerts.yaml")["groups"] for rule in group["rules"]]
    (found,) = [rule["expr"] for rule in rules if rule["alert"] == alert]
    return found


def test_the_server_has_the_job_of_the_alerts_in_compose_and_in_kubernetes() -> None:
    pod = read("kubernetes/deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    (compose,) = read("compose/prometheus.yaml")["scrape_configs"]
    jobs = [compose["job_name"], pod[read("kubernetes/pod-monitor.yaml")["spec"]["jobLabel"]]]

    for alert in ("PdeinferDown", "PdeinferServesNoModel"):
        (job,) = re.findall(r'job="([^"]+)"', expression(alert))
        assert jobs == [job, job]


def test_the_alert_for_a_server_without_a_model_starts_from_the_servers_that_are_up() -> None:
    """New workers without a model report no series about one, so a sum over them would be empty, which is not 0."""
    up, models = expression("PdeinferServesNoModel").split(" unless on (instance) ")

    assert (up, models) == ('up{job="pdeinfer"} == 1', "(pdeinfer_model_info == 1)")


def test_every_failure_of_the_server_counts_over_http_and_over_grpc() -> None:
    (reasons,) = re.findall(r'pdeinfer_rejected_requests_total\{reason=~"([^"]+)"\}', expression("PdeinferFails"))

    assert set(reasons.split("|")) == {code for code, status in STATUSES.items() if status == 500}


def test_an_image_without_a_result_fires_the_alert_of_a_request_that_fails_so() -> None:
    for alert, reason in (("PdeinferFails", "inference_failed"), ("PdeinferTurnsRequestsAway", "deadline_exceeded")):
        requests, images = expression(alert).split("\nor ")
        (reasons,) = re.findall(r'pdeinfer_rejected_requests_total\{reason=~"([^"]+)"\}', requests)

        assert re.findall(r'pdeinfer_failed_images_total\{reason="([^"]+)"\}', images) == [reason]
        assert reason in reasons.split("|")


@pytest.mark.parametrize("alert", ["PdeinferFails", "PdeinferTurnsRequestsAway"])
def test_probes_and_scrapes_do_not_dilute_the_share_of_requests(alert: str) -> None:
    (pattern,) = re.findall(r'pdeinfer_requests_total\{\s*route!~"([^"]+)"\s*\}', expression(alert))
    methods = [
        f"/{SERVICE}/{name}" for name in ("ServerLive", "ServerReady", "ModelReady", "ModelInfer", "ModelMetadata")
    ]
    routes = [*create_app(Settings()).openapi()["paths"], *methods, "/grpc.health.v1.Health/Check", "other"]

    assert sorted(route for route in routes if re.fullmatch(pattern, route)) == [
        "/grpc.health.v1.Health/Check",
        "/healthz",
        *sorted(methods[:3]),
        "/metrics",
        "/readyz",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/{model}/ready",
        "/v2/models/{model}/versions/{version}/ready",
    ]
    dashboard = (DEPLOY / "compose/grafana/dashboards/pdeinfer.json").read_text(encoding="utf-8")
    assert set(re.findall(r'route!~\\"([^"]+)\\"', dashboard)) == {pattern}


def test_every_route_that_computes_a_network_can_be_slow() -> None:
    (pattern,) = re.findall(r'pdeinfer_request_seconds_bucket\{route=~"([^"]+)"\}', expression("PdeinferIsSlow"))
    routes = [*create_app(Settings()).openapi()["paths"], f"/{SERVICE}/ModelInfer", f"/{SERVICE}/ServerReady", "other"]

    assert [route for route in routes if re.fullmatch(pattern, route)] == [
        "/classify",
        "/embed",
        "/v2/models/{model}/infer",
        "/v2/models/{model}/versions/{version}/infer",
        "/inference.GRPCInferenceService/ModelInfer",
    ]
