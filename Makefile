# SPDX-License-Identifier: Apache-2.0
# Front door of the build; CMake and its presets do the work. `make help` lists the targets.
SHELL := /bin/sh
PYTHON := /usr/bin/python3
JOBS ?= $(shell nproc)
PRESETS := build build-debug build-asan build-tsan build-fuzz

.DEFAULT_GOAL := build
.PHONY: help deps build run test unit asan e2e lint format clean

help: ## this list
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

deps: ## install the Debian packages that are missing (apt-get, as root or with sudo)
	@scripts/install-deps

build: deps ## release build: build/bin/docket
	@test -f build/build.ninja || cmake --preset release >/dev/null
	@cmake --build --preset release -- -j$(JOBS)

run: build ## a fleet with a few tenants at work: build/bin/docket demo $(ARGS)
	@build/bin/docket demo $(ARGS)

test: deps ## everything: lint, release build, unit tests, the same under ASan and UBSan, end to end
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory build
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory asan
	@$(MAKE) --no-print-directory e2e

unit: build ## unit tests of the release build
	@cd build && ctest --output-on-failure --no-tests=error -j$(JOBS)

asan: deps ## unit tests under the address and undefined-behaviour sanitizers
	@test -f build-asan/build.ninja || cmake --preset asan >/dev/null
	@cmake --build --preset asan -- -j$(JOBS)
	@cd build-asan && ctest --output-on-failure --no-tests=error -j$(JOBS)

e2e: build ## end-to-end tests: real PostgreSQL, real NATS, the real protocol
	@$(PYTHON) -m pytest -q -p no:cacheprovider -n 3 --dist loadfile tests/e2e $(PYTEST_ARGS)

lint: deps ## form of the sources: formatting, sizes, layers
	@scripts/lint

format: deps ## clang-format over the sources
	@git ls-files -co --exclude-standard '*.c' '*.h' | xargs clang-format -i

clean: ## remove the build folders
	rm -rf $(PRESETS)
