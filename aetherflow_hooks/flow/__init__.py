"""The way of an event: emit → fanout → lease → pace → post → record, and sweep behind them.

The stages know nothing of each other; `engine.py` wires them. A stage that works by itself has a
public `turn`: one round of its loop, which tells in how many seconds the next one is wanted.
"""
