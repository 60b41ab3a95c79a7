# The two commands of the README are `make demo` and `make test`; the others are for work on lbnode itself.

.DELETE_ON_ERROR:
.PHONY: demo test check kernel-test smp-test lab-test proxy-test hostile-test bench docs classifier venv system format clean

# Debian's own python3: the lab's guest runs as whoever called it and must be able to read the interpreter.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
BIN    := .venv/bin
APT    := $(if $(filter 0,$(shell id -u)),,sudo )apt-get

PROGRAMS := haproxy bird2 nginx-light ipvsadm iptables iproute2 kmod procps user-mode-linux python3-venv nftables curl \
	openssl gdnsd frr
# systemd itself checks our units.
test check: PROGRAMS += systemd
# Peers to compare with, and a second kernel to test on.
test kernel-test smp-test lab-test bench: PROGRAMS += keepalived exabgp socat qemu-system-x86 busybox-static
# Only who changes the classifier, and the test that its object is of its source, need a compiler for it.
test kernel-test classifier: PROGRAMS += clang
# A processor with AMX needs a small library compiled for user-mode-linux (lbnode/lab/xstate.c).
COMPILER := $(shell grep -qs amx_tile /proc/cpuinfo && ! command -v cc >/dev/null && echo gcc)
MISSING   = $(shell for p in $(PROGRAMS) $(COMPILER); do \
	dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done)

demo: system venv
	@$(BIN)/lbnode lab run three-tier

# The lab's guest and that of the kernel tests have a processor each: they run side by side where there are two, the proxy
# tests when the first of them has ended, and what each has said is shown, whole, at its end. The emulator of the SMP
# tests takes two processors for itself.
test: check
	@echo "the lab beside the kernel tests, then the proxy tests: each is shown when it has ended"
	@$(MAKE) --no-print-directory -j$(GUESTS) --output-sync=target lab-test kernel-test proxy-test
	@$(MAKE) --no-print-directory smp-test hostile-test

GUESTS := $(if $(filter 1,$(shell nproc)),1,2)

check: venv system
	$(BIN)/ruff format --check -q .
	$(BIN)/ruff check -q .
	$(BIN)/mypy
	$(BIN)/pytest -q -n 2 --dist loadfile

kernel-test: system venv
	$(BIN)/lbnode lab kernel -- $(BIN)/pytest -q tests/kernel

# The classifier is put to its tests on both kernels, but for those that only take long in an emulator.
SLOW := $(foreach name,nothing_else_is_ever_sent_on it_finds_what_the_tables_say the_largest_cluster_in_the_longest_restart, \
	--deselect tests/kernel/test_classifier.py::test_$(name))

# On Debian's own kernel with two processors, in QEMU; the kernel is fetched once, into ~/.cache/lbnode.
smp-test: system venv
	$(BIN)/lbnode lab kernel --smp -- $(BIN)/pytest -q tests/smp tests/kernel/test_classifier.py $(SLOW)
	$(BIN)/pytest -q tests/door

# What strangers may send, in full measure.
hostile-test: system venv
	LBNODE_RANDOM_SEQUENCES=100000 $(BIN)/pytest -q tests/unit/test_agent_ports.py

# The tests of HAProxy on that of the next Debian (3.0), which is fetched once, into ~/.cache/lbnode; on one processor, for
# the lab may have the other. By hand also on newer ones, which change: make proxy-test SUITES="forky experimental".
SUITES := trixie
proxy-test: system venv
	$(BIN)/pytest -q tests/newer
	set -e; for suite in $(SUITES); do bin=$$($(BIN)/python tests/newer/haproxy.py $$suite); $$bin/haproxy -v | head -n 1; \
		PATH="$$bin:$$PATH" $(BIN)/pytest -q \
			tests/newer tests/golden/test_haproxy.py tests/unit/test_haproxy_*.py tests/unit/test_agent_check_table.py; done

lab-test: system venv
	$(BIN)/pytest -v tests/lab

bench: system venv
	$(BIN)/python -m bench

docs: venv
	$(BIN)/python -m lbnode.config.reference > docs/reference/cluster-file.md
	$(BIN)/python -m lbnode.cli.reference > docs/reference/commands.md
	$(BIN)/python -m lbnode.agent.metrics > docs/reference/metrics.md
	set -e; for f in lab/*/topology.yaml; do \
		$(BIN)/lbnode lab graph $$(basename $$(dirname $$f)) > $$(dirname $$f)/drawing.svg; done

# The object stands in the repository beside its source: a node, and an installation from source, need no compiler.
classifier: system venv
	$(BIN)/python -m lbnode.chance.build

format: venv
	$(BIN)/ruff format -q .
	$(BIN)/ruff check -q --fix .

venv: .venv/made

.venv/made: requirements.lock pyproject.toml | system
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Installs what is missing. Daemons that come with it are not left running: the lab starts its own, in namespaces.
system:
	@set -e; missing="$(MISSING)"; if [ -n "$$missing" ]; then \
		echo "installing: $$missing"; \
		$(APT) update -q; \
		DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 $(APT) install -y -q --no-install-recommends $$missing; \
		if [ -d /run/systemd/system ]; then for unit in haproxy bird frr keepalived exabgp nginx gdnsd; do case "$$missing" in *$$unit*) \
			$(subst apt-get,systemctl,$(APT)) disable --now $$unit;; esac; done; fi; \
	fi

# Locks what pyproject.toml asks for (needs pip-tools).
requirements.lock: ;

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
