"""What FedML's managers have in common under the plug-in: their settings, their connection, their ends."""

from __future__ import annotations

import json
from typing import Any

from .broker import Tls
from .comm_manager import FedfabCommManager, Node, new_comm_manager
from .coordinator import Coordinator
from .errors import SettingsError
from .log import LOG, follow_fedml
from .settings import Settings, settings_of


class FedfabNode:
    """Mixed into a manager of FedML's, before it: replaces what ``FedMLCommManager`` does with the connection."""

    args: Any
    com_manager: FedfabCommManager
    message_handler_dict: Any

    @property
    def settings(self) -> Settings:
        """The section ``fedfab_args``."""
        settings = settings_of(self.args)
        if settings is None:  # The plug-in's classes are only made where there is one.
            raise SettingsError("FedML's configuration has no section fedfab_args")
        return settings

    def new_coordinator(self) -> Coordinator:
        """The coordinator of the settings, for this run."""
        settings = self.settings
        return Coordinator(
            settings.coordinator_url, str(self.args.run_id), settings.token, ca_file=settings.coordinator_ca_file
        )

    @property
    def server_id(self) -> int:
        """FedML's id of the server: 0 unless configured."""
        return int(getattr(self.args, "server_id", 0) or 0)

    def _init_manager(self) -> None:
        """In place of ``FedMLCommManager._init_manager``."""
        follow_fedml()
        args, settings = self.args, self.settings
        clients = client_ids(args)
        # FedML reads this text after us, and compares what is in it with the numbers of messages.
        args.client_id_list = json.dumps(clients)
        is_server = int(args.rank) == 0
        node = Node(
            run=str(args.run_id),
            is_server=is_server,
            node=self.server_id if is_server else clients[0],
            server=self.server_id,
            types=settings.types,
        )
        storage = self._storage(settings)
        self.com_manager = new_comm_manager(args, node, clients, storage, tls_of(settings))
        self.com_manager.add_observer(self)

    def _storage(self, settings: Settings) -> Any | None:
        """FedML's S3 storage where it is asked for.

        Also fills in the broker of FedML's cloud where none is configured.
        """
        args = self.args
        mqtt = getattr(args, "customized_training_mqtt_config", "") or None
        if settings.global_model == "s3" or mqtt is None:
            args.customized_training_mqtt_config, s3 = self.get_training_mqtt_s3_config()  # type: ignore[attr-defined]
            if settings.global_model == "s3":
                from fedml.core.distributed.communication.s3.remote_storage import S3Storage

                return S3Storage(s3)
        return None

    def receive_message(self, msg_type: int, msg_params: Any) -> None:
        """In place of ``FedMLCommManager.receive_message``, which ends the connection on a type without handler."""
        handler = self.message_handler_dict.get(msg_type)
        if handler is None:
            LOG.debug("passed over a message of type %s: FedML has no handler for it", msg_type)
            return
        handler(msg_params)

    def finish(self) -> None:
        """In place of ``FedMLCommManager.finish``: ends after the last message is out."""
        self.com_manager.stop_receive_message()


def tls_of(settings: Settings) -> Tls | None:
    """How the broker is spoken to by TLS; None for without."""
    if not (settings.mqtt_tls or settings.mqtt_ca_file or settings.mqtt_cert_file):
        return None
    return Tls(settings.mqtt_ca_file, settings.mqtt_cert_file, settings.mqtt_key_file)


def client_ids(args: Any) -> list[int]:
    """FedML's ``client_id_list``: all clients at the server, itself alone at a client."""
    text = getattr(args, "client_id_list", None)
    try:
        ids = [int(entry) for entry in (json.loads(text) if isinstance(text, str) else text or [])]
    except (TypeError, ValueError) as error:
        raise SettingsError(f"client_id_list is {text!r}: write whole numbers, such as [1, 2, 3]") from error
    if int(args.rank) > 0 and len(ids) != 1:
        raise SettingsError(
            f"client_id_list at a client names {len(ids)} clients, and FedML's client takes itself for the first: "
            f"leave it out (this is then client {args.rank}), or write its own id alone"
        )
    if not ids or len(set(ids)) < len(ids) or min(ids) < 1:
        raise SettingsError(f"client_id_list is {text!r}: write each client's id once, from 1 on")
    return ids
