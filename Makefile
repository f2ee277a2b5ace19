# make        builds bin/hiatus
# make demo   shows it: a program is checkpointed, killed and restarted
# make test   runs all tests; as root also as an ordinary user that it makes
# make test-vm  the core of the tests on other kernels, emulated: see test/vm
# make test-vm-arm64  the same on arm64
# make lint   gofmt, go vet, staticcheck, both architectures
# make cover  coverage of the unit tests in bin/cover.html
# make faults things go wrong at each step of a checkpoint and of a restart, as root too
# make soak   SOAK=20m of checkpoints, kills and restarts at random
# make bench  what extensions, checkpoints and restarts cost, beside what they may
# make bench-full  the tables of docs/performance.md
# make clean  removes what make made

export CGO_ENABLED = 0
GOBUILD = go build -trimpath -buildvcs=false
E2E_TABLE := $(shell mktemp -u /tmp/ht-table-XXXXXX)

.PHONY: all build demo test unit unit-as-user e2e test-vm test-vm-arm64 setup lint cover faults soak bench bench-full clean

all: build

build:
	$(GOBUILD) -o bin/hiatus ./cmd/hiatus

demo: build
	bash test/demo.sh

# One after the other: all use both processors.
test: setup
	$(MAKE) unit
	$(MAKE) unit-as-user
	$(MAKE) e2e

setup:
	bash test/setup.sh

unit:
	go test -count=1 -vet=off -timeout 10m $$(go list ./... | grep -v /test/e2e)

unit-as-user:
	bash test/unit-as-user.sh

e2e:
	HIATUS_E2E_STRICT=$$([ "$$(id -u)" != 0 ] || echo 1) HIATUS_E2E_TABLE=$(E2E_TABLE) \
		go test -count=1 -vet=off -timeout 25m ./test/e2e; \
		code=$$?; cat $(E2E_TABLE) 2>/dev/null; rm -f $(E2E_TABLE); exit $$code

test-vm:
	bash test/vm/test.sh

test-vm-arm64:
	bash test/vm/test.sh -a arm64

lint:
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "gofmt -w" $$unformatted; exit 1; }
	go vet ./...
	go tool staticcheck ./...
	GOARCH=arm64 go build ./...
	GOARCH=arm64 go vet ./...
	go vet -tags faults ./cmd/... ./core/... ./internal/...

cover:
	mkdir -p bin
	go test -count=1 -vet=off -coverprofile=bin/cover.out $$(go list ./... | grep -v /test)
	go tool cover -html=bin/cover.out -o bin/cover.html
	go tool cover -func=bin/cover.out | tail -n 1

faults:
	HIATUS_E2E_FAULTS=all go test -count=1 -vet=off -timeout 40m ./test/e2e -run 'TestFaults|TestLazy|TestObjects'

SOAK = 20m
soak:
	HIATUS_SOAK=$(SOAK) go test -count=1 -vet=off -timeout 24h -v ./test/e2e -run TestSoak

bench:
	go test -vet=off -run '^$$' -bench . ./bench/...
	go run ./bench/speed

bench-full:
	go run ./bench/speed -full

clean:
	rm -rf bin
