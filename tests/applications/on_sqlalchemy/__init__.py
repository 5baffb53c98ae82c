"""A shop on SQLAlchemy."""
