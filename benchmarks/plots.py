"""Pictures of the rows that have curves."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402 - the backend first
from matplotlib.ticker import NullLocator  # noqa: E402

AXES = {"signals": "signals", "atoms": "atoms", "features": "features", "non-zeros": "mean non-zeros of a code"}
STYLES = {
    "sparseshare": "C0o-",
    "ours": "C0o-",
    "SPAMS": "C1s-",
    "scikit-learn, default": "C3v-",
    "product of signals and atoms": "k:",
}

CONV_STYLES = {
    "sparseshare auto": "C0o-",
    "sparseshare fista": "C4x--",
    "sparseshare admm": "C5+--",
    "SPORCO ADMM": "C1s-",
    "one iteration's Fourier transforms": "k:",
}


def draw_growth(series, file):
    """Time a signal against each size, a panel a size."""
    figure, panels = plt.subplots(1, len(AXES), figsize=(15, 4), sharey=True, layout="constrained")
    for panel, (walk, label) in zip(panels, AXES.items(), strict=True):
        for name, curve in series.items():
            if name.startswith(f"{walk}: "):
                peer = name.removeprefix(f"{walk}: ")
                places = curve["x"]
                panel.loglog(curve["x"], curve["y"], STYLES.get(peer, "C2^-"), label=peer, markersize=4)
        panel.set_xlabel(label)
        panel.set_xticks(places, [f"{x:,.0f}" for x in places], rotation=45, fontsize=8)
        panel.xaxis.set_minor_locator(NullLocator())
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("µs a signal")
    panels[-1].legend(fontsize=8)
    figure.suptitle("lasso, float32; unless varied 64 features, 256 atoms (512 for the features), 9 non-zeros")
    _save(figure, file)


def draw_conv_growth(series, file):
    """Time an image against each size of convolutional coding, a panel a size."""
    axes = {"image": "pixels of a side of the image", "atoms": "atoms", "atom": "pixels of a side of an atom"}
    figure, panels = plt.subplots(1, len(axes), figsize=(13, 4), sharey=True, layout="constrained")
    for panel, (walk, label) in zip(panels, axes.items(), strict=True):
        for name, curve in series.items():
            if name.startswith(f"{walk}: "):
                peer = name.removeprefix(f"{walk}: ")
                panel.loglog(curve["x"], curve["y"], CONV_STYLES.get(peer, "C2^-"), label=peer, markersize=4)
                panel.set_xticks(curve["x"], [f"{x:,.0f}" for x in curve["x"]], fontsize=8)
        panel.set_xlabel(label)
        panel.xaxis.set_minor_locator(NullLocator())
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("ms an image")
    panels[-1].legend(fontsize=8)
    figure.suptitle("convolutional coding, float32, to 1e-3; unless varied 128 x 128 pixels, 32 atoms 8 x 8")
    _save(figure, file)


def draw_conv_learning(series, file):
    """Objective of the training images against seconds of learning."""
    figure, panel = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name, style in zip(series, ("C0o-", "C1s-", "C3v-"), strict=False):
        panel.loglog(series[name]["x"], series[name]["y"], style, label=name, markersize=4)
    panel.set_xlabel("seconds")
    panel.set_ylabel("objective of the images for the atoms")
    panel.grid(alpha=0.3)
    panel.legend()
    _save(figure, file)


def draw_learning(series, file):
    """Held-out objective against seconds of learning."""
    figure, panel = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name, curve in series.items():
        panel.semilogx(curve["x"], curve["y"], STYLES.get(name, "C2^-"), label=name, markersize=4)
    panel.set_xlabel("seconds")
    panel.set_ylabel("mean objective of held-out patches")
    panel.grid(alpha=0.3)
    panel.legend()
    _save(figure, file)


def draw_lista(series, file):
    """Error of codes against steps, a panel a measure."""
    measures = {"objective": "excess of the objective over the least", "codes": "squared error of the codes"}
    styles = {"steps": "C0o-", "steps and sweeps": "C2*-", "fista": "C1s-", "ista": "C3v-"}
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for panel, (measure, label) in zip(panels, measures.items(), strict=True):
        for name, style in styles.items():
            curve = series[f"{name}: {measure}"]
            label_of = name if name in ("fista", "ista") else f"learned {name}"
            panel.semilogy(curve["x"], curve["y"], style, label=label_of, markersize=4)
        panel.set_xlabel("steps")
        panel.set_ylabel(f"{label}, relative")
        panel.grid(alpha=0.3)
    panels[0].legend()
    _save(figure, file)


def draw_memory(series, file):
    """Extra memory against the number of signals."""
    figure, panel = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, curve in series.items():
        panel.loglog(curve["x"], curve["y"], STYLES.get(name, "C2^-"), label=name)
    panel.axhline(64, color="k", linestyle=":", label="limit")
    panel.set_xlabel("signals")
    panel.set_ylabel("MB beyond signals and codes")
    panel.grid(alpha=0.3)
    panel.legend()
    _save(figure, file)


def _save(figure, file):
    figure.savefig(file, dpi=110)
    plt.close(figure)


DRAWINGS = {
    "growth": draw_growth,
    "learning": draw_learning,
    "memory": draw_memory,
    "conv_growth": draw_conv_growth,
    "lista": draw_lista,
    "conv_learning": draw_conv_learning,
}
