"""Is the model better? Benchmarks, their scores with confidence intervals, and a paired test against a second model.

candidate.py   which model: a run's, a folder's, the hub's; where its weights are and what identifies them
benchmark.py   what a benchmark is: items, one record each per model, and the metrics made from them
held_out.py choices.py kmmlu_cot.py prompts.py harness.py   the benchmarks
likelihood.py  log-likelihood of several continuations of one text
statistics.py  intervals, paired tests, the verdict
session.py     runs what is asked for, keeps each result as it comes, resumes
report.py chart.py   report.json, report.md, comparison.png
"""
