"""The other side: what a receiver needs to trust a request. It knows nothing of the engine."""

from aetherflow_hooks.receive.verify import verify, verify_body

__all__ = ["verify", "verify_body"]
