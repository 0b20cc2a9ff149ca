//! The connections of a command, held by this process or, where its descriptors do not suffice, by several.
//!
//! Reading order: this file (what can be asked of a crowd) → `local` (one process does it) → `workers` (several do).
//! Rule: a command cannot tell how many processes there are; what they found is one figure, one histogram, one list of faults.

mod local;
mod order;
mod workers;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use self::local::Local;
use self::order::{Order, Reply, Sending};
use self::workers::Worker;
pub(crate) use self::workers::serve;
use crate::bench::args::{CrowdArgs, DialectArgs, TargetArgs, WorkersArgs};
use crate::bench::fleet::{Losses, Opened, Pace};
use crate::bench::outcome::Outcome;
use crate::bench::payload::Payloads;
use crate::bench::relay::Plan;
use crate::shared::process::{self, Processes};

/// Until all workers have read their order.
const LEAD: Duration = Duration::from_millis(200);

/// Connections to one server, or none yet.
#[derive(Debug)]
pub(crate) struct Crowd {
    n: usize,
    hands: Hands,
}

#[derive(Debug)]
enum Hands {
    Own(Box<Local>),
    Workers(Vec<Worker>),
}

impl Crowd {
    /// Prepares for the connections of a command without opening them.
    ///
    /// # Errors
    /// The target is not allowed; they do not fit into so many processes; these cannot be started.
    pub(crate) fn new(args: &CrowdArgs) -> Result<Self> {
        Self::of((&args.target, &args.dialect), args.connections, &args.workers)
    }

    /// Does the same for connections that are given one by one.
    ///
    /// # Errors
    /// As [`Self::new`].
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
        let hands = match processes {
            1 => Hands::Own(Box::new(Local::new(target.resolve()?, dialect.to_everybody()?))),
            _ => {
                target.resolve()?;
                let start = |_| Worker::start((&target.url, target.allow_remote), dialect);
                Hands::Workers((0..processes).map(start).collect::<Result<_>>()?)
            }
        };
        Ok(Self { n, hands })
    }

    /// Says how many processes there are, for the settings of a report.
    pub(crate) fn describe(&self) -> String {
        match &self.hands {
            Hands::Own(_) => format!("{} connections", self.n),
            Hands::Workers(workers) => format!("{} connections of {} processes", self.n, workers.len()),
        }
    }

    /// Opens all connections.
    ///
    /// # Errors
    /// One cannot be opened, or not in time.
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

    /// Makes each connection a member of so many groups, which it shares with its neighbours.
    ///
    /// # Errors
    /// The server refuses, or takes too long.
    pub(crate) fn join(&mut self, groups: usize) -> Result<()> {
        self.give(|first, n| Order::Join { first, n, groups }).map(drop)
    }

    /// Sends to all, as a plan with a rate says.
    ///
    /// # Errors
    /// The server ends.
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

    /// Serves the connections (pings) for `time`; workers do so whenever they have nothing else to do.
    ///
    /// # Errors
    /// The poll itself.
    pub(crate) fn linger(&mut self, time: Duration) -> Result<()> {
        match &mut self.hands {
            Hands::Own(local) => local.linger(time)?,
            Hands::Workers(_) => std::thread::park_timeout(time),
        }
        Ok(())
    }

    /// Returns which connections were lost since they were opened.
    ///
    /// # Errors
    /// A worker is gone.
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
    ///
    /// # Errors
    /// The poll itself; a server that is late is only noted.
    pub(crate) fn close(&mut self) -> Result<()> {
        self.give(|_, _| Order::Close).map(drop)
    }

    fn n_processes(&self) -> usize {
        match &self.hands {
            Hands::Own(_) => 1,
            Hands::Workers(workers) => workers.len(),
        }
    }

    /// Gives each process its order, by the first and the number of its connections, and waits for all replies.
    fn give(&mut self, order: impl Fn(usize, usize) -> Order) -> Result<Vec<Reply>> {
        let shares = shares(self.n, self.n_processes());
        match &mut self.hands {
            Hands::Own(local) => Ok(vec![local.obey(order(0, self.n))?]),
            Hands::Workers(workers) => {
                for (worker, (first, n)) in workers.iter_mut().zip(&shares) {
                    worker.tell(&order(*first, *n))?;
                }
                workers.iter_mut().map(Worker::reply).collect()
            }
        }
    }
}

/// Divides connections among processes: the first of each, and how many.
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
