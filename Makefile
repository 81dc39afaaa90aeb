# Thin: each target is one line of a standard tool. `.venv` is made when it is missing.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: lab run test mutate
# nb="hw1_vae_gan/q1_gradient_estimators" limits run and mutate to the notebooks named
nb ?=

lab: .venv/ready
	$(BIN)/jupyter lab --notebook-dir=notebooks

run: .venv/ready
	$(BIN)/python -m course.run $(nb)

test: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadscope -p course.nbval_alive --nbval-lax --nbval-current-env --nbval-cell-timeout=300 notebooks

mutate: .venv/ready
	$(BIN)/python -m course.mutate $(nb)

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e ".[run,teach,dev]"
	touch $@
