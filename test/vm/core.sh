#!/bin/bash
# core.sh: in a machine of vm.sh, runs the core of the tests end to end from
# what test.sh has built, as root and as the ordinary user.
set -euo pipefail

# Nothing of the tests lies on the shared folder: it has no mappings to write.
cp -r /host/suite /host/test /host/e2e.test /host/core /tmp/
chmod 755 /tmp/suite
cd /tmp/test/e2e
export HIATUS_E2E_DIR=/tmp/suite HIATUS_E2E_STRICT=1 HIATUS_E2E_OWN_MACHINE=1 HIATUS_E2E_TABLE=/tmp/table GOTRACEBACK=all
export HT_SLACK=5
code=0
/tmp/e2e.test -test.run "${RUN:-$(cat /tmp/core)}" -test.timeout 40m ${V:+-test.v} || code=$?
cat /tmp/table
exit $code
