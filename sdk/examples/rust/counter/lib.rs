//! counter counts the checkpoints of a computation, in its state, and logs the
//! number.

fn init() -> hiatus::Result {
    hiatus::describe(b"counts checkpoints, in Rust")?;
    hiatus::subscribe(hiatus::PRECHECKPOINT)?;
    hiatus::subscribe(hiatus::RUNNING)
}

fn event(kind: u32) -> hiatus::Result {
    let state = hiatus::state_read()?;
    let mut count = match state.len() {
        0 => 0,
        4 => u32::from_le_bytes([state[0], state[1], state[2], state[3]]),
        _ => return Err("the state is not a counter".into()),
    };
    if kind == hiatus::PRECHECKPOINT {
        count += 1;
        hiatus::state_write(&count.to_le_bytes())?;
    }
    hiatus::log(hiatus::INFO, &format!("checkpoints: {:04}", count));
    Ok(())
}

hiatus::plugin!(init, event);
