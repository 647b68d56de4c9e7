"""The types shared by all layers: tasks, payloads, processors, errors. Independent of Redis."""
