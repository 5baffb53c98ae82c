"""The libraries that receivers have accept what we sign, and we accept what they sign."""

from datetime import UTC, datetime
from typing import Any

import pytest
import standardwebhooks
import svix

from aetherflow_hooks.errors import BadSignature
from aetherflow_hooks.receive import read, verify
from tests.receive.requests import SECRET, request


@pytest.mark.parametrize("library", [standardwebhooks, svix], ids=lambda it: it.__name__)
def test_a_library_and_we_agree(library: Any) -> None:
    webhook = library.Webhook(SECRET)
    body, headers = request("evt_1", '{"é": "🚀", "n": 9007199254740993}')
    webhook.verify(body, headers)
    with pytest.raises(library.WebhookVerificationError):
        webhook.verify(body + b" ", headers)

    now = datetime.now(UTC)
    theirs = {
        "Webhook-Id": "evt_1",
        "Webhook-Timestamp": str(int(now.timestamp())),
        "Webhook-Signature": f"v1,AAAA {webhook.sign('evt_1', now, body.decode())}",
    }
    assert verify(body, theirs, ["another secret of ours", SECRET]) == "evt_1"
    assert read(body, theirs, SECRET).data["n"] == 9007199254740993
    with pytest.raises(BadSignature):
        verify(body + b" ", theirs, SECRET)
