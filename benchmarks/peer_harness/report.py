"""Result JSON -> markdown tables: python -m bench.report a.json [b.json ...]"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path


def spread(values: list[float], digits: int = 0) -> str:
    if not values:
        return "-"
    middle, low, high = statistics.median(values), min(values), max(values)
    if digits == 0:
        return f"{middle:,.0f} ({low:,.0f}-{high:,.0f})"
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def order(item: tuple) -> tuple:
    """By adapter, then variants by their numbers (c10, c50, c200)."""
    _, name, variant = item[0]
    digits = "".join(c for c in variant.split("-")[0] if c.isdigit())
    return name, int(digits or 0), variant


def rates(rows: list[dict], limits: list[float | None], worker: str) -> str:
    good = [row for row in rows if "error" not in row]
    values = [row["jobs_per_s"] for row in good]
    if not values:
        return "| - | - | - | - | - | error |"
    middle = statistics.median(values)
    share = " | ".join(f"{middle / v:.3f}" if v else "-" for v in limits)
    cpu = [(row.get(worker) or 0) / row.get("jobs", row.get("n_jobs", 1)) * 1e6 for row in good]
    served = [(row.get("server_cpu_s") or 0) / row.get("jobs", row.get("n_jobs", 1)) * 1e6 for row in good]
    note = (
        f"capped in {sum(map(bool, capped))} of {len(good)}"
        if any(capped := [row.get("capped") for row in good])
        else ""
    )
    return (
        f"| {spread(values)} | {share} | {statistics.median(cpu):.0f} |"
        f" {statistics.median(served):.0f} | {note} |"
    )


def markdown(documents: list[dict]) -> str:
    groups: dict[tuple, list[dict]] = defaultdict(list)
    for document in documents:
        for row in document["runs"]:
            if row["scenario"] == "enqueue_one":
                row["n_jobs"] = document["options"]["one"]
            elif row["scenario"] == "enqueue_bulk":
                row["n_jobs"] = document["options"]["jobs"]
            groups[row["scenario"], row["adapter"], row["variant"]].append(row)
    lines = ["# Results", ""]
    for document in documents:
        server = document["server"]
        lines.append(
            f"- started {document['started']}; {document['cpus']} CPUs; loop "
            f"{document['options']['loop']}; PostgreSQL {server['server_version']}, "
            f"fsync {server['fsync']}, synchronous_commit {server['synchronous_commit']}, "
            f"shared_buffers {server['shared_buffers']}"
            + ("; drain without ANALYZE" if document["options"].get("stale") else "")
        )
    seen: dict[str, dict] = {}
    for document in documents:
        seen.update(document["adapters"])
    for name, info in seen.items():
        text = ", ".join(f"{k} {v}" for k, v in info["versions"].items() if v)
        lines.append(f"- {name}: Python {info['python']}, {text}. {info['notes']}")
    lines += ["", "Median (min-max) of the runs.", ""]

    def limit_of(scenario: str, variant: str | None = None) -> float | None:
        best = [
            statistics.median(good)
            for (s, a, v), rows in groups.items()
            if s == scenario
            and a in ("raw", "raw_copy")
            and (variant is None or v == variant)
            and (good := [row["jobs_per_s"] for row in rows if "error" not in row])
        ]
        return max(best, default=None)

    for scenario, cpu in (
        ("enqueue_one", "client_cpu_s"),
        ("enqueue_bulk", "client_cpu_s"),
        ("drain", "worker_cpu_s"),
        ("drain_backlog", "worker_cpu_s"),
    ):
        rows = {key: value for key, value in groups.items() if key[0] == scenario}
        if not rows:
            continue
        lines += [
            f"## {scenario}",
            "",
            "| adapter | variant | jobs/s | of best raw | of same raw variant |"
            " Python CPU us/job | server CPU us/job | note |",
            "|---|---|---|---|---|---|---|---|",
        ]
        best = limit_of(scenario)
        for (_, name, variant), values in sorted(rows.items(), key=order):
            limits = [best, limit_of(scenario, variant)]
            lines.append(f"| {name} | {variant} {rates(values, limits, cpu)}")
        lines.append("")
    for scenario, fields in (
        ("latency", ("from_after_ms", "from_before_ms", "insert_ms")),
        ("scheduled", ("late_ms",)),
    ):
        rows = {key: value for key, value in groups.items() if key[0] == scenario}
        if not rows:
            continue
        heads = [f"{f} {p}" for f in fields for p in ("p50", "p95", "p99")]
        lines += [
            f"## {scenario}",
            "",
            "| adapter | variant | " + " | ".join(heads) + " | missing |",
            "|---" * (len(heads) + 3) + "|",
        ]
        for (_, name, variant), values in sorted(rows.items(), key=order):
            good = [row for row in values if "error" not in row]
            cells = [spread([row[f][p] for row in good], 1) for f in fields for p in ("p50", "p95", "p99")]
            missing = sum(row["missing"] for row in good) if good else "error"
            lines.append(f"| {name} | {variant} | {' | '.join(cells)} | {missing} |")
        lines.append("")
    rows = groups.get(("sanity", "", ""), [])
    if rows:
        lines += ["## sanity (ms)", ""]
        for key in ("asyncpg_select1_ms", "psycopg_select1_ms", "asyncpg_commit_ms"):
            values = [row[key]["p50"] for row in rows if key in row]
            tail = [row[key]["p99"] for row in rows if key in row]
            lines.append(f"- {key}: p50 {spread(values, 3)}, p99 {spread(tail, 3)}")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown([json.loads(Path(path).read_text()) for path in sys.argv[1:]]))
