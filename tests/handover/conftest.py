"""The simulator as a process, and a folder with a relay that counts and bills."""

from tests.durability.conftest import metered, simulator

__all__ = ["metered", "simulator"]
