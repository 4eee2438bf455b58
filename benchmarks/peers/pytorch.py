"""PyTorch on the CPU, eager, in an environment of its own (see README.md): a small convolutional network.

It is told kindly: images lie in its memory as it wants them before the clock starts, and of its two layouts of images
and some sizes of batches for prediction it uses those that it turns out to be fastest with here.
"""

import time

import numpy as np
import torch
from torch import nn
from work import Work

LAYOUTS = {"default": torch.contiguous_format, "channels_last": torch.channels_last}
AT_ONCE = (128, 256, 1000)
TRIAL = 2560  # images that layouts are tried out on


def version():
    return torch.__version__


def train_network(images, labels, test_images, batch_size, n_epochs, threads):
    """Adam from first weights through all images, in a new order each epoch."""
    torch.set_num_threads(threads)
    y = torch.from_numpy(labels.astype(np.int64))

    def fit(layout, n=None):
        return _trained(_laid_out(images[:n], layout), y[:n], layout, batch_size, n_epochs)

    layout = min(LAYOUTS, key=lambda each: _seconds(lambda: fit(each, TRIAL)))

    def predicted(model):
        return {"labels": _predict(model, _laid_out(test_images, layout), AT_ONCE[0])}

    return Work(lambda: fit(layout), predicted, label=f"PyTorch eager, {layout},", warm_up=False)


def predict_network(images, labels, test_images, batch_size, n_epochs, threads):
    """Labels of the test images by the dense network, trained before."""
    torch.set_num_threads(threads)
    y = torch.from_numpy(labels.astype(np.int64))
    model = _trained(_laid_out(images, "channels_last"), y, "channels_last", batch_size, n_epochs)
    ways = {}
    for layout, memory_format in LAYOUTS.items():
        model.to(memory_format=memory_format)
        x = _laid_out(test_images, layout)
        for at_once in AT_ONCE:
            ways[layout, at_once] = _seconds(lambda x=x, at_once=at_once: _predict(model, x, at_once))
    layout, at_once = min(ways, key=ways.get)
    model.to(memory_format=LAYOUTS[layout])
    x = _laid_out(test_images, layout)
    label = f"PyTorch dense, {layout}, {at_once} at once,"
    return Work(lambda: {"labels": _predict(model, x, at_once)}, label=label)


def _network():
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1600, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def _trained(x, y, layout, batch_size, n_epochs):
    torch.manual_seed(0)
    model = _network().to(memory_format=LAYOUTS[layout])
    optimizer, loss = torch.optim.Adam(model.parameters()), nn.CrossEntropyLoss()
    for _ in range(n_epochs):
        for rows in torch.randperm(len(x)).split(batch_size):
            optimizer.zero_grad()
            loss(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return model


def _laid_out(images, layout):
    return torch.from_numpy(images[:, None]).contiguous(memory_format=LAYOUTS[layout])


def _predict(model, x, at_once):
    with torch.inference_mode():
        return torch.cat([model(some).argmax(dim=1) for some in x.split(at_once)]).numpy()


def _seconds(work, repeats=3):
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def predict_rows(X, W0, b0, W1, b1, W2, b2, at_once, threads):
    """Outputs of a dense network with these weights, for some rows at a time."""
    torch.set_num_threads(threads)
    layers = []
    for W, b in ((W0, b0), (W1, b1), (W2, b2)):
        layer = nn.Linear(*W.shape)
        layer.weight.data, layer.bias.data = torch.from_numpy(W.T.copy()), torch.from_numpy(b)
        layers += [layer, nn.ReLU()]
    model, x = nn.Sequential(*layers[:-1]), torch.from_numpy(X)

    def run():
        with torch.inference_mode():
            return torch.cat([model(some) for some in x.split(at_once)])

    return Work(run, lambda outputs: {"outputs": outputs.numpy()}, label="PyTorch dense")


def classify_sequences(X, y, X_test, y_test, kind, n_epochs, batch_size, threads):
    """Train a sequence classifier with Adam: each run with the next seed; accuracies of all so far."""
    torch.set_num_threads(threads)
    labels, y = np.unique(y, return_inverse=True)
    X, y, X_test = torch.tensor(X), torch.tensor(y), torch.tensor(X_test)
    accuracies = []

    def run():
        torch.manual_seed(len(accuracies))
        network = SequenceClassifier(kind, X.shape[2], len(labels))
        optimizer, loss = torch.optim.Adam(network.parameters(), lr=1e-3), nn.CrossEntropyLoss()
        for _ in range(n_epochs):
            for rows in torch.randperm(len(X)).split(batch_size):
                optimizer.zero_grad()
                loss(network(X[rows]), y[rows]).backward()
                optimizer.step()
        with torch.no_grad():
            outputs = torch.cat([network(part) for part in X_test.split(1000)])
        accuracies.append(np.mean(labels[outputs.argmax(dim=1).numpy()] == y_test))
        return {"accuracies": np.array(accuracies)}

    return Work(run, label="PyTorch eager", warm_up=False)


class SequenceClassifier(nn.Module):
    """An LSTM or a recurrent layer whose last state, or whose states under attention, go to a linear layer."""

    def __init__(self, kind, n_features, n_classes):
        super().__init__()
        n_units = 64 if kind == "attention" else 128
        layer = nn.RNN if kind == "tanh" else nn.LSTM
        self.recurrent = layer(n_features, n_units, batch_first=True)
        self.scores = None
        if kind == "attention":
            self.scores = nn.Sequential(nn.Linear(n_units, 64), nn.Tanh(), nn.Linear(64, 1, bias=False))
        self.output = nn.Linear(n_units, n_classes)

    def forward(self, x):
        states, _ = self.recurrent(x)
        if self.scores is None:
            return self.output(states[:, -1])
        return self.output((torch.softmax(self.scores(states), dim=1) * states).sum(dim=1))
