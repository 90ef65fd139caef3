"""`deploy/install.sh`: which build of PyTorch a machine gets. uv is one that writes down what it is
told: what it would install is gigabytes, and the CPU builds are not everywhere to be had.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from environments import ROOT

UV = """#!/usr/bin/env python3
import json, os, sys
arguments = sys.argv[1:]
pins = [open(a).read() for a, b in zip(arguments[1:], arguments) if b == "-r"]
with open(os.environ["TOLD"], "a") as file:
    file.write(json.dumps([arguments, *pins]) + "\\n")
sys.exit("--dry-run" in arguments and os.environ.get("CPU_BUILDS") != "yes")
"""
CUDA = re.compile(r"^(nvidia-|cuda-|triton)", re.MULTILINE)


@pytest.fixture
def install(tmp_path):
    """Runs the script in a copy; what uv was told, and what the script said."""
    project, tools = tmp_path / "project", tmp_path / "venv/bin"
    (project / "deploy").mkdir(parents=True)
    tools.mkdir(parents=True)
    for name in ("deploy/install.sh", "requirements.txt"):
        shutil.copy2(ROOT / name, project / name)
    (tools / "uv").write_text(UV)
    (tools / "uv").chmod(0o755)

    def run(gpu: bool = False, status: int = 0, **variables: str):
        told = tmp_path / "told"
        told.unlink(missing_ok=True)
        (tools / "nvidia-smi").write_text(f"#!/bin/sh\nexit {0 if gpu else 9}\n")
        (tools / "nvidia-smi").chmod(0o755)
        environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "TOLD": str(told)}
        done = subprocess.run(
            [project / "deploy/install.sh", tmp_path / "venv"], env={**environment, **variables},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        lines = told.read_text().splitlines() if told.exists() else []
        return [json.loads(line) for line in lines], done.stderr

    return run


no_gpu_here = pytest.mark.skipif(bool(list(Path("/dev").glob("nvidia[0-9]*"))), reason="has a GPU")
ALL = (ROOT / "requirements.txt").read_text()


@no_gpu_here
def test_a_machine_without_a_gpu_gets_cpu_builds_and_nothing_of_cuda(install):
    (look, pins, own), said = install(CPU_BUILDS="yes")
    assert {"--dry-run", "--torch-backend=cpu"} <= set(look[0])
    assert re.findall(r"^(\w+)==", look[1], re.MULTILINE) == ["torch", "torchvision"]
    assert {"--torch-backend=cpu", "--compile-bytecode"} <= set(pins[0])
    assert CUDA.search(ALL)
    assert not CUDA.search(pins[1])
    left_out = set(ALL.splitlines()) - set(pins[1].splitlines())
    assert all(CUDA.match(line) for line in left_out)
    assert own[0][-1] == "."
    assert said == ""


@no_gpu_here
def test_where_cpu_builds_cannot_be_had_the_others_are_taken_and_it_is_said(install):
    (_, pins, _), said = install()
    assert pins[1] == ALL
    assert not any("torch-backend" in word for word in pins[0])
    assert "CPU builds of PyTorch cannot be had from here" in said


def test_a_machine_with_a_gpu_gets_cuda(install):
    (pins, _), said = install(gpu=True, CPU_BUILDS="yes")
    assert pins[1] == ALL
    assert said == ""


def test_the_choice_can_be_made(install):
    assert len(install(gpu=True, CPU_BUILDS="yes", EQUIGRID_TORCH="cpu")[0]) == 3
    assert install(EQUIGRID_TORCH="cuda")[0][0][1] == ALL
    told, said = install(status=2, EQUIGRID_TORCH="gpu")
    assert told == []
    assert "EQUIGRID_TORCH is gpu; write cpu, cuda or auto" in said


def test_the_makefile_sets_up_by_it():
    makefile = (ROOT / "Makefile").read_text()
    assert "EQUIGRID_TORCH=$(TORCH) deploy/install.sh $(VENV)" in makefile
    assert (ROOT / "deploy/install.sh").stat().st_mode & 0o111


def test_uv_knows_the_option():
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("no uv here")
    said = subprocess.run([uv, "pip", "install", "--help"], capture_output=True, text=True)
    if said.returncode:
        pytest.skip("uv is not of this environment")
    assert "--torch-backend" in said.stdout
