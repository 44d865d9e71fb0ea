# `make demo` and `make test` need Python 3.11 and pip, nothing else.
PYTHON ?= python3.11
# make test CONSTRAINTS=constraints-lowest.txt, or constraints-newest.txt, tests other dependencies than the pinned ones.
CONSTRAINTS ?= constraints.txt
VENV := .venv
RUN := $(VENV)/bin/
STAMP := $(VENV)/.installed
PYTHON_ARVIZ1 ?= $(shell for p in python3.12 "$$(pyenv root 2>/dev/null)"/versions/3.12*/bin/python; do \
	"$$p" -c "" 2>/dev/null && echo "$$p" && break; done)
VENV_ARVIZ1 := .venv-arviz1
STAMP_ARVIZ1 := $(VENV_ARVIZ1)/.installed
VENV_JAX := .venv-jax
STAMP_JAX := $(VENV_JAX)/.installed
VENV_STORCHASTIC := .venv-storchastic
STAMP_STORCHASTIC := $(VENV_STORCHASTIC)/.installed

VENV_SB3 := .venv-sb3
STAMP_SB3 := $(VENV_SB3)/.installed

.PHONY: demo test proof lint mutants rooms stub test-arviz1 bench bench-environments bench-training clean

demo: $(STAMP)
	OMP_NUM_THREADS=1 $(RUN)ppgrad compare models/gaussian_policy.py --out comparison/gaussian_policy \
		--estimators score,score+loo,score+optimal,pathwise,inverse_variance,measure_valued
	@echo "The pictures are in comparison/gaussian_policy: bias.png, distributions.png, variance_cost.png"

test: lint
	OMP_NUM_THREADS=1 $(RUN)python -m pytest -n auto --dist worksteal -m "not proof"
	@$(MAKE) --no-print-directory test-arviz1

# What takes longer than `make test` may: training to the end, all problems on a simulated device, all cells of the product
# of estimators, objectives and shapes, and 2,000 random programs; writes proof/.
proof: $(STAMP)
	OMP_NUM_THREADS=1 $(RUN)python -m pytest -n auto --dist worksteal -m proof
	OMP_NUM_THREADS=1 PYTHONPATH=. $(RUN)python tools/proof.py

lint: $(STAMP)
	$(RUN)ruff check .
	$(RUN)ruff format --check .
	$(RUN)mypy

# Faults are planted in copies of the package, one at a time; the tests of each are to find it. Takes half an hour.
mutants: $(STAMP)
	OMP_NUM_THREADS=1 $(RUN)python tools/mutants.py

# The picture of the rooms in CONTRIBUTING.md, from the imports.
rooms:
	$(PYTHON) tools/rooms.py

# What a type checker reads of the public names, from ppgrad/__init__.py.
stub:
	$(PYTHON) tools/stub.py

# The analysis room with ArviZ 1.x, on Python 3.12, without torch.
test-arviz1:
	@if [ -n "$(PYTHON_ARVIZ1)" ]; then \
		$(MAKE) --no-print-directory run-arviz1; \
	else \
		echo "ArviZ 1.x was NOT tested: no python3.12 found."; \
	fi

.PHONY: run-arviz1
run-arviz1: $(STAMP_ARVIZ1)
	PYTHONPATH=. $(VENV_ARVIZ1)/bin/python -m pytest tests/analysis

# A table of ratios of times, in which a rival whose environment cannot be made stays as not run; then variance × seconds.
bench: $(STAMP)
	-@$(MAKE) --no-print-directory --keep-going bench-environments
	OMP_NUM_THREADS=1 $(RUN)python benchmarks/suite.py
	OMP_NUM_THREADS=1 $(RUN)python benchmarks/credit.py

bench-environments: $(STAMP_JAX) $(STAMP_STORCHASTIC)

# Trains to the end, beside Stable-Baselines3 in an environment of its own.
bench-training: $(STAMP) $(STAMP_SB3)
	OMP_NUM_THREADS=1 $(RUN)python benchmarks/cartpole.py --rival $(VENV_SB3)/bin/python
	OMP_NUM_THREADS=1 $(RUN)python benchmarks/pendulum.py
	OMP_NUM_THREADS=1 $(RUN)python benchmarks/discrete_vae.py

$(STAMP): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(RUN)python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) torch
	$(RUN)python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e ".[dev]"
	touch $@

$(STAMP_SB3): constraints-sb3.txt
	$(PYTHON) -m venv $(VENV_SB3)
	$(VENV_SB3)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-sb3.txt torch
	$(VENV_SB3)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-sb3.txt \
		stable-baselines3 gymnasium
	touch $@

$(STAMP_ARVIZ1): constraints-arviz1.txt
	$(PYTHON_ARVIZ1) -m venv $(VENV_ARVIZ1)
	$(VENV_ARVIZ1)/bin/python -m pip install --quiet --disable-pip-version-check -r constraints-arviz1.txt
	touch $@

$(STAMP_JAX): constraints-jax.txt
	$(PYTHON) -m venv $(VENV_JAX)
	$(VENV_JAX)/bin/python -m pip install --quiet --disable-pip-version-check -r constraints-jax.txt
	touch $@

$(STAMP_STORCHASTIC): constraints-storchastic.txt
	$(PYTHON) -m venv $(VENV_STORCHASTIC)
	$(VENV_STORCHASTIC)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-storchastic.txt torch
	$(VENV_STORCHASTIC)/bin/python -m pip install --quiet --disable-pip-version-check -r constraints-storchastic.txt
	touch $@

clean:
	rm -rf $(VENV) $(VENV_ARVIZ1) $(VENV_JAX) $(VENV_STORCHASTIC) $(VENV_SB3) comparison
