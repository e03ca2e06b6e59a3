from typing import Any

Context: Any
