"""A persister: reports of cases from Kafka, checked, to rows of PostgreSQL; with a run that kills a consumer."""

TOPIC = "covid.raw.data"
DEAD_LETTERS = "covid.raw.data.dead"
