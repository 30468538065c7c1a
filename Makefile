# Everything runs in .venv, which is made on first use: you need only Python 3.11 or later with venv, and make.
# Each installation leaves a stamp in .venv, so the second call does not install again.

PYTHON ?= python3
VENV   ?= .venv
GPU    ?= 1
ARGS   ?=
# Options for pip when it installs PyTorch and JAX, such as the index with PyTorch's CPU wheels.
PEERS_PIP ?=
# For make gpu: a Python that has CuPy, a folder with packages that it lacks, where results go, options.
GPU_PYTHON     ?= python3
GPU_PYTHONPATH ?=
OUT            ?=
GPU_ARGS       ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install

.PHONY: help kernels bench demo demo-gpu test test-slow test-references test-newest test-nightly browser gpu gpu-verify gpu-bench lint format types docs cuda-proof cuda-instances kernels-sanitized kernels-sanitized-sample kernels-aarch64 mutants mutants-baseline peers peers-slow peers-install wheel wheel-check cuda-extra clean
.DEFAULT_GOAL := help

help:
	@echo "make demo         train a batch-normalized network on handwritten digits (GPU=0: without CuPy)"
	@echo "make test         run the tests (ARGS='-n 0 tests/layers' goes to pytest);  make test-slow runs the slow ones"
	@echo "make test-references  run the tests of layers, networks and training without the native kernels"
	@echo "make test-newest  run quick tests of the wheel on Debian's newest Python (NEWEST_PYTHON=... another one)"
	@echo "make test-nightly run what is too long for CI, in parts, and record it (PART=slow; PART=--list: the record)"
	@echo "make kernels      build the native kernels into the checkout; make test and make demo do this too"
	@echo "make lint         check format, imports and words;  make format rewrites the files"
	@echo "make types        check the types"
	@echo "make docs         build the guides and the API reference: build/docs/index.html"
	@echo "make browser      install chromium, which opens the reports in their tests (Debian, as root)"
	@echo "make gpu          run all that needs a GPU: gpu-verify (under 5 minutes), gpu-bench (under 9); installs nothing"
	@echo "                  (GPU_PYTHON=... GPU_PYTHONPATH=... OUT=folder; GPU_ARGS=--dry-run: on a simulated device)"
	@echo "make cuda-proof   compile CUDA kernels without a GPU, and check what cublasLt reads"
	@echo "make cuda-instances  compile every instance of every CUDA kernel, and record registers and spills"
	@echo "make kernels-sanitized  run CUDA kernels on the CPU, and the native ones, under g++'s sanitizers"
	@echo "make kernels-aarch64  compile the native kernels for 64-bit ARM and run them under qemu-user (Debian, x86-64)"
	@echo "make mutants      run the tests on drawn mutants (POPULATION=package, cpu or cuda; SAMPLE=10: only ten)"
	@echo "make mutants-baseline  run them on the recorded mutants of an earlier version"
	@echo "make peers        compare with PyTorch and JAX, which are installed first (PEERS_PIP: options for pip)"
	@echo "make peers-slow   run the slow comparisons: whole trainings, benchmarks"
	@echo "make bench        benchmark this CPU, PyTorch and JAX for 8 minutes; write examples/guides/speed.md"
	@echo "make wheel        build dist/*.whl and dist/*.tar.gz; on Linux for every system with glibc 2.17 or later"
	@echo "make wheel-check  test them outside the checkout, with a C++ compiler and without"
	@echo "make clean        remove .venv and everything built; runs/ stays"
	@echo "PYTHON=python3.12 selects the interpreter, VENV=folder the environment"

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "bnengine needs Python 3.11 or later; $(PYTHON) is `$(PYTHON) --version 2>&1`. Try: make PYTHON=python3.11 ..."; exit 1; }
	@echo "making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# Builds the native kernels into the package. Without a C++ compiler it prints a line, and the references run.
LIBRARY := bnengine/fused/cpu/_kernels.so
UNBUILT := bnengine/fused/cpu/_unbuilt.txt

kernels: $(LIBRARY)

# cmake from the system, or installed into the environment on first use.
CMAKE = cmake=`command -v cmake || echo $(BIN)/cmake`; \
    [ -x "$$cmake" ] || { echo "installing cmake (about 30 MB to download)"; $(PIP) cmake || exit 1; }

$(LIBRARY): $(wildcard kernels/CMakeLists.txt kernels/*.sh kernels/rules.h kernels/cpu/*) | $(VENV)/.made
	@if ! command -v $(CXX) >/dev/null; then \
	    echo "no C++ compiler was found by the name $(CXX); install one, or name it by CXX=" >$(UNBUILT); \
	    echo "there is no C++ compiler $(CXX): the native kernels are not built, and the references run"; \
	    exit 0; \
	fi; \
	$(CMAKE); \
	echo "building the native kernels into $@"; \
	mkdir -p build; CXX="$(CXX)" "$$cmake" -S kernels -B build/kernels -DBNENGINE_REASON="$(CURDIR)/$(UNBUILT)" >build/kernels.log 2>&1 && \
	"$$cmake" --build build/kernels --parallel 2 >>build/kernels.log 2>&1 && \
	"$$cmake" --install build/kernels --prefix . >>build/kernels.log 2>&1 && touch $@ || \
	{ tail -n 40 build/kernels.log; echo "the native kernels could not be built: build/kernels.log"; exit 1; }

$(VENV)/.demo: $(VENV)/.made pyproject.toml
	@echo "installing bnengine and matplotlib (about 60 MB to download)"
	@$(PIP) --editable '.[plot]'
	@touch $@

$(VENV)/.test: $(VENV)/.made pyproject.toml
	@echo "installing bnengine and what its tests need (about 100 MB to download)"
	@$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/.peers: $(VENV)/.test
	@echo "installing JAX (about 100 MB) and PyTorch (about 200 MB for its CPU wheel, several GB with CUDA)"
	@$(PIP) $(PEERS_PIP) --editable '.[test,peers]'
	@touch $@

# Prints the extra for the CUDA version that the driver offers; nothing without a driver.
CUDA_EXTRA = major=`command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi 2>/dev/null | \
    sed -n 's/.*CUDA[A-Za-z ]*Version: *\([0-9][0-9]*\).*/\1/p' | head -n 1`; \
    if [ "$${major:-0}" -ge 13 ]; then echo cuda13; elif [ "$${major:-0}" -eq 12 ]; then echo cuda12; fi

cuda-extra:
	@$(CUDA_EXTRA)

demo-gpu: $(VENV)/.demo
	@extra=$$($(CUDA_EXTRA)); \
	if [ "$(GPU)" = 0 ]; then echo "GPU=0: CuPy is left out"; \
	elif [ -z "$$extra" ]; then echo "no NVIDIA driver with CUDA 12 or 13 was found: the demo runs on NumPy"; \
	elif [ ! "$(VENV)/.$$extra" -nt pyproject.toml ]; then \
	    echo "an NVIDIA driver was found: installing CuPy ('.[$$extra]', about 1.9 GB; 'make demo GPU=0' leaves it out)"; \
	    $(PIP) --editable ".[plot,$$extra]" || { echo "CuPy could not be installed; 'make demo GPU=0' runs on NumPy"; exit 1; }; \
	    touch "$(VENV)/.$$extra"; \
	fi

demo: demo-gpu
	@$(MAKE) --no-print-directory kernels || echo "they are left out: the references run"
	@n=1; while [ -e runs/digits-$$n ]; do n=$$((n + 1)); done; \
	echo "bnengine train digits --seed 0 --out runs/digits-$$n"; \
	$(BIN)/bnengine train digits --seed 0 --out runs/digits-$$n

# Tests that need no more than the environment of make test.
HERE := not gpu and not peers and not cuda_proof
# One process per core, so our kernels use one thread in each. ARGS='-n 0 tests/layers' runs a few tests faster, in one.
PARALLEL := PYTHONDONTWRITEBYTECODE= BNENGINE_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

test: $(VENV)/.test kernels
	@$(PARALLEL) -m "$(HERE) and not slow" $(ARGS)

test-slow: $(VENV)/.test kernels
	@$(PARALLEL) -m "$(HERE) and slow" $(ARGS)

# Runs the references although the native kernels are built, as on a machine without a compiler.
test-references: $(VENV)/.test
	@BNENGINE_REQUIRE= BNENGINE_CPU_LIBRARY=/nonexistent $(PARALLEL) -m "$(HERE)" \
	    tests/layers tests/network tests/training tests/runtime $(ARGS)

# Runs the longest targets one after the other, each with a time limit: tests/nightly.
PART ?=

test-nightly: $(VENV)/.peers $(VENV)/.cuda-proof kernels
	@$(BIN)/python -m tests.nightly $(PART)

# Without chromium the tests that open a report are skipped. One font is enough.
browser:
	@command -v chromium >/dev/null || { echo "installing chromium (about 100 MB to download)"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    chromium fonts-dejavu-core >/dev/null; }

# Uses GPU_PYTHON and its CuPy: installs nothing, needs no network.
GPU_RUN = PYTHONPATH=".:$(GPU_PYTHONPATH):$$PYTHONPATH" $(GPU_PYTHON) -m tests.gpu

gpu:
	@$(GPU_RUN) all $(if $(OUT),--out "$(OUT)") $(GPU_ARGS)

gpu-verify:
	@$(GPU_RUN) verify $(if $(OUT),--out "$(OUT)") $(GPU_ARGS)

gpu-bench:
	@$(GPU_RUN) bench $(if $(OUT),--out "$(OUT)") $(GPU_ARGS)

# Words that we do not use, and better ones: a line each. codespell reads phrases only where its regex has them.
WORDS   := .ci/words.txt
PHRASES  = $$(sed -n 's/^\(.* .*\)->.*/\1/p' $(WORDS) | paste -sd '|' -)

lint: $(VENV)/.test
	@mkdir -p build
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-cache >build/imports.log 2>&1 || { cat build/imports.log; exit 1; }
	@$(BIN)/codespell --dictionary - --dictionary $(WORDS) --regex "(?i)\b($(PHRASES))\b|[\w'-]+" . .ci/run .ci/environment

format: $(VENV)/.test
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

types: $(VENV)/.test
	@$(BIN)/mypy

$(VENV)/.docs: $(VENV)/.test
	@$(PIP) --editable '.[test,docs]'
	@touch $@

docs: $(VENV)/.docs
	@rm -rf build/docs
	@$(BIN)/python -W error -m tests.guides.docs build/docs
	@echo "build/docs/index.html"

$(VENV)/.cuda-proof: $(VENV)/.test
	@echo "installing NVIDIA's compiler for kernels and its cublasLt (about 600 MB to download; no GPU is needed)"
	@$(PIP) --editable '.[test,cuda-proof]'
	@touch $@

cuda-proof: $(VENV)/.cuda-proof
	@BNENGINE_REQUIRE=nvrtc,cublas,$(BNENGINE_REQUIRE) $(BIN)/python -m pytest -m cuda_proof tests/cuda_on_cpu tests/fused $(ARGS)

# Writes tests/cuda_on_cpu/compiled.json.
cuda-instances: $(VENV)/.cuda-proof
	@$(BIN)/python -m tests.cuda_on_cpu.every_instance $(ARGS)

kernels-sanitized: $(VENV)/.test
	@$(BIN)/python -m tests.cuda_on_cpu.sanitized $(ARGS)
	@$(BIN)/python -m tests.cpu.sanitized $(ARGS)

# One family of CUDA kernels, and copies of it with planted mistakes.
kernels-sanitized-sample: $(VENV)/.test
	@$(BIN)/python -m tests.cuda_on_cpu.sanitized tests/contracts tests/cuda_on_cpu/test_sanitized.py -k "gather or sanitized"

kernels-aarch64: $(VENV)/.test kernels
	@$(CMAKE)
	@$(BIN)/python -m tests.cpu.aarch64 $(ARGS)

peers-install: $(VENV)/.peers

# Recorded mutants of an earlier version: at least as many must be caught as then.
mutants-baseline: $(VENV)/.peers kernels
	@mkdir -p build
	@$(BIN)/python -m tests.mutation --baseline --journal build/mutants-package.jsonl $(ARGS)

peers: peers-install
	@$(PARALLEL) -m "peers and not slow" tests/peers $(ARGS)

peers-slow: peers-install
	@$(PARALLEL) -m "peers and slow" tests/peers $(ARGS)

# A stopped full run continues from its journal.
POPULATION ?= package
SAMPLE     ?=

mutants: $(VENV)/.peers kernels
	@mkdir -p build
	@$(BIN)/python -m tests.mutation --population $(POPULATION) \
	    $(if $(SAMPLE),--sample $(SAMPLE),--full --journal build/mutants-$(POPULATION).jsonl) $(ARGS)

bench: peers-install kernels
	@env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python -m tests.benchmarks $(ARGS)

wheel: $(VENV)/.made
	@$(BIN)/python -m tests.packaging.wheel dist

wheel-check: $(VENV)/.made
	@$(BIN)/python -m tests.packaging.wheel_check

test-newest: $(VENV)/.made
	@$(BIN)/python -m tests.packaging.newest

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find bnengine tests examples -name __pycache__ -type d -prune -exec rm -rf {} +
