from typing import Any

from fedml.core.distributed.fedml_comm_manager import FedMLCommManager

class FedMLServerManager(FedMLCommManager):
    aggregator: Any
    round_num: int
    client_real_ids: list[int]
    client_online_mapping: dict[str, bool]
    client_finished_mapping: dict[str, bool]
    is_initialized: bool
    client_id_list_in_this_round: Any
    data_silo_index_list: Any
    def __init__(
        self,
        args: Any,
        aggregator: Any,
        comm: Any = None,
        client_rank: int = 0,
        client_num: int = 0,
        backend: str = "MQTT_S3",
    ) -> None: ...
    def is_main_process(self) -> bool: ...
    def register_message_receive_handlers(self) -> None: ...
    def handle_message_connection_ready(self, msg_params: Any) -> None: ...
    def handle_message_receive_model_from_client(self, msg_params: Any) -> None: ...
    def process_online_status(self, client_status: str, msg_params: Any) -> None: ...
    def process_finished_status(self, client_status: str, msg_params: Any) -> None: ...
    def send_message_check_client_status(self, receive_id: int, datasilo_index: int) -> None: ...
    def send_message_finish(self, receive_id: int, datasilo_index: int) -> None: ...
    def send_message_init_config(
        self,
        receive_id: int,
        global_model_params: Any,
        datasilo_index: int,
        global_model_url: str | None = None,
        global_model_key: str | None = None,
    ) -> tuple[str | None, str | None]: ...
    def send_message_sync_model_to_client(
        self,
        receive_id: int,
        global_model_params: Any,
        client_index: int,
        global_model_url: str | None = None,
        global_model_key: str | None = None,
    ) -> tuple[str | None, str | None]: ...
