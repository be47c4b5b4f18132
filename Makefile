# `make demo` trains and searches, `make test` checks everything; both set up .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# maturin installs into the active environment: make that ours, whatever the caller's shell has active.
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
unexport CONDA_PREFIX

RUST_SOURCES := $(shell find rust -name '*.rs') Cargo.toml Cargo.lock $(wildcard rust/*/Cargo.toml)

.PHONY: demo test test-rust test-python lint types clean

demo: $(VENV)/.demo
	$(BIN)/elias-idx demo --out artifacts/demo

test: lint types test-rust test-python

test-rust:
	cargo test --release --workspace

test-python: $(VENV)/.test
	$(BIN)/python -m pytest

lint: $(VENV)/.test
	cargo fmt --check
	cargo clippy --workspace --all-targets --release -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.test
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest elias_idx._core

# The extension is built and installed in place, so that changes to Python files need no new installation.
$(VENV)/.demo: $(VENV)/.maturin pyproject.toml $(RUST_SOURCES)
	$(BIN)/maturin develop --release --extras train,demo
	touch $@

$(VENV)/.test: $(VENV)/.maturin pyproject.toml $(RUST_SOURCES)
	$(BIN)/maturin develop --release --extras train,demo,test
	touch $@ $(VENV)/.demo

$(VENV)/.maturin:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip 'maturin>=1.9,<2'
	touch $@

clean:
	rm -rf $(VENV) artifacts target
