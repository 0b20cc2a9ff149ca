//! The connections of a command, held by this process or, if it has too few descriptors, by
//! several.
//!
//! Reading order: this file → `order` (what processes are told) → `local` (one process), `workers`
//! (several). Rule: a command need not know how many processes there are: their results are merged.

mod local;
mod order;
mod workers;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use self::local::Local;
use self::order::{Order, Reply, Sending};
use self::workers::Worker;
pub(crate) use self::workers::serve;
use crate::bench::args::{ClientsArgs, DialectArgs, TargetArgs, WorkersArgs};
use crate::bench::fleet::{Losses, Opened, Pace};
use crate::bench::outcome::Outcome;
use crate::bench::payload::Payloads;
use crate::bench::relay::Plan;
use crate::shared::process::{self, Processes};

/// Enough for all workers to read their orders.
const LEAD: Duration = Duration::from_millis(200);

/// The connections, open or not.
#[derive(Debug)]
pub(crate) struct Clients {
    n: usize,
    driver: Driver,
}

#[derive(Debug)]
enum Driver {
    Own(Box<Local>),
    Workers(Vec<Worker>),
}

impl Clients {
    /// Starts the processes that the connections of a command need, without opening connections.
    pub(crate) fn new(args: &ClientsArgs) -> Result<Self> {
        Self::of((&args.target, &args.dialect), args.connections, &args.workers)
    }

    /// Does the same for arguments that are given separately.
    pub(crate) fn of(
        (target, dialect): (&TargetArgs, &DialectArgs),
        n: usize,
        workers: &WorkersArgs,
    ) -> Result<Self> {
        let room = process::connections_of_a_process()?;
        let processes = workers.processes.unwrap_or_else(|| n.div_ceil(room)).min(n);
        ensure!(
            n.div_ceil(processes) <= room,
            "{n} connections do not fit into {processes} processes: {room} do into each"
        );
        let driver = match processes {
            1 => Driver::Own(Box::new(Local::new(target.resolve()?, dialect.to_everybody()?))),
            _ => {
                target.resolve()?;
                let start = |_| Worker::start((&target.url, target.allow_remote), dialect);
                Driver::Workers((0..processes).map(start).collect::<Result<_>>()?)
            }
        };
        Ok(Self { n, driver })
    }

    /// Describes the connections for the settings of a report.
    pub(crate) fn describe(&self) -> String {
        match &self.driver {
            Driver::Own(_) => format!("{} connections", self.n),
            Driver::Workers(workers) => {
                format!("{} connections of {} processes", self.n, workers.len())
            }
        }
    }

    /// Opens all connections.
    pub(crate) fn open(&mut self, pace: &Pace) -> Result<Opened> {
        let n_processes = self.n_processes();
        let pace = Pace {
            under_way: pace.under_way.div_ceil(n_processes),
            rate: pace.rate.map(|rate| rate / n_processes as f64),
        };
        let mut all: Option<Opened> = None;
        for reply in self.give(|_, n| Order::Open { n, pace })? {
            let Reply::Opened(opened) = reply else { bail!("a worker answered something else") };
            match &mut all {
                None => all = Some(opened),
                Some(all) => {
                    all.elapsed = all.elapsed.max(opened.elapsed);
                    all.handshakes.add(&opened.handshakes)?;
                }
            }
        }
        all.context("there is no process")
    }

    /// Lets each connection join this number of groups, which it shares with its neighbours.
    pub(crate) fn join(&mut self, groups: usize) -> Result<()> {
        self.give(|first, n| Order::Join { first, n, groups }).map(drop)
    }

    /// Sends to all connections by a plan with a rate.
    pub(crate) fn send(&mut self, plan: &Plan, server: &Processes) -> Result<Outcome> {
        let tag = Payloads::new(plan.bytes).tag().to_owned();
        let start = local::shared_clock() + LEAD;
        let replies = self.give(|first, n| {
            let (plan, server, tag) = (plan.clone(), server.clone(), tag.clone());
            Order::Send(Box::new(Sending { plan, server, first, n, tag, start }))
        })?;
        let mut all: Option<Outcome> = None;
        for reply in replies {
            let Reply::Sent(outcome) = reply else { bail!("a worker answered something else") };
            match &mut all {
                None => all = Some(*outcome),
                Some(all) => all.merge(*outcome)?,
            }
        }
        all.context("there is no process")
    }

    /// Answers pings for `time`; idle workers do that all the time.
    pub(crate) fn linger(&mut self, time: Duration) -> Result<()> {
        match &mut self.driver {
            Driver::Own(local) => local.linger(time)?,
            Driver::Workers(_) => std::thread::park_timeout(time),
        }
        Ok(())
    }

    /// Returns the connections lost since they were opened.
    pub(crate) fn losses(&mut self) -> Result<Losses> {
        let mut all = Losses::default();
        for reply in self.give(|_, _| Order::Losses)? {
            let Reply::Losses(losses) = reply else { bail!("a worker answered something else") };
            all.n += losses.n;
            all.first = all.first.or(losses.first);
        }
        Ok(all)
    }

    /// Closes all connections, and waits for the server to answer.
    pub(crate) fn close(&mut self) -> Result<()> {
        self.give(|_, _| Order::Close).map(drop)
    }

    fn n_processes(&self) -> usize {
        match &self.driver {
            Driver::Own(_) => 1,
            Driver::Workers(workers) => workers.len(),
        }
    }

    /// Gives each process its order, which depends on its share of the connections, and waits for
    /// all replies.
    fn give(&mut self, order: impl Fn(usize, usize) -> Order) -> Result<Vec<Reply>> {
        let shares = shares(self.n, self.n_processes());
        match &mut self.driver {
            Driver::Own(local) => Ok(vec![local.obey(order(0, self.n))?]),
            Driver::Workers(workers) => {
                for (worker, (first, n)) in workers.iter_mut().zip(&shares) {
                    worker.tell(&order(*first, *n))?;
                }
                workers.iter_mut().map(Worker::reply).collect()
            }
        }
    }
}

/// Divides connections among processes: the first connection of each, and their number.
fn shares(n: usize, processes: usize) -> Vec<(usize, usize)> {
    let first = |nth: usize| n * nth / processes;
    (0..processes).map(|nth| (first(nth), first(nth + 1) - first(nth))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_all_connections_and_differ_by_one_at_most() {
        for (n, processes) in [(1, 1), (10, 3), (15_000, 4), (64, 64)] {
            let shares = shares(n, processes);
            let mut next = 0;
            for (first, n) in &shares {
                assert_eq!(*first, next);
                next += n;
            }
            assert_eq!(next, n);
            let sizes = shares.iter().map(|(_, n)| *n);
            assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
        }
    }
}
