"""The HTTP side, in the engine's loop: API, and whether the engine is well. Off unless configured.

    request → host → access → route → one function of `manage` → answer

No route does more than that: what API, command line and dashboard can do is the same.
"""
