"""Pure decisions: no clock, no dice, no wire. Both come in as arguments."""
