"""Tests of the gateway. Transcripts that differ are shown as a diff, as in a test module."""

import pytest

pytest.register_assert_rewrite("tests.gateway.playbook")
