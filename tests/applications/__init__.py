"""Applications as people write them, with tests of their own, which `test_testing.py` runs."""
