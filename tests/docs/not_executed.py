"""The blocks of the documents that no test executes or checks, with the reason.

The key is the page and the first line of the block. `test_blocks.py` fails for a block that is neither read
by a test nor listed here, and for an entry whose block is gone.
`python -m tests.docs.not_executed` prints the list.
"""

MAKE_DOCS = "tests/docs/test_site.py tests its parts, and `.ci/run` builds the site"

NOT_EXECUTED: dict[tuple[str, str], str] = {
    ("CONTRIBUTING.md", "$ make docs SITE_URL=https://docs.example.com/"): MAKE_DOCS,
    ("CONTRIBUTING.md", "$ make docs SITE_URL=https://docs.example.com/ DOCS_VERSION=0.1"): MAKE_DOCS,
    ("docs/coming_from/apscheduler.md", "# shop/tasks.py, with APScheduler"): "it needs APScheduler",
    ("docs/coming_from/arq.md", "# shop/tasks.py, with arq"): "it needs arq and Redis",
    ("docs/coming_from/dramatiq.md", "# shop/tasks.py, with Dramatiq"): "it needs Dramatiq and Redis",
    ("docs/coming_from/dramatiq.md", "# shop/schedule.py, with Dramatiq"): "it needs Dramatiq and Redis",
    ("docs/coming_from/oban_elixir.md", "# lib/shop/workers.ex"): "it needs Elixir",
    ("docs/coming_from/oban_elixir.md", "# lib/shop/orders.ex"): "it needs Elixir",
    ("docs/coming_from/oban_elixir.md", "# config/config.exs"): "it needs Elixir",
    ("docs/coming_from/oban_py.md", "# shop/workers.py, with oban-py"): "it needs oban-py",
    ("docs/coming_from/procrastinate.md", "# shop/tasks.py, with Procrastinate"): "it needs Procrastinate",
    ("docs/coming_from/procrastinate.md", "# move_jobs.py, with Procrastinate"): "it needs Procrastinate",
    (
        "docs/coming_from/comparison.md",
        "$ make bench-peers PYTHON=python3.12",
    ): "it takes an hour, and needs other libraries",
    ("docs/coming_from/celery.md", "# shop/tasks.py, with Celery"): "it needs Celery and Redis",
    ("docs/coming_from/rq.md", "# shop/tasks.py, with RQ"): "it needs RQ and Redis",
    ("docs/coming_from/rq.md", "# shop/schedule.py, with RQ"): "it needs RQ and Redis",
    ("docs/guides/alerts.md", "$ oban metrics alerts > oban-alerts.yaml"): (
        "tests/cli/test_metrics.py runs the command without the redirection"
    ),
    (
        "docs/guides/alerts.md",
        '$ oban check || mail -s "Oban needs attention" ops@example.com',
    ): "it sends mail",
    ("docs/guides/command_line.md", "oban jobs list --url https://example.com/oban"): (
        "example.com has no dashboard; tests/cli run the command against a real one"
    ),
    ("docs/guides/command_line.md", 'eval "$(oban completion bash)"'): (
        "it changes a shell of the reader; test_command_line.py checks the script"
    ),
    ("docs/guides/command_line.md", 'eval "$(oban completion zsh)"'): (
        "it changes a shell of the reader; test_command_line.py checks the script"
    ),
    ("docs/guides/containers.md", "FROM python:3.13-slim"): (
        "it needs Docker; test_containers.py parses it, and checks the options of its command"
    ),
    ("docs/guides/containers.md", "services:"): (
        "it needs Docker; it was validated against Compose's schema, and test_containers.py checks fields"
    ),
    ("docs/guides/containers.md", "apiVersion: v1"): (
        "it needs Kubernetes; it was validated against its schemas, and test_containers.py checks fields"
    ),
    ("docs/guides/containers.md", "apiVersion: batch/v1"): (
        "it needs Kubernetes; it was validated against its schemas, and test_containers.py checks fields"
    ),
    ("docs/guides/containers.md", "apiVersion: apps/v1"): (
        "it needs Kubernetes; it was validated against its schemas, and test_containers.py checks fields"
    ),
    ("docs/guides/containers.md", "$ kubectl delete job shop-install --ignore-not-found"): (
        "it needs Kubernetes; test_containers.py checks the names and the order"
    ),
    ("docs/guides/dashboard.md", "$ oban web --database-url sqlite+aiosqlite:///app.db"): (
        "tests/cli start `oban web`"
    ),
    ("docs/guides/dashboard.md", "$ oban web --database-url postgresql+asyncpg://user@host/name"): (
        "there is no such host; tests/cli start `oban web`"
    ),
    ("docs/guides/dashboard_mounting.md", "location /oban/ {"): "it needs nginx",
    (
        "docs/guides/encryption.md",
        '$ python -c "from oban.encryption import generate_key; print(generate_key())"',
    ): "test_encryption.py calls the function",
    ("docs/guides/enqueueing.md", "$ oban start app.orders:oban --queues mailers:10"): (
        "test_enqueueing.py runs the node of this module in its own process"
    ),
    ("docs/guides/prometheus.md", "$ pip install 'oban-sqlalchemy[prometheus]'"): "it downloads packages",
    ("docs/guides/prometheus.md", "$ oban start app.jobs:oban --metrics-port 9394"): (
        "tests/cli/test_metrics.py starts nodes with the option"
    ),
    ("docs/guides/prometheus.md", "$ oban metrics dashboard > oban.json"): (
        "tests/cli/test_metrics.py runs the command without the redirection"
    ),
    ("docs/guides/upgrading.md", "$ pip install --upgrade oban-sqlalchemy"): (
        "it downloads packages and restarts services; tests/migration run `oban install`"
    ),
    (
        "docs/guides/testing_setup.md",
        "$ OBAN_TEST_DATABASE_URL=postgresql+asyncpg://postgres@localhost/shop_test pytest",
    ): "tests/testing run pytest with the variable, on a database of their own",
    ("docs/guides/testing_setup.md", "[pytest]"): (
        "tests/testing set `oban_database_url` to a database of their own"
    ),
    ("examples/README.md", "$ python -m fastapi_app"): "tests/examples start it on a free port",
    ("examples/README.md", "$ flask --app flask_app.app install"): (
        "tests/examples run these commands on other ports and databases"
    ),
    (
        "examples/README.md",
        "$ curl -X PUT -H 'content-type: application/json' localhost:8000/products/book -d '{\"stock\": 3}'",
    ): "tests/examples send these requests to other ports",
    ("examples/README.md", "$ python script.py import orders.csv"): (
        "tests/examples/test_script.py runs these commands with another database"
    ),
    ("examples/sqlmodel_app/README.md", "$ curl 'localhost:8000/jobs?state=discarded'"): (
        "tests/examples/test_sqlmodel_app.py sends these requests to another port"
    ),
}

if __name__ == "__main__":
    for (page, first_line), reason in NOT_EXECUTED.items():
        print(f"{page}: {first_line}\n    {reason}")
