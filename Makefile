# Each target is one line that calls cargo or scripts/. `make` alone prints what there is.

CPU ?= max          ## processor: cortex-a53, cortex-a72, neoverse-n1, max, ...
SMP ?= 1            ## number of CPUs
MEM ?= 1G           ## RAM
GIC ?= 3            ## interrupt controller version, 2 or 3
EL2 ?=              ## 1 enters the kernel at EL2
ACCEL ?=            ## kvm or hvf run it on the host's CPU, which has to be AArch64 (docs/SILICON.md); tcg, the default, translates
FIRMWARE ?=         ## for run: uefi, uefi-acpi, u-boot or u-boot-uefi loads the image from a disk (make efi), not the emulator
GRANULE ?= 4K       ## size of a page: 4K, 16K or 64K; others than 4K are built in a folder of that name
VA ?= 48            ## bits of virtual addresses: 48; 52, with PA=52; 39, 47 or 42 with pages of 4K, 16K or 64K; others than 48 are built in a folder of that name
PA ?= 48            ## bits of physical addresses: 48 or 52
BOOTARGS ?=         ## the kernel's arguments, as `make help-bootargs` lists them: selftest=GLOB seed=N ...
QEMU ?=             ## emulator, if not qemu-system-aarch64
TIMEOUT ?= 60       ## seconds without output after which a boot has failed; for gdb with GDBCMD, seconds for all of it
TOOLCHAIN ?=        ## rustup or distro forces a route; otherwise scripts/setup chooses
BUILD ?=            ## folder of all that is built, if not build/ and target/
PROFILE ?= release  ## release, quick (builds in seconds; no figures) or dev; make gdb takes dev unless told otherwise
SOAK ?= 20          ## for soak: rounds; 1 is the live part alone, as in make test
PROVE ?=            ## for prove: only the claims that this glob matches ('leaf*')
STAGES ?=           ## for test: only these stages, e.g. lint,host (all of them by default)
BENCH ?=            ## for bench: only the cases that this glob matches ('range 1M*'; list names them)
BENCH_WALKERS ?=    ## for bench and the self-test of walkers: only these beside the engine (none: the engine alone)
COUNTERS ?=         ## for bench: instructions (exact, by -icount; the default) or pmu (time, cycles, events, warm and cold; with ACCEL=kvm or hvf)
TRACE ?=            ## for replay: the trace, plain or gzip (scripts/traces/linux-7.2-boot.csv.gz)
A ?=                ## for compare: a result of bench, of before
B ?=                ## for compare: another (a bench of exact instructions now, by default)
ACROSS ?=           ## for compare without B: 1 compares figures of another CPU or build, too
SHELL_SEED ?=       ## for test: the seed of the lines that the shell is fuzzed with
GDBCMD ?=           ## for gdb and gdb-attach: commands to run in batch, separated by ;
PORT ?= 1234        ## for gdb-attach: where the stub listens
HOST ?= 127.0.0.1   ## for gdb-attach: on which machine
SYMBOLS ?=          ## for gdb-attach: an ELF file with the kernel's symbols; walks do without

# What is debugged lies apart from what is run, and is a kernel with hook points (vmw trace-walk).
of_addresses := $(if $(filter-out 48,$(strip $(VA))),-$(strip $(VA)))
of_granule := $(if $(filter-out 4K,$(strip $(GRANULE)))$(of_addresses),/$(strip $(GRANULE))$(of_addresses))
ifeq ($(origin PROFILE),file)
gdb: override PROFILE := dev
gdb: export OUT ?= $(or $(BUILD),build)/dev$(of_granule)
gdb: export IMAGE ?= $(or $(BUILD),build)/dev$(of_granule)/Image
endif

# An image has one granule, and one size of addresses.
ifneq ($(of_granule),)
build run efi boards bench lines replay shell ptmap soak: export OUT ?= $(or $(BUILD),build)$(of_granule)
build run efi boards bench lines replay shell ptmap soak: export IMAGE ?= $(or $(BUILD),build)$(of_granule)/Image
build run efi boards bench lines replay shell ptmap soak: export ELF ?= $(or $(BUILD),build)$(of_granule)/vmwalk.elf
endif

# On the host's CPU, the interrupt controller is the host's; and what is missing is said before anything is built.
ifneq ($(filter kvm hvf,$(ACCEL)),)
check := scripts/run --check &&
ifeq ($(origin GIC),file)
override GIC :=
endif
endif

# What a replay runs on follows from its trace, unless it is given.
ifeq ($(origin MEM),file)
replay: override MEM :=
endif
ifeq ($(origin SMP),file)
replay: override SMP :=
endif

# A stress on one CPU is none.
ifeq ($(origin SMP),file)
soak: override SMP := 4
endif

# A shell may have a HOST of its own.
ifeq ($(origin HOST),environment)
override HOST := 127.0.0.1
endif

# A comment after a value leaves its spaces in the value; and `$pc` in GDBCMD is gdb's, not make's.
$(foreach v,CPU SMP MEM GIC EL2 ACCEL COUNTERS FIRMWARE GRANULE VA PA QEMU TIMEOUT TOOLCHAIN PROFILE STAGES BENCH_WALKERS SHELL_SEED SOAK ACROSS HOST PORT SYMBOLS,$(eval override $(v) := $(strip $($(v)))))
gdb-attach: export HOST := $(HOST)
gdb-attach: export PORT := $(PORT)
gdb-attach: export SYMBOLS := $(SYMBOLS)
override BOOTARGS := $(value BOOTARGS)
override GDBCMD := $(value GDBCMD)
override BENCH := $(value BENCH)
override A := $(strip $(A))
override B := $(strip $(B))
override BUILD := $(strip $(BUILD))
override TRACE := $(strip $(TRACE))
export BUILD PROVE BENCH BENCH_WALKERS SHELL_SEED SOAK ACROSS CPU SMP MEM GIC EL2 ACCEL COUNTERS FIRMWARE GRANULE VA PA BOOTARGS QEMU TIMEOUT TOOLCHAIN PROFILE STAGES GDBCMD

.DEFAULT_GOAL := help
.PHONY: growth help help-bootargs setup build run efi boards soak fresh device-trees shell ptmap test bench compare lines linux-peer replay prove lint gdb gdb-attach doc docs clean

help: ## print the targets and variables
	@scripts/help $(firstword $(MAKEFILE_LIST))

help-bootargs: ## print the kernel's boot arguments, for BOOTARGS: it is the kernel itself that lists them
	@scripts/setup run && scripts/build && BOOTARGS=help scripts/run

setup: ## get what building, booting and testing need, where it is missing
	@scripts/setup test

build: ## leave build/Image (flat) and build/vmwalk.elf (with symbols)
	@scripts/setup build && scripts/build

run: ## build, boot, show the self-tests live; succeeds when all passed
	@scripts/setup run && $(check) scripts/build $(if $(FIRMWARE),&& scripts/setup firmware && scripts/efi) && exec scripts/run

efi: ## leave build/efi/BOOTAA64.EFI, a UEFI application, and build/efi/vmwalk.img, a disk with it (BOOTARGS are on it)
	@scripts/setup build && scripts/build && scripts/efi

boards: ## leave build/boards/: what goes on an SD card of a Raspberry Pi 3, 4, 5 or an RK3588, with a README each (BOOTARGS)
	@scripts/setup build && scripts/build && scripts/boards

soak: ## what can run longer: host tests, 1 to 16 CPUs, proofs, device trees, fresh machines, and SOAK rounds of stress on 4 CPUs (BOOTARGS adds to it)
	@scripts/setup test && scripts/build && exec scripts/soak

fresh: ## try `make run` and `make test` in minimal roots of Debian 12 and 13, as root and as a user
	@scripts/setup test && exec scripts/fresh

device-trees: ## read all trees of Debian's arm64 kernel as the kernel does and as libfdt does; they must agree
	@scripts/setup build && exec scripts/device-trees

shell: ## boot to a prompt: look at the tables, make areas by hand (`help` lists the commands)
	@scripts/setup run && $(check) scripts/build && exec scripts/shell

ptmap: ## draw what the running kernel has mapped; leave build/ptmap.svg
	@scripts/setup run && $(check) scripts/build && exec scripts/ptmap

test: ## test everything: lint, host tests, every machine of the boot matrix
	@scripts/setup test && exec scripts/test

lint: ## format, clippy and rustdoc only
	@scripts/setup test && STAGES=lint exec scripts/test

bench: ## count the instructions of every operation beside Linux's; leave build/bench.json and build/bench.svg (COUNTERS=pmu: build/bench-pmu.json)
	@scripts/setup run && $(check) scripts/build && exec scripts/bench

compare: ## show how two results of bench differ: A=FILE B=FILE, or A=FILE and a bench of now
	@$(if $(B),exec scripts/compare "$(A)" "$(B)",scripts/setup run && scripts/build && COUNTERS= exec scripts/bench --base "$(A)")

lines: ## count cache-line transfers, atomics and barriers of calls with 1 to 32 CPUs (BENCH=GLOB); leave build/lines.json
	@scripts/setup gdb && $(if $(check)$(filter pmu,$(COUNTERS)),,scripts/build &&) exec scripts/lines

linux-peer: ## measure Linux anew, from Debian's source: what bench and lines compare with (15 minutes to build)
	@scripts/setup run && exec scripts/peer

growth: ## count the same with 1 to 64 CPUs and 0 to 1,000,000 live areas; leave build/lines-growth.csv and .svg
	@scripts/setup run && scripts/build && exec scripts/lines --growth

replay: ## perform a trace of another kernel's vmalloc areas (TRACE=FILE) on 1 CPU and on its own; leave build/replay.json
	@scripts/setup run && $(check) TRACE= scripts/build && TRACE="$(TRACE)" exec scripts/replay

prove: ## prove the compiled functions over all inputs, and the protocol for any number of CPUs, with angr, z3 and cvc5 (PROVE=GLOB); leave build/prove.json
	@scripts/litmus || [ $$? = 77 ]
	@scripts/setup prove && scripts/build && exec scripts/prove

gdb: ## boot halted with gdb attached (GDBCMD='break kernel_main; continue' runs in batch)
	@scripts/setup gdb && $(check) scripts/build && exec scripts/debug

gdb-attach: ## gdb with the vmw commands on any AArch64 kernel behind a stub (PORT, HOST; GDBCMD runs in batch)
	@scripts/setup gdb-alone && exec scripts/debug --attach

docs: ## make the transcripts, tables and pictures of README and docs/ anew, from boots and from scripts/bench-data
	@scripts/setup gdb && scripts/build && PROFILE=dev OUT=$(or $(BUILD),build)/dev scripts/build && SMP= MEM= BOOTARGS= ACCEL= COUNTERS= exec scripts/docs

doc: ## write the crates' documentation to the target directory's doc/
	@scripts/setup build && scripts/cargo doc --no-deps

clean: ## remove everything that was built
	@scripts/clean
