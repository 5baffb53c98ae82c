"""For development: a private Postgres, receivers, loads."""
