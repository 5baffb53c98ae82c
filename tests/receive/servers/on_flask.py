"""Flask, with a pool of psycopg, behind gunicorn."""

from typing import Any

from flask import Flask, request
from psycopg_pool import ConnectionPool

from aetherflow_hooks.receive import Hooks, SeenInPostgres, Webhook
from aetherflow_hooks.receive.frameworks.flask import endpoint
from tests.receive.servers import DSN, HANDLED, SECRET, Dying, misbehave

pool = ConnectionPool(DSN, min_size=1, max_size=8, open=True)
seen = SeenInPostgres(pool)
seen.create_sync()
hooks = Hooks(SECRET, seen=seen)


@hooks.on("*")
def handle(webhook: Webhook[dict[str, Any]], connection: Any) -> None:
    connection.execute(HANDLED.format(id=webhook.id))
    misbehave(webhook.data)


application = Flask(__name__)
application.before_request(lambda: request.get_data() and None)  # as one that logs bodies
application.add_url_rule("/webhook", view_func=endpoint(Dying(hooks)), methods=["POST"])
