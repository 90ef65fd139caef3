"""Jobs of which nothing has been heard for long: they may hang, and nobody else would say so."""

from collections.abc import Mapping

AFTER_S = 1800.0
MOST_UNHEARD_S = 5.0  # of the time between two answers, what counts


class Listened:
    """A clock that stands while nobody listens: who listens may be stopped (Ctrl-Z), or wait for
    the store, and jobs that got further meanwhile are not to be called silent. `seconds`: its time.
    """

    def __init__(self, now_s: float) -> None:
        self.seconds = 0.0
        self._heard_s = now_s

    def heard(self, now_s: float) -> None:
        """The jobs, or whoever speaks for them, gave an answer."""
        self.seconds += min(now_s - self._heard_s, MOST_UNHEARD_S)
        self._heard_s = now_s


class Silence:
    """Remembers when each running job last got further. Told of after AFTER_S, and then each time
    that its silence has doubled.
    """

    def __init__(self, after_s: float = AFTER_S) -> None:
        self._after_s = after_s
        self._heard: dict[str, tuple[float | None, float, float]] = {}  # share, since, when to tell

    def look(self, shares: Mapping[str, float | None], now_s: float) -> dict[str, float]:
        """shares: how much of each running job is done, None where it does not say. Gives the
        seconds of silence of those that are to be told of now.
        """
        told, heard = {}, {}
        for job_id, share in shares.items():
            before, since, limit = self._heard.get(job_id, (share, now_s, self._after_s))
            if share != before:
                since, limit = now_s, self._after_s
            elif now_s - since >= limit:
                told[job_id] = now_s - since
                limit = 2 * (now_s - since)
            heard[job_id] = (share, since, limit)
        self._heard = heard
        return told

    def forget(self, job_id: str) -> None:
        """Another attempt at the job begins."""
        self._heard.pop(job_id, None)

    def since(self, limit_s: float, now_s: float) -> list[str]:
        """Those of the last look that have been silent for that long."""
        return [job_id for job_id, (_, since, _) in self._heard.items() if now_s - since >= limit_s]
