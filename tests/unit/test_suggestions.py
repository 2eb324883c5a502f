"""Names that an unknown one may be a typing error for."""

import pytest

from oban.suggestions import similar_path

KNOWN = ["app.jobs.SendEmail", "app.jobs.Report", "shop.SendEmail"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("app.jobs.SendMail", "app.jobs.SendEmail"),
        ("shop.SendMail", "shop.SendEmail"),
        ("app.work.Report", "app.jobs.Report"),
        ("a.very.different.module.of.another.project.Report", "app.jobs.Report"),
        ("Reprot", "app.jobs.Report"),
        # These have only the module in common.
        ("app.jobs.Unknown", None),
        ("app.jobs.", None),
        ("", None),
        (None, None),
    ],
)
def test_a_path_is_similar_to_one_whose_last_part_is(name: object, found: str | None) -> None:
    assert similar_path(name, KNOWN) == found
