#!/usr/bin/env bash
# Makes a machine ready for the cluster: Python, the pinned dependencies and equigrid in
# ~/equigrid/.venv, which is first in PATH from then on. Called by the setup commands of
# cluster.yaml and cluster-local.yaml, as the user that runs Ray. On a machine that is ready it
# changes nothing and takes no time.
set -euo pipefail
chmod 600 ~/.ray/auth_token
cd ~/equigrid
python_version=3.11 uv_version=0.13.9

if ! cat requirements.txt pyproject.toml | cmp -s - .installed; then
  # uv brings its own Python where the system has none of this version.
  if ! command -v uv > /dev/null; then
    PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user "uv==$uv_version"
    uv() { python3 -m uv "$@"; }
  fi
  uv venv --quiet --allow-existing --python "$python_version" .venv
  # With bytecode: otherwise each Ray worker compiles PyTorch and Ray anew at its start.
  uv pip install --quiet --compile-bytecode --python .venv/bin/python -r requirements.txt "$@"
  uv pip install --quiet --no-deps --no-build-isolation --python .venv/bin/python -e .
  cat requirements.txt pyproject.toml > .installed
fi

# Ray's launcher sources ~/.bashrc before every command.
for line in 'export PATH=$HOME/equigrid/.venv/bin:$PATH' \
  '. $HOME/equigrid/deploy/environment.sh'; do
  grep -qsxF "$line" ~/.bashrc || echo "$line" >> ~/.bashrc
done
