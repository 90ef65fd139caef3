#!/usr/bin/env bash
# A grid as a Slurm job: Ray on all nodes of the allocation, the run on the first. docs/slurm.md.
#   sbatch [--nodes=4 --time=12:00:00 …] deploy/slurm.sh SPEC --store FOLDER
# From the checkout's root, in a shell whose environment has `ray` and `equigrid`. The same line
# again resumes. Options on sbatch's command line win over those below.
#SBATCH --job-name=equigrid
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=equigrid-%j.log
# SIGUSR1 to this script three minutes before the time is up. Ray must not have it: it would end.
#SBATCH --signal=B:USR1@180
set -euo pipefail

deploy=${EQUIGRID_DEPLOY:-$SLURM_SUBMIT_DIR/deploy}
save_s=${EQUIGRID_SAVE_S:-90} # the longest that slots are waited for; less than the notice above
. "$deploy/environment.sh"
# Other users' processes may reach these nodes: without the token they are refused.
if [ ! -s "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}" ]; then
  (umask 077; ray get-auth-token --generate > /dev/null)
fi

nodes=$SLURM_JOB_NUM_NODES
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# An address, not a name: on the node itself its name is often one of 127.0.0.0/8, and then no node
# would take itself for the head.
head=$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')
head=$(getent ahostsv4 "$head" | awk '$1 !~ /^127\./ {print $1; exit}' || true)
head=${EQUIGRID_HEAD:-${head:-$(hostname -I | awk '{print $1}')}}
everywhere=(--nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --cpu-bind=none)
# What a killed job may have left, where Slurm finds processes by their parents alone
# (proctrack/linuxproc): beside it no Ray starts.
srun "${everywhere[@]}" ray stop > /dev/null 2>&1 || true
folder=$(mktemp -d) # on the first node, where this script and the driver run
trap 'rm -rf "$folder"' EXIT
export EQUIGRID_EXIT=$folder/exit

# Told to leave: slots save what they train and end, then Ray does, and the job queues again.
left= cancelled=
leave() {
  [ -z "$left" ] || return 0
  left=yes
  echo "equigrid: told to leave; slots save what they train"
  srun --overlap "${everywhere[@]}" bash "$deploy/leave-node.sh" "$save_s" || true
}
trap leave USR1
trap 'cancelled=yes' TERM # by scancel, or by preemption: then Slurm itself queues it again

# In the background, since bash runs a trap only between commands. A node that is lost ends nothing.
# shellcheck disable=SC2016  # the variables are of the shell on the head
srun --wait=0 --kill-on-bad-exit=0 "${everywhere[@]}" \
  ray symmetric-run --address "$head:${EQUIGRID_PORT:-6379}" --min-nodes "$nodes" \
  --num-cpus "${SLURM_CPUS_ON_NODE:-1}" -- \
  bash -c 'equigrid run --address auto "$@"; echo $? > "$EQUIGRID_EXIT"' run "$@" &
step=$!
# When the grid is done its nodes have 30 s: raylets notice by themselves after a minute.
(until [ -s "$EQUIGRID_EXIT" ]; do sleep 2; done; sleep 30; kill -TERM "$step") 2> /dev/null &
end=$!
while kill -0 "$step" 2> /dev/null; do wait "$step" || true; done

kill "$end" 2> /dev/null || true
code=$(cat "$EQUIGRID_EXIT" 2> /dev/null || echo 4)
# scancel's signal can reach the step before it reaches this script, so Slurm itself is asked: its
# state of a job changes before the first signal is sent.
state=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p' || true)
[ "${state:-RUNNING}" = RUNNING ] || cancelled=yes
[ -z "$cancelled" ] || ray stop > /dev/null 2>&1 || true # the same, on this node: the head's Ray
restarts=${SLURM_RESTART_COUNT:-0}
# 4: a node, or the store, was lost. Ten times: what never works must end.
if [ -z "$cancelled" ] && [ "$code" -ne 0 ] && { [ -n "$left" ] || [ "$code" -eq 4 ]; } \
  && [ "$restarts" -lt 10 ]; then
  echo "equigrid: ended with $code; the job queues again"
  scontrol requeue "$SLURM_JOB_ID" && sleep 60 # Slurm ends this script
fi
echo "equigrid: ended with $code"
exit "$code"
