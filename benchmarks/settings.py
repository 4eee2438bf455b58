"""How large and how often: what the command line sets for all rows."""

from dataclasses import dataclass
from pathlib import Path

from contest import Contestant


@dataclass(frozen=True)
class Settings:
    """What every row is given.

    Attributes
    ----------
    quick : bool
        A fifth of the repeats and a twentieth of the signals: to see that a row runs, not to measure.
    threads : int
    peers_python : str or None
        Interpreter that has the peers installed; None takes this one.
    data : Path or None
        Folder of real data, see `data.py`.
    """

    quick: bool = False
    threads: int = 2
    peers_python: str | None = None
    data: Path | None = None

    @property
    def repeats(self):
        return 2 if self.quick else 7

    def count(self, n):
        """A number of signals, or the one for a trial."""
        return max(100, n // 20) if self.quick else n

    def contestant(self, peer):
        own = peer in ("sparseshare", "floor")
        return Contestant(peer, self.threads, None if own else self.peers_python)
