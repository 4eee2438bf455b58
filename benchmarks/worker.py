"""The process of one contestant: reads questions as JSON lines, times the work, answers as JSON lines.

`python worker.py PEER THREADS`; started by `contest.Contestant`, never by hand.
"""

import importlib
import json
import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from resident import PeakMemory, stored_bytes
from scipy.sparse import csr_array, issparse, save_npz


def main(name, threads):
    # Some peers print, from C too: answers get a channel of their own, standard output goes to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")

    def answer(**reply):
        answers.write(json.dumps(reply) + "\n")
        answers.flush()

    try:
        peer = importlib.import_module(f"peers.{name}")
    except ImportError as reason:
        return answer(error=f"not installed ({reason})")
    answer(version=peer.version())

    work = result = None
    for line in sys.stdin:
        question = json.loads(line)
        folder = Path(question["folder"])
        try:
            if question["do"] == "prepare":
                work = result = None
                arrays = {key: np.load(folder / f"{key}.npy") for key in question["arrays"]}
                work = getattr(peer, question["task"])(**arrays, **question["options"], threads=threads)
                if work.warm_up and question["warm_up"]:
                    work.run()
                answer(label=work.label)
            elif question["do"] == "run":
                start = time.perf_counter()
                result = work.run()
                answer(seconds=time.perf_counter() - start)
            elif question["do"] == "watch":
                memory = PeakMemory()
                result = work.run()
                answer(extra_bytes=memory.grown() - stored_bytes(result))
            else:
                answer(kind=store(work.rows(result), folder))
        except Exception as reason:
            answer(error=f"{type(reason).__name__}: {reason}")


def store(result, folder):
    if isinstance(result, dict):
        np.savez(folder / "result.npz", **result)
        return "arrays"
    save_npz(folder / "codes.npz", result if issparse(result) else csr_array(result), compressed=False)
    return "codes"


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
