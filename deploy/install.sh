#!/usr/bin/env bash
# Installs the pinned dependencies into a virtual environment that has uv, and equigrid itself as it
# lies here: deploy/install.sh VENV. Called by the Makefile.
#
# A machine without an NVIDIA GPU gets PyTorch's CPU build, without CUDA's packages. uv knows where
# those builds are (--torch-backend); where they cannot be had, the build with CUDA is installed,
# which runs on a CPU too. EQUIGRID_TORCH=cpu or cuda chooses, whatever the machine has.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1 torch=${EQUIGRID_TORCH:-auto}
install=("$venv/bin/uv" pip install --quiet --python "$venv/bin/python")
pins=requirements.txt options=()

has_nvidia_gpu() {
  compgen -G '/dev/nvidia[0-9]*' > /dev/null || nvidia-smi > /dev/null 2>&1
}

case $torch in
  auto) if has_nvidia_gpu; then torch=cuda; else torch=cpu; fi ;;
  cpu | cuda) ;;
  *)
    echo "EQUIGRID_TORCH is $torch; write cpu, cuda or auto" >&2
    exit 2
    ;;
esac

if [ "$torch" = cpu ] && [ "$(uname)" = Linux ]; then  # elsewhere there is no other build
  # A second list of pins: the same versions without what a CPU does not need.
  grep -vE '^(cuda-|nvidia-|triton)' requirements.txt > "$venv/requirements-cpu.txt"
  grep -E '^(torch|torchvision)==' requirements.txt > "$venv/torch.txt"
  # A quick look first: one try, so that a machine that cannot reach them does not wait long.
  if UV_HTTP_RETRIES=0 UV_HTTP_TIMEOUT=15 UV_HTTP_CONNECT_TIMEOUT=5 timeout 60 "${install[@]}" \
    --torch-backend=cpu --no-deps --dry-run -r "$venv/torch.txt" > /dev/null 2>&1; then
    pins=$venv/requirements-cpu.txt options=(--torch-backend=cpu)
  else
    echo "CPU builds of PyTorch cannot be had from here: installing those with CUDA, which run on" \
      "a CPU too and take about 4 GB more" >&2
  fi
fi

# Compiled bytecode: without it every Ray worker would compile PyTorch anew at its start.
"${install[@]}" --compile-bytecode "${options[@]}" -r "$pins"
"${install[@]}" --no-deps --no-build-isolation -e .
