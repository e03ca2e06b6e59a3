"""FedML's aggregator, over the models that arrived."""

from __future__ import annotations

import numbers
from typing import Any

from fedml.core import Context
from fedml.cross_silo.server.fedml_aggregator import FedMLAggregator

from .errors import FedfabError
from .log import LOG


class FedfabAggregator(FedMLAggregator):
    """Takes as many models as there are, in the order in which they are given; everything else is FedML's own.

    FedML's counts on ``client_num`` models, each under its client's place in ``client_id_list``.
    """

    accuracy: float | None = None
    """Of the latest global model on the server's test data, 0 to 1; None where it was not measured."""

    def test_on_server_for_all_clients(self, round_idx: int) -> None:
        """FedML's measure of the new global model, which it makes each ``frequency_of_the_test`` rounds."""
        super().test_on_server_for_all_clients(round_idx)
        # In other rounds FedML's context still has what was measured before.
        measured = round_idx % self.args.frequency_of_the_test == 0 or round_idx == self.args.comm_round - 1
        self.accuracy = accuracy_in(Context().get(Context.KEY_METRICS_ON_AGGREGATED_MODEL)) if measured else None

    def assess_contribution(self) -> None:
        """FedML's, where there are two measures to compare: a server that came back has none before its first test.

        Afterwards the models in FedML's context are of no use to anybody, and many.
        """
        measured = Context().get(Context.KEY_METRICS_ON_LAST_ROUND) is not None
        if getattr(self.args, "enable_contribution", False) and not measured:
            LOG.warning("round %s: contributions are not assessed: nothing was measured yet", self.args.round_idx)
        else:
            super().assess_contribution()
        Context().add(Context.KEY_CLIENT_MODEL_LIST, [])

    def expect(self, count: int) -> None:
        """The next round's aggregation is over this many models."""
        self.client_num = count
        self.model_dict.clear()
        self.sample_num_dict.clear()
        self.flag_client_model_uploaded_dict = dict.fromkeys(range(count), False)

    def add_local_trained_result(self, index: int, model_params: Any, sample_num: Any) -> None:
        """The next model. ``index`` is FedML's, and of no use when somebody is missing."""
        super().add_local_trained_result(len(self.model_dict), model_params, sample_num)

    def aggregate(self) -> tuple[Any, Any, Any]:
        """FedML's aggregation, with its hooks. The models are not kept afterwards: the chain has them."""
        result = super().aggregate()
        self.model_dict.clear()
        refuse_plain(result[0])
        return result


def refuse_plain(model: object) -> None:
    """Raise ``FedfabError`` for what FedML takes for one model per client: it would send parts of it."""
    if type(model) is dict:
        raise FedfabError(
            "the server aggregator returned a plain dict, which FedML takes for one model per client; "
            "a round on the chain has one global model: return an OrderedDict"
        )


def accuracy_in(metrics: object) -> float | None:
    """The first of FedML's metrics where it is an accuracy; a server aggregator may return what it likes."""
    first = metrics[0] if isinstance(metrics, (tuple, list)) and metrics else metrics
    if isinstance(first, bool) or not isinstance(first, numbers.Real):
        return None
    accuracy = float(first)
    return accuracy if 0 <= accuracy <= 1 else None
