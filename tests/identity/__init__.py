"""Tests of a2al_trio.identity."""
