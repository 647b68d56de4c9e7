"""The persister itself: a report of Kafka, checked, becomes a row of `covid_cases`."""

from __future__ import annotations

import datetime
import os
from functools import cache
from typing import Annotated, Any, TypeAlias

import msgspec

from redis_worker import ConfigurationError, KafkaMessage, Reject
from redis_worker.postgres import Lookup

Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"^[^\x00]+$")]


class CaseReport(msgspec.Struct, frozen=True):
    """The content of a message. msgspec names the field that is wrong."""

    date: datetime.date
    city: Name
    region: Name
    cases: Annotated[int, msgspec.Meta(ge=0)]


async def to_rows(messages: list[KafkaMessage]) -> list[dict[str, Any] | Reject]:
    """Return for each report, in their order, a row or the reason why there is none."""
    reports: list[CaseReport | None] = [message.data for message in messages]
    city_ids = await ids_of("cities").get_many(report.city for report in reports if report)
    region_ids = await ids_of("regions").get_many(report.region for report in reports if report)
    return [
        {
            "date": report.date,
            "city_id": city_ids[report.city],
            "region_id": region_ids[report.region],
            "cases": report.cases,
            "report": message.offset,
        }
        if report is not None
        else Reject("the message has no value")
        for report, message in zip(reports, messages, strict=True)
    ]


@cache
def ids_of(table: str) -> Lookup:
    """Return the ids of the names in a table; a name that it lacks is inserted."""
    dsn = os.environ.get("POSTGRES_DSN") or os.environ.get("DATABASE_URL")
    if dsn is None:
        raise ConfigurationError("POSTGRES_DSN or DATABASE_URL must name the database")
    return Lookup(
        f"select name, id from {table} where name = any($1)",
        dsn,
        create=f"insert into {table} (name) select unnest($1::text[]) on conflict do nothing",
    )
