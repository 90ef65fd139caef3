#!/usr/bin/env bash
# For a machine that is about to be taken away: its slots save what they train, then Ray leaves.
# Called by watch-spot.sh on AWS, by the preStop hook of rayjob.yaml, or by you. `ray stop` alone,
# or SIGTERM to the raylet, would kill the slots within 20 ms, and a training would go back to its
# last checkpoint.
#   bash deploy/leave-node.sh [SECONDS]     the longest to wait for the slots; default 60
set -euo pipefail
slots='^ray::(Slot|generator|shard|reference|trial|quality|domain)\b'

# No new slot may start here. Without a head that answers there is nobody to tell.
ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message 'told to leave' || true
pkill -TERM -f "$slots" || true
for ((waited_s = 0; waited_s < ${1:-60}; waited_s++)); do
  pgrep -f "$slots" > /dev/null || break
  sleep 1
done
ray stop
