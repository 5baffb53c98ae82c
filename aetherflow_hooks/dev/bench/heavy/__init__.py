"""Heavy: what must not make it slower. Each of these takes minutes and some GB.

backlog   up to 10 million deliveries that wait
dead      thousands of endpoints that do not answer, and all that is due for them
history   a month of events and attempts
pinned    a snapshot that keeps vacuum from its work
wide      one event for 100,000 endpoints
soak      full load for long: does anything grow?
"""
