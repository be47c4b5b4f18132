# `make demo` trains and searches, `make test` checks everything; both set up .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# maturin installs into the active environment: make that ours, whatever the caller's shell has active.
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
unexport CONDA_PREFIX

# Instruction sets that tests are run at, from the slowest; those above the machine's best are skipped.
LEVELS := portable avx2 avx512

RUST_SOURCES := $(shell find rust -name '*.rs') Cargo.toml Cargo.lock $(wildcard rust/*/Cargo.toml)

.PHONY: demo docs endurance faults test test-all test-rust test-python lint types clean

demo: $(VENV)/.demo
	$(BIN)/elias-idx demo --out artifacts/demo

test: lint types test-rust test-python

# What takes long or needs much besides: a Ray cluster, a Spark session, jobs that are killed again and again. Spark needs
# Java 17 (Debian: openjdk-17-jre-headless), the page of `elias-idx explore` Chromium (Debian: chromium, or `playwright install
# chromium`); their tests are skipped without.
test-all: $(VENV)/.integration
	$(BIN)/python -m pytest -m integration

# Hundreds of faults: kills, full disks, damaged files, limits (half an hour; some kinds need root).
faults: $(VENV)/.test
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m faults.run

# An hour of mixed load, whose answers and memory are watched.
endurance: $(VENV)/.test
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python tests/endurance.py

# The documentation as a site, in artifacts/site.
docs: $(VENV)/.integration
	$(BIN)/mkdocs build --strict

# All tests at the best level, those of the core's arithmetic at each one below it too.
test-rust: $(VENV)/.test
	cargo test --release --workspace
	$(call at_lower_levels,cargo test --release --package elias-idx)

test-python: $(VENV)/.test
	$(BIN)/python -m pytest
	$(call at_lower_levels,$(BIN)/python -m pytest --quiet tests/test_parity.py tests/test_index_*.py \
		tests/train/test_fused.py tests/train/test_row_table.py)

# Runs a command at each level below the best.
define at_lower_levels
@best=$$(ELIAS_IDX_ISA= $(BIN)/python -c 'import elias_idx; print(elias_idx.instruction_set())') && \
lower=yes && \
for level in $(LEVELS); do \
	if [ $$level = $$best ]; then lower=no; \
	elif [ $$lower = yes ]; then echo "== ELIAS_IDX_ISA=$$level $(1)" && ELIAS_IDX_ISA=$$level $(1) || exit 1; \
	else echo "== $$level: not on this machine, skipped"; fi; \
done
endef

lint: $(VENV)/.test
	cargo fmt --check
	cargo clippy --workspace --all-targets --release -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --package elias-idx
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

$(VENV)/.integration: $(VENV)/.test
	$(BIN)/maturin develop --release --extras train,demo,test,integration
	touch $@

$(VENV)/.maturin:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip 'maturin>=1.9,<2'
	touch $@

clean:
	rm -rf $(VENV) artifacts target
