"""Chaos: real engines, a real Postgres and receivers of every kind, under faults from a seed.

    make chaos ARGS="--seeds 1-200"

Each run commits events while faults are injected, then ends them all, and lets what is left be
delivered. What the producers know, what the receivers got and what the database says are three
records that are then compared: see `ledger`. A seed makes the same choices again; how they fall
together with the work is up to the machine.
"""
