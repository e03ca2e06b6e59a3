"""Federated learning of handwritten digits with FedML, its rounds kept on a Fabric ledger by FedFab.

The server and every client run this same file; README.md says how. What makes it go through the ledger is the first
import and the section ``fedfab_args`` of ``fedml_config.yaml``. Without that section it is a FedML project like any other.
"""

import logging
import sys

import fedml_fedfab  # noqa: F401  (its import is all there is to do)
import fedml
import torch
from fedml import FedMLRunner
from fedml.ml.aggregator.default_aggregator import DefaultServerAggregator
from sklearn.datasets import load_digits

HELD_BACK = 6
"""Every sixth of the 1,797 digits is for the measure alone; no client trains on it."""


class Server(DefaultServerAggregator):
    """FedML's own aggregator, which also tells how good each global model is, and keeps the last one in a file."""

    def test(self, test_data, device, args):
        result = super().test(test_data, device, args)
        print(f"round {args.round_idx}: accuracy {result[0]:.4f} on held-back digits", flush=True)
        torch.save(self.get_model_params(), args.model_file)
        return result


def batches(pixels, labels, size):
    """Tensors in batches of this size, always in the same order, so that two trainings can be compared."""
    return list(zip(torch.split(pixels, size), torch.split(labels, size)))


def load_data(args):
    """The dataset in FedML's form. Each client has a share of its own; the first has the most."""
    digits = load_digits()
    pixels = torch.tensor(digits.data / 16, dtype=torch.float32)
    labels = torch.tensor(digits.target, dtype=torch.int64)
    held_back = torch.arange(len(pixels)) % HELD_BACK == 0
    test = batches(pixels[held_back], labels[held_back], args.batch_size)
    pixels, labels = pixels[~held_back], labels[~held_back]

    clients = args.client_num_in_total
    weights = [clients + 2 - client for client in range(clients)]
    sizes = [len(pixels) * weight // sum(weights) for weight in weights]
    shares = [slice(sum(sizes[:client]), sum(sizes[: client + 1])) for client in range(clients)]
    train = {client: batches(pixels[share], labels[share], args.batch_size) for client, share in enumerate(shares)}
    return [
        sum(sizes),
        int(held_back.sum()),
        batches(pixels, labels, args.batch_size),
        test,
        dict(enumerate(sizes)),
        train,
        {client: test for client in range(clients)},
        10,
    ]


def new_model(args):
    """One layer of 64 × 10 weights and 10 biases, 650 parameters; with ``hidden`` in the YAML a layer more."""
    hidden = int(args.hidden)
    if hidden == 0:
        return torch.nn.Linear(64, 10)
    return torch.nn.Sequential(torch.nn.Linear(64, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 10))


def main():
    """FedML's usual four steps."""
    args = fedml.init()
    model = new_model(args)
    aggregator = Server(model, args) if args.role == "server" else None
    FedMLRunner(args, fedml.device.get_device(args), load_data(args), model, server_aggregator=aggregator).run()


if __name__ == "__main__":
    logging.captureWarnings(True)
    sys.exit(main())
