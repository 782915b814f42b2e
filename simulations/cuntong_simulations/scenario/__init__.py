"""Scenarios: what a planner writes into a file, checked (docs: `MODEL.md`, README)."""
