// counter counts the checkpoints of a computation, in its state, and logs the
// number. It needs no kit: sdk/abi/ABI.md has all functions.
//
//	asc counter.ts -o counter.wasm -O --runtime stub --use abort=

// @ts-ignore: decorator
@external("hiatus/1", "describe") declare function describe(text: usize, length: i32): i32;
// @ts-ignore: decorator
@external("hiatus/1", "subscribe") declare function subscribe(kind: i32): i32;
// @ts-ignore: decorator
@external("hiatus/1", "state_read") declare function stateRead(buffer: usize, limit: i32): i32;
// @ts-ignore: decorator
@external("hiatus/1", "state_write") declare function stateWrite(data: usize, length: i32): i32;
// @ts-ignore: decorator
@external("hiatus/1", "log") declare function log(level: i32, text: usize, length: i32): void;
// @ts-ignore: decorator
@external("hiatus/1", "fail") declare function fail(text: usize, length: i32): void;

const OK = 0, FAILED = 1, INFO = 2;
const PRECHECKPOINT = 2, RUNNING = 5;

const count = memory.data(4); // the state

function failed(reason: string): i32 {
  const text = String.UTF8.encode(reason);
  fail(changetype<usize>(text), text.byteLength);
  return FAILED;
}

export function hiatus_init(): i32 {
  const summary = String.UTF8.encode("counts checkpoints, in AssemblyScript");
  describe(changetype<usize>(summary), summary.byteLength);
  subscribe(PRECHECKPOINT);
  subscribe(RUNNING);
  return OK;
}

export function hiatus_event(kind: i32): i32 {
  store<u32>(count, 0);
  const length = stateRead(count, 4);
  if (length != 0 && length != 4) return failed("the state is not a counter");
  if (kind == PRECHECKPOINT) {
    store<u32>(count, load<u32>(count) + 1);
    if (stateWrite(count, 4) < 0) return failed("the state was not taken");
  }
  const text = String.UTF8.encode("checkpoints: " + load<u32>(count).toString().padStart(4, "0"));
  log(INFO, changetype<usize>(text), text.byteLength);
  return OK;
}
