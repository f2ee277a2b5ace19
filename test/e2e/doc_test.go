// Package e2e runs real programs under hiatus: they are checkpointed, killed
// and restarted, or checkpointed and left running, each as root and as an
// ordinary user, and each checks its own result to the end.
//
// # Protocol
//
// Every trial has a directory of its own, $HT_DIR in the programs. A program
// writes the number of its steps to $HT_DIR/progress, and any difference that
// it sees to $HT_DIR/failed. When $HT_DIR/stop appears it finishes its checks,
// prints "ok" and exits with 0. So no test depends on how long something takes.
//
// $HT_DIR in the environment is also how the tests find all processes of a
// trial, whatever became of their parents, their ids and their namespaces.
//
// # Identities
//
// The tests that run as root also run as the user hiatus-test, whom
// test/setup.sh makes. Run by an ordinary user, they run as that one only.
//
// # Environment
//
// HIATUS_E2E_STRICT=1 makes a missing program or user a failure; else such
// tests are skipped. HIATUS_E2E_TABLE names a file for the table of results,
// HIATUS_E2E_BINARY a hiatus to test instead of the one that is built.
package e2e
