"""From settings to a model that serves: what `make pipeline` joins.

settings.py     the sections `gate`, `ab`, `release` and `notify`
machine.py      steps as data, and what carries them out: log, resume, skip
road.py         the steps, in their order
subjobs.py      the other jobs, each in a process of its own
evidence.py safety.py gate.py   what the gate looks at, and its verdict
sequential.py ab.py             the A/B test: e-values, and the rule made from them
report.py charts.py notify.py   what people get to see
"""
