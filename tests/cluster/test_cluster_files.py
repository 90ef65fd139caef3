"""The cluster files, as far as they can be checked without a cloud: by Ray's own schema, defaults
and scheduler.
"""

import json
import os
import re
import subprocess
import zipfile

import pytest
import yaml
from launched import REPOSITORY
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

from equigrid.grid.spec import load

FILES = ("cluster.yaml", "cluster-local.yaml")
START = {"head": "head_start_ray_commands", "worker": "worker_start_ray_commands"}
# The fields of KubeRay 1.6.2's custom resource definitions (ray.io/v1); what is not among them is
# dropped unread.
RAYJOB = set(
    "activeDeadlineSeconds backoffLimit clusterSelector deletionStrategy entrypoint entrypointNumCpus entrypointNumGpus"
    " entrypointResources jobId managedBy metadata preRunningDeadlineSeconds rayClusterSpec runtimeEnvYAML"
    " shutdownAfterJobFinishes submissionMode submitterConfig submitterPodTemplate suspend ttlSecondsAfterFinished".split()
)
RAYCLUSTER = set(
    "authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions headGroupSpec headServiceAnnotations"
    " managedBy rayVersion suspend upgradeStrategy workerGroupSpecs".split()
)
HEAD_GROUP = set(
    "enableIngress headService labels rayStartParams resources serviceType template".split()
)
WORKER_GROUP = set(
    "groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts rayStartParams replicas resources"
    " scaleStrategy suspend template".split()
)
# Of the pod API, those used here.
CONTAINER = set("name image ports env envFrom lifecycle resources volumeMounts".split())


def read(name: str) -> dict:
    return yaml.safe_load((REPOSITORY / name).read_text())


@pytest.fixture(scope="module")
def aws() -> dict:
    """cluster.yaml with Ray's defaults filled in, as `ray up` uses it."""
    return prepare_config(read("cluster.yaml"))


@pytest.fixture(scope="module")
def rayjob() -> tuple[dict, dict]:
    return tuple(yaml.safe_load_all((REPOSITORY / "deploy/rayjob.yaml").read_text()))


# Both files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_the_file(name):
    validate_config(prepare_config(read(name)))


@pytest.mark.parametrize("name", FILES)
def test_all_packages_are_mounted_from_where_they_are(name):
    mounts = read(name)["file_mounts"]
    packages = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")} - {"tests"}
    assert packages >= {"grid", "generators", "classifiers", "analysis"}
    for package in packages:
        assert mounts[f"~/equigrid/{package}"] == package
    assert all(
        (REPOSITORY / local).exists() for local in mounts.values() if not local.startswith("~")
    )


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", START)
def test_ray_starts_with_the_environment_and_never_without_a_token(name, kind, tmp_path):
    stop, start, *_ = prepare_config(read(name))[START[kind]]
    assert stop == "ray stop"
    (tmp_path / "bin").mkdir()
    ray = tmp_path / "bin/ray"
    ray.write_text('#!/bin/sh\nenv > "$HOME/environment"; echo "$@" > "$HOME/arguments"\n')
    ray.chmod(0o755)
    environment = {
        "HOME": str(tmp_path),
        "PATH": f"{ray.parent}:{os.environ['PATH']}",
        "RAY_HEAD_IP": "192.0.2.1",
    }

    def call():
        return subprocess.run(
            ["bash", "-c", start], env=environment, capture_output=True
        ).returncode

    assert call() != 0, "there is no environment.sh"
    (tmp_path / "equigrid").mkdir()
    (tmp_path / "equigrid/deploy").symlink_to(REPOSITORY / "deploy")
    assert call() != 0, "there is no token"
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").touch()
    assert call() != 0, "the token is empty"
    assert not (tmp_path / "arguments").exists()
    (tmp_path / ".ray/auth_token").write_text("secret")
    assert call() == 0
    assert "RAY_AUTH_MODE=token" in (tmp_path / "environment").read_text().splitlines()
    arguments = (tmp_path / "arguments").read_text()
    assert ("--dashboard-host=127.0.0.1" in arguments) == (kind == "head")
    assert ("--address=192.0.2.1:6379" in arguments) == (kind == "worker")


def test_setting_up_a_machine_again_changes_nothing(tmp_path):
    project, token = tmp_path / "equigrid", tmp_path / ".ray/auth_token"
    token.parent.mkdir()
    token.write_text("secret")
    token.chmod(0o644)
    project.mkdir()
    for name in ("requirements.txt", "pyproject.toml"):
        (project / name).symlink_to(REPOSITORY / name)
    both = ((REPOSITORY / name).read_text() for name in ("requirements.txt", "pyproject.toml"))
    (project / ".installed").write_text("".join(both))
    for _ in range(2):
        script = ["bash", REPOSITORY / "deploy/setup-node.sh"]
        subprocess.run(script, env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]}, check=True)
    assert (tmp_path / ".bashrc").read_text().splitlines() == [
        "export PATH=$HOME/equigrid/.venv/bin:$PATH",
        ". $HOME/equigrid/deploy/environment.sh",
    ]
    assert token.stat().st_mode & 0o777 == 0o600
    assert not (project / ".venv").exists(), "nothing was installed"


def test_what_a_job_carries_is_small(tmp_path):
    for name in (".gitignore", ".rayignore"):
        (tmp_path / name).write_text((REPOSITORY / name).read_text())
    (tmp_path / "equigrid").mkdir()
    for name in ("grid", "analysis"):
        (tmp_path / name).mkdir()
        (tmp_path / "equigrid" / name).symlink_to(f"../{name}")
    kept = [
        "equigrid/grid/running/driver.py", "equigrid/grid/spec/presets/digits.yaml", "equigrid/analysis/schema.py",
        "my-grid.yaml", "data/blood.npz", "deploy/environment.sh",
    ]  # fmt: skip
    left = [
        ".git/objects/pack", ".venv/lib/torch.so", "equigrid-store/results/part.parquet", "equigrid-out/report.html",
        "tests/grid/test_x.py", "docs/figures/large.png", "benchmarks/edm.py", "equigrid/grid/__pycache__/driver.pyc",
    ]  # fmt: skip
    for name in (*kept, *left):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    package = tmp_path / "package.zip"
    create_package(str(tmp_path), package, include_gitignore=True, excludes=["package.zip"])
    names = {name for name in zipfile.ZipFile(package).namelist() if not name.endswith("/")}
    # What lies under a link is packed there, and not where the link leads.
    assert names == {*kept, ".gitignore", ".rayignore"}


# AWS ----------------------------------------------------------------------------------------------


def test_no_command_of_rays_defaults_remains(aws):
    setup = ["bash ~/equigrid/deploy/setup-node.sh 'boto3>=1.40'"]
    assert aws["head_setup_commands"] == aws["worker_setup_commands"] == setup
    assert aws["initialization_commands"] == []
    assert aws["provider"]["cache_stopped_nodes"] is False
    assert aws["idle_timeout_minutes"] <= 5


def test_gpu_workers_are_pairs_of_spot_and_on_demand(aws):
    types = aws["available_node_types"]
    gpus = {name for name, kind in types.items() if kind["resources"].get("GPU")}
    assert len(gpus) >= 8
    for name in gpus:
        model, market = re.fullmatch(r"(.+)_(spot|on_demand)", name).groups()
        twins = [types[f"{model}_spot"], types[f"{model}_on_demand"]]
        spot, on_demand = (dict(twin["node_config"]) for twin in twins)
        assert spot.pop("InstanceMarketOptions") == {"MarketType": "spot"}
        assert spot == on_demand
        assert twins[0]["resources"] == twins[1]["resources"]
        assert twins[0]["priority"] > twins[1]["priority"]
    assert all(kind["min_workers"] == 0 for kind in types.values())
    open_models = {
        name.rsplit("_spot")[0]
        for name in gpus
        if types[name]["max_workers"] and name.endswith("_spot")
    }
    assert open_models == {"a10g"}, "one GPU model per grid"
    head = types["head"]
    assert head["resources"] == {"CPU": 0} and head["max_workers"] == 0


@pytest.mark.parametrize(
    ("slot", "failed", "launched"),
    [
        ({"CPU": 1, "GPU": 1}, [], {"a10g_spot": 3}),
        ({"CPU": 1, "GPU": 1}, ["a10g_spot"], {"a10g_on_demand": 3}),
        ({"CPU": 1, "GPU": 0.5}, [], {"a10g_spot": 2}),
        ({"CPU": 1}, [], {"cpu_spot": 1}),
        ({"CPU": 1, "GPU": 2}, [], {}),
    ],
)
def test_rays_autoscaler_takes_spot_first_and_falls_back(aws, slot, failed, launched):
    """Three slots wait; `failed` names types whose launches failed just now."""
    config = AutoscalingConfig(aws, skip_content_hash=True)
    scores = {name: 0.0 if name in failed else 1.0 for name in aws["available_node_types"]}
    requests = ResourceRequestUtil.group_by_count([ResourceRequestUtil.make(slot)] * 3)
    reply = ResourceDemandScheduler(event_logger=None).schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=config.get_node_type_configs(),
            max_num_nodes=config.get_max_num_nodes(),
            resource_requests=requests,
            cloud_resource_availabilities=scores,
            recoverable_resource_availabilities=scores,
        )
    )
    assert {launch.instance_type: launch.count for launch in reply.to_launch} == launched
    assert bool(reply.infeasible_resource_requests) == (not launched)


def test_the_roles_allow_what_the_cluster_file_needs(aws):
    policies = {
        path.stem: json.loads(path.read_text())
        for path in (REPOSITORY / "deploy/aws").glob("*.json")
    }
    assert set(policies) == {"trust", "head", "store"}
    by_action = {
        action: statement
        for statement in policies["head"]["Statement"]
        for action in (
            [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        )
    }
    tag = by_action["ec2:TerminateInstances"]["Condition"]["StringEquals"]
    assert tag == {"ec2:ResourceTag/ray-cluster-name": aws["cluster_name"]}
    workers = [kind for name, kind in aws["available_node_types"].items() if name != "head"]
    profiles = {kind["node_config"]["IamInstanceProfile"]["Name"] for kind in workers}
    assert [by_action["iam:PassRole"]["Resource"].rsplit("/")[-1]] == list(profiles)


# Kubernetes ---------------------------------------------------------------------------------------


def test_the_rayjob_uses_known_fields_only(rayjob):
    _, job = rayjob
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert set(job) == {"apiVersion", "kind", "metadata", "spec"} and job["metadata"]["name"]
    cluster = job["spec"]["rayClusterSpec"]
    assert set(job["spec"]) <= RAYJOB and set(cluster) <= RAYCLUSTER
    assert set(cluster["headGroupSpec"]) <= HEAD_GROUP
    for group in cluster["workerGroupSpecs"]:
        assert {"groupName", "minReplicas", "maxReplicas", "template"} <= set(group) <= WORKER_GROUP
        assert (
            group["minReplicas"] == 0
            and group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        )
    assert cluster["authOptions"] == {"mode": "token", "secretName": "equigrid-token"}
    assert cluster["enableInTreeAutoscaling"] and job["spec"]["shutdownAfterJobFinishes"]
    assert (
        f"ray=={cluster['rayVersion']}"
        in (REPOSITORY / "requirements.txt").read_text().splitlines()
    )
    for parameters in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in parameters["rayStartParams"].values())


def test_the_pods_are_well_formed(rayjob):
    cluster = rayjob[1]["spec"]["rayClusterSpec"]
    pods = [
        cluster["headGroupSpec"]["template"],
        *(group["template"] for group in cluster["workerGroupSpecs"]),
    ]
    containers = [container for pod in pods for container in pod["spec"]["containers"]]
    assert [container["name"] for container in containers] == ["ray-head", "ray-worker"]
    for pod in pods:
        volumes = {volume["name"] for volume in pod["spec"].get("volumes", [])}
        for container in pod["spec"]["containers"]:
            assert set(container) <= CONTAINER
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes
            assert container["resources"]["requests"] == container["resources"]["limits"]
            assert all(isinstance(item["value"], str) for item in container["env"])
    ports = {port["containerPort"]: port["name"] for port in containers[0]["ports"]}
    assert ports == {6379: "gcs-server", 8265: "dashboard"}
    assert len({container["image"] for container in containers}) == 1
    assert "nvidia.com/gpu" not in containers[0]["resources"]["limits"]


def test_a_workers_pod_has_the_time_that_leaving_takes(rayjob):
    (group,) = rayjob[1]["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    pod = group["template"]["spec"]
    shell, script, seconds = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    image = (REPOSITORY / "deploy/Dockerfile").read_text()
    assert (shell, script) == ("bash", "/opt/equigrid/deploy/leave-node.sh")
    assert "WORKDIR /opt/equigrid\n" in image and "COPY deploy/leave-node.sh deploy/\n" in image
    assert pod["terminationGracePeriodSeconds"] >= int(seconds) + 30, (
        "`ray stop` takes some seconds more"
    )


def test_kubernetes_gets_the_same_environment(rayjob):
    lines = (REPOSITORY / "deploy/environment.sh").read_text().splitlines()
    shell = dict(
        line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export ")
    )
    assert shell.pop("RAY_AUTH_MODE") == "token"  # in a pod that is KubeRay's part: authOptions
    cluster = rayjob[1]["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        assert {item["name"]: item["value"] for item in container["env"]} == shell


def test_the_manifests_spec_loads_and_asks_for_what_the_pods_have(rayjob):
    config_map, job = rayjob
    spec = load(yaml.safe_load(config_map["data"]["spec.yaml"]))
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert head["volumes"] == [
        {"name": "spec", "configMap": {"name": config_map["metadata"]["name"]}}
    ]
    folder = head["containers"][0]["volumeMounts"][0]["mountPath"]
    command = job["spec"]["entrypoint"].split()
    assert command[:5] == ["equigrid", "run", f"{folder}/spec.yaml", "--address", "auto"]
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    gpus = int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
    assert spec.execution.slots == group["maxReplicas"] * gpus / spec.execution.gpus
