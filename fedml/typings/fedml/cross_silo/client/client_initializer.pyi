from typing import Any

ClientMasterManager: Any
