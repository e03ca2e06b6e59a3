"""FedML's aggregator, over the models that arrived."""

from __future__ import annotations

from typing import Any

from fedml.cross_silo.server.fedml_aggregator import FedMLAggregator

from .errors import FedfabError


class FedfabAggregator(FedMLAggregator):
    """Takes as many models as there are, in the order in which they are given; everything else is FedML's own.

    FedML's counts on ``client_num`` models, each under its client's place in ``client_id_list``.
    """

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
        if type(result[0]) is dict:
            raise FedfabError(
                "the server aggregator returned a plain dict, which FedML takes for one model per client; "
                "a round on the chain has one global model: return an OrderedDict"
            )
        return result
