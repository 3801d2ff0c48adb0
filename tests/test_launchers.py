"""The launchers of clusters: what they hand to srun and gcloud, and a JobSet whose numbers agree."""

import math
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from specexit_jax.parallel import distributed

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted(path.name for path in (ROOT / "launch").glob("*.sh"))


def run(tmp_path, script, *arguments, **environment):
    """Runs a launcher where srun and gcloud are programs that write down how they were called."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    for name in ("srun", "gcloud"):
        program = folder / name
        told = f'"{name} $SPECEXIT_CLUSTER $PYTHONPATH" "$@" END'
        program.write_text(f'#!/bin/bash\nprintf "%s\\n" {told} >>"{tmp_path}/calls"\nexit "${{FAKE:-0}}"\n')
        program.chmod(0o755)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "TPU", "PYTHON"))}
    done = subprocess.run(
        ["bash", str(ROOT / "launch" / script), *arguments],
        env=clean | {"PATH": f"{folder}:{os.environ['PATH']}"} | environment,
        capture_output=True,
        text=True,
    )
    path = tmp_path / "calls"
    calls = path.read_text().split("\nEND\n")[:-1] if path.exists() else []
    path.unlink(missing_ok=True)
    return done, [call.splitlines() for call in calls]


def test_slurm_starts_every_process_and_ends_all_with_one(tmp_path):
    slurm = {"SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": "/repo"}
    done, (call,) = run(tmp_path, "slurm.sh", "launch.train", "--workdir=a b", PYTHON="/env/python", FAKE="3", **slurm)
    assert done.returncode == 3  # what srun ended with
    assert call[0] == "srun slurm /repo" and "--kill-on-bad-exit=1" in call
    assert call[-5:] == ["/env/python", "-P", "-m", "launch.train", "--workdir=a b"]
    done, calls = run(tmp_path, "slurm.sh", "launch.train")
    assert done.returncode == 1 and done.stderr.startswith("error: this is no Slurm job") and not calls


def test_a_pod_gets_the_repository_and_runs_on_every_worker(tmp_path):
    pod = {"TPU": "slice", "ZONE": "us-west4-a", "PROJECT": "mine", "JAX_VERSION": "0.10.2", "PYTHON": "python3.12"}
    done, calls = run(tmp_path, "tpu_pod.sh", "launch.train", "--workdir=a b", "--config.x='1'", **pod)
    assert done.returncode == 0, done.stderr
    copy, install, train = calls
    for call in calls:
        assert {"--worker=all", "--zone=us-west4-a", "--project=mine"} <= set(call)
    assert copy[4] == "scp" and copy[6] == "slice:specexit.tar.gz"
    assert "python=python3.12 jax=jax\\[tpu\\]==0.10.2" in "\n".join(install)
    (command,) = (line.removeprefix("--command=") for line in train if line.startswith("--command="))
    # What the shell at the other end makes of it.
    told = subprocess.run(["bash", "-c", command.replace("exec ../specexit-env/bin/python", "printf '%s|'")
                           .replace("cd specexit", "true")], capture_output=True, text=True)  # fmt: skip
    assert told.stdout == "-m|launch.train|--workdir=a b|--config.x='1'|"
    assert command.startswith("cd specexit && SPECEXIT_CLUSTER=gcetpu ")
    done, calls = run(tmp_path, "tpu_pod.sh", "launch.train", **(pod | {"ZONE": ""}))
    assert (
        done.returncode == 1 and done.stderr == "error: set TPU and ZONE to the slice's name and zone\n" and not calls
    )


def test_what_a_pod_is_told_to_install_is_a_program(tmp_path):
    """The text sent there parses, and a list that has not changed is not installed again."""
    _, (_, install, _) = run(tmp_path, "tpu_pod.sh", "launch.train", TPU="slice", ZONE="z")
    start = next(i for i, line in enumerate(install) if line.startswith("--command="))
    command = "\n".join(install[start:]).removeprefix("--command=")
    log, fake = tmp_path / "log", tmp_path / "python3"
    fake.write_text(
        f'#!/bin/bash\necho "$@" >>{log}\n[ "$2" = venv ] && mkdir -p specexit-env/bin && cp "$0" specexit-env/bin/python; true\n'
    )
    fake.chmod(0o755)
    (tmp_path / "specexit").mkdir()
    shutil.copy(ROOT / "requirements.txt", tmp_path / "specexit")
    subprocess.run(["tar", "-czf", "specexit.tar.gz", "-C", "specexit", "requirements.txt"], cwd=tmp_path, check=True)
    for _ in range(2):
        subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, check=True
        )
    assert log.read_text().splitlines() == [
        "-m venv --clear specexit-env",
        "-m pip install -q -r specexit/requirements.txt jax[tpu]",
    ]


def test_the_jobset_asks_for_one_slice_and_a_pod_on_each_of_its_hosts():
    jobset = yaml.safe_load((ROOT / "launch" / "gke.yaml").read_text())
    assert jobset["kind"] == "JobSet" and jobset["spec"]["failurePolicy"]["maxRestarts"] > 0
    (workers,) = jobset["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    chips = {kind: int(container["resources"][kind]["google.com/tpu"]) for kind in ("requests", "limits")}
    assert chips["requests"] == chips["limits"]
    assert math.prod(map(int, topology.split("x"))) == chips["limits"] * job["parallelism"] * workers["replicas"]
    assert job["completions"] == job["parallelism"] and job["completionMode"] == "Indexed"
    assert job["backoffLimit"] == 0 and pod["restartPolicy"] == "Never"  # JobSet restarts all, nobody restarts one
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert distributed._arguments(environment) == {"cluster_detection_method": "gketpu"}
    module = container["command"][-1].replace(".", "/")
    assert (ROOT / f"{module}.py").exists()
    configs = [flag.partition("=")[2] for flag in container["args"] if flag.startswith("--config=")]
    assert configs and all((ROOT / config).exists() for config in configs)
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert {volume["name"] for volume in pod["volumes"]} == set(mounts)
    workdir = next(flag.partition("=")[2] for flag in container["args"] if flag.startswith("--workdir="))
    assert workdir.startswith(f"{mounts['runs']}/")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_finds_nothing(script):
    done = subprocess.run(["shellcheck", "-x", f"launch/{script}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
