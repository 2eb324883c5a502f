"""What `docs/frameworks/django.md` expects of a project, and tests that run next to those of the page."""

MANAGE = """
import os
import sys

from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
execute_from_command_line(sys.argv)
"""
SETTINGS = """
DATABASES = {{"default": {database}}}
INSTALLED_APPS = ["shop"]
ROOT_URLCONF = "shop.urls"
SECRET_KEY = "not secret"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "Europe/Berlin"
"""
URLS = """
from django.urls import path

from shop import views

urlpatterns = [path("orders", views.place), path("jobs/<int:job_id>/cancel", views.call_off)]
"""
INITIAL = """
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Order",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("email", models.EmailField(max_length=254)),
                ("cents", models.PositiveIntegerField()),
                ("paid", models.BooleanField(default=False)),
            ],
        )
    ]
"""
TESTS = '''
import asyncio
import threading

from django.core.management import call_command
from django.db import IntegrityError, connection, connections, transaction
from django.test import TransactionTestCase
from sqlalchemy import select, text
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import Session

from oban import InvalidJob, Job, Oban, SyncOban
from shop.jobs import Charge
from shop.models import Order
from shop.queue import engine, oban_in_transaction


def stored():
    """The orders of all jobs, on a connection that has nothing to do with Django's."""
    from shop.node import database_url

    with SyncOban(database_url()) as other:
        return [job.args["order"] for job in other.list_jobs()]


def in_thread(function):
    """Run a function in a thread, which has a connection of its own."""
    results = []

    def run():
        try:
            results.append(function())
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return results[0]


class Transactions(TransactionTestCase):
    def setUp(self):
        self.oban = self.enterContext(oban_in_transaction())

    def tearDown(self):
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM oban_jobs")

    def test_jobs_are_stored_by_the_commit_of_django(self):
        with transaction.atomic():
            self.oban.enqueue(Charge.new({"order": 1}))
            with Session(engine) as session, session.begin():
                session.add(Charge.new({"order": 2}))
            self.oban.enqueue_many(Charge.new({"order": number}) for number in (3, 4))
            Charge.enqueue_sync({"order": 5})
            # A call that fails leaves a transaction that can go on.
            with self.assertRaises(InvalidJob):
                self.oban.enqueue(Job(worker="app.Work", queue="", args={}))
            with self.assertRaises(StatementError):
                self.oban.list_jobs(select(Job).where(text("nothing = 1")))
            self.assertEqual(Order.objects.count(), 0)
            self.assertEqual(in_thread(stored), [])
        self.assertEqual(stored(), [1, 2, 3, 4, 5])

    def test_a_savepoint_takes_its_jobs_with_it(self):
        with transaction.atomic():
            self.oban.enqueue(Charge.new({"order": 1}))
            with self.assertRaises(ZeroDivisionError), transaction.atomic():
                self.oban.enqueue(Charge.new({"order": 2}))
                raise ZeroDivisionError
        self.assertEqual(stored(), [1])

    def test_a_rollback_takes_all_jobs_and_their_changes(self):
        with transaction.atomic():
            job = self.oban.enqueue(Charge.new({"order": 1}))
        with transaction.atomic():
            self.oban.enqueue(Charge.new({"order": 2}))
            self.assertTrue(self.oban.cancel_job(job))
            self.assertEqual(self.oban.get_job(job.id).state, "cancelled")
            transaction.set_rollback(True)
        with transaction.atomic():
            found = self.oban.get_job(job.id)
        self.assertEqual((found.state, found.args), ("available", {"order": 1}))
        self.assertEqual(found.scheduled_at.utcoffset().total_seconds(), 0)

    def test_unique_jobs_are_found_in_the_transaction(self):
        with transaction.atomic():
            first, second = (self.oban.enqueue(Charge.new({"order": 1}, unique=True)) for _ in range(2))
        self.assertEqual(first.id, second.id)

    def test_a_request_that_fails_stores_neither_order_nor_job(self):
        with self.assertRaises(IntegrityError):
            self.client.post("/orders", {"email": "ann@example.com", "cents": [1999, -1]})
        self.assertEqual((Order.objects.count(), stored()), (0, []))
        answer = self.client.post("/orders", {"email": "ann@example.com", "cents": [1999, 299]})
        self.assertEqual((answer.status_code, stored()), (201, answer.json()["orders"]))
        with transaction.atomic():
            job = self.oban.list_jobs()[0]
        self.assertEqual(self.client.post(f"/jobs/{job.id}/cancel").json(), {"cancelled": True})

    def test_outside_of_atomic_a_call_is_refused(self):
        with self.assertRaisesRegex(StatementError, "transaction.atomic"):
            self.oban.enqueue(Charge.new({"order": 1}))
        self.assertEqual(stored(), [])

    def test_each_thread_uses_its_own_connection_and_finds_it_as_it_was(self):
        if connection.vendor == "sqlite":
            self.skipTest("SQLite has one writer")
        connection.ensure_connection()
        before = len(connection.connection._notice_handlers)

        def work():
            with transaction.atomic(), oban_in_transaction() as oban:
                oban.enqueue(Charge.new({"order": 2}))
                transaction.set_rollback(True)
            with transaction.atomic(), oban_in_transaction() as oban:
                oban.enqueue(Charge.new({"order": 3}))
            return stored()

        with transaction.atomic():
            self.oban.enqueue(Charge.new({"order": 1}))
            self.assertEqual(in_thread(work), [3])
        self.assertCountEqual(stored(), [1, 3])
        self.assertEqual(len(connection.connection._notice_handlers), before)
        self.assertTrue(connection.connection.autocommit)
        with connection.cursor() as cursor:
            cursor.execute("SELECT args FROM oban_jobs")
            self.assertIsInstance(cursor.fetchone()[0], str)

    def test_a_job_is_enqueued_after_the_commit(self):
        from shop import after_commit

        with after_commit.oban as own:
            with self.assertRaises(ZeroDivisionError), transaction.atomic():
                after_commit.enqueue_after_commit(Charge.new({"order": 1}))
                raise ZeroDivisionError
            with transaction.atomic():
                after_commit.enqueue_after_commit(Charge.new({"order": 2}))
                self.assertEqual(own.list_jobs(), [])
        self.assertEqual(stored(), [2])

    def test_the_middleware_closes_the_connection_of_a_job(self):
        from shop import node

        left = []

        def look(job, call_next):
            call_next(job)
            left.append(connection.connection)

        async def run():
            middleware = [look, node.with_django]
            async with Oban(node.database_url(), queues={"payments": 1}, middleware=middleware) as running:
                await running.wait(job, timeout=60)

        with transaction.atomic():
            order = Order.objects.create(email="ann@example.com", cents=1)
            job = self.oban.enqueue(Charge.new({"order": order.pk}))
        asyncio.run(run())
        order.refresh_from_db()
        self.assertEqual((order.paid, left), (True, [None]))


class Migrations(TransactionTestCase):
    def test_the_tables_are_dropped_and_created_again(self):
        tables = connection.introspection.table_names
        call_command("migrate", "shop", "0001", verbosity=0)
        self.assertNotIn("oban_jobs", tables())
        call_command("migrate", "shop", verbosity=0)
        self.assertIn("oban_jobs", tables())
        call_command("makemigrations", "--check", verbosity=0)
'''

#: Migrates the database, enqueues a job, runs the command, and stops it when the job has ended.
RUN = """
import os
import signal
import sys
import threading

import django

django.setup()

from django.core.management import ManagementUtility, call_command
from django.db import connection, transaction
from oban import SyncOban
from shop.jobs import Charge
from shop.models import Order
from shop.node import database_url
from shop.queue import oban_in_transaction

call_command("migrate", verbosity=0)
with transaction.atomic(), oban_in_transaction() as oban:
    order = Order.objects.create(email="ann@example.com", cents=1)
    job = oban.enqueue(Charge.new({"order": order.pk}))


def stop():
    try:
        with SyncOban(database_url()) as other:
            print(other.wait(job.id, timeout=60).state, flush=True)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


threading.Thread(target=stop).start()
ManagementUtility(sys.argv[1:]).execute()
"""
