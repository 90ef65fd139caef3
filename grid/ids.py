"""Ids and seeds: hashes of what determines an output, never of paths, hardware or worker counts.

An id is a hash of canonical JSON, so that equal work has an equal name on every machine and in
every run. A field that a configuration gains later stays out of ids while it is as before: see
`equigrid.payloads`. Every random draw of a job is seeded from its id (and a purpose), so a job's
output follows from its id.
"""

import hashlib
import json
import secrets
from datetime import UTC, datetime

# Raised by hand, per kind of job, when a fix changes what that kind of job produces.
REVISIONS = {
    "ingest": 1,
    "generator": 1,
    "pool": 3,
    "trial": 1,
    "reference": 1,
    "quality": 1,
    "domain": 2,
}


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces. Raises ValueError for NaN and infinities, TypeError for
    odd types.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )


def content_id(kind: str, payload: dict) -> str:
    """`kind-` and 20 hexadecimal digits that name `payload`, the whole of what determines the
    output.
    """
    text = canonical_json({"kind": kind, "rev": REVISIONS.get(kind, 1), **payload})
    return f"{kind}-{hashlib.blake2b(text.encode(), digest_size=10).hexdigest()}"


def seed_of(*parts: object) -> int:
    """A seed in [0, 2**63) from an id, a purpose and whatever else tells two draws apart."""
    digest = hashlib.blake2b(canonical_json(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def new_attempt() -> str:
    """A name for one attempt at a job: unique, and in order of time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}"
