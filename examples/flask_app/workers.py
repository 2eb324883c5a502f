"""The jobs of an order.

Each worker takes a session. Its writes are committed together with the job's completion, so they happen
exactly once, even if the process is killed in between and the job runs again.
"""

import logging
from dataclasses import dataclass

from sqlalchemy.orm import Session

from oban import Cancel, Job, Worker

from .models import Order

logger = logging.getLogger(__name__)
# `oban start` prints the records of every logger, but only warnings unless a logger has another level.
logger.setLevel(logging.INFO)


@dataclass(frozen=True)
class OrderArgs:
    order_id: int


class SendConfirmation(Worker[OrderArgs], queue="mailers", max_attempts=5):
    def process(self, job: Job, args: OrderArgs, session: Session) -> Cancel | None:
        order = session.get(Order, args.order_id)
        if order is None:
            return Cancel("the order no longer exists")
        order.confirmed = True
        logger.info("to %s: your order %s is on its way", order.email, order.id)
        return None


class AskForReview(Worker[OrderArgs], queue="mailers", max_attempts=5):
    def process(self, job: Job, args: OrderArgs, session: Session) -> Cancel | None:
        order = session.get(Order, args.order_id)
        if order is None:
            return Cancel("the order no longer exists")
        order.asked_for_review = True
        logger.info("to %s: how do you like order %s?", order.email, order.id)
        return None
