# Every target sets up what it needs itself; see tools/setup.
# A target's help is the text behind "##" on its line.

GO := $(or $(shell command -v go 2>/dev/null),/usr/local/go/bin/go)
export PATH := $(dir $(GO)):$(PATH)

# The user's own GOFLAGS stay, first, so that ours win; the tags are joined. nodynamic
# keeps the decoders from loading whatever codec libraries the machine has installed.
comma := ,
space := $(subst ,, )
user_goflags := $(shell $(GO) env GOFLAGS 2>/dev/null)
tags := nodynamic $(filter-out nodynamic,$(subst $(comma), ,$(patsubst -tags=%,%,$(filter -tags=%,$(user_goflags)))))
export GOFLAGS := $(strip $(filter-out -tags=% -mod=% -trimpath -buildvcs=%,$(user_goflags)) \
	-mod=readonly -trimpath -buildvcs=false -tags=$(subst $(space),$(comma),$(strip $(tags))))
export CGO_ENABLED := 1

# go build's own stamp would fail in a checkout that belongs to somebody else.
VERSION := $(or $(shell git describe --tags --always --dirty 2>/dev/null),devel)

FUZZTIME ?= 20s
BENCHTIME ?= 1s
SIMTIME ?= 10m
export FUZZTIME BENCHTIME

.PHONY: help build demo run test interop lint proto proto-publish fuzz bench test-arm64 sim

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

build: ## build bin/tocsin
	@tools/setup go cc
	$(GO) build -ldflags '-X main.version=$(VERSION)' -o bin/tocsin ./cmd/tocsin

demo: build ## start a node, ban a photograph, see its copies refused, clean up
	$(GO) run ./cmd/demo -tocsin bin/tocsin

run: build ## run a node in ./data, made on the first run
	@test -e data/config.toml || bin/tocsin init --data data
	@exec bin/tocsin serve --data data

test: ## run the whole test suite with the race detector
	@tools/setup go cc strace ffmpeg turbojpeg
	$(GO) test -race -count=1 -timeout 15m -skip '^TestInterop' ./...

interop: ## try the federation against Fedify, a server that is not ours
	@tools/setup go cc npm
	@tools/interop

lint: ## check format, vet, staticcheck, generated code, go.mod and scripts
	@tools/setup go cc protoc
	@tools/lint

proto: ## make the Go code of proto/ anew, then buf lint and breaking if it changed
	@tools/setup go cc protoc
	@tools/proto generate
	@tools/proto buf

proto-publish: ## promise the API as it is: later breaking changes are refused
	@tools/setup go cc protoc
	@tools/proto publish

fuzz: ## run every fuzz target for FUZZTIME (20s)
	@tools/setup go cc
	@tools/fuzz

bench: ## race the index with its peers (see tools/bench-peers), then run every Go benchmark for BENCHTIME (1s)
	@tools/setup go cc faiss turbojpeg
	@tools/bench-peers
	@tools/bench

test-arm64: ## run the tests of the index as on a 64-bit ARM, emulated
	@tools/setup go qemu
	GOARCH=arm64 CGO_ENABLED=0 $(GO) test -count=1 -short -exec qemu-aarch64 ./bktree

sim: ## simulate many nodes on a bad network for SIMTIME (10m); SIMSEED=n repeats a run
	@tools/setup go cc
	SIMTIME=$(if $(SIMSEED),0s,$(SIMTIME)) SIMSEED=$(SIMSEED) $(GO) test -count=1 -timeout 0 -run '^TestSimulation' -v ./federation
