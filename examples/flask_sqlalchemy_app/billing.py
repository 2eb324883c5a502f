"""Business code that uses `db.session`, whether a request or a job calls it."""

from .database import db
from .models import Invoice, Rate


def calculate_gross(invoice: Invoice) -> int:
    """The amount with the tax of its country.

    Raises:
        LookupError: There is no rate for the country.
    """
    rate = db.session.get(Rate, invoice.country)
    if rate is None:
        raise LookupError(f"there is no tax rate for {invoice.country}")
    return invoice.net + round(invoice.net * rate.percent / 100)
