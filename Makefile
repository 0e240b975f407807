# make                  what is missing installed, then build/lowbeam
# make demo             the default models answer the questions of samples/
# make test             all tests, with sanitizers once more, and the checks against the originals
# make check            only the checks against the originals (PyTorch, transformers, decord, Pillow)
# make sanitize         only the tests under AddressSanitizer and UndefinedBehaviorSanitizer
# make bench            the measurements that need no GPU
# make fuzz             the readers of strangers' input under clang's libFuzzer, FUZZ_SECONDS (600) each
# make soak             the tests that take long: kills, power cuts, 100,000 questions, 3,000 damaged videos
# make install          into PREFIX (/usr/local), below DESTDIR
# make clean            removes the build folders; downloads and llama.cpp stay in the cache folder
#
# CUDA=1 [CUDA_ARCHS="80;86;89;90"]  with NVIDIA cards, in build-cuda/
# LLAMA_PREFIX=DIR                   an installed llama.cpp in place of the one that is built here
# LOWBEAM_CACHE=DIR                  the cache folder (~/.cache/lowbeam)
# docs/building.md says more.
CUDA ?= 0
PREFIX ?= /usr/local
export CUDA CUDA_ARCHS LLAMA_PREFIX
ifneq ($(LOWBEAM_CACHE),)
export LOWBEAM_CACHE
endif
BUILD := $(if $(filter 0,$(CUDA)),build,build-cuda)

.PHONY: all demo test check sanitize bench fuzz soak install clean
all:
	@scripts/build.sh $(BUILD)
	@echo "lowbeam: $(BUILD)/lowbeam is ready; $(BUILD)/lowbeam --help says how to use it"
demo:
	@scripts/demo.sh $(BUILD)
test:
	@scripts/test.sh $(BUILD)
check:
	@scripts/test.sh --checks $(BUILD)
sanitize:
	@scripts/test.sh --sanitize $(BUILD)
bench:
	@scripts/bench.sh $(BUILD)
fuzz:
	@scripts/fuzz.sh
soak:
	@scripts/soak.sh $(BUILD)
install:
	@# With sudo the cache folder is another one: what was configured before is installed as it is.
	@if [ -f $(BUILD)/Makefile ]; then cmake --build $(BUILD) -j2 >/dev/null; else scripts/build.sh $(BUILD); fi
	@cmake --install $(BUILD) --prefix $(PREFIX)
clean:
	rm -rf build build-cuda build-sanitize build-tsan build-fuzz
