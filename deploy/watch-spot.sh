#!/usr/bin/env bash
# For a worker on AWS: waits until the instance's metadata announce that it is taken away (a spot
# instance's notice, two minutes ahead), then lets its slots save and Ray leave. Started by
# cluster.yaml; an on-demand instance never gets a notice. A second one on the same machine ends at
# once. AWS_EC2_METADATA_SERVICE_ENDPOINT: another address, as for AWS's tools.
set -euo pipefail
metadata=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}/latest
exec 9> ~/.equigrid-spot.lock
flock --nonblock 9 || exit 0

ask() { curl --silent --fail --noproxy '*' --max-time 2 "$@"; }

# The service's second version: a token first. While there is no notice, and when it does not
# answer, ask again.
until token=$(ask -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$metadata/api/token") &&
  notice=$(ask -H "X-aws-ec2-metadata-token: $token" "$metadata/meta-data/spot/instance-action"); do
  sleep 5
done
echo "$(date --iso-8601=seconds) $notice"
bash "$(dirname "$0")/leave-node.sh" 80
