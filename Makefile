# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
DOMAIN ?= vision

demo_vision = vision/vim_micro_fashion
demo_bio = bio/mamba_micro_splice
demo_audio  = audio/mamba_micro_tones

bin     := $(VENV)/bin
domains := $(sort $(patsubst demo_%,%,$(filter demo_%,$(.VARIABLES))))

.PHONY: demo test test-slow lint format clean help

help:
	@echo "make demo               train a small model on embedded data, evaluate, write report.html"
	@echo "make demo DOMAIN=vision the same for another domain ($(domains))"
	@echo "make test               run the test suite"
	@echo "make test-slow          run the long tests too (nightly)"
	@echo "make lint               ruff, ruff format --check, pyright"
	@echo "make format             let ruff mend and format"
	@echo "make clean              remove $(VENV) and what was built"

# A wrong word is told before anything is installed.
ifneq ($(filter demo,$(MAKECMDGOALS)),)
ifeq ($(demo_$(DOMAIN)),)
$(error DOMAIN=$(DOMAIN) has no demo; choose one of: $(domains))
endif
endif

demo: $(VENV)/.installed
	@$(bin)/tristate run $(demo_$(DOMAIN))

test: $(VENV)/.installed-dev
	$(bin)/python -m pytest -n auto -m "not slow"

test-slow: $(VENV)/.installed-dev
	$(bin)/python -m pytest -n auto

lint: $(VENV)/.installed-dev
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/pyright --pythonpath $(bin)/python

format: $(VENV)/.installed-dev
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache

$(bin)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(bin)/python
	@echo "installing into $(VENV): some minutes the first time"
	@$(bin)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(bin)/python
	@echo "installing into $(VENV) with the tools for tests: some minutes the first time"
	@$(bin)/python -m pip install --quiet --editable ".[dev,export]"
	@touch $@ $(VENV)/.installed
