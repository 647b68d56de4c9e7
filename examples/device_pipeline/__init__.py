"""A pipeline of device readings: from Kafka, in two formats, to a cache, alerts, and a page that shows them live."""
