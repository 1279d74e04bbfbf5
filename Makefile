# One virtual environment, .venv, for everything. `make rag` installs what the example needs, `make test` the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
DATA ?= ../shared/data
MODEL ?= mini

ADAPTERS := $(wildcard integrations/*/pyproject.toml)
CORE := core/pyproject.toml core/hatch_build.py $(wildcard core/src/anytask/kernels/*.[ch] core/src/anytask/kernels/building.py)
EDITABLE := -e "core[train]" $(patsubst %/pyproject.toml,-e %,$(ADAPTERS))

.PHONY: help rag test test-slow check format evaluate evaluate-mini mini medi bench peers matrix clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

rag: $(VENV)/.rag ## answer questions over the standard library's docstrings (ARGS="--docs FOLDER --ask '...'")
	@$(BIN)/python examples/chroma_rag.py $(ARGS)

test: $(VENV)/.test ## run the tests of all five packages but the long ones
	@$(BIN)/pytest -q $(ARGS)

test-slow: $(VENV)/.test ## also the long tests (base-size checkpoints)
	@$(BIN)/pytest -q -m "slow or not slow" $(ARGS)

check: $(VENV)/.test ## ruff and mypy
	@$(BIN)/ruff format --check -q .
	@$(BIN)/ruff check -q .
	@$(BIN)/mypy

format: $(VENV)/.test ## let ruff rewrite what it can
	@$(BIN)/ruff check -q --fix .
	@$(BIN)/ruff format -q .

bench: $(VENV)/.test ## speed, memory, start-up beside sentence-transformers (half an hour; goes on where it stopped)
	@$(BIN)/python core/benchmarks/encode.py
	@$(BIN)/python core/benchmarks/scaling.py
	@$(BIN)/python core/benchmarks/overhead.py
	@$(BIN)/python core/benchmarks/startup.py

peers: $(VENV)/.test ## environments of OpenVINO, ONNX Runtime and InstructorEmbedding 1.0.1, for encode.py --peers
	@$(PIP) install -q -c requirements.lock uv
	@$(BIN)/uv venv -q --allow-existing --python $(BIN)/python build/peers/onnx
	@$(PIP) --python build/peers/onnx install -q -r core/benchmarks/peers/requirements-onnx.txt
	@$(BIN)/uv venv -q --allow-existing --python $(BIN)/python build/peers/instructor
	@$(PIP) --python build/peers/instructor install -q --no-deps -r core/benchmarks/peers/requirements-instructor.txt

evaluate: $(VENV)/.test ## measure MODEL on the development suite in DATA/dev
	@$(BIN)/anytask evaluate $(MODEL) --suite $(DATA)/dev

evaluate-mini: $(VENV)/.test ## measure MODEL against the targets of the bundled model (ARGS="--part controlled")
	@$(PIP) install -q -c requirements.lock -r core/recipes/mini/requirements.txt
	@$(BIN)/python core/recipes/mini/evaluate.py $(MODEL) --data $(DATA) $(ARGS)

mini: $(VENV)/.test ## train the bundled model anew from DATA (hours on two cores; goes on where it stopped; ARGS="--further FOLDER")
	@$(PIP) install -q -c requirements.lock -r core/recipes/mini/requirements.txt
	@test -f build/mini/medi.jsonl.zst || \
		$(BIN)/anytask medi build core/recipes/medi/medi.toml --kind super-ni --kind paired --data $(DATA) --output build/mini/medi.jsonl.zst
	@$(BIN)/python core/recipes/mini/prepare.py --data $(DATA)
	@$(BIN)/python core/recipes/mini/train.py $(ARGS)

matrix: $(VENV)/.test ## run the tests with the lowest and the newest frameworks (ARGS="langchain --resume")
	@$(PIP) install -q -c requirements.lock uv
	@$(BIN)/python -m tests.matrix $(ARGS)

medi: $(VENV)/.test ## build the training mixture of 272 tasks from DATA (about 40 minutes of a core; goes on where it stopped)
	@$(BIN)/anytask medi build core/recipes/medi/medi.toml --data $(DATA) --output build/medi/medi.jsonl.zst

clean: ## remove the virtual environment and what tools left behind
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] \
		+ "; give another one: make PYTHON=python3.11 ...") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.rag: requirements.lock $(CORE) integrations/chroma/pyproject.toml | $(BIN)/python
	@echo "Installing what the example needs (a few minutes, once) ..."
	@$(PIP) install -q -c requirements.lock -e core -e integrations/chroma pypdf
	@touch $@

$(VENV)/.test: requirements.lock $(CORE) $(ADAPTERS) | $(BIN)/python
	@echo "Installing all packages and their frameworks (a few minutes, once) ..."
	@$(PIP) install -q -r requirements.lock $(EDITABLE)
	@touch $@ $(VENV)/.rag
