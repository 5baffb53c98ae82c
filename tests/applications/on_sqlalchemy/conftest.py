"""Each test works in a transaction that is rolled back, whatever it commits."""

import os
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from tests.applications.on_sqlalchemy.shop import Base


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    url = os.environ["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:", 1)
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with (
        engine.connect() as connection,
        connection.begin() as transaction,
        Session(connection, join_transaction_mode="create_savepoint") as session,
    ):
        yield session
        session.close()
        transaction.rollback()


@pytest.fixture
def aetherflow_connection(session: Session) -> Session:
    return session
