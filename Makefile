# `make demo` trains and searches, `make test` checks everything; both set up .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# maturin installs into the active environment: make that ours, whatever the caller's shell has active.
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
unexport CONDA_PREFIX

# Programs that look at the project, apart from the packages that it is made of and audited with.
TOOLS := artifacts/tools

# Instruction sets that tests are run at, from the slowest; those above the machine's best are skipped.
LEVELS := portable avx2 avx512

RUST_SOURCES := $(shell find rust -name '*.rs') Cargo.toml Cargo.lock $(wildcard rust/*/Cargo.toml)

.PHONY: demo docs fuzz sanitize endurance faults parity audit licences test test-all test-rust test-python lint types clean

demo: $(VENV)/.demo
	$(BIN)/elias-idx demo --out artifacts/demo

test: lint types test-rust test-python

# What takes long or needs much besides: a Ray cluster, a Spark session, jobs that are killed again and again. Spark needs
# Java 17 (Debian: openjdk-17-jre-headless), the page of `elias-idx explore` Chromium (Debian: chromium, or `playwright install
# chromium`); their tests are skipped without.
test-all: $(VENV)/.integration
	$(BIN)/python -m pytest -m integration

# Thousands of random models searched by torch, the core and the oracle in NumPy, with and without the fusion, at every
# instruction set of this machine.
parity: export ELIAS_IDX_PARITY_MODELS = 2000
parity: $(VENV)/.test
	$(PARITY)
	$(call at_lower_levels,$(PARITY))

PARITY = $(BIN)/python -m pytest --quiet tests/test_parity.py tests/test_index_fusion.py -k 'test_random'

# Whether dependencies are known to be vulnerable, and of licences that Apache-2.0 may go with. Needs cargo-deny (`cargo install
# --locked cargo-deny`), and the network for what is known of vulnerabilities: without it `make licences` is left.
audit: licences $(VENV)/.test $(TOOLS)/pip-audit
	cargo deny check advisories
	PIPAPI_PYTHON_LOCATION=$(CURDIR)/$(BIN)/python $(TOOLS)/pip-audit/bin/pip-audit --local --skip-editable

licences:
	cargo deny --offline check licenses bans sources

# Hundreds of faults: kills, full disks, damaged files, limits (5 minutes; some kinds need root).
faults: $(VENV)/.test
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m faults.run

# An hour of mixed load, whose answers and memory are watched.
endurance: $(VENV)/.test
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python tests/endurance.py

# The documentation as a site, in artifacts/site.
docs: $(VENV)/.integration
	$(BIN)/mkdocs build --strict

# Looks for inputs that do harm, SECONDS for each target: files, queries and texts by the core with AddressSanitizer, files of data
# sets by the Python readers. What is found that is new is put into fuzz/corpus, what does harm into fuzz/artifacts. RUSTFLAGS of the
# sanitizer need an option of nightly toolchains, which RUSTC_BOOTSTRAP=1 allows to a stable one.
SECONDS ?= 600
FUZZ_TARGETS := damaged manifest queries texts
FUZZ_READERS := bag_of_words embeddings jsonl packed pairs raw_text score_csv score_jsonl score_npy

# All targets are run, whatever is found in one of them; then it fails if anything was found.
fuzz: $(VENV)/.test $(TOOLS)/atheris
	command -v cargo-fuzz || cargo install --locked cargo-fuzz
	mkdir -p fuzz/artifacts
	@found=; \
	for target in $(FUZZ_TARGETS); do (cd fuzz && RUSTC_BOOTSTRAP=1 cargo fuzz run $$target -- \
		-max_total_time=$(SECONDS) -max_len=4096 -rss_limit_mb=2048 -malloc_limit_mb=64 -timeout=60) || \
		found="$$found $$target"; done; \
	for reader in $(FUZZ_READERS); do PYTHONPATH=$(TOOLS)/atheris $(BIN)/python -W error fuzz/readers.py $$reader \
		-max_total_time=$(SECONDS) -max_len=400 -rss_limit_mb=4096 -timeout=60 -artifact_prefix=fuzz/artifacts/ || \
		found="$$found $$reader"; done; \
	if [ -n "$$found" ]; then echo "found something in:$$found" >&2; exit 1; fi

# A folder of packages, as the readers that it looks into need the project's.
$(TOOLS)/atheris: | $(VENV)/.maturin
	$(BIN)/python -m pip install --quiet --target $@ atheris

$(TOOLS)/pip-audit:
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet 'pip-audit>=2.7' || { rm -r $@; exit 1; }

# The core's tests with AddressSanitizer, which looks for leaks too at the end of each program; what its threads meet at, in the orders of
# events that loom tries; then very many loads and searches from Python, whose memory is watched (20 minutes in all). Objects for
# these are kept apart from the others, in target/asan and target/loom.
sanitize: $(VENV)/.test
	CARGO_TARGET_DIR=target/asan RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address \
		CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
		cargo test --release --package elias-idx --target $$(rustc --print host-tuple) --lib --tests --no-fail-fast
	CARGO_TARGET_DIR=target/loom RUSTFLAGS='--cfg loom' CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
		cargo test --release --package elias-idx --lib model::
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m integration tests/test_index_concurrency.py -k keep_nothing

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
