from typing import Any

class FedMLAggregator:
    args: Any
    client_num: int
    model_dict: dict[int, Any]
    sample_num_dict: dict[int, Any]
    flag_client_model_uploaded_dict: dict[int, bool]
    def add_local_trained_result(self, index: int, model_params: Any, sample_num: Any) -> None: ...
    def aggregate(self) -> tuple[Any, Any, Any]: ...
    def test_on_server_for_all_clients(self, round_idx: int) -> None: ...
