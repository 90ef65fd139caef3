# The environment of every Ray process of a cluster, on the head and on the workers. The start
# commands of cluster.yaml and cluster-local.yaml source it, and so does ~/.bashrc; drivers started
# by a submitted job inherit it. deploy/rayjob.yaml holds the same values for Kubernetes.

# Without the token, which is read from ~/.ray/auth_token, a connection is refused. Traffic is not
# encrypted even with it.
export RAY_AUTH_MODE=token

# A connection that is cut silently is noticed after 10 + 10 s. Ray's default is 300 s, and a retry
# begins only then.
export RAY_grpc_client_keepalive_time_ms=10000
export RAY_grpc_client_keepalive_timeout_ms=10000
# Read by the head alone: a silent node is dead after three checks of 5 s (20 s measured, 64 s by
# default).
export RAY_health_check_timeout_ms=5000
export RAY_health_check_failure_threshold=3

# The time that `ray job stop` gives a driver between SIGTERM and SIGKILL, to release its slots and
# close its run (default 3 s).
export RAY_JOB_STOP_WAIT_TIME_S=30

export RAY_USAGE_STATS_ENABLED=0

# Ray opens a file per worker and connection: more than the usual 1,024, or as many as the machine
# allows.
ulimit -n 65536 2> /dev/null || ulimit -n "$(ulimit -Hn)"
