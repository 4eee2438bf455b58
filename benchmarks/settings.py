"""How large and how often: what the command line sets for all rows."""

from dataclasses import dataclass, field
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
    peers_python : dict
        Interpreters that have the peers installed: by the name of a peer, or for all others by "". This one where
        there is none.
    data : Path or None
        Folder of real data, see `data.py`.
    """

    quick: bool = False
    threads: int = 2
    peers_python: dict = field(default_factory=dict)
    data: Path | None = None

    @property
    def repeats(self):
        return 2 if self.quick else 7

    def count(self, n):
        """A number of signals, or the one for a trial."""
        return max(100, n // 20) if self.quick else n

    def contestant(self, peer):
        own = peer in ("sparseshare", "floor")
        python = None if own else self.peers_python.get(peer, self.peers_python.get(""))
        return Contestant(peer, self.threads, python)
