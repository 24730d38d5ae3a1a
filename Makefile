# Every verb sets up what it needs first; `make help` lists them.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
TORCH_INDEX_URL ?=
ARGS ?=

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet --quiet
NATIVE_SOURCES := $(shell find csrc -type f) CMakeLists.txt setup.py tools/build_config.py
FORMATTED := $(shell find csrc tests/emulation -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

# One stamp per wish for torch, so that another TORCH or TORCH_INDEX_URL is installed when asked for.
TORCH_STAMP := $(VENV)/.torch-$(shell echo '$(TORCH) $(TORCH_INDEX_URL)' | cksum | cut -d' ' -f1)
# And one per wish for the build.
NATIVE_STAMP := $(VENV)/.native-$(shell echo '$(TORCH_STAMP) $(CXX) $(BUILD_CUDA) $(FORCE_CUDA) $(TORCH_CUDA_ARCH_LIST) \
  $(CUDA_HOME) $(CMAKE_ARGS)' | cksum | cut -d' ' -f1)

# The CUDA build has an environment of its own, for its torch takes several gigabytes, and leaves the library in the
# tree alone.
CUDA_VENV ?= .venv-cuda
CUDA_TORCH ?= torch==2.11.0
CUDA_TORCH_INDEX_URL ?=
CUDA_BUILD := build/cuda
OUT ?=

EMULATED := build/emulated
EMULATED_TESTS ?= $(addprefix tests/test_,operators_accuracy.py operators_shapes.py operators_gradients.py noise.py)

SANITIZED := build/sanitized
# What exercises memory; torch.compile and the command line would only run the compiler and matplotlib under ASan.
SANITIZE_TESTS ?= $(addprefix tests/test_,operators_accuracy.py operators_shapes.py operators_errors.py \
  operators_gradients.py operators_invariance.py elementary.py noise.py fuzz.py)
preload = $(shell $${CXX:-g++} -print-file-name=$(1))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help build train test bench emulate emulate-sanitize emulate-operators cuda cuda-in-venv gpu lint sanitize clean
.SECONDARY:

help:
	@echo 'make build     set up $(VENV) and build the package in it'
	@echo 'make train     train a VAE on handwritten digits, into runs/digits (ARGS="--latent 2 ...")'
	@echo 'make test      run the tests (ARGS="-k kl ...")'
	@echo 'make bench     measure against eager PyTorch and torch.compile, half an hour (ARGS=--quick: 2 minutes)'
	@echo 'make lint      ruff, mypy, clang-format'
	@echo 'make sanitize  run the tests of the native code under AddressSanitizer and UBSan'
	@echo 'make emulate   run the CUDA kernels on the CPU, without a GPU or CUDA (a part of make test)'
	@echo 'make emulate-sanitize  the same under AddressSanitizer, UBSan and ThreadSanitizer'
	@echo 'make emulate-operators  test the operators on the emulated kernels, and so what launches them'
	@echo 'make cuda      build for CUDA, test that build on the CPU, report on its kernels; needs nvcc but no GPU'
	@echo 'make gpu       build, test and measure on a GPU, with this Python as it is (OUT=a folder for the results)'
	@echo 'make clean     remove what was built, but not $(VENV) and $(CUDA_VENV)'
	@echo 'Variables: PYTHON=$(PYTHON) VENV=$(VENV) TORCH=$(TORCH) TORCH_INDEX_URL=$(TORCH_INDEX_URL)'
	@echo '           CXX MAX_JOBS BUILD_CUDA=auto|0|1 CUDA_HOME TORCH_CUDA_ARCH_LIST CMAKE_ARGS'
	@echo '           CUDA_VENV=$(CUDA_VENV) CUDA_TORCH=$(CUDA_TORCH) CUDA_TORCH_INDEX_URL=$(CUDA_TORCH_INDEX_URL)'

$(TORCH_STAMP):
	@command -v $(PYTHON) >/dev/null || { \
	  echo '$(PYTHON) was not found: install Python 3.10 or later, or name it with make PYTHON=...' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo '$(PYTHON) is too old: install Python 3.10 or later, or name it with make PYTHON=...' >&2; exit 1; }
	@$(PYTHON) tools/preflight.py
	@test -x $(VENV)/bin/pip || { echo 'Making the virtual environment $(VENV)'; $(PYTHON) -m venv $(VENV); }
	@echo 'Installing $(TORCH), a large download the first time'
	@$(PIP) install 'setuptools>=77' 'cmake>=3.22' ninja numpy
	@$(PIP) install $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) '$(TORCH)'
	@rm -f $(VENV)/.torch-*
	@touch $@

$(NATIVE_STAMP): $(TORCH_STAMP) $(NATIVE_SOURCES)
	@$(PY) setup.py --quiet build_ext --inplace
	@rm -f $(VENV)/.native-*
	@touch $@

$(VENV)/.installed-%: pyproject.toml setup.py | $(NATIVE_STAMP)
	@echo 'Installing vae_ext[$*], editable'
	@$(PIP) install --no-build-isolation --editable '.[$*]'
	@touch $@

build: $(VENV)/.installed-train $(NATIVE_STAMP)

train: build
	@$(VENV)/bin/vae-ext train --dataset digits --out runs/digits $(ARGS)

# One thread per worker: a test that is about threads sets their number itself.
test: $(VENV)/.installed-test $(NATIVE_STAMP)
	@OMP_NUM_THREADS=1 TORCHINDUCTOR_COMPILE_THREADS=1 $(PY) -m pytest -n auto --maxprocesses 8 $(ARGS)

bench: build
	@$(VENV)/bin/vae-ext benchmark $(ARGS)

emulate: $(VENV)/.installed-test $(NATIVE_STAMP)
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --maxprocesses 8 $(wildcard tests/test_emulation_*.py) $(ARGS)

emulate-sanitize: $(VENV)/.installed-test $(NATIVE_STAMP)
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --maxprocesses 8 tests/emulation/sanitized.py $(ARGS)

emulate-operators: $(VENV)/.installed-test $(NATIVE_STAMP)
	@BUILD_CUDA=0 CMAKE_ARGS=-DVAE_EXT_EMULATION=ON \
	  $(PY) setup.py --quiet build_ext --build-lib $(EMULATED) --build-temp $(EMULATED)
	@VAE_EXT_LIBRARY=$$(ls $(CURDIR)/$(EMULATED)/vae_ext/_C*.so) OMP_NUM_THREADS=1 \
	  $(PY) -m pytest -n auto --maxprocesses 8 $(EMULATED_TESTS) $(ARGS)

# One architecture is enough to see that everything compiles, links and fits the registers.
cuda:
	@command -v "$${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" nvcc >/dev/null || { \
	  echo 'nvcc was not found: install the CUDA toolkit that $(CUDA_TORCH) is built with, or set CUDA_HOME to it' >&2; exit 1; }
	@TORCH_CUDA_ARCH_LIST='$(or $(TORCH_CUDA_ARCH_LIST),9.0)' BUILD_CUDA=1 \
	  $(MAKE) --no-print-directory VENV='$(CUDA_VENV)' TORCH='$(CUDA_TORCH)' TORCH_INDEX_URL='$(CUDA_TORCH_INDEX_URL)' \
	  cuda-in-venv

cuda-in-venv: $(TORCH_STAMP)
	@$(PY) setup.py --quiet build_ext --build-lib $(CUDA_BUILD) --build-temp $(CUDA_BUILD)
	@$(MAKE) --no-print-directory $(VENV)/.installed-with-cuda
	@export VAE_EXT_LIBRARY=$$(ls $(CURDIR)/$(CUDA_BUILD)/vae_ext/_C*.so); \
	  $(PY) -m vae_ext doctor && \
	  OMP_NUM_THREADS=1 TORCHINDUCTOR_COMPILE_THREADS=1 \
	    $(PY) -m pytest -n auto --maxprocesses 8 --ignore-glob='*/test_emulation_*' $(ARGS) && \
	  $(PY) -m tools.cuda_report

# Not editable: that would build into the tree.
$(VENV)/.installed-with-cuda: pyproject.toml $(NATIVE_SOURCES)
	@echo 'Installing vae_ext[test]'
	@$(PIP) install --no-build-isolation '.[test]'
	@touch $@

gpu:
	@$(PYTHON) tools/gpu.py '$(OUT)'

lint: $(VENV)/.installed-lint
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/ruff format --check --quiet .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/clang-format --dry-run -Werror $(FORMATTED)

# libstdc++ is preloaded too, or else AddressSanitizer does not find the __cxa_throw it has to intercept.
sanitize: $(VENV)/.installed-test $(NATIVE_STAMP)
	@BUILD_CUDA=0 CMAKE_ARGS='-DCMAKE_BUILD_TYPE=Sanitize -DVAE_EXT_SANITIZE=address,undefined' \
	  $(PY) setup.py --quiet build_ext --build-lib $(SANITIZED) --build-temp $(SANITIZED)
	@LD_PRELOAD='$(call preload,libasan.so) $(call preload,libstdc++.so)' \
	  ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1 OMP_NUM_THREADS=2 \
	  VAE_EXT_LIBRARY=$$(ls $(CURDIR)/$(SANITIZED)/vae_ext/_C*.so) \
	  $(PY) -m pytest --capture=sys $(SANITIZE_TESTS) $(ARGS)

clean:
	rm -rf build dist vae_ext.egg-info vae_ext/_C*.so $(VENV)/.native-*
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
