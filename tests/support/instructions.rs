//! Runs one piece of the hot path: `instructions WORK TIMES`.
//! `tests/blackbox/costs/test_instructions.py` counts what it takes.

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, work, times] = arguments.as_slice() else { anyhow::bail!("instructions WORK TIMES") };
    gatecast::bench::run(work, times.parse()?)
}
