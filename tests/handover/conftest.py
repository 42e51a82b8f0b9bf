"""The simulator as a process, and a folder with a relay that counts and bills."""

from tests.durability.conftest import metered, metered_template, simulator

__all__ = ["metered", "metered_template", "simulator"]
