from typing import Any

FedMLServerManager: Any
FedMLAggregator: Any
