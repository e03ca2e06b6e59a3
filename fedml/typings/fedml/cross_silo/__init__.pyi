from typing import Any

Client: Any
Server: Any
