"""The other side: what a receiver needs to trust a request, and to process its event once.

It knows nothing of the engine, and loads none of what that needs.

    signatures   is this request from AetherFlow, whole, and of now?
    webhook      what it says
    catalogue    the types of its data
    seen         was it here before: in memory, in Postgres, in Redis
    hooks        which function is for which type of event
    inbox        store at once, answer, process afterwards
    table        what an inbox asks of Postgres
    frameworks   the same for aiohttp, Django, Flask, and FastAPI or Starlette
"""

from typing import TYPE_CHECKING

from aetherflow_hooks.lazy import names

if TYPE_CHECKING:
    from aetherflow_hooks.errors import BadSignature, NotAWebhook
    from aetherflow_hooks.receive.hooks import Answer, Hooks
    from aetherflow_hooks.receive.inbox import Inbox
    from aetherflow_hooks.receive.seen import SeenInMemory, SeenInPostgres, SeenInRedis
    from aetherflow_hooks.receive.signatures import verify, verify_body
    from aetherflow_hooks.receive.webhook import Webhook, read

__all__ = [
    "Answer",
    "BadSignature",
    "Hooks",
    "Inbox",
    "NotAWebhook",
    "SeenInMemory",
    "SeenInPostgres",
    "SeenInRedis",
    "Webhook",
    "read",
    "verify",
    "verify_body",
]

__getattr__, __dir__ = names(
    __name__,
    {
        "Answer": "aetherflow_hooks.receive.hooks:Answer",
        "BadSignature": "aetherflow_hooks.errors:BadSignature",
        "Hooks": "aetherflow_hooks.receive.hooks:Hooks",
        "Inbox": "aetherflow_hooks.receive.inbox:Inbox",
        "NotAWebhook": "aetherflow_hooks.errors:NotAWebhook",
        "SeenInMemory": "aetherflow_hooks.receive.seen:SeenInMemory",
        "SeenInPostgres": "aetherflow_hooks.receive.seen:SeenInPostgres",
        "SeenInRedis": "aetherflow_hooks.receive.seen:SeenInRedis",
        "Webhook": "aetherflow_hooks.receive.webhook:Webhook",
        "read": "aetherflow_hooks.receive.webhook:read",
        "verify": "aetherflow_hooks.receive.signatures:verify",
        "verify_body": "aetherflow_hooks.receive.signatures:verify_body",
    },
)
