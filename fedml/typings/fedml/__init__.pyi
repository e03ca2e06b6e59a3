"""What the plug-in uses of FedML, as far as types go. FedML has none of its own."""

from . import mlops as mlops

__version__: str
