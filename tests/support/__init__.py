"""Helpers that tests of several areas share; on the import path as `support` (pyproject: pythonpath)."""
