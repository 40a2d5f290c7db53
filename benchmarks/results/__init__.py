"""The results page: finished trainings in `results/`, and what `docs/results.md` says of them."""
