"""One row of the table: what was done, by whom, how fast, how well, and what had been asked for."""

from dataclasses import asdict, dataclass, field


@dataclass
class Line:
    """One comparison inside a row.

    Attributes
    ----------
    against : str
        Peer and version, or what else we are compared with.
    ours, theirs : float or None
        In the unit of the row; `theirs` is None where the peer failed.
    at_least : float or None
        Ratio `theirs / ours` that was asked for; None for a peer that is there to be seen.
    accuracy : str
        How the two results compare by our own measure.
    same : bool
        Whether ours is no worse than theirs, to the accuracy asked for.
    note : str
    """

    against: str
    ours: float
    theirs: float | None
    at_least: float | None = None
    accuracy: str = ""
    same: bool = True
    note: str = ""

    @property
    def ratio(self):
        return None if self.theirs is None else self.theirs / self.ours

    @property
    def verdict(self):
        if self.ratio is None:
            return "not measured" if self.note else ""
        if not self.same:
            return "missed (accuracy)"
        if self.at_least is None:
            return ""
        return "met" if self.ratio >= self.at_least else "missed"


@dataclass
class Row:
    """A piece of work, the comparisons made on it, its floor and its curves.

    Attributes
    ----------
    name : str
        On the command line and of the file of results.
    work : str
        In words, with the sizes.
    unit : str
        Of the lines, such as "µs a signal".
    lines : list of Line
    floor : dict
        `ours` and `gemm`, the product of signals and atoms, in the row's unit; `bytes` to be moved for a signal.
    series : dict
        Curves for the plots: name to {"x", "y"}.
    """

    name: str
    work: str
    unit: str
    lines: list = field(default_factory=list)
    floor: dict = field(default_factory=dict)
    series: dict = field(default_factory=dict)

    def as_json(self):
        lines = [asdict(line) | {"ratio": line.ratio, "verdict": line.verdict} for line in self.lines]
        return asdict(self) | {"lines": lines}
