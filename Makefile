# SPDX-License-Identifier: Apache-2.0
# imf: implicit model fusion. `make help` lists the targets; `make demo` and `make check` set up, build and run.
# ---- settings (override on the command line or in config.mk, which `make configure` writes) -------------------------
CC       = gcc
BUILD    = build
DEV      =
SANITIZE =
RANKS    = 2
V        =
# What make builds for GPUs: 0 nothing, 1 build/cuda/imf and its bench, host for tests; auto: build/imf, and build/cuda/imf where nvcc, cuBLASLt
# and NCCL are.
CUDA     = auto
BENCH_THREADS = 2
FAULTS   = 1000
SECONDS  = 600
MODELS   = $(BUILD)/models
CHAOS_SEEDS = 200
SEED     =
CONFIG   = config.mk
prefix   = /usr/local
DESTDIR  =
-include $(CONFIG)

# ---- nothing to edit below --------------------------------------------------------------------------------------------
Q       := $(if $(V),,@)
say      = @$(if $(V)$(findstring s,$(firstword -$(MAKEFLAGS))),:,echo '  $1  $@')
VERSION := $(shell cat src/VERSION 2>/dev/null || echo 0.1.0)$(shell git rev-parse --short HEAD 2>/dev/null | sed 's/^/+/')
DATE    := $(shell LC_ALL=C TZ=UTC git log -1 --date=format-local:'%B %-d, %Y' --format=%cd 2>/dev/null || \
             LC_ALL=C date -u -r CHANGELOG.md +'%B %-d, %Y')
WARN    := -std=c11 -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes $(if $(DEV),-Werror)
OPT     := $(if $(SANITIZE),-O1 -fsanitize=$(SANITIZE) -fno-omit-frame-pointer,-O2) -g
CPP     := -D_GNU_SOURCE -Isrc -I. -MMD -MP $(MPI_CFLAGS) $(NETCDF_CFLAGS) $(PKG_CFLAGS)
CFLAGS  := $(WARN) $(OPT) -ffp-contract=off -fstack-protector-strong $(OPENMP)
LDLIBS  := $(LIB_DIRS) $(NETCDF_LIBS) $(MPI_LIBS) $(PKG_LIBS) -lm -lpthread

SRC     := $(filter-out src/main.c,$(wildcard src/*/*.c))
PLAIN   := $(filter-out kernels/cpu/fast%.c,$(wildcard kernels/cpu/*.c))
FAST    := $(wildcard kernels/cpu/fast*.c)
OBJ     := $(SRC:%.c=$(BUILD)/%.o) $(PLAIN:%.c=$(BUILD)/%.o) \
           $(foreach i,base avx2 avx512,$(FAST:%.c=$(BUILD)/%.$(i).o))
TESTS   := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/t[0-9]*.c))
FUZZ    := $(filter-out replay,$(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/*.c)))
REPLAY  := $(FUZZ:%=$(BUILD)/tests/fuzz/%)
FUZZED  := $(patsubst %.c,$(BUILD)/fuzz/%.o,$(wildcard src/base/*.c src/text/*.c src/judge/math*.c) src/model/safetensors.c src/par/par.c)
NEED    := libopenmpi-dev openmpi-bin libnetcdf-mpi-dev libdnnl-dev libjansson-dev libyaml-dev libpcre2-dev libgmp-dev \
           libutf8proc-dev libseccomp-dev libxxhash-dev libcmocka-dev pkg-config python3

ifneq ($(filter check-real,$(MAKECMDGOALS)),)
NEED    += python3-venv python3-torch
endif
ifneq ($(filter fuzz,$(MAKECMDGOALS)),)
NEED    += clang libclang-rt-14-dev llvm
endif

.PHONY: all programs help configure setup demo demo-models check check-real check-law1 check-scale rules format \
        hdr-check bench check-faults check-hostcuda bench-hostcuda check-gpu bench-gpu cuda-coverage cuda-report mutate mutate-host bench-cpu fuzz clean distclean check-slurm check-report FORCE
.PHONY: man docs install uninstall check-install
ifneq ($(NO_CMOCKA),)
ifneq ($(filter programs check-built,$(MAKECMDGOALS)),)
$(error the tests want cmocka (Debian libcmocka-dev, Spack cmocka): install it, then make configure)
endif
endif
# NVIDIA's compiler and libraries. Only what make without a target and CUDA=1 build wants them; tests run $(BUILD)/imf.
NVCC       = $(or $(shell command -v nvcc),$(wildcard /usr/local/cuda/bin/nvcc))
CUDA_HOME  = $(abspath $(dir $(NVCC))..)
cuda_has   = $(wildcard $(CUDA_HOME)/include/$(1) /usr/include/$(1) /usr/local/include/$(1))
CUDA_FOUND = $(and $(NVCC),$(call cuda_has,cublasLt.h),$(call cuda_has,nccl.h))
CUDNN_FOUND = $(and $(CUDA_FOUND),$(shell grep -ls DEVICEPROP_JSON /dev/null $(call cuda_has,cudnn_graph.h)))  # 9.8 or later
# CUDA=0: no device; 1: NVIDIA GPUs, by nvcc; host: the same device code on this machine's CPU, for tests.
PROGRAM_0    = $(BUILD)/imf
PROGRAM_1    = $(BUILD)/cuda/imf $(BUILD)/cuda/bench_gpu
PROGRAM_host = $(BUILD)/hostcuda/imf
PROGRAM_auto = $(PROGRAM_0) $(if $(CUDA_FOUND),$(BUILD)/cuda/imf)
$(if $(PROGRAM_$(CUDA)),,$(error CUDA=$(CUDA) is none of auto, 0, 1 and host))
all: $(PROGRAM_$(CUDA))
.SECONDARY:  # objects of the tests are kept

$(BUILD)/imf: $(BUILD)/src/main.o $(BUILD)/libimf.a
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) -o $@ $^ $(LDLIBS)
$(BUILD)/libimf.a: $(OBJ)
	@rm -f $@
	$(Q)ar rcs $@ $^
$(BUILD)/tests/%: $(BUILD)/tests/%.o $(BUILD)/libimf.a
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) -o $@ $^ $(LIB_DIRS) $(CMOCKA_LIBS) $(LDLIBS)

$(BUILD)/tests/lib/fault_io.so: tests/lib/fault_io.c
	@mkdir -p $(@D)
	$(Q)$(CC) -D_GNU_SOURCE $(filter-out -Wpedantic,$(WARN)) -O1 -fPIC -shared -o $@ $< -ldl

$(REPLAY): $(BUILD)/tests/fuzz/%: $(BUILD)/tests/fuzz/%.o $(BUILD)/tests/fuzz/replay.o $(BUILD)/libimf.a
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) -o $@ $^ $(LDLIBS)
FUZZFLAGS = -std=c11 -g -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
$(BUILD)/fuzz/%.o: %.c $(CONFIG)
	@mkdir -p $(@D)
	$(call say,CLANG)
	$(Q)clang $(CPP) -DIMF_VERSION='"fuzz"' -DIMF_COMPILER='"clang"' -DIMF_DATE='""' $(FUZZFLAGS) -c -o $@ $<
$(BUILD)/fuzz/libimf.a: $(FUZZED)
	@rm -f $@
	$(Q)ar rcs $@ $^
$(FUZZ:%=$(BUILD)/fuzz/%): $(BUILD)/fuzz/%: $(BUILD)/fuzz/tests/fuzz/%.o $(BUILD)/fuzz/libimf.a
	$(call say,LD)
	$(Q)clang $(FUZZFLAGS) -fsanitize=fuzzer -o $@ $^ $(LDLIBS)

# Device code on the CPU: kernels are compiled with -fsanitize=thread, whose hooks are kernels/hostcuda's own; arrays of registers trap.
# MUTATE: files of kernels/cuda, each with the program that tests it, and the form that suffices.
CXX       = g++
WARNXX   := -std=c++17 -Wall -Wextra -Wpedantic -Wshadow $(if $(DEV),-Werror)
HOSTCUDA := $(patsubst %.cc,$(BUILD)/%.o,$(wildcard kernels/hostcuda/*.cc))
MUTATE   := math.cuh:attention_bwd fragments.cuh:attention sm90.cuh:attention_bwd:SM90 attn.cuh:attention_bwd attn_softmax.cuh:attention attn_fwd.cuh:attention:MMA \
            attn_fwd_sm90.cuh:attention:SM90 attn_bwd.cuh:attention_bwd attn_bwd_parts_sm90.cuh:attention_bwd:SM90 attn_bwd_sm90.cuh:attention_bwd:SM90 \
            attn_bwd_wide_sm90.cuh:attention_bwd:SM90 decode.cuh:decode product.cuh:logprob:MMA logits.cuh:logprob logprob.cuh:logprob \
            logprob_sm90.cuh:logprob:SM90 dpo.cuh:logprob rows.cuh:rows optim.cuh:rows sample.cuh:sample
ON_HOST  := $(patsubst %.cu,$(BUILD)/%,$(wildcard tests/hostcuda/*.cu))
TIMED    := attention attention_bwd logprob
CUDA_OPS := $(patsubst %.cu,$(BUILD)/hostcuda/%.o,$(wildcard kernels/cuda/*.cu))
$(BUILD)/kernels/hostcuda/%.o: kernels/hostcuda/%.cc
	@mkdir -p $(@D)
	$(call say,CXX)
	$(Q)$(CXX) $(WARNXX) -O3 -g -ffp-contract=off -I. -Ikernels/hostcuda -MMD -MP -c -o $@ $<
ONHOSTFLAGS = $(WARNXX) -Wno-unknown-pragmas -Wno-psabi -O2 -g -ffp-contract=off -fsanitize=thread,bounds -fsanitize-undefined-trap-on-error -fstack-reuse=none \
              -D_GNU_SOURCE -Isrc -I. -Ikernels/hostcuda -MMD -MP -x c++
$(BUILD)/tests/hostcuda/%.o: tests/hostcuda/%.cu
	@mkdir -p $(@D)
	$(call say,CXX)
	$(Q)$(CXX) $(ONHOSTFLAGS) -c -o $@ $<
$(BUILD)/hostcuda/%.o: %.cu
	@mkdir -p $(@D)
	$(call say,CXX)
	$(Q)$(CXX) $(ONHOSTFLAGS) -c -o $@ $<
$(filter-out %/ops %/watch,$(ON_HOST)): %: %.o $(HOSTCUDA)
	$(call say,LD)
	$(Q)$(CXX) -o $@ $^ -lboost_context -lbacktrace
$(BUILD)/tests/hostcuda/sample: $(BUILD)/libimf.a
$(BUILD)/tests/hostcuda/ops: $(BUILD)/tests/hostcuda/ops.o
$(BUILD)/tests/hostcuda/watch: $(BUILD)/tests/hostcuda/watch.o $(BUILD)/kernels/hostcuda/mpi/nccl.o $(BUILD)/hostcuda/src/par/nccl/par_nccl.o
$(BUILD)/hostcuda/imf: $(BUILD)/src/main.o $(BUILD)/kernels/hostcuda/mpi/nccl.o $(BUILD)/hostcuda/src/par/nccl/par_nccl.o
$(BUILD)/kernels/hostcuda/mpi/nccl.o: WARNXX += $(patsubst -I%,-isystem %,$(MPI_CFLAGS))
$(BUILD)/hostcuda/%.o: %.c $(CONFIG)
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(CPP) -Ikernels/hostcuda/mpi $(CFLAGS) -c -o $@ $<
BENCH_GPU = $(addprefix $(BUILD)/tests/bench/gpu/,bench_gpu.o sampled.o $(1)) $(BUILD)/$(2)/tests/bench/gpu/gemm_peak.o
$(BUILD)/hostcuda/bench_gpu: $(call BENCH_GPU,cudnn_stand_in.o,hostcuda)
$(BUILD)/tests/hostcuda/ops $(BUILD)/tests/hostcuda/watch $(BUILD)/hostcuda/imf $(BUILD)/hostcuda/bench_gpu: $(CUDA_OPS) $(HOSTCUDA) $(BUILD)/libimf.a
	$(call say,LD)
	$(Q)$(CXX) -o $@ $(filter %.o,$^) $(BUILD)/libimf.a -lboost_context -lbacktrace $(OPENMP) $(LDLIBS)

# 20050: a kernel in a header is inline for its host part; on the device each file has its own.
NVCCFLAGS = -diag-suppress 20050 -std=c++17 -O3 -lineinfo -D_GNU_SOURCE -Isrc -I. $(foreach a,$(ARCHS),-gencode=arch=compute_$(a),code=sm_$(a))
ARCHS     = 80 90a
$(BUILD)/cuda/%_sm90.o: ARCHS = 90a
CUDA_LIBS = -L$(CUDA_HOME)/lib64 -Wl,-rpath,$(CUDA_HOME)/lib64 -lcublasLt -lnccl -lcudart_static -ldl -lrt
$(BUILD)/cuda/%.o: %.c $(CONFIG)
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(CPP) -isystem $(CUDA_HOME)/include $(CFLAGS) -c -o $@ $<
$(BUILD)/cuda/%.o: %.cu
	@mkdir -p $(@D)
	$(call say,NVCC)
	$(Q)$(NVCC) $(NVCCFLAGS) -MMD -MP -c -o $@ $<
$(BUILD)/cuda/kernels/cuda/ops_sample.o: NVCCFLAGS += --fmad=false  # the CPU's bits (kernels/sample.h)
$(BUILD)/cuda/imf: $(BUILD)/src/main.o $(BUILD)/cuda/src/par/nccl/par_nccl.o
# cuDNN is the bench's yardstick alone.
$(BUILD)/cuda/bench_gpu: $(if $(CUDNN_FOUND),$(call BENCH_GPU,,cuda) $(BUILD)/cuda/tests/bench/gpu/cudnn_sdpa.o,$(call BENCH_GPU,no_cudnn.o,cuda))
$(BUILD)/cuda/bench_gpu: CUDA_LIBS += $(if $(CUDNN_FOUND),-lcudnn)
$(BUILD)/cuda/imf $(BUILD)/cuda/bench_gpu: $(patsubst %.cu,$(BUILD)/cuda/%.o,$(wildcard kernels/cuda/*.cu)) $(BUILD)/libimf.a
	$(call say,LD)
	$(Q)$(CXX) -o $@ $(filter %.o,$^) $(BUILD)/libimf.a $(CUDA_LIBS) $(OPENMP) $(LDLIBS)

$(BUILD)/src/model/safetensors.o: CFLAGS += $(if $(SANITIZE),,-O3)  # its loops over all weights want vectorising
$(BUILD)/%.o: %.c $(CONFIG)
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(CPP) $(CFLAGS) -c -o $@ $<
$(BUILD)/src/base/version.o: CPP += -DIMF_VERSION='"$(VERSION)"' -DIMF_COMPILER='"$(CC)"' -DIMF_DATE='"$(DATE)"'
$(BUILD)/src/base/version.o: $(BUILD)/version
$(BUILD)/version: FORCE
	@mkdir -p $(@D)
	@echo '$(VERSION) $(DATE)' | cmp -s - $@ || echo '$(VERSION) $(DATE)' >$@
FORCE:
$(BUILD)/src/judge/code_python.o: src/judge/zygote.py src/judge/referee.py
ISA_base   =
ISA_avx2   = -mavx2 -mfma -mf16c
ISA_avx512 = -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl
define ISA_RULE
$(BUILD)/%.$(1).o: %.c $(CONFIG)
	@mkdir -p $$(@D)
	$$(call say,CC)
	$$(Q)$(CC) $(CPP) $(CFLAGS) -O3 -fno-math-errno -ffp-contract=fast $(ISA_$(1)) -DISA=$(1) -c -o $$@ $$<
endef
$(foreach i,base avx2 avx512,$(eval $(call ISA_RULE,$(i))))

$(BUILD)/kernels/cpu/tile16_avx512bf16.o: CFLAGS += -O3 -mavx512f -mavx512bf16
$(BUILD)/kernels/cpu/tile16_amx.o: CFLAGS += -O3 -mamx-tile -mamx-bf16

$(BUILD)/tests/%.o: CPP += $(CMOCKA_CFLAGS)

$(CONFIG): tools/configure.sh
	@mkdir -p $(@D)
	@CC='$(CC)' PREFIXES='$(PREFIXES)' NETCDF_DIR='$(NETCDF_DIR)' HDF5_DIR='$(HDF5_DIR)' \
	  sh tools/configure.sh > $@.tmp || { rm -f $@.tmp; exit 69; }
	@mv $@.tmp $@
configure:        ## look for the libraries; PREFIXES="/a /b" names places of your own
	@rm -f $(CONFIG)
	@$(MAKE) --no-print-directory $(CONFIG)

setup:            ## install the Debian packages that are missing (root or sudo)
	@sh tools/setup.sh $(NEED)
check: setup      ## build, then every test
	@$(if $(NO_CMOCKA),rm -f $(CONFIG))
	@$(MAKE) --no-print-directory -j$$(nproc) programs
	@$(MAKE) --no-print-directory check-built
programs: $(BUILD)/imf $(TESTS) $(REPLAY) $(BUILD)/tests/lib/fault_io.so
check-built: programs
	@sh tests/run.sh $(BUILD)
check-real: setup ## comparisons that need the real models (downloads 1.4 GB once); 0 skips or it fails
	@$(MAKE) --no-print-directory -j$$(nproc) $(BUILD)/imf
	@sh tools/fetch_models.sh $(MODELS)
	@sh tools/fetch_reference.sh $(MODELS)
	@MODELS=$(abspath $(MODELS)) TEST_LIMIT=3000 sh tests/run.sh $(BUILD) tests/real
check-report: setup ## the report's page in headless Chromium, which it installs; screenshots in $(BUILD)/report
	@sh tools/setup.sh chromium
	@$(MAKE) --no-print-directory -j$$(nproc) $(BUILD)/imf
	@sh tests/t61_report.sh $(BUILD)
	@sh tests/t62_report_browser.sh $(BUILD)
check-law1: setup ## one digest: 36 layouts, then CHAOS_SEEDS=200 combinations with kills and restarts, or SEED=n alone
	@$(MAKE) --no-print-directory -j$$(nproc) $(BUILD)/imf
	@sh tests/lib/check_law1.sh $(BUILD) $(CHAOS_SEEDS) $(SEED)
check-scale: setup ## 64 ranks of a tiny model: what they send, open and hold, against docs/scaling.md
	@$(MAKE) --no-print-directory -j$$(nproc) $(BUILD)/imf
	@sh tests/scale/check.sh $(BUILD)
check-faults: setup ## long: $(FAULTS) bit flips, cut files, every failing system call of a save, 50 signals
	@$(MAKE) --no-print-directory -j$$(nproc) programs
	@for t in t45_damage:$(FAULTS) t45_faults:1 t57_stop:50; do \
	  FAULTS=$${t#*:} sh tests/$${t%:*}.sh $(BUILD) || exit 1; done
check-hostcuda: setup ## CUDA device code on this machine's CPU (installs Boost.Context), 7 minutes
	@sh tools/setup.sh libboost-context-dev g++
	@$(MAKE) --no-print-directory -j$$(nproc) $(ON_HOST) $(PROGRAM_host) $(BUILD)/hostcuda/bench_gpu $(if $(CUDA_FOUND),$(PROGRAM_1))
	@TEST_JOBS=$$(nproc) TEST_LIMIT=1200 sh tests/run.sh $(BUILD) tests/hostcuda
bench-hostcuda: setup ## GFLOP/s of that: whole kernels with all checks, then mma.sync and wgmma alone (fewer than 5 fail), a minute
	@sh tools/setup.sh libboost-context-dev g++
	@$(MAKE) --no-print-directory -j$$(nproc) $(foreach t,speed $(TIMED),$(BUILD)/tests/hostcuda/$t)
	@for t in $(TIMED); do $(BUILD)/tests/hostcuda/$$t speed || exit 1; done; $(BUILD)/tests/hostcuda/speed
check-gpu: setup  ## training and sampling on a real GPU, and compute-sanitizer; exit 77 without one
	@sh tests/gpu/check_gpu.sh $(BUILD)
bench-gpu:        ## ops, a training step, decoding and DPO on a GPU beside its peaks, cuDNN and TRL (PEERS=DIR/venv), kept in tests/bench/gpu by who runs it; exit 77 (make: 2) without one
	@nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem --format=csv,noheader 2>/dev/null || { echo "no GPU is here (nvidia-smi): nothing was measured"; exit 77; }
	@$(MAKE) --no-print-directory -j$$(nproc) CUDA=1
	@PEERS='$(PEERS)' sh tests/gpu/bench_gpu.sh $(BUILD) '$(VERSION)'
cuda-coverage: setup ## is every line of the CUDA kernels executed on hostcuda? two minutes
	@sh tools/setup.sh libboost-context-dev g++
	@$(MAKE) --no-print-directory -j$$(nproc) $(HOSTCUDA) $(BUILD)/libimf.a
	@sh tools/cuda_coverage.sh $(BUILD) attention attention_bwd decode logprob rows sample accuracy:tests/data/ops/attention_bf16.txt
cuda-report:      ## counts of the CUDA kernels' main loops in machine code, against tests/hostcuda/sass.txt (nvcc; disassemblers from PyPI)
	@mkdir -p $(BUILD)
	@sh tools/cuda_report.sh $(BUILD)
mutate: setup     ## breaks the CUDA kernels in every known way; at least 95 % must be noticed on hostcuda, an hour; COUNT=n: so many, drawn by SEED
	@sh tools/setup.sh libboost-context-dev g++
	@$(MAKE) --no-print-directory -j$$(nproc) $(ON_HOST)
	@python3 tools/mutate.py --build $(BUILD) --jobs $$(nproc) $(if $(COUNT),--count $(COUNT) --seed $(or $(SEED),0)) $(MUTATE)
mutate-host: setup ## deletes the host's calls to devices and NCCL one by one; at least 95 % must be noticed on hostcuda, half an hour
	@sh tools/setup.sh libboost-context-dev g++
	@$(MAKE) --no-print-directory -j$$(nproc) $(PROGRAM_host)
	@python3 tools/mutate_host.py --build $(BUILD)
fuzz: setup       ## libFuzzer with ASan and UBSan for SECONDS in all (default 600), or on one TARGET; found inputs in build/fuzz/found
	@$(MAKE) --no-print-directory -j$$(nproc) $(addprefix $(BUILD)/fuzz/,$(or $(TARGET),$(FUZZ)))
	@sh tools/fuzz.sh $(BUILD)/fuzz $(SECONDS) $(or $(TARGET),$(FUZZ))
check-slurm: setup  ## a chain of jobs in a Slurm of its own (installs slurm-wlm, munge, shellcheck), 3 minutes
	@sh tools/setup.sh slurm-wlm munge shellcheck || true
	@$(MAKE) --no-print-directory -j$$(nproc) $(BUILD)/imf
	@TEST_LIMIT=1500 sh tests/run.sh $(BUILD) tests/slurm
demo: setup       ## the embedded pipeline on $(RANKS) ranks
	@$(MAKE) --no-print-directory -j$$(nproc) $(BUILD)/imf
	@sh tools/demo.sh $(BUILD)/imf $(RANKS)
demo-models: setup  ## train the models of input/demo anew (up to an hour)
	@$(MAKE) --no-print-directory $(BUILD)/imf
	@sh tools/demo_models.sh $(BUILD)/imf $(RANKS)
help:             ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' Makefile | sed 's/:.*## /\t/' | sort
bench: $(BUILD)/tests/bench/bench_ops  ## times of the ops on this machine, 1 and $(BENCH_THREADS) threads
	@$< 1
	@$< $(BENCH_THREADS)
bench-cpu: $(BUILD)/imf $(BUILD)/tests/bench/bench_ops  ## imf against torch, TRL, transformers and llama.cpp in PEERS=DIR
	@sh tools/fetch_models.sh $(MODELS)
	@python3 tools/bench/bench_cpu.py --imf $(BUILD)/imf --bench-ops $(BUILD)/tests/bench/bench_ops --models $(MODELS) \
	  --work $(BUILD)/bench --out $(BUILD)/bench/report.md $(if $(PEERS),--peers $(PEERS)) $(if $(DATA),--data $(DATA)) \
	  $(if $(ROWS),--rows $(ROWS)) $(if $(WHICH),--which $(WHICH)) $(if $(REPEAT),--repeat $(REPEAT)) $(if $(QUICK),--quick)
man: $(BUILD)/imf.1  ## the manual page, from the command table and the recipe's schema
$(BUILD)/imf.1: $(BUILD)/imf
	$(Q)$< help --man >$@.tmp
	@mv $@.tmp $@
docs: $(BUILD)/imf  ## docs/recipe.md from the recipe's schema
	$(Q)$< help --markdown >docs/recipe.md.tmp
	@mv docs/recipe.md.tmp docs/recipe.md
install: $(BUILD)/imf $(BUILD)/imf.1  ## into DESTDIR and prefix (/usr/local)
	@sh tools/install.sh install $(BUILD) '$(DESTDIR)$(prefix)'
uninstall:        ## what install wrote there
	@sh tools/install.sh uninstall $(BUILD) '$(DESTDIR)$(prefix)'
check-install:    ## as an ordinary user with libraries of his own, some minutes; needs root and a Debian mirror
	@sh tests/install/home_prefix.sh
rules:            ## layers, confined calls, licence lines
	@sh tools/check_rules.sh
	@sh tools/spdx.sh check
hdr-check: $(CONFIG)  ## every header compiles alone, those of hostcuda as C++
	@for h in $$(find src kernels -name '*.h' -not -path 'kernels/hostcuda/*'); do \
	  $(CC) $(filter-out -MMD -MP,$(CPP)) $(WARN) -fsyntax-only -x c $$h || exit 1; done
	@for h in kernels/hostcuda/*.h kernels/hostcuda/*/*.h; do \
	  $(CXX) $(WARNXX) -D_GNU_SOURCE -I. -Ikernels/hostcuda -fsyntax-only -x c++ $$h || exit 1; done
format:           ## clang-format on the lines that differ from HEAD
	git clang-format --force --style=file:tools/clang-format.yaml --extensions c,h
clean:
	rm -rf $(BUILD)
distclean: clean
	rm -f $(CONFIG)
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
