"""Measurements of the documentation's tables that need the micro-world or its models' cards.

Each module has ``measure(setup, ...)``, where ``setup`` has ``n``, ``seed`` and ``draw(items, what)``, and returns rows.
"""
