"""The manifest and the batch script: as far as they can be checked where there is no cluster."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from headclip.cli.app import app
from headclip.engine.crew import Crew

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPT = EXAMPLES / "slurm_ray.sh"

# The fields of the API ray.io/v1 that the manifest uses, by the level at which they stand.
FIELDS = {
    "job": {"apiVersion", "kind", "metadata", "spec"},
    "spec": {"entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"},
    "cluster": {"rayVersion", "enableInTreeAutoscaling", "headGroupSpec", "workerGroupSpecs"},
    "head": {"rayStartParams", "template"},
    "worker": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
}


def parsed(words: list[str]) -> dict:
    """The options of a `headclip predict ...` as our own parser reads them."""
    assert words[:2] == ["headclip", "predict"]
    command = typer.main.get_command(app).commands["predict"]
    with command.make_context("predict", words[2:]) as context:  # closed, so that --quiet ends with it
        return context.params


@pytest.fixture
def job():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    return yaml.safe_load((EXAMPLES / "kuberay" / "rayjob.yaml").read_text(encoding="utf-8"))


def test_the_manifest_is_a_rayjob(job):
    cluster = job["spec"]["rayClusterSpec"]
    levels = {"job": job, "spec": job["spec"], "cluster": cluster, "head": cluster["headGroupSpec"]}
    for level, content in levels.items():
        assert set(content) <= FIELDS[level]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    for group in cluster["workerGroupSpecs"]:
        assert set(group) <= FIELDS["worker"]
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        assert container["image"].endswith(f":{cluster['rayVersion']}")
        assert {"requests", "limits"} <= set(container["resources"])


def test_the_command_of_the_manifest_is_one_of_ours(job):
    options = parsed(shlex.split(job["spec"]["entrypoint"]))
    (workers,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    crew = Crew.parse(options["actors"], options["cpus_per_actor"])
    assert options["resume"]
    assert (crew.least, crew.most) == (workers["minReplicas"], workers["maxReplicas"])
    (container,) = workers["template"]["spec"]["containers"]
    assert crew.cpus == float(container["resources"]["requests"]["cpu"])


def test_the_version_is_the_one_we_test_with(job):
    pins = (EXAMPLES.parent / "constraints.txt").read_text(encoding="utf-8")
    assert f"\nray=={job['spec']['rayClusterSpec']['rayVersion']}\n" in pins


def test_the_script_is_sound():
    done = subprocess.run(["bash", "-n", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert os.access(SCRIPT, os.X_OK)
    usage = subprocess.run(["bash", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert usage.returncode == 2
    assert "usage" in usage.stderr


def test_what_the_script_does(tmp_path):
    """Run with stand-ins for SLURM and Ray that note what they are called with.

    The script ends what it left running when headclip is done, so headclip's stand-in waits for their notes."""
    tools = tmp_path / "bin"
    tools.mkdir()
    started = f'[ "$(grep -c "ray start" {tmp_path}/calls)" = 2 ]'
    for name, body in {
        "scontrol": "printf 'node1\\nnode2\\nnode3\\n'",
        "srun": 'for a; do [ "$a" = hostname ] && echo 10.0.0.7; done; true',
        "headclip": f"for i in $(seq 600); do {started} && break; {shutil.which('sleep')} 0.05; done",
        "sleep": "true",
    }.items():
        tool = tools / name
        tool.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\n{body}\n')
        tool.chmod(0o755)
    env = os.environ | {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "node[1-3]",
        "SLURM_JOB_ID": "123",
        "SLURM_CPUS_PER_TASK": "8",
    }
    command = ["bash", str(SCRIPT), "/data/my images", "/data/run", "--actors", "6"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert any("ray start --head" in call and "--nodelist=node1" in call for call in calls)
    assert any("ray start --address=10.0.0.7:20123" in call and "--nodes=2" in call for call in calls)
    (judged,) = [call for call in calls if call.startswith("headclip ")]
    words = judged.replace("/data/my images", "/data/my-images").split()  # the note does not keep the quotes
    options = parsed(words)
    assert (options["actors"], options["cpus_per_actor"], options["resume"]) == ("6", 8.0, True)
    assert re.search(r"predict /data/my images --out /data/run --engine ray", judged)
