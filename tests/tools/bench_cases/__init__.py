"""Cases for the tests of scripts/bench."""
