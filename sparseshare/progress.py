"""How far it is, how fast it goes and how long it will take: lines for `verbose`."""

import time

_SECONDS = 5.0  # from one line to the next


class RowProgress:
    """Lines about rows that are gone through, one every few seconds.

    Parameters
    ----------
    name : str
        Of the estimator or function.
    n_rows : int or None
        In all; None: not known.
    verbose : bool or int
        0 and False print nothing.
    done : int, default=0
        Rows that need not be gone through.
    what : str, default="signals"

    Examples
    --------
    >>> from sparseshare.progress import RowProgress
    >>> progress = RowProgress("SparseCoder", 200, verbose=0)
    >>> progress.add(100)
    >>> progress.text(seconds=2.0)
    '[SparseCoder] 100 of 200 signals, 50 a second, 2 s left'
    """

    def __init__(self, name, n_rows, verbose, done=0, what="signals"):
        self.name, self.n_rows, self.verbose, self.what = name, n_rows, verbose, what
        self._before = self._done = done
        self._began = self._said = time.perf_counter()

    def add(self, n_rows):
        """So many more are done."""
        self._done += n_rows
        now = time.perf_counter()
        if self.verbose and now - self._said >= _SECONDS and self._done != self.n_rows:
            self._said = now
            print(self.text(now - self._began), flush=True)

    def end(self):
        """All are done."""
        if self.verbose:
            print(self.text(time.perf_counter() - self._began, ended=True), flush=True)

    def text(self, seconds, ended=False):
        """The line after some seconds."""
        rate = (self._done - self._before) / max(seconds, 1e-9)
        of = "" if self.n_rows is None or ended else f" of {self.n_rows}"
        if ended:
            rest = f", {duration(seconds)}"
        elif self.n_rows is None or rate == 0:
            rest = ""
        else:
            rest = f", {duration((self.n_rows - self._done) / rate)} left"
        return f"[{self.name}] {self._done}{of} {self.what}, {rate:.{0 if rate >= 10 else 2}f} a second{rest}"


def duration(seconds):
    """Seconds in words: "40 s", "3 min 20 s", "2 h 5 min".

    Parameters
    ----------
    seconds : float

    Returns
    -------
    str
    """
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
