"""Every file under infra/: against its schema where there is one, and against the code that it runs and asks."""

import gzip
import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml

from regrad import __version__
from regrad.audit.options import OPTIONS, check_options
from regrad.cluster import metrics
from regrad.pipeline import options
from tests.data import ROOT

INFRA = ROOT / "infra"
SCHEMAS = ROOT.parent / "shared" / "schemas"
MANIFESTS = sorted([*INFRA.glob("kubernetes/*.yaml"), INFRA / "monitoring/podmonitor.yaml"])
RAY_KINDS = {"RayJob": "rayjobs", "RayCronJob": "raycronjobs", "RayCluster": "rayclusters"}
KINDS = {
    "CronJob": "batch/v1",
    "ServiceAccount": "v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "PodMonitor": "monitoring.coreos.com/v1",
    "CronWorkflow": "argoproj.io/v1alpha1",
    **dict.fromkeys(RAY_KINDS, "ray.io/v1"),
}


def documents() -> list[tuple[str, dict[str, Any]]]:
    return [(path.name, document) for path in MANIFESTS for document in yaml.safe_load_all(path.read_text())]


DOCUMENTS = [pytest.param(document, id=f"{name}-{document['kind']}") for name, document in documents()]


def one(name: str) -> dict[str, Any]:
    (found,) = yaml.safe_load_all((INFRA / name).read_text())
    return found


def strict(schema: Any) -> Any:
    """The schema of a CRD so that a field it does not know is a mistake."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items() if key != "format"}
    if made.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    if made.get("nullable") and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    if isinstance(made.get("properties"), dict) and "type" in made:
        made["additionalProperties"] = False
    return made


def validator(kind: str) -> jsonschema.Draft202012Validator:
    path = SCHEMAS / f"ray.io_{RAY_KINDS[kind]}.v1.schema.json.gz"
    if not path.exists():
        pytest.skip(f"needs KubeRay's schemas: {path.name} is not in {path.parent}")
    schema = strict(json.loads(gzip.decompress(path.read_bytes())))
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_manifests_have_the_kinds_and_names_of_kubernetes(document: dict[str, Any]) -> None:
    assert document["apiVersion"] == KINDS[document["kind"]]
    name = document["metadata"].get("name") or document["metadata"]["generateName"]
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9-])?", name)
    assert document.keys() <= {"apiVersion", "kind", "metadata", "spec"}
    for pod in pods(document):
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"]:
            assert container.keys() <= CONTAINER
            assert container["securityContext"] | CONFINED == container["securityContext"]
            assert container["image"].startswith(f"regrad:{__version__}-")
            assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
            volumes = {volume["name"] for volume in pod.get("volumes", ())}
            assert {mount["name"] for mount in container.get("volumeMounts", ())} <= volumes


CONTAINER = {"name", "image", "command", "args", "env", "ports", "resources", "securityContext", "volumeMounts"}
CONFINED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def pods(tree: Any) -> list[dict[str, Any]]:
    """Every pod specification in a manifest."""
    if isinstance(tree, list):
        return [pod for item in tree for pod in pods(item)]
    if not isinstance(tree, dict):
        return []
    if (
        "templates" in tree
    ):  # of Argo, which writes the one container of a pod, and all pods of a workflow have the rest
        containers = [template["container"] for template in tree["templates"] if "container" in template]
        return [tree | {"containers": [container]} for container in containers]
    return [tree] if "containers" in tree else [pod for value in tree.values() for pod in pods(value)]


@pytest.mark.parametrize("document", [item for item in DOCUMENTS if item.values[0]["kind"] in RAY_KINDS])
def test_custom_resources_fit_kuberays_schemas(document: dict[str, Any]) -> None:
    problems = [f"{error.json_path}: {error.message}" for error in validator(document["kind"]).iter_errors(document)]
    assert problems == []


def test_the_schemas_notice_mistakes() -> None:
    wrong = one("kubernetes/rayjob.yaml")
    wrong["spec"]["backofLimit"] = 1
    wrong["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplicas"] = "many"
    wrong["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["imag"] = "x"
    assert len(list(validator("RayJob").iter_errors(wrong))) == 3


def test_the_three_clusters_are_the_same() -> None:
    job, night = one("kubernetes/rayjob.yaml")["spec"], one("kubernetes/raycronjob.yaml")["spec"]["jobTemplate"]
    standing = one("kubernetes/raycluster.yaml")["spec"]
    assert job["rayClusterSpec"] == night["rayClusterSpec"] == standing
    gpu, cpu = standing["workerGroupSpecs"]
    assert gpu["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert (gpu["minReplicas"], cpu["minReplicas"], standing["enableInTreeAutoscaling"]) == (0, 0, True)
    head, worker = standing["headGroupSpec"]["template"]["spec"], gpu["template"]["spec"]
    spot = {term["matchExpressions"][0]["key"] for term in terms(worker)}
    assert {rule["key"]: rule["operator"] for rule in terms(head)[0]["matchExpressions"]} == dict.fromkeys(
        spot, "NotIn"
    )


def terms(pod: dict[str, Any]) -> list[dict[str, Any]]:
    required = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return required["nodeSelectorTerms"]


def commands() -> dict[str, list[str]]:
    """What the manifests run."""
    container = one("kubernetes/cronjob.yaml")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    night = one("kubernetes/raycronjob.yaml")["spec"]["jobTemplate"]["entrypoint"]
    return {
        "rayjob": shlex.split(one("kubernetes/rayjob.yaml")["spec"]["entrypoint"]),
        "raycronjob": shlex.split(night),
        "cronjob": container["args"],
    }


@pytest.mark.parametrize("name", ["rayjob", "raycronjob", "cronjob"])
def test_commands_are_ones_that_regrad_takes(name: str) -> None:
    program, command, *arguments = commands()[name]
    assert program == "regrad"
    if command == "score":
        parsed = options.parse(arguments, command, None)
        assert parsed.values["num_workers"] == 8
        assert parsed.values["cpus_per_worker"] == 6
        return
    assert command == "audit"
    parsed = options.parse(arguments, command, None, OPTIONS)
    assert parsed.gate
    check_options(parsed, {})


def test_both_nights_run_the_same_command_one_at_a_time() -> None:
    def settings(words: list[str]) -> list[str]:
        return sorted(" ".join(words).replace("=s3", " s3").replace("=", " ").split())

    assert settings(commands()["cronjob"]) == settings(commands()["raycronjob"])
    plain = one("kubernetes/cronjob.yaml")["spec"]
    assert plain["concurrencyPolicy"] == "Forbid"
    assert plain["jobTemplate"]["spec"]["activeDeadlineSeconds"] < 86400
    assert one("kubernetes/raycronjob.yaml")["spec"]["jobTemplate"]["activeDeadlineSeconds"] < 86400


def test_the_cron_job_knows_the_standing_cluster() -> None:
    pod = one("kubernetes/cronjob.yaml")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    variables = {item["name"]: item for item in pod["containers"][0]["env"]}
    cluster = one("kubernetes/raycluster.yaml")["metadata"]["name"]
    assert variables["RAY_ADDRESS"]["value"] == f"http://{cluster}-head-svc:8265"
    assert variables["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": cluster, "key": "auth_token"}


def test_prometheus_finds_the_metrics_port() -> None:
    (endpoint,) = one("monitoring/podmonitor.yaml")["spec"]["podMetricsEndpoints"]
    cluster = one("kubernetes/raycluster.yaml")["spec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        ports = {port["name"]: port["containerPort"] for port in group["template"]["spec"]["containers"][0]["ports"]}
        assert str(ports[endpoint["port"]]) == group["rayStartParams"]["metrics-export-port"]
    assert one("monitoring/prometheus.yml")["scrape_configs"][0]["file_sd_configs"][0]["files"] == [
        "/tmp/ray/prom_metrics_service_discovery.json"
    ]


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    text = (INFRA / "monitoring/grafana-dashboard.json").read_text()
    dashboard = json.loads(text)
    asked = set(re.findall(r"\bray_\w+", text))
    assert asked <= metrics.exported()
    assert {name.removesuffix("_bucket") for name in metrics.exported() if not name.endswith(("_sum", "_count"))} <= {
        name.removesuffix("_bucket") for name in asked
    }
    labels = {label for _, tags in [*metrics.COUNTERS.values(), *metrics.HISTOGRAMS.values()] for label in tags}
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    for expression in expressions:
        assert set(re.findall(r'(\w+)=~?"', expression)) <= labels
        assert set(",".join(re.findall(r"by \(([^)]*)\)", expression)).replace(" ", "").split(",")) <= labels | {
            "le",
            "",
        }
        assert set(re.findall(r'state="(\w+)"', expression)) <= {metrics.SCORING}
        assert expression.count("(") == expression.count(")")
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_launcher_files_fit_rays_schema(cloud: str) -> None:
    config = yaml.safe_load((INFRA / cloud / "cluster.yaml").read_text())
    jsonschema.validate(config, json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text()))
    kinds = config["available_node_types"]
    assert sum(kinds[name]["max_workers"] for name in ("gpu", "cpu")) == config["max_workers"]
    spot = {name: "spot" in json.dumps(kind).lower() for name, kind in kinds.items()}
    assert spot == {"head": False, "gpu": True, "cpu": True}
    assert all("--metrics-export-port=8080" in config[f"{role}_start_ray_commands"][1] for role in ("head", "worker"))


@pytest.mark.parametrize("path", sorted(INFRA.glob("aws/*-policy.json")), ids=lambda path: path.stem)
def test_policies_allow_what_is_named_and_no_more(path: Path) -> None:
    policy = json.loads(path.read_text())
    assert policy["Version"] == "2012-10-17"
    for statement in policy["Statement"]:
        assert statement.keys() <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        assert statement["Effect"] == "Allow"
        assert not any("*" in action for action in statement["Action"])
        if statement["Resource"] == "*":  # EC2's descriptions know no resources
            assert all(action.startswith("ec2:Describe") for action in statement["Action"])
    names = [action for statement in policy["Statement"] for action in statement["Action"]]
    assert not {"s3:DeleteBucket", "s3:PutBucketPolicy", "iam:CreateRole", "ec2:TerminateInstances"} & set(names) or (
        path.stem == "head-policy"
    )
