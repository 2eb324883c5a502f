"""The files in `docs/guides/containers.md` have fields that exist, fit together, and start what they say.

The manifests and the Compose file were validated against the published schemas of Kubernetes and of Compose
when they were written. Those are too large for the dependencies of the tests.
"""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from click import Context

from oban.cli import main
from tests.docs.snippets import fenced
from tests.support.commands import invoke
from tests.support.processes import ROOT

PAGE = "docs/guides/containers.md"
TEXT = (ROOT / PAGE).read_text()
[DOCKERFILE] = fenced(PAGE, "dockerfile")
COMPOSE, *MANIFESTS = fenced(PAGE, "yaml")
[DEPLOY] = fenced(PAGE, "console")
#: The seconds that a node may need after its grace period, according to docs/guides/deploying.md.
MARGIN = 10
#: The fields of the objects on the page, by the path to them. A wrong name would be ignored, or refused.
FIELDS = {
    "Secret": {"apiVersion", "kind", "metadata", "stringData"},
    "Job": {"apiVersion", "kind", "metadata", "spec"},
    "Job.spec": {"backoffLimit", "ttlSecondsAfterFinished", "template"},
    "Deployment": {"apiVersion", "kind", "metadata", "spec"},
    "Deployment.spec": {"replicas", "selector", "strategy", "template"},
    "Deployment.spec.strategy": {"rollingUpdate"},
    "Deployment.spec.strategy.rollingUpdate": {"maxUnavailable", "maxSurge"},
    "template": {"metadata", "spec"},
    "pod": {"restartPolicy", "terminationGracePeriodSeconds", "securityContext", "containers", "volumes"},
    "container": {
        *("name", "image", "command", "envFrom", "ports", "livenessProbe", "readinessProbe", "resources"),
        "volumeMounts",
    },
    "probe": {"httpGet", "tcpSocket", "periodSeconds", "timeoutSeconds", "failureThreshold"},
    "PodDisruptionBudget": {"apiVersion", "kind", "metadata", "spec"},
    "PodDisruptionBudget.spec": {"minAvailable", "selector"},
    "Service": {"apiVersion", "kind", "metadata", "spec"},
    "Service.spec": {"clusterIP", "selector", "ports"},
}
SERVICE = {
    *("image", "build", "command", "environment", "volumes", "healthcheck", "depends_on", "secrets", "ports"),
    *("stop_grace_period", "restart"),
}
VERSIONS = {
    "Secret": "v1",
    "Service": "v1",
    "Job": "batch/v1",
    "Deployment": "apps/v1",
    "PodDisruptionBudget": "policy/v1",
}


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile with their arguments; a backslash joins lines."""
    lines = DOCKERFILE.replace("\\\n", " ").splitlines()
    return [(name, argument.strip()) for name, _, argument in (line.partition(" ") for line in lines)]


def objects() -> dict[tuple[str, str], dict[str, Any]]:
    found = [each for block in MANIFESTS for each in yaml.safe_load_all(block)]
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def pods() -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """The objects that make Pods, with the template and its only container."""
    for (kind, _), each in objects().items():
        if kind in ("Job", "Deployment"):
            template = each["spec"]["template"]
            [container] = template["spec"]["containers"]
            yield each, template, container


def commands() -> list[list[str]]:
    """Every command that a file of the page starts."""
    arguments = dict(instructions())
    found = [json.loads(arguments["CMD"])]
    found += [each["command"] for each in yaml.safe_load(COMPOSE)["services"].values() if "command" in each]
    return found + [container["command"] for _, _, container in pods()]


def grace(command: list[str]) -> float:
    words = [word for argument in command for word in argument.split("=")]
    return float(words[words.index("--shutdown-grace-period") + 1])


def test_every_command_is_one_of_oban_with_options_that_exist() -> None:
    assert len(commands()) == 6
    for program, name, *arguments in commands():
        assert program == "oban"
        command = main.get_command(Context(main), name)
        assert command is not None
        with command.make_context(name, list(arguments)) as context:
            assert set(context.params) >= {"app"}


def test_the_dockerfile_installs_what_its_command_needs_as_another_user() -> None:
    names = [name for name, _ in instructions()]
    assert names == ["FROM", "RUN", "WORKDIR", "COPY", "RUN", "COPY", "USER", "CMD", "HEALTHCHECK"]
    arguments = dict(instructions())
    assert f"--uid {arguments['USER']}" in DOCKERFILE
    # Kubernetes cannot tell whether a user with a name is root.
    assert arguments["USER"].isdigit()
    version = re.fullmatch(r"python:(3\.\d+)-slim", arguments["FROM"])
    assert version is not None
    assert f"Programming Language :: Python :: {version[1]}" in (ROOT / "pyproject.toml").read_text()
    check = json.loads(arguments["HEALTHCHECK"].partition("CMD ")[2])
    compile(check[-1], PAGE, "exec")
    port = json.loads(arguments["CMD"])[-1]
    assert f"http://127.0.0.1:{port}/live" in check[-1]


def test_every_node_gets_time_to_stop() -> None:
    command = json.loads(dict(instructions())["CMD"])
    services = yaml.safe_load(COMPOSE)["services"]
    assert "command" not in services["jobs"]
    assert grace(command) + MARGIN <= float(services["jobs"]["stop_grace_period"].removesuffix("s"))
    assert f"docker stop -t {grace(command) + MARGIN:g}" in TEXT
    jobs = objects()["Deployment", "shop-jobs"]["spec"]["template"]["spec"]
    [container] = jobs["containers"]
    assert grace(container["command"]) + MARGIN <= jobs["terminationGracePeriodSeconds"]


def test_the_services_of_compose_have_fields_that_exist_and_one_database() -> None:
    compose = yaml.safe_load(COMPOSE)
    assert compose.keys() == {"services", "secrets", "volumes"}
    services = compose["services"]
    for name, service in services.items():
        assert service.keys() <= SERVICE, name
        for needed, condition in service.get("depends_on", {}).items():
            expected = "service_healthy" if needed == "database" else "service_completed_successfully"
            assert condition == {"condition": expected}
    assert services["database"]["image"].startswith("postgres:")
    assert "healthcheck" in services["database"]
    assert services["install"]["command"] == ["oban", "install"]
    urls = {service["environment"].get("OBAN_DATABASE_URL") for service in services.values()} - {None}
    assert [url.partition("@")[2] for url in urls] == ["database/postgres"]
    for name in ("jobs", "dashboard"):
        assert services[name]["depends_on"].keys() == {"install"}
    [secret] = compose["secrets"]
    assert f"/run/secrets/{secret}" in services["dashboard"]["command"]
    assert compose["secrets"][secret]["file"] in next(each for each in fenced(PAGE, "text") if ".git" in each)


def check(where: str, fields: dict[str, Any]) -> None:
    assert fields.keys() <= FIELDS[where], (where, fields.keys() - FIELDS[where])


def test_the_manifests_have_fields_that_exist() -> None:
    assert len(objects()) == 8
    for (kind, _), each in objects().items():
        assert each["apiVersion"] == VERSIONS[kind]
        check(kind, each)
        if "spec" in each:
            check(f"{kind}.spec", each["spec"])
    strategy = objects()["Deployment", "shop-jobs"]["spec"]["strategy"]
    check("Deployment.spec.strategy", strategy)
    check("Deployment.spec.strategy.rollingUpdate", strategy["rollingUpdate"])
    for _, template, container in pods():
        for volume in template["spec"].get("volumes", ()):
            # Whoever else can read the passwords is warned about.
            assert volume["secret"]["defaultMode"] == 0o440
            assert f"--uid {template['spec']['securityContext']['fsGroup']}" in DOCKERFILE
        check("template", template)
        check("pod", template["spec"])
        check("container", container)
        for probe in ("livenessProbe", "readinessProbe"):
            check("probe", container.get(probe, {}))


def test_the_manifests_refer_to_what_there_is() -> None:
    secrets = {name for kind, name in objects() if kind == "Secret"}
    labels = [template.get("metadata", {}).get("labels") for _, template, _ in pods()]
    for each, template, container in pods():
        if each["kind"] == "Deployment":
            assert each["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
        assert {source["secretRef"]["name"] for source in container["envFrom"]} <= secrets
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
        for probe in ("livenessProbe", "readinessProbe"):
            asked = container.get(probe, {})
            assert asked == {} or asked.get("httpGet", asked.get("tcpSocket"))["port"] in ports
        volumes = {volume["name"] for volume in template["spec"].get("volumes", ())}
        assert {mount["name"] for mount in container.get("volumeMounts", ())} == volumes
    for (kind, _), each in objects().items():
        if kind == "PodDisruptionBudget":
            assert each["spec"]["selector"]["matchLabels"] in labels
        if kind == "Service":
            assert each["spec"]["selector"] in labels
    paths = {
        probe: container[probe]["httpGet"]["path"]
        for _, _, container in pods()
        for probe in ("livenessProbe", "readinessProbe")
        if "httpGet" in container.get(probe, {})
    }
    assert paths == {"livenessProbe": "/live", "readinessProbe": "/ready"}


def test_the_users_of_the_dashboard_can_be_read(tmp_path: Path) -> None:
    users = objects()["Secret", "shop-dashboard"]["stringData"]
    path = tmp_path / "users"
    path.write_text(users["users"])
    path.chmod(0o440)
    command = objects()["Deployment", "shop-dashboard"]["spec"]["template"]["spec"]["containers"][0][
        "command"
    ]
    assert "--password-file=/etc/dashboard/users" in command
    # The file is read before anything else: a wrong one would be named first.
    arguments = ["web", "--host", "0.0.0.0", "--password-file", str(path), "--database-url", "nothing://"]
    done = invoke(*arguments)
    assert done.output == "Error: nothing is not supported; use postgresql or sqlite\n"


def test_a_deploy_creates_the_tables_before_it_changes_the_nodes() -> None:
    lines = [shlex.split(line.removeprefix("$ ")) for line in DEPLOY.splitlines()]
    assert all(line[0] == "kubectl" for line in lines)
    assert [line[1] for line in lines] == ["delete", "apply", "wait", "apply"]
    assert ("Job", "shop-install") in objects()
    assert lines[0][3] == "shop-install"
    assert "job/shop-install" in lines[2]
    for line in lines:
        if line[1] == "apply":
            assert f"`{line[3]}`, " in TEXT


@pytest.mark.parametrize("metric", ["oban_oldest_available_age_seconds", "oban_jobs"])
def test_the_metrics_to_scale_on_exist(metric: str) -> None:
    assert f"| `{metric}` | gauge | `queue`" in (ROOT / "docs/guides/prometheus.md").read_text()
    assert metric in TEXT
