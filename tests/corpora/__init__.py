"""Inputs and expected results as data, shared by every part of the suite."""

from pathlib import Path
from typing import Final

CORPORA: Final = Path(__file__).parent
