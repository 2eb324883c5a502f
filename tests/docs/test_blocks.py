"""Every block of the documents is executed or checked by a test, or is listed with the reason why not."""

from tests.docs.blocks import blocks, read_by_tests
from tests.docs.not_executed import NOT_EXECUTED


def test_every_block_is_read_by_a_test_or_is_listed() -> None:
    read = read_by_tests()
    missing = [
        str(block)
        for block in blocks()
        if block not in read and (block.page, block.first_line) not in NOT_EXECUTED
    ]
    assert missing == []


def test_every_listed_block_exists() -> None:
    existing = {(block.page, block.first_line) for block in blocks()}
    assert [key for key in NOT_EXECUTED if key not in existing] == []
