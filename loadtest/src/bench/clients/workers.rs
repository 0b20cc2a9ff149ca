//! Processes of this program that each hold a share.
//!
//! Rule: an order is a line of JSON on a worker's standard input, its reply a line on its standard
//! output; a worker ends with its input, and is killed by the kernel when the program that started
//! it ends.
#![expect(clippy::print_stdout, reason = "a worker replies to its parent")]

use std::io;
use std::process::Command;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::local::Local;
use super::order::{Order, Reply};
use crate::bench::args::{DialectArgs, WorkerArgs};
use crate::shared::child::{self, Child};
use crate::shared::process;
use crate::shared::target::Target;

/// Longer than any order may take by its own limits.
const REPLY_LIMIT: Duration = Duration::from_secs(7200);
/// Between two checks for an order while connections are open.
const TICK: Duration = Duration::from_millis(20);

/// A worker, as the program that started it sees it.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
}

impl Worker {
    /// Starts a worker without connections.
    pub(super) fn start((url, allow_remote): (&str, bool), dialect: &DialectArgs) -> Result<Self> {
        let mut command = Command::new(child::this_program()?);
        command
            .arg("worker")
            .arg(format!("--url={url}"))
            .args(allow_remote.then_some("--allow-remote"))
            .arg(format!("--dialect={}", dialect.dialect.as_str()))
            .args(dialect.message_template.iter().map(|text| format!("--message-template={text}")));
        Ok(Self { child: Child::start(&command, None)? })
    }

    /// Gives an order.
    pub(super) fn tell(&mut self, order: &Order) -> Result<()> {
        let line = serde_json::to_string(order)? + "\n";
        self.child.write(line.as_bytes())
    }

    /// Waits for the reply to it.
    pub(super) fn reply(&mut self) -> Result<Reply> {
        let line = self.child.line(REPLY_LIMIT).context("a worker is gone")?;
        match serde_json::from_str(&line).with_context(|| format!("a worker said `{line}`"))? {
            Reply::Failed(reason) => bail!("{reason}"),
            reply => Ok(reply),
        }
    }
}

/// Runs a worker: executes orders until there are no more.
pub(crate) fn serve(args: &WorkerArgs) -> Result<()> {
    process::connections_of_a_process()?;
    let target = Target::parse(&args.url, args.allow_remote)?;
    let mut local = Local::new(target, args.dialect.to_everybody()?);
    let orders = orders();
    while let Some(line) = next(&orders, &mut local)? {
        let order = serde_json::from_str(&line).context("this is no order")?;
        let reply = local.obey(order).unwrap_or_else(|err| Reply::Failed(format!("{err:#}")));
        println!("{}", serde_json::to_string(&reply)?);
    }
    Ok(())
}

/// Reads standard input in a thread of its own, since pings must be answered meanwhile.
fn orders() -> Receiver<String> {
    let (sender, orders) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let lines = io::stdin().lines().map_while(Result::ok);
        lines.take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop);
    });
    orders
}

fn next(orders: &Receiver<String>, local: &mut Local) -> Result<Option<String>> {
    while local.is_open() {
        match orders.try_recv() {
            Ok(line) => return Ok(Some(line)),
            Err(TryRecvError::Disconnected) => return Ok(None),
            Err(TryRecvError::Empty) => local.linger(TICK)?,
        }
    }
    Ok(orders.recv().ok())
}
