import unittest

import pytest
from shop import ConfirmSync

from oban import SyncOban


class TestWithFixtures(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def _use_oban(self, sync_oban: SyncOban) -> None:
        self.oban = sync_oban

    def test_an_unknown_order(self) -> None:
        ConfirmSync.enqueue_sync({"order": 0})
        assert len(self.oban.list_jobs()) == 1

    @pytest.mark.oban(mode="inline")
    def test_an_unknown_order_is_cancelled(self) -> None:
        assert ConfirmSync.enqueue_sync({"order": 0}).state == "cancelled"
